/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C08: what the end of a mount, or its turning read-only, would do to held files. While a process has the
 * file open or mapped the kernel itself says EBUSY; a pin alone does not keep the mount.
 */
#include "notes.h"
#include "superblock.h"

/* Is this the only mount of its file system, in any namespace? */
static __always_inline bool is_last_mount(u64 sb)
{
	u64 first;

	if (bpf_core_field_exists(((struct mount *)0)->mnt_next_for_sb)) {
		first = FIELD64(sb, struct super_block___mount, s_mounts);
		return first && !FIELD64(first, struct mount, mnt_next_for_sb);
	}
	first = FIELD64(sb, struct super_block, s_mounts);
	return load64(first) == ADDRESS_OF(sb, struct super_block, s_mounts);
}

/* int sb_umount(struct vfsmount *mnt, int flags): C08 */
SEC("?lsm/sb_umount")
int sb_umount(u64 *ctx)
{
	u64 sb = FIELD64(number(ctx, 0), struct vfsmount, mnt_sb);

	if (!is_armed() || !is_last_mount(sb))
		return 0;
	return is_file_system_refused(sb, OP_UMOUNT, ctx[1]) ? -EBUSY : 0;
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
