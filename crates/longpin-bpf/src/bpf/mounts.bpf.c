/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C08: what the end of a mount, or its turning read-only, would do to held files. While a process has the
 * file open or mapped the kernel itself says EBUSY; a pin alone does not keep the mount.
 */
#include "leaving.h"
#include "notes.h"

#define MNT_DETACH 2

/* int sb_umount(struct vfsmount *mnt, int flags): C08. A lazy one takes with it what is mounted below. */
SEC("?lsm/sb_umount")
int sb_umount(u64 *ctx)
{
	u64 root = number(ctx, 0) - bpf_core_field_offset(((struct mount *)0)->mnt);
	struct departure d = {
		.mountpoint = FIELD64(root, struct mount, mnt_mountpoint),
		.is_tree = (ctx[1] & MNT_DETACH) != 0,
	};

	if (!is_armed())
		return 0;
	drop_endings_over();
	leave_tree(&d, root);
	return answer_for_mount(is_departure_refused(&d, ctx[1]));
}

/* int inode_rmdir(struct inode *dir, struct dentry *dentry): C08 */
SEC("?lsm/inode_rmdir")
int mountpoint_rmdir(u64 *ctx)
{
	u64 dentry = number(ctx, 1);

	return may_be_mountpoint(dentry) && is_armed() ? judge_place(dentry) : 0;
}

/*
 * int sb_remount(struct super_block *sb, void *mnt_opts): C08. The note says whether it turns read-only.
 * An emergency remount (a kernel thread's) goes on.
 */
SEC("?lsm/sb_remount")
int sb_remount(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 sb = number(ctx, 0);
	struct note note;

	if (!is_armed() || task->flags & PF_KTHREAD)
		return 0;
	if (FIELD64(sb, struct super_block, s_flags) & SB_RDONLY)
		return 0;
	if (take_note(sb, &note) && !note.mode)
		return 0;
	return is_file_system_refused(sb, OP_REMOUNT, 0) ? -EBUSY : 0;
}
