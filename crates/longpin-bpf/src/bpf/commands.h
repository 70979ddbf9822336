/* SPDX-License-Identifier: GPL-2.0-only */
/* Commands of file systems, by ioctl: which of them an active swap file refuses, and in what words. */
#ifndef LONGPIN_COMMANDS_H
#define LONGPIN_COMMANDS_H

#include "kernel.h"

/* The size in a command's number is left out: 32-bit programs have others. */
#define COMMAND(type, number) ((type) << 8 | (number))
#define XFS_SWAPEXT COMMAND('X', 109)
#define XFS_SCRUB COMMAND('X', 60)
#define XFS_SCRUB_ALL COMMAND('X', 64)
#define SETFLAGS COMMAND('f', 2)
#define SETXATTR COMMAND('X', 32)
#define EXT4_MOVE_EXT COMMAND('f', 15)
#define EXT4_SWAP_BOOT COMMAND('f', 17)
#define REMOVE_KEY COMMAND('f', 24)
#define REMOVE_KEY_OF_ALL COMMAND('f', 25)
#define ENABLE_VERITY COMMAND('f', 133)
#define F2FS_START_ATOMIC COMMAND(0xf5, 1)
#define F2FS_COMMIT_ATOMIC COMMAND(0xf5, 2)
#define F2FS_ABORT_ATOMIC COMMAND(0xf5, 5)
#define F2FS_DEFRAGMENT COMMAND(0xf5, 8)
#define F2FS_MOVE_RANGE COMMAND(0xf5, 9)
#define F2FS_FLUSH_DEVICE COMMAND(0xf5, 10)
#define F2FS_COLLECT_RANGE COMMAND(0xf5, 11)
#define F2FS_SET_PIN COMMAND(0xf5, 13)
#define F2FS_RESIZE COMMAND(0xf5, 16)
#define F2FS_SEC_TRIM COMMAND(0xf5, 20)
#define F2FS_START_ATOMIC_REPLACE COMMAND(0xf5, 25)
#define BTRFS_SNAPSHOT COMMAND(0x94, 1)
#define BTRFS_DEFRAGMENT COMMAND(0x94, 2)
#define BTRFS_RESIZE COMMAND(0x94, 3)
#define BTRFS_REMOVE_DEVICE COMMAND(0x94, 11)
#define BTRFS_BALANCE COMMAND(0x94, 12)
#define BTRFS_DESTROY COMMAND(0x94, 15)
#define BTRFS_DEFRAGMENT_RANGE COMMAND(0x94, 16)
#define BTRFS_SNAPSHOT_V2 COMMAND(0x94, 23)
#define BTRFS_BALANCE_V2 COMMAND(0x94, 32)
#define BTRFS_REPLACE_DEVICE COMMAND(0x94, 53)
#define BTRFS_REMOVE_DEVICE_V2 COMMAND(0x94, 58)
#define BTRFS_DESTROY_V2 COMMAND(0x94, 63)
#define LOOP_SET_FD COMMAND('L', 0)
#define LOOP_CHANGE_FD COMMAND('L', 6)
#define LOOP_CONFIGURE COMMAND('L', 10)
/* Of these the whole number counts. */
#define MD_SET_BITMAP 0x4004092b
#define BUFFER_CREATE 0x40187542
#define BUFFER_CREATE_LIST 0x40087543
#define EXT4_MAGIC 0xef53
#define F2FS_MAGIC 0xf2f52010

/* command.scope */
#define ONE_FILE 0
#define ONE_SUBVOLUME 1
#define FILE_SYSTEM 2
#define NOTHING 3

/* Of level swapfile only: a command that moves blocks, seals a file, or takes its device away. */
struct command {
	u32 magic;  /* file system that knows it; 0: all that do */
	u32 scope;  /* what it is on */
	int answer; /* the swap file's; 0: none of these */
};

static __always_inline struct command strict_btrfs_command(u32 number)
{
	struct command found = {
		.magic = BTRFS_MAGIC,
		.scope = FILE_SYSTEM,
		.answer = -ETXTBSY,
	};

	switch (number) {
	case BTRFS_DEFRAGMENT:
	case BTRFS_DEFRAGMENT_RANGE:
		found.scope = ONE_FILE;
		return found;
	case BTRFS_SNAPSHOT:
	case BTRFS_SNAPSHOT_V2:
		found.scope = ONE_SUBVOLUME;
		return found;
	case BTRFS_DESTROY:
	case BTRFS_DESTROY_V2:
		found.answer = -EPERM;
		return found;
	case BTRFS_RESIZE:
	case BTRFS_REMOVE_DEVICE:
	case BTRFS_REMOVE_DEVICE_V2:
	case BTRFS_REPLACE_DEVICE:
	case BTRFS_BALANCE:
	case BTRFS_BALANCE_V2:
		return found;
	}
	found.answer = 0;
	return found;
}

/*
 * What f2fs itself answers of a file that it keeps in its place, it answers here of a file that is only pinned by a
 * device, too. Collecting garbage leaves files in their place where they are.
 */
static __always_inline struct command strict_f2fs_command(u32 number)
{
	struct command found = { .magic = F2FS_MAGIC, .scope = ONE_FILE, .answer = -ETXTBSY };

	switch (number) {
	case F2FS_START_ATOMIC:
	case F2FS_START_ATOMIC_REPLACE:
	case F2FS_DEFRAGMENT:
		found.answer = -EINVAL;
		return found;
	case F2FS_COMMIT_ATOMIC: /* of what began before the hold */
	case F2FS_ABORT_ATOMIC:
	case F2FS_SEC_TRIM:
	case F2FS_SET_PIN: /* on or off: that is said in user memory */
		return found;
	}
	found.scope = FILE_SYSTEM;
	switch (number) {
	case F2FS_MOVE_RANGE:
		found.answer = -EOPNOTSUPP;
		return found;
	case F2FS_COLLECT_RANGE:
		found.answer = -EAGAIN;
		return found;
	case F2FS_FLUSH_DEVICE:
	case F2FS_RESIZE:
		return found;
	}
	found.answer = 0;
	return found;
}

static __always_inline struct command strict_command(u32 number)
{
	struct command found = { .scope = ONE_FILE, .answer = -ETXTBSY };

	if (number >> 8 == 0x94)
		return strict_btrfs_command(number);
	if (number >> 8 == 0xf5)
		return strict_f2fs_command(number);
	switch (number) {
	case ENABLE_VERITY:
		return found;
	case EXT4_SWAP_BOOT:
		found.magic = EXT4_MAGIC;
		found.answer = -EINVAL;
		return found;
	case EXT4_MOVE_EXT:
		found.magic = EXT4_MAGIC;
		found.scope = FILE_SYSTEM;
		return found;
	case XFS_SWAPEXT:
		found.magic = XFS_MAGIC;
		found.scope = FILE_SYSTEM;
		found.answer = -EINVAL;
		return found;
	}
	found.answer = 0;
	return found;
}

/* Two questions, of functions that the verifier goes through once. The command is in the low bits. */
__noinline int strict_scope(u64 number, u64 magic)
{
	struct command command = strict_command(number & 0xffff);

	if (!command.answer || (command.magic && command.magic != magic))
		return NOTHING;
	return command.scope;
}

__noinline int strict_answer(u64 number)
{
	return strict_command(number & 0xffff).answer;
}

#define SIZE_LEN 32

/* `[DEVICE:]max`, `[DEVICE:]+BYTES`, `[DEVICE:]-BYTES`, `[DEVICE:]BYTES`, `cancel` */
struct size {
	char text[SIZE_LEN];
	char first; /* of the number */
};

static long look_for_device(u32 i, struct size *size)
{
	/* Behind the end of the text may be anything. */
	if (i >= SIZE_LEN - 1 || !size->text[i])
		return 1;
	if (size->text[i] != ':')
		return 0;
	size->first = size->text[i + 1];
	return 1;
}

/*
 * Does btrfs grow, or is it only asked how replacing goes, or told to end it? Who may ask for it may do anything, so
 * user memory is believed.
 */
__noinline int moves_nothing(u32 number, u64 argument)
{
	struct size size = {};
	long len;

	if (number == BTRFS_REPLACE_DEVICE)
		return !bpf_probe_read_user(&size.first, 1, (void *)argument) && size.first;
	if (number != BTRFS_RESIZE)
		return false;
	len = bpf_probe_read_user_str(size.text, SIZE_LEN, (void *)argument + sizeof(u64));
	if (len <= 0)
		return false;
	/* Of a longer text the part with the number may be missing. */
	if (len < SIZE_LEN)
		size.first = size.text[0];
	bpf_loop(SIZE_LEN - 1, look_for_device, &size, 0);
	return size.first == '+' || size.first == 'm' || size.first == 'c';
}

#endif
