/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C05: commands of file systems that drop the page cache of a file, or give its blocks to another. The size
 * in a command's number is left out: 32-bit programs have others.
 */
#include "superblock.h"

#define COMMAND(type, number) ((type) << 8 | (number))
#define XFS_SWAPEXT COMMAND('X', 109)
#define SETFLAGS COMMAND('f', 2)
#define EXT4_SWAP_BOOT COMMAND('f', 17)
#define F2FS_START_ATOMIC COMMAND(0xf5, 1)
#define F2FS_ABORT_ATOMIC COMMAND(0xf5, 5)
#define F2FS_SEC_TRIM COMMAND(0xf5, 20)
#define F2FS_START_ATOMIC_REPLACE COMMAND(0xf5, 25)
#define EXT4_MAGIC 0xef53
#define JOURNAL_DATA 0x4000

/* Names other files in user memory, which may change until they are read: judged for all of them. */
static __always_inline bool concerns_file_system(u32 command)
{
	return command == XFS_SWAPEXT;
}

static __always_inline bool concerns_file(u32 command)
{
	switch (command) {
	case SETFLAGS:
	case EXT4_SWAP_BOOT:
	case F2FS_START_ATOMIC: /* what was written since goes away at the abort */
	case F2FS_ABORT_ATOMIC:
	case F2FS_SEC_TRIM:
	case F2FS_START_ATOMIC_REPLACE:
		return true;
	}
	return false;
}

/* ext4 drops the page cache when a file's data goes to the journal from now on; other flags are harmless. */
static __always_inline bool is_harmless(u32 command, u64 inode, u64 argument)
{
	u64 sb = FIELD64(inode, struct inode, i_sb);
	u32 flags = 0;

	if (command != SETFLAGS)
		return false;
	if (FIELD64(sb, struct super_block, s_magic) != EXT4_MAGIC)
		return true;
	return !bpf_probe_read_user(&flags, sizeof(flags), (void *)argument) &&
	       !(flags & JOURNAL_DATA);
}

/* The user side asks which inode a descriptor stands for. No file system knows the command. */
static __noinline int identify_for_asker(u64 file)
{
	u64 mapping = FIELD64(file, struct file, f_mapping);
	u64 inode = FIELD64(mapping, struct address_space, host);
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

static __always_inline int judge_ioctl(u64 *ctx)
{
	u32 command = ctx[1] & 0xffff;
	struct act act = { .operation = OP_IOCTL, .detail = ctx[1], WHOLE_FILE };
	u64 mapping;

	if ((u32)ctx[1] == IDENTIFY)
		return identify_for_asker(number(ctx, 0));
	if (!concerns_file(command) && !concerns_file_system(command))
		return 0;
	if (!is_armed())
		return 0;
	mapping = FIELD64(number(ctx, 0), struct file, f_mapping);
	act.inode = FIELD64(mapping, struct address_space, host);
	if (!act.inode || is_harmless(command, act.inode, ctx[2]))
		return 0;
	if (concerns_file(command))
		return is_refused(&act) ? -ETXTBSY : 0;
	return is_file_system_refused(FIELD64(act.inode, struct inode, i_sb), OP_IOCTL, ctx[1]) ?
		       -ETXTBSY :
		       0;
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
