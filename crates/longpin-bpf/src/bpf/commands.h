/* SPDX-License-Identifier: GPL-2.0-only */
/* Commands of file systems and drivers, by ioctl. Which they are is in one table, longpin-linux's. */
#ifndef LONGPIN_COMMANDS_H
#define LONGPIN_COMMANDS_H

#include "kernel.h"

/* command.layout: what it takes from the page cache, so that it is refused of a pinned file. */
enum command_layout {
	LAYOUT_NO,
	LAYOUT_FILE,
	LAYOUT_FILE_SYSTEM, /* it names another file in user memory, which may change until it is read */
	LAYOUT_FLAGS,
	LAYOUT_KEY,
	LAYOUT_SCRUB,
};

/* command.scope: what it is on */
#define ONE_FILE 0
#define ONE_SUBVOLUME 1
#define FILE_SYSTEM 2
#define NOTHING 3

struct command {
	u32 magic; /* file system that knows it; 0: all that do */
	u32 layout;
	u32 scope; /* of level swapfile: what moves blocks, seals a file, or takes its device away */
	int answer; /* the swap file's; 0: nothing of level swapfile */
};

#include "commands.gen.h"

/*
 * Questions, of functions that the verifier goes through once. The command is in the low bits: its size is left out, as
 * 32-bit programs have others.
 */
__noinline int command_layout(u64 number)
{
	return command_of(number & 0xffff).layout;
}

__noinline int command_magic(u64 number)
{
	return command_of(number & 0xffff).magic;
}

__noinline int strict_scope(u64 number, u64 magic)
{
	struct command command = command_of(number & 0xffff);

	if (!command.answer || (command.magic && command.magic != magic))
		return NOTHING;
	return command.scope;
}

__noinline int strict_answer(u64 number)
{
	return command_of(number & 0xffff).answer;
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

	if (number == BTRFS_IOC_DEV_REPLACE)
		return !bpf_probe_read_user(&size.first, 1, (void *)argument) && size.first;
	if (number != BTRFS_IOC_RESIZE)
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
