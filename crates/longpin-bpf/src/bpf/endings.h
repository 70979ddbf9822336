/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mounts that are about to end. An umount asks first and unmounts later; of two at once each would see the other's
 * mount. So each enters what it is about to end, and then looks: one of two sees the other, at least.
 *
 * Nothing tells that an umount is over, one that failed neither. An entry is good as long as its task is in the call in
 * which it was made, and that is seen by the task's registers, whenever somebody asks.
 */
#ifndef LONGPIN_ENDINGS_H
#define LONGPIN_ENDINGS_H

#include "arch.h"
#include "maps.h"

#define MAX_ENDINGS 16384
#define MAX_MOUNTS (1 << 16)

/* Copies of a mount in other namespaces have the same mount point, and go with it. */
struct ending_key {
	u64 sb;
	u64 mountpoint;
};

struct ending {
	u64 task;
	u64 start; /* of the task */
	u64 registers;
	u64 call;
	u64 time;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENDINGS);
	__type(key, struct ending_key);
	__type(value, struct ending);
} endings SEC(".maps");

/* Adding to it orders what was written before and what is read after. */
u64 endings_entered;

/* A worker of the kernel's own makes no call: so long it is believed, in ns. */
#define WORKER_PATIENCE 10000000000ULL
#define NO_CALL (~0ULL)

static __always_inline bool is_under_way(const struct ending *ending)
{
	u64 task = ending->task;

	/* It can only do one thing at a time: what it began before is over. */
	if (task == bpf_get_current_task() ||
	    FIELD64(task, struct task_struct, start_boottime) != ending->start)
		return false;
	if (ending->call == NO_CALL)
		return bpf_ktime_get_boot_ns() - ending->time < WORKER_PATIENCE;
	return call_by(ending->registers) == ending->call;
}

static long drop_if_over(void *map, struct ending_key *key, struct ending *ending, void *none)
{
	struct ending_key over = *key;

	if (!is_under_way(ending))
		bpf_map_delete_elem(&endings, &over);
	return 0;
}

/* Before a call enters its own. */
static __always_inline void drop_endings_over(void)
{
	bpf_for_each_map_elem(&endings, drop_if_over, 0, 0);
}

/* False: no room, so that nobody else will know. */
static __noinline bool enter_ending(u64 sb, u64 mountpoint)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct ending_key key = { .sb = sb, .mountpoint = mountpoint };
	struct pt_regs *registers = registers_of(task);
	struct ending ending = {
		.task = bpf_get_current_task(),
		.start = task->start_boottime,
		.registers = (u64)registers,
		.call = task->flags & (PF_KTHREAD | PF_IO_WORKER) ? NO_CALL : registers->orig_ax,
		.time = bpf_ktime_get_boot_ns(),
	};
	bool entered;

	entered = !bpf_map_update_elem(&endings, &key, &ending, BPF_ANY);
	__sync_fetch_and_add(&endings_entered, 1);
	return entered;
}

static long drop_if_own(void *map, struct ending_key *key, struct ending *ending, void *none)
{
	struct ending_key own = *key;

	if (ending->task == bpf_get_current_task())
		bpf_map_delete_elem(&endings, &own);
	return 0;
}

/* What this call entered was refused. */
static __always_inline void drop_endings(void)
{
	bpf_for_each_map_elem(&endings, drop_if_own, 0, 0);
}

static __always_inline bool is_ending(u64 sb, u64 mountpoint)
{
	struct ending_key key = { .sb = sb, .mountpoint = mountpoint };
	struct ending *ending = bpf_map_lookup_elem(&endings, &key);

	return ending && is_under_way(ending);
}

struct mounts {
	u64 entry; /* of the list; or the mount itself, where there is no list */
	u64 head;
	u64 sb;
	u64 mountpoint;
	u32 others;
};

static __always_inline bool has_mount_list(void)
{
	return !bpf_core_field_exists(((struct mount *)0)->mnt_next_for_sb);
}

/*
 * Can it be reached, and is its end asked about? Not what was detached, nor what overlayfs keeps for itself, nor what
 * only a descriptor leads to (open_tree, fsmount).
 */
static __always_inline bool is_in_namespace(u64 mount)
{
	u64 space = FIELD64(mount, struct mount, mnt_ns);

	if (!space || space >= -4095ULL)
		return false;
	if (bpf_core_field_exists(((struct mnt_namespace___anon *)0)->is_anon))
		return !(FIELD32(space, struct mnt_namespace___anon, is_anon) & 0xff);
	if (bpf_core_field_exists(((struct mnt_namespace *)0)->seq))
		return FIELD64(space, struct mnt_namespace, seq) != 0;
	return true;
}

struct climb {
	u64 mount;
	u64 mountpoint;
	u32 found;
};

static long look_at_parent(u32 i, struct climb *climb)
{
	u64 mount = climb->mount, parent;

	if (FIELD64(mount, struct mount, mnt_mountpoint) == climb->mountpoint) {
		climb->found = 1;
		return 1;
	}
	parent = FIELD64(mount, struct mount, mnt_parent);
	if (!parent || parent == mount) {
		climb->mount = 0;
		return 1;
	}
	climb->mount = parent;
	return 0;
}

/* Is it mounted at this place, or somewhere below what is? It goes with that. So does what is not found out. */
static __always_inline bool goes_with(u64 mount, u64 mountpoint)
{
	struct climb climb = { .mount = mount, .mountpoint = mountpoint };

	bpf_loop(MAX_MOUNTS, look_at_parent, &climb, 0);
	return climb.found || climb.mount;
}

static long look_at_mount(u32 i, struct mounts *mounts)
{
	u64 mount = mounts->entry;

	if (!mount || mount == mounts->head)
		return 1;
	if (has_mount_list())
		mount -= bpf_core_field_offset(((struct mount___list *)0)->mnt_instance);
	if (is_in_namespace(mount) && !goes_with(mount, mounts->mountpoint) &&
	    !is_ending(mounts->sb, FIELD64(mount, struct mount, mnt_mountpoint))) {
		mounts->others = 1;
		return 1;
	}
	mounts->entry = has_mount_list() ? load64(mounts->entry)
					 : FIELD64(mount, struct mount, mnt_next_for_sb);
	return 0;
}

/* Without what is mounted at this place: is the file system mounted nowhere, in any namespace? */
static __noinline bool is_last_mount(u64 sb, u64 mountpoint)
{
	struct mounts mounts = { .sb = sb, .mountpoint = mountpoint };

	if (has_mount_list()) {
		mounts.head = ADDRESS_OF(sb, struct super_block, s_mounts);
		mounts.entry = load64(mounts.head);
	} else {
		mounts.entry = FIELD64(sb, struct super_block___mount, s_mounts);
	}
	bpf_loop(MAX_MOUNTS, look_at_mount, &mounts, 0);
	return !mounts.others;
}

#endif
