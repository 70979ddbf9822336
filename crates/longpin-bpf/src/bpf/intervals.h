/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On-demand regions: the kernel keeps them as intervals of the process that registered them, in a tree, for
 * every driver alike (RDMA, graphics). Whether there is one is asked there, each time. What the kernel does not
 * keep (since when, of which file) is noted when one begins, for people.
 */
#ifndef LONGPIN_INTERVALS_H
#define LONGPIN_INTERVALS_H

#include "events.h"
#include "vma.h"

#define MAX_REGIONS 16384
#define TREE_STEPS 65536
#define TOLD_SLOTS 8

/* What the tree does not say. */
struct region {
	u64 mm;
	u64 start; /* addresses, inclusive */
	u64 last;
	u64 since; /* 0: not seen */
	u64 inode; /* of the file at `start`, when it began */
	struct file_identity file;
	u64 first;
	u64 end; /* address behind the mapping of that file */
	u64 torn;
	u64 second; /* of boot time, in which `told` counts */
	u64 untold;
	u8 told[TOLD_SLOTS]; /* by process and notice */
	u32 tgid;
	u32 pad;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_REGIONS);
	__type(key, u64); /* struct mmu_interval_notifier */
	__type(value, struct region);
} regions SEC(".maps");

/* How much was told in this second. */
struct budget {
	u64 second;
	u64 told;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct budget);
} budgets SEC(".maps");

#define INTERVAL(address, field) FIELD64(address, struct mmu_interval_notifier, interval_tree.field)
/* From the node in the tree to the interval, and back. */
#define NODE_OFFSET bpf_core_field_offset(((struct mmu_interval_notifier *)0)->interval_tree.rb)

#define DOWN 0
#define VISIT 1
#define UP 2

/* In order of their beginnings, those that overlap `first` to `last` of a process. */
struct interval_walk {
	u64 first;
	u64 last;
	u64 at; /* interval */
	u64 found;
	u32 direction;
	u32 pad;
};

static __always_inline u64 to_interval(u64 node)
{
	return node ? node - NODE_OFFSET : 0;
}

/* Below this one there is one that ends at `first` or later. */
static __always_inline bool reaches(const struct interval_walk *walk, u64 interval)
{
	return interval && INTERVAL(interval, __subtree_last) >= walk->first;
}

static __always_inline long climb(struct interval_walk *walk)
{
	u64 parent = to_interval(INTERVAL(walk->at, rb.__rb_parent_color) & ~3ULL);

	walk->direction = UP;
	if (parent && to_interval(INTERVAL(parent, rb.rb_left)) == walk->at)
		walk->direction = VISIT;
	walk->at = parent;
	return !parent;
}

static long step_interval(u32 i, struct interval_walk **in_hand)
{
	struct interval_walk *walk = *in_hand;
	u64 child;

	if (!walk->at)
		return 1;
	if (walk->direction == DOWN) {
		child = to_interval(INTERVAL(walk->at, rb.rb_left));
		if (reaches(walk, child))
			walk->at = child;
		else
			walk->direction = VISIT;
		return 0;
	}
	if (walk->direction == UP)
		return climb(walk);
	if (INTERVAL(walk->at, start) > walk->last) {
		walk->at = 0;
		return 1;
	}
	if (INTERVAL(walk->at, last) >= walk->first)
		walk->found = walk->at;
	child = to_interval(INTERVAL(walk->at, rb.rb_right));
	if (!reaches(walk, child)) {
		climb(walk);
		return walk->found != 0;
	}
	walk->at = child;
	walk->direction = DOWN;
	return walk->found != 0;
}

static __always_inline u64 subscriptions_of(u64 mm)
{
	return mm ? FIELD64(mm, struct mm_struct, notifier_subscriptions) : 0;
}

static __always_inline void begin_walk(struct interval_walk *walk, u64 subscriptions)
{
	walk->direction = DOWN;
	walk->at = to_interval(
		FIELD64(subscriptions, struct mmu_notifier_subscriptions, itree.rb_root.rb_node));
}

/* `found`: the next one, or 0. */
__noinline int next_interval(struct interval_walk *walk)
{
	if (!walk)
		return 0;
	walk->found = 0;
	bpf_loop(TREE_STEPS, step_interval, &walk, 0);
	return 0;
}

static __always_inline bool is_of_interval(const struct region *region, u64 interval)
{
	return region->mm == FIELD64(interval, struct mmu_interval_notifier, mm) &&
	       region->start == INTERVAL(interval, start) &&
	       region->last == INTERVAL(interval, last);
}

static __always_inline struct region *find_region(u64 interval)
{
	struct region *region = bpf_map_lookup_elem(&regions, &interval);

	return region && is_of_interval(region, interval) ? region : 0;
}

#endif
