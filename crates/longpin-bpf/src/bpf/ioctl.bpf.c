/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C05: commands of file systems that drop the page cache of a file, or give its blocks to another. The size
 * in a command's number is left out: 32-bit programs have others.
 */
#include "strict.h"
#include "superblock.h"

#define COMMAND(type, number) ((type) << 8 | (number))
#define XFS_SWAPEXT COMMAND('X', 109)
#define SETFLAGS COMMAND('f', 2)
#define EXT4_MOVE_EXT COMMAND('f', 15)
#define EXT4_SWAP_BOOT COMMAND('f', 17)
#define F2FS_START_ATOMIC COMMAND(0xf5, 1)
#define F2FS_ABORT_ATOMIC COMMAND(0xf5, 5)
#define F2FS_MOVE_RANGE COMMAND(0xf5, 9)
#define F2FS_SEC_TRIM COMMAND(0xf5, 20)
#define F2FS_START_ATOMIC_REPLACE COMMAND(0xf5, 25)
#define LOOP_MAJOR 7
#define LOOP_SET_FD COMMAND('L', 0)
#define LOOP_CHANGE_FD COMMAND('L', 6)
#define LOOP_CONFIGURE COMMAND('L', 10)
#define EXT4_MAGIC 0xef53
#define XFS_MAGIC 0x58465342
#define F2FS_MAGIC 0xf2f52010
#define JOURNAL_DATA 0x4000

/* The file system that knows a command; 0: not one of those that concern us. */
static __always_inline u32 knows(u32 command)
{
	switch (command) {
	case XFS_SWAPEXT:
		return XFS_MAGIC;
	case SETFLAGS:
	case EXT4_MOVE_EXT:
	case EXT4_SWAP_BOOT:
		return EXT4_MAGIC;
	case F2FS_START_ATOMIC: /* what was written since goes away at the abort */
	case F2FS_ABORT_ATOMIC:
	case F2FS_MOVE_RANGE:
	case F2FS_SEC_TRIM:
	case F2FS_START_ATOMIC_REPLACE:
		return F2FS_MAGIC;
	}
	return 0;
}

/* Names another file in user memory, which may change until it is read: judged for all of them. */
static __always_inline bool concerns_file_system(u32 command)
{
	return command == XFS_SWAPEXT || command == EXT4_MOVE_EXT || command == F2FS_MOVE_RANGE;
}

/* ext4 drops the page cache when a file's data goes to the journal from now on; other flags are harmless. */
static __always_inline bool is_harmless(u32 command, u64 argument)
{
	u32 flags = 0;

	return command == SETFLAGS &&
	       !bpf_probe_read_user(&flags, sizeof(flags), (void *)argument) &&
	       !(flags & JOURNAL_DATA);
}

/* The user side asks which inode a descriptor stands for. No file system knows the command. */
static __noinline int identify_for_asker(u64 file)
{
	u64 inode = inode_of_file(file);
	struct suspect *answer;
	u32 zero = 0;

	if (bpf_get_current_pid_tgid() >> 32 != state.prover || !inode)
		return 0;
	answer = bpf_map_lookup_elem(&identified, &zero);
	if (!answer)
		return 0;
	answer->file = identify(inode);
	answer->row = inode;
	return 0;
}

/*
 * Level swapfile only: commands that move blocks, seal a file, or take its device away. The answers are the
 * swap file's.
 */
struct command {
	u32 magic; /* file system that knows it; 0: all that do */
	u32 whole; /* concerns the whole file system */
	int answer;
};

#define ENABLE_VERITY COMMAND('f', 133)
#define BTRFS_MAGIC 0x9123683e

static __always_inline struct command strict_btrfs_command(u32 number)
{
	struct command found = { .magic = BTRFS_MAGIC, .whole = 1, .answer = -ETXTBSY };

	switch (number) {
	case 2:	 /* defragment */
	case 16: /* a range */
		found.whole = 0;
		return found;
	case 15: /* subvolume delete */
	case 63:
		found.answer = -EPERM;
		return found;
	case 1: /* snapshot */
	case 23:
	case 3:	 /* resize */
	case 11: /* remove a device */
	case 58:
	case 53: /* replace one */
	case 12: /* balance */
	case 32:
		return found;
	}
	found.answer = 0;
	return found;
}

static __always_inline struct command strict_command(u32 command)
{
	struct command found = { .answer = -ETXTBSY };

	if (command >> 8 == 0x94)
		return strict_btrfs_command(command & 0xff);
	switch (command) {
	case ENABLE_VERITY:
		return found;
	case EXT4_SWAP_BOOT:
		found.magic = EXT4_MAGIC;
		found.answer = -EINVAL;
		return found;
	case EXT4_MOVE_EXT:
		found.magic = EXT4_MAGIC;
		found.whole = 1;
		return found;
	case XFS_SWAPEXT:
		found.magic = XFS_MAGIC;
		found.whole = 1;
		found.answer = -EINVAL;
		return found;
	}
	found.magic = F2FS_MAGIC;
	switch (command) {
	case F2FS_START_ATOMIC:
	case F2FS_START_ATOMIC_REPLACE:
	case F2FS_SEC_TRIM:
	case COMMAND(0xf5, 8):	/* defragment */
	case COMMAND(0xf5, 13): /* pin or unpin */
		return found;
	case F2FS_MOVE_RANGE:
	case COMMAND(0xf5, 6):	/* collect garbage */
	case COMMAND(0xf5, 10): /* empty a device */
	case COMMAND(0xf5, 11): /* collect garbage in a range */
	case COMMAND(0xf5, 16): /* resize */
		found.whole = 1;
		return found;
	}
	found.answer = 0;
	return found;
}

/* Acts have functions of their own: the walk over a file system needs the frames. */
static __noinline bool is_command_refused(u64 inode, u64 command)
{
	struct act act = { .operation = OP_IOCTL, .detail = command, .inode = inode, WHOLE_FILE };

	return is_refused(&act);
}

static __noinline bool is_command_strictly_refused(u64 inode, u64 command)
{
	struct act act = { .operation = OP_IOCTL, .detail = command, .inode = inode, WHOLE_FILE };

	return is_strictly_refused(&act);
}

/*
 * The loop driver writes to its file without asking anybody, where a swap file answers it ETXTBSY: a held file gets
 * no writable loop device.
 */
static __noinline bool is_loop_refused(u32 command, u64 argument)
{
	struct act act = { .operation = OP_LOOP, WHOLE_FILE };
	u32 descriptor = argument;
	u64 file;

	/* The first word of struct loop_config. What cannot be read now, the driver may read later: of any file. */
	if (command == LOOP_CONFIGURE &&
	    bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)argument))
		return state.mode != MODE_AUDIT;
	file = file_of_descriptor(descriptor);
	if (!file || !(FIELD32(file, struct file, f_mode) & FMODE_WRITE))
		return false;
	act.inode = inode_of_file(file);
	return is_strictly_refused(&act);
}

static __always_inline bool is_loop_command(u64 inode, u32 command)
{
	if (command != LOOP_SET_FD && command != LOOP_CHANGE_FD && command != LOOP_CONFIGURE)
		return false;
	return FIELD32(inode, struct inode, i_rdev) >> 20 == LOOP_MAJOR;
}

static __always_inline int judge_strict_ioctl(u64 inode, u64 sb, u64 number)
{
	struct command command = strict_command(number & 0xffff);

	if (!command.answer ||
	    (command.magic && FIELD64(sb, struct super_block, s_magic) != command.magic))
		return 0;
	if (command.whole)
		return is_file_system_refused(sb, OP_IOCTL, number, true) ? command.answer : 0;
	return is_command_strictly_refused(inode, number) ? command.answer : 0;
}

static __always_inline int judge_ioctl(u64 *ctx)
{
	u32 command = ctx[1] & 0xffff, magic = knows(command);
	u64 inode, sb;
	int answer;

	if ((u32)ctx[1] == IDENTIFY)
		return identify_for_asker(number(ctx, 0));
	if ((!magic && !state.strict) || !is_armed())
		return 0;
	inode = inode_of_file(number(ctx, 0));
	sb = FIELD64(inode, struct inode, i_sb);
	if (state.strict) {
		if (is_loop_command(inode, ctx[1]))
			return is_loop_refused(ctx[1], ctx[2]) ? -ETXTBSY : 0;
		answer = judge_strict_ioctl(inode, sb, ctx[1]);
		if (answer)
			return answer;
	}
	if (!magic || FIELD64(sb, struct super_block, s_magic) != magic || !is_regular(inode) ||
	    is_harmless(command, ctx[2]))
		return 0;
	if (concerns_file_system(command))
		return is_file_system_refused(sb, OP_IOCTL, ctx[1], false) ? -ETXTBSY : 0;
	return is_command_refused(inode, ctx[1]) ? -ETXTBSY : 0;
}

/* int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg): C05 */
SEC("?lsm/file_ioctl")
int file_ioctl(u64 *ctx)
{
	return judge_ioctl(ctx);
}

/* The same for 32-bit programs: C05 */
SEC("?lsm/file_ioctl_compat")
int file_ioctl_compat(u64 *ctx)
{
	return judge_ioctl(ctx);
}
