/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which file systems would end with some mounts? First all of them are found, and then each is judged: what walks mounts
 * and what walks pages have no room on one stack. A walk that does not come to its end says so, and then any file system
 * may be one of them.
 */
#ifndef LONGPIN_LEAVING_H
#define LONGPIN_LEAVING_H

#include "endings.h"
#include "mountpoint.h"
#include "overlay.h"
#include "superblock.h"

#define MAX_LEAVING 1024
#define MAX_JUDGED 32

struct leaving {
	u64 task;
	u64 sb;
};

/* Of calls that are being judged: a file system more than once is one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LEAVING);
	__type(key, struct leaving);
	__type(value, u32);
} leaving SEC(".maps");

static const u32 is_there = 1;

struct departure {
	u64 mountpoint; /* what is mounted there goes, and below it */
	u64 root;	/* mount: where a walk of the tree begins */
	u64 mount;	/* where it is; 0: it is over */
	u64 next; /* of the list of children, where it is on its way up; 0: it is on its way down */
	u64 entry;   /* of the list of mounts at the place */
	u64 layers;  /* overlay whose layers go with it */
	u64 stays;   /* the file system that was found to be mounted elsewhere last */
	u32 is_tree; /* what is mounted below goes, too */
	u32 unfinished;
};

/* Its mounts, of which one is at `own`, are about to go: all that it has? */
static __noinline int leave(struct departure *d, u64 sb)
{
	struct leaving key = { .task = bpf_get_current_task(), .sb = sb };

	if (sb == d->stays)
		return 0;
	if (!is_last_mount(sb, d->mountpoint))
		d->stays = sb;
	else if (bpf_map_update_elem(&leaving, &key, &is_there, BPF_ANY))
		d->unfinished = 1;
	return 0;
}

/* One step through the tree below a mount: first the mount, then its children, then what is beside it. */
static long look_below(u32 i, struct departure **in_hand)
{
	struct departure *d = *in_hand;
	u64 mount = d->mount, sb;
	u64 head = ADDRESS_OF(mount, struct mount, mnt_mounts);

	if (!d->next) {
		sb = FIELD64(mount, struct mount, mnt.mnt_sb);
		/* Nobody else would know of it. */
		if (!enter_ending(sb, FIELD64(mount, struct mount, mnt_mountpoint)))
			d->unfinished = 1;
		leave(d, sb);
		d->next = d->is_tree ? load64(head) : head;
	}
	/* What it was read from is no mount any more. */
	if (!d->next)
		return 1;
	if (d->next != head) {
		d->mount = d->next - bpf_core_field_offset(((struct mount *)0)->mnt_child);
		d->next = 0;
		return 0;
	}
	if (mount == d->root) {
		d->mount = 0;
		return 1;
	}
	d->next = FIELD64(mount, struct mount, mnt_child);
	d->mount = FIELD64(mount, struct mount, mnt_parent);
	return 0;
}

/* Global functions, as the verifier looks at each once, and not from every caller anew. */
__noinline int leave_tree(struct departure *d, u64 root)
{
	if (!d)
		return 0;
	d->root = root;
	d->mount = root;
	d->next = 0;
	bpf_loop(MAX_MOUNTS, look_below, &d, 0);
	if (d->mount)
		d->unfinished = 1;
	return 0;
}

static long look_at_copy(u32 i, struct departure *d)
{
	u64 entry = d->entry;

	if (!entry)
		return 1;
	d->entry = load64(entry);
	leave_tree(d, entry - bpf_core_field_offset(((struct mount *)0)->mnt_mp_list));
	return 0;
}

/* All that is mounted at this place, in any namespace. */
static __always_inline void leave_place(struct departure *d)
{
	d->entry = first_mounted_at(d->mountpoint);
	d->is_tree = 1;
	bpf_loop(MAX_MOUNTS, look_at_copy, d, 0);
	if (d->entry)
		d->unfinished = 1;
}

static long look_at_layer(u32 i, struct departure **in_hand)
{
	struct departure *d = *in_hand;
	u64 layer = layer_of(d->layers, i);

	if (layer)
		leave(d, layer);
	return 0;
}

__noinline int leave_layers(struct departure *d, u64 sb)
{
	if (!d)
		return 0;
	d->layers = sb;
	bpf_loop(layers_of(sb), look_at_layer, &d, 0);
	return 0;
}

static long find_own(void *map, struct leaving *key, u32 *there, struct leaving *own)
{
	if (key->task != own->task)
		return 0;
	own->sb = key->sb;
	return 1;
}

/* One of those that this call would end, and no longer among them; 0: there is none left. */
__noinline u64 take_leaving(void)
{
	struct leaving own = { .task = bpf_get_current_task() };

	bpf_for_each_map_elem(&leaving, find_own, &own, 0);
	if (own.sb)
		bpf_map_delete_elem(&leaving, &own);
	return own.sb;
}

static long drop_own_leaving(void *map, struct leaving *key, u32 *there, void *none)
{
	struct leaving own = *key;

	if (own.task == bpf_get_current_task())
		bpf_map_delete_elem(&leaving, &own);
	return 0;
}

/* With `sb` 0 any file system may go. */
__noinline int is_end_kept(u64 sb, u64 detail, u64 deadline)
{
	struct search search = { .sb = sb, .deadline = deadline };

	/* With this file system all programs would go that are pinned in it. */
	if (sb && state.mode == MODE_ENFORCING &&
	    FIELD32(sb, struct super_block, s_dev) == state.home)
		return true;
	return is_search_refused(&search, OP_UMOUNT, detail);
}

static __always_inline bool is_departure_kept(struct departure *d, u64 detail)
{
	u64 sb = 0, deadline = deadline_of_walk();
	u32 i;

	for (i = 0; i < MAX_JUDGED; i++) {
		sb = take_leaving();
		if (!sb)
			break;
		if (is_end_kept(sb, detail, deadline))
			return true;
		/* An overlay has private mounts of its layers, which go with it. */
		leave_layers(d, sb);
	}
	if (!sb && !d->unfinished)
		return false;
	if (!is_end_kept(0, detail, deadline))
		return false;
	__sync_fetch_and_add(&state.unfinished, 1);
	return true;
}

/* May it go? */
static __always_inline bool is_departure_refused(struct departure *d, u64 detail)
{
	bool is_kept = is_departure_kept(d, detail);

	bpf_for_each_map_elem(&leaving, drop_own_leaving, 0, 0);
	if (is_kept)
		drop_endings();
	return is_kept;
}

/* -EBUSY or 0, by a number that Clang makes nothing else of: older verifiers would not know it. */
static __always_inline int answer_for_mount(bool refused)
{
	int answer = -EBUSY;

	barrier_var(answer);
	return refused ? answer : 0;
}

/* A place goes, and with it what is mounted there in other namespaces. */
static __always_inline int judge_place(u64 dentry)
{
	struct departure d = { .mountpoint = dentry };

	drop_endings_over();
	leave_place(&d);
	return answer_for_mount(is_departure_refused(&d, 0));
}

#endif
