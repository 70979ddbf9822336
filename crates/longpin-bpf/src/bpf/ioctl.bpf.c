/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C05: commands of file systems that drop the page cache of a file, or give its blocks to another. The size
 * in a command's number is left out: 32-bit programs have others.
 */
#include "commands.h"
#include "drivers.h"
#include "notes.h"
#include "real.h"
#include "scrub.h"
#include "strict.h"
#include "superblock.h"

#define JOURNAL_DATA 0x4000
#define DAX_FLAG 0x2000000
#define DAX_XFLAG 0x8000
#define XFS_OWN_DAX_FLAG 1
/*
 * Overlayfs has been asked, with flags that were looked at, and asks for the file behind without them. Who passes a
 * null pointer himself has it in his registers.
 */
static __always_inline bool is_second_question(u64 argument)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (argument || task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	return third_argument(task);
}

/*
 * ext4 drops the page cache when a file's data goes to the journal from now on, or no more; ext4 and xfs let go of a
 * file when nobody has it open any more, whose flag DAX has changed. Other flags are harmless, and so are these as
 * they are. Where it is not known what they are, they are not set.
 */
__noinline int are_other_flags(u64 inode, u64 magic, u64 wanted, u32 as_xflags)
{
	u64 dax = as_xflags ? DAX_XFLAG : DAX_FLAG;
	u64 now = 0;

	if (magic == XFS_MAGIC) {
		if (state.xfs_flags)
			now = load64(inode - state.xfs_flags) & XFS_OWN_DAX_FLAG;
		return !(wanted & dax) != !now;
	}
	if (state.ext4_flags)
		now = load64(inode - state.ext4_flags);
	if (!as_xflags && (wanted ^ now) & JOURNAL_DATA)
		return true;
	return !(wanted & dax) != !(now & DAX_FLAG);
}

__noinline int changes_flags(u32 command, u64 argument, u64 inode, u64 magic)
{
	u32 wanted = 0;

	if ((magic != EXT4_MAGIC && magic != XFS_MAGIC) || is_second_question(argument))
		return false;
	if (bpf_probe_read_user(&wanted, sizeof(wanted), (void *)argument))
		return true;
	return are_other_flags(inode, magic, wanted, command != (FS_IOC_SETFLAGS & 0xffff));
}

/* The user side asks which inode a descriptor stands for. No file system knows the command. */
__noinline int identify_for_asker(u64 file)
{
	u64 inode = read_inode(file);
	struct suspect *answer;
	u32 zero = 0;

	if (bpf_get_current_pid_tgid() >> 32 != state.prover || !inode)
		return 0;
	answer = bpf_map_lookup_elem(&identified, &zero);
	if (!answer)
		return 0;
	answer->file = explicit_key(inode);
	answer->row = inode;
	return 0;
}

/* Acts have functions of their own: the walk over a file system needs the frames. */
__noinline int is_command_refused(u64 inode, u64 command)
{
	struct act act = { .operation = OP_IOCTL, .detail = command, .inode = inode, WHOLE_FILE };

	return is_refused(&act);
}

__noinline int judge_command_strictly(u64 inode, u64 command)
{
	struct act act = { .operation = OP_IOCTL, .detail = command, .inode = inode, WHOLE_FILE };

	return judge_strictly(&act);
}

/*
 * A snapshot is of the subvolume that a descriptor leads to, which is named in user memory: another thread may
 * change it until btrfs reads it. What cannot be read now is judged for all subvolumes (0).
 */
__noinline int subvolume_of_snapshot(u64 argument)
{
	u32 descriptor = 0;
	u64 file;

	if (bpf_probe_read_user(&descriptor, sizeof(descriptor), (void *)argument))
		return 0;
	file = file_of_descriptor(descriptor);
	return file ? subvolume_of(FIELD64(file, struct file, f_inode)) : 0;
}

/* What a function of its own answers is any number to the verifier, which lets no program return that. */
static __always_inline int as_answer(int answer)
{
	if (answer >= 0)
		return 0;
	barrier_var(answer);
	return answer < -MAX_ERRNO ? -EPERM : answer;
}

static __always_inline int judge_strict_ioctl(u64 *ctx, u64 inode, u64 sb)
{
	int scope = strict_scope(ctx[1], FIELD64(sb, struct super_block, s_magic));
	u32 subvolume = 0, strict = STRICTLY;

	if (scope == NOTHING)
		return NOT_CONCERNED;
	if (scope == ONE_FILE)
		return judge_command_strictly(inode, ctx[1]);
	if (scope == ONE_SUBVOLUME)
		subvolume = subvolume_of_snapshot(ctx[2]);
	else if (moves_nothing(ctx[1] & 0xffff, ctx[2]))
		return NOT_CONCERNED;
	if (command_layout(ctx[1]) == LAYOUT_FILE_SYSTEM)
		strict = STRICTLY_FIRST;
	return judge_subvolume(sb, subvolume, OP_IOCTL, ctx[1], strict);
}

static __always_inline int judge_ioctl(u64 *ctx)
{
	u32 command = ctx[1] & 0xffff, layout = command_layout(ctx[1]);
	u64 inode, sb, scrubbed;
	int strictly;

	if ((u32)ctx[1] == IDENTIFY) {
		identify_for_asker(number(ctx, 0));
		return 0;
	}
	if ((!layout && !state.strict) || !is_armed())
		return 0;
	inode = inode_of_file(number(ctx, 0));
	sb = FIELD64(inode, struct inode, i_sb);
	if (state.strict) {
		if (is_driver_command(inode, ctx[1]))
			return is_driver_refused(ctx[1], ctx[2]) ? -ETXTBSY : 0;
		strictly = judge_strict_ioctl(ctx, inode, sb);
		if (strictly != NOT_CONCERNED)
			return strictly == REFUSED ? as_answer(strict_answer(ctx[1])) : 0;
	}
	/* Of all these commands overlayfs knows only the flags. */
	if (layout == LAYOUT_FLAGS)
		inode = written_inode(number(ctx, 0));
	if (layout == LAYOUT_SCRUB) {
		scrubbed = scrubbed_file(inode, ctx[1], ctx[2]);
		return scrubbed != NO_FILE && is_numbered_refused(sb, scrubbed, ctx[1]) ? -ETXTBSY
											: 0;
	}
	if (layout == LAYOUT_KEY)
		return is_key_refused(sb, ctx[1]) ? -ETXTBSY : 0;
	if (layout == LAYOUT_NO || !is_regular(inode))
		return 0;
	if (layout == LAYOUT_FLAGS ? !changes_flags(command, ctx[2], inode, magic_of(inode))
				   : (u32)magic_of(inode) != (u32)command_magic(ctx[1]))
		return 0;
	if (layout == LAYOUT_FILE_SYSTEM)
		return is_file_system_refused(sb, OP_IOCTL, ctx[1]) ? -ETXTBSY : 0;
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

__noinline int is_setting_refused(u64 inode)
{
	struct act act = { .operation = OP_UNKNOWN, .inode = inode, WHOLE_FILE };

	act.detail = system_call();
	return is_refused(&act);
}

/*
 * int inode_file_setattr(struct dentry *dentry, struct file_kattr *fa): C05. Since 6.17 a system call sets flags, too,
 * without an ioctl. Whoever does it comes by here, with the inode locked and flags that nobody changes any more.
 */
SEC("?lsm/inode_file_setattr")
int inode_file_setattr(u64 *ctx)
{
	u64 inode = FIELD64(number(ctx, 0), struct dentry, d_inode), flags = number(ctx, 1), magic;
	u32 wanted;

	if (!is_armed() || !inode || !is_regular(inode))
		return 0;
	magic = magic_of(inode);
	if (magic != EXT4_MAGIC && magic != XFS_MAGIC)
		return 0;
	/* Of these the kernel has both by now; ext4 looks at the first, xfs at the second. */
	wanted = magic == XFS_MAGIC ? FIELD32(flags, struct file_kattr, fsx_xflags)
				    : FIELD32(flags, struct file_kattr, flags);
	if (!are_other_flags(inode, magic, wanted, magic == XFS_MAGIC))
		return 0;
	return is_setting_refused(inode) ? -ETXTBSY : 0;
}
