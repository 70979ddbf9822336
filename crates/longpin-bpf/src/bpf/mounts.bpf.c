/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C08: what the end of a mount, or its turning read-only, would do to held files. While a process has the
 * file open or mapped the kernel itself says EBUSY; a pin alone does not keep the mount.
 */
#include "endings.h"
#include "mountpoint.h"
#include "notes.h"
#include "overlay.h"
#include "superblock.h"

#define MNT_DETACH 2
#define MAX_BELOW 32

/* What becomes of a file system when something is unmounted. */
#define STAYS 0
#define GOES 1
#define IS_KEPT 2 /* it would go, and may not */

/*
 * When what is mounted at this place goes, and below it? A global function: the verifier looks at it once, and not for
 * each layer.
 */
__noinline int judge_last_mount(u64 sb, u64 mountpoint, u64 detail)
{
	struct search search = { .sb = sb };

	if (!is_last_mount(sb, mountpoint))
		return STAYS;
	/* With this file system all programs would go that are pinned in it. */
	if (state.mode == MODE_ENFORCING && FIELD32(sb, struct super_block, s_dev) == state.home)
		return IS_KEPT;
	return is_search_refused(&search, OP_UMOUNT, detail) ? IS_KEPT : GOES;
}

/* An overlay goes, and with it what it has of its layers, of which one may be an overlay. */
static __always_inline bool is_layer_kept(u64 sb, u64 mountpoint, u64 detail)
{
	u64 layer, below;
	u32 i, k;
	int answer;

	for (i = 0; i < MAX_LAYERS; i++) {
		layer = layer_of(sb, i);
		if (!layer)
			continue;
		answer = judge_last_mount(layer, mountpoint, detail);
		if (answer == IS_KEPT)
			return true;
		for (k = 0; answer == GOES && k < MAX_LAYERS / 2; k++) {
			below = layer_of(layer, k);
			if (below && judge_last_mount(below, mountpoint, detail) == IS_KEPT)
				return true;
		}
	}
	return false;
}

/* The verifier looks at a global function once; but where pages are walked 6.1 has no frame left for one more. */
#ifdef ONLY_HOLDS
#define IF_FRAMES_ALLOW __noinline int
#else
#define IF_FRAMES_ALLOW static __always_inline int
#endif

/* `own` goes, which is the place itself or one below it. */
IF_FRAMES_ALLOW is_end_kept(u64 sb, u64 own, u64 mountpoint, u64 detail)
{
	int answer;

	/* Nobody else would know of it. */
	if (!enter_ending(sb, own))
		return state.all_files || state.lent_files;
	answer = judge_last_mount(sb, mountpoint, detail);
	if (answer == IS_KEPT || (answer == GOES && is_layer_kept(sb, mountpoint, detail))) {
		drop_ending(sb, own);
		return true;
	}
	return false;
}

/* The next one of the tree below a mount; 0: there is none. */
static __noinline u64 next_below(u64 mount, u64 root)
{
	u64 head = ADDRESS_OF(mount, struct mount, mnt_mounts);
	u64 next = load64(head);
	u32 i;

	for (i = 0; i < MAX_PARENTS; i++) {
		if (next != head)
			return next - bpf_core_field_offset(((struct mount *)0)->mnt_child);
		if (mount == root)
			return 0;
		next = FIELD64(mount, struct mount, mnt_child);
		mount = FIELD64(mount, struct mount, mnt_parent);
		head = ADDRESS_OF(mount, struct mount, mnt_mounts);
	}
	return 0;
}

/* -EBUSY or 0, by a number that Clang makes nothing else of: older verifiers would not know it. */
static __always_inline int answer_for_mount(bool refused)
{
	int answer = -EBUSY;

	barrier_var(answer);
	return refused ? answer : 0;
}

/* int sb_umount(struct vfsmount *mnt, int flags): C08. A lazy one takes with it what is mounted below. */
SEC("?lsm/sb_umount")
int sb_umount(u64 *ctx)
{
	u64 root = number(ctx, 0) - bpf_core_field_offset(((struct mount *)0)->mnt);
	u64 mountpoint = FIELD64(root, struct mount, mnt_mountpoint);
	u64 mount = root;
	u32 i;

	if (!is_armed())
		return 0;
	for (i = 0; i < MAX_BELOW && mount; i++) {
		if (is_end_kept(FIELD64(mount, struct mount, mnt.mnt_sb),
				FIELD64(mount, struct mount, mnt_mountpoint), mountpoint, ctx[1]))
			return answer_for_mount(true);
		mount = ctx[1] & MNT_DETACH ? next_below(mount, root) : 0;
	}
	return 0;
}

/* A place goes, and with it what is mounted there in other namespaces. */
static __always_inline int judge_place(u64 dentry)
{
	u64 sb;
	u32 i;

	for (i = 0; i < MAX_ON_ONE; i++) {
		sb = mounted_at(dentry, i);
		if (!sb)
			return 0;
		if (is_end_kept(sb, dentry, dentry, 0))
			return answer_for_mount(true);
	}
	return 0;
}

/* int inode_rmdir(struct inode *dir, struct dentry *dentry): C08 */
SEC("?lsm/inode_rmdir")
int mountpoint_rmdir(u64 *ctx)
{
	u64 dentry = number(ctx, 1);

	return may_be_mountpoint(dentry) && is_armed() ? judge_place(dentry) : 0;
}

/* Two places change names, and none goes. */
static __always_inline bool is_exchange(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (task->thread_info.status & TS_COMPAT)
		return regs->orig_ax == 353 && regs->di & RENAME_EXCHANGE;
	return (regs->orig_ax & ~(u64)X32_CALL) == 316 && regs->r8 & RENAME_EXCHANGE;
}

/* int inode_rename(old_dir, old, new_dir, struct dentry *new): C08. What is renamed over goes. */
SEC("?lsm/inode_rename")
int mountpoint_rename(u64 *ctx)
{
	u64 dentry = number(ctx, 3);

	if (!may_be_mountpoint(dentry) || !is_armed() || is_exchange())
		return 0;
	return judge_place(dentry);
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
