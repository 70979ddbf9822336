/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C08: what the end of a mount, or its turning read-only, would do to held files. While a process has the
 * file open or mapped the kernel itself says EBUSY; a pin alone does not keep the mount.
 */
#include "notes.h"
#include "superblock.h"

#define MAX_MOUNTS (1 << 16)

struct mounts {
	u64 entry; /* of the list; or the mount itself, where there is no list */
	u64 head;
	u64 mountpoint;
	u32 others;
};

static __always_inline bool has_mount_list(void)
{
	return !bpf_core_field_exists(((struct mount *)0)->mnt_next_for_sb);
}

/* Copies in other namespaces have the same mount point, and go by propagation: they are no other mounts. */
static long look_at_mount(u32 i, struct mounts *mounts)
{
	u64 mount = mounts->entry;

	if (!mount || mount == mounts->head)
		return 1;
	if (has_mount_list())
		mount -= bpf_core_field_offset(((struct mount___list *)0)->mnt_instance);
	if (FIELD64(mount, struct mount, mnt_mountpoint) != mounts->mountpoint) {
		mounts->others = 1;
		return 1;
	}
	mounts->entry = has_mount_list() ? load64(mounts->entry)
					 : FIELD64(mount, struct mount, mnt_next_for_sb);
	return 0;
}

/* Is this the only place where its file system is mounted, in any namespace? */
static __noinline bool is_last_mount(u64 vfsmount, u64 sb)
{
	u64 mount = vfsmount - bpf_core_field_offset(((struct mount *)0)->mnt);
	struct mounts mounts = { .mountpoint = FIELD64(mount, struct mount, mnt_mountpoint) };

	if (has_mount_list()) {
		mounts.head = ADDRESS_OF(sb, struct super_block, s_mounts);
		mounts.entry = load64(mounts.head);
	} else {
		mounts.entry = FIELD64(sb, struct super_block___mount, s_mounts);
	}
	bpf_loop(MAX_MOUNTS, look_at_mount, &mounts, 0);
	return !mounts.others;
}

/* int sb_umount(struct vfsmount *mnt, int flags): C08 */
SEC("?lsm/sb_umount")
int sb_umount(u64 *ctx)
{
	u64 mount = number(ctx, 0);
	u64 sb = FIELD64(mount, struct vfsmount, mnt_sb);

	if (!is_armed() || !is_last_mount(mount, sb))
		return 0;
	/* With this file system all programs would go that are pinned in it. */
	if (state.mode == MODE_ENFORCING && FIELD32(sb, struct super_block, s_dev) == state.home)
		return -EBUSY;
	return is_file_system_refused(sb, OP_UMOUNT, ctx[1], false) ? -EBUSY : 0;
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
	return is_file_system_refused(sb, OP_REMOUNT, 0, false) ? -EBUSY : 0;
}
