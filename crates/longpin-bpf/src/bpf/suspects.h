/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which files are worth walking. A hint (a pin that was seen) makes its file a suspect until the inode
 * goes away; a suspect costs walks and nothing else, so a stale one does no harm. A lost hint would
 * lose a hold, so whatever may have lost one makes every file suspect until a sweep has looked.
 */
#ifndef LONGPIN_SUSPECTS_H
#define LONGPIN_SUSPECTS_H

#include "folio.h"

/* Of the build for explicit holds alone: pins are not watched, so no file is a suspect. */
#ifdef ONLY_HOLDS
#define WATCHES_PINS 0
#else
#define WATCHES_PINS 1
#endif

static __always_inline u32 filter_slot(u64 inode)
{
	/* Inodes are slab objects: their low bits say little. */
	return (u32)(inode >> 6 ^ inode >> 22) & (FILTER_SLOTS - 1);
}

struct tally {
	u64 misses;
};

/* The counts of one CPU. */
static long add_misses(u32 cpu, struct tally *tally)
{
	u64 base = load64(per_cpu_offset + (u64)cpu * 8);
	u64 misses = 0, stats;
	u32 i;

	for (i = 0; i < MAX_PIN_PROGRAMS; i++) {
		stats = state.program_stats[i];
		if (stats)
			misses += FIELD64(stats + base, struct bpf_prog_stats, misses);
	}
	tally->misses += misses;
	return 0;
}

/*
 * Runs that the kernel suppressed of the programs at the entry of the pin functions: a tracing program that
 * another task interrupted on the same CPU is not run a second time. A suppressed exit needs no count: its
 * entry stays unbalanced.
 */
static __noinline u64 count_misses(void)
{
	struct tally tally = {};

	bpf_loop(state.cpus, add_misses, &tally, 0);
	return tally.misses;
}

/*
 * Seen every pin? Not while a pin call is between its two programs, nor after a lost exit, nor after
 * a suppressed run.
 */
__noinline int hints_complete(void)
{
	if (!WATCHES_PINS)
		return true;
	if (state.some_pins_unseen || state.suspect_all)
		return false;
	if (state.entered - state.left != state.acked_balance)
		return false;
	return count_misses() == state.acked_misses;
}

static __always_inline struct suspect *find_suspect(u64 inode)
{
	struct suspect *known;
	struct file_identity now;

	if (!WATCHES_PINS || !filter[filter_slot(inode)])
		return 0;
	known = bpf_map_lookup_elem(&files, &inode);
	if (!known)
		return 0;
	now = identify(inode);
	return same_file(&known->file, &now) ? known : 0;
}

static __noinline bool is_known_held(u64 inode)
{
	struct suspect *known = find_suspect(inode);

	return known && known->flags & FILE_HELD;
}

/* The second look is for the pin whose hint came while the first two were asked. */
__noinline int is_suspect(u64 inode)
{
	return is_known_held(inode) || !hints_complete() || is_known_held(inode);
}

#define MISSES_GRAIN 1000000 /* ns */

/*
 * The same for what is asked often (direct writes): the kernel's counts of suppressed runs are added up
 * once a millisecond at most.
 */
static __always_inline bool hints_complete_lately(void)
{
	u64 now = bpf_ktime_get_boot_ns();

	if (!WATCHES_PINS)
		return true;
	if (state.some_pins_unseen || state.suspect_all)
		return false;
	if (state.entered - state.left != state.acked_balance)
		return false;
	if (now - state.misses_time > MISSES_GRAIN) {
		state.misses_seen = count_misses();
		state.misses_time = now;
	}
	return state.misses_seen == state.acked_misses;
}

__noinline int is_suspect_lately(u64 inode)
{
	return is_known_held(inode) || !hints_complete_lately();
}

static __always_inline void suspect_all(void)
{
	state.suspect_all = SUSPECT_ALL;
}

static const u64 no_files;

/* One more file for this user? Root's are not counted, and some room is kept for them. */
static __always_inline bool take_share(u32 owner)
{
	u64 *count;

	if (!owner)
		return true;
	if (state.user_files >= state.max_files - state.max_files / 8)
		return false;
	count = bpf_map_lookup_elem(&users, &owner);
	if (!count) {
		bpf_map_update_elem(&users, &owner, &no_files, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&users, &owner);
	}
	if (!count || *count >= state.quota_files)
		return false;
	__sync_fetch_and_add(count, 1);
	__sync_fetch_and_add(&state.user_files, 1);
	return true;
}

static __always_inline void give_share_back(u32 owner)
{
	u64 *count;

	if (!owner)
		return;
	__sync_fetch_and_add(&state.user_files, -1);
	count = bpf_map_lookup_elem(&users, &owner);
	/* The last one goes: there are more users than room. */
	if (count && __sync_fetch_and_add(count, -1) <= 1)
		bpf_map_delete_elem(&users, &owner);
}

/*
 * A pin of a file that is known already. False when it is not, or no longer: the entry may be leaving the
 * table while it is changed, so look again afterwards.
 */
static __noinline bool mark_known(u64 inode, u32 flags)
{
	struct suspect *known = find_suspect(inode);

	if (!known)
		return false;
	/* First the mark: who takes the flag away sees it, or is seen. */
	if (__sync_fetch_and_add(&known->epoch, EPOCH) & FORGETTING)
		suspect_all();
	__sync_fetch_and_or(&known->flags, flags);
	return find_suspect(inode) == known;
}

static __noinline int drop_suspect(u64 inode)
{
	struct suspect *known;
	u32 owner;

	if (!WATCHES_PINS || !filter[filter_slot(inode)])
		return 0;
	known = bpf_map_lookup_elem(&files, &inode);
	if (!known)
		return 0;
	owner = known->owner;
	if (bpf_map_delete_elem(&files, &inode))
		return 0;
	__sync_fetch_and_add(&filter[filter_slot(inode)], -1);
	__sync_fetch_and_add(&state.all_files, -1);
	give_share_back(owner);
	return 1;
}

/* An entry of an inode that was at this address before. */
static __noinline int drop_stale(u64 inode)
{
	struct suspect *old = bpf_map_lookup_elem(&files, &inode);
	struct file_identity now;

	if (!old)
		return 0;
	now = identify(inode);
	return same_file(&old->file, &now) ? 0 : drop_suspect(inode);
}

/* A function of its own: frames are scarce below a pin's exit. */
static __noinline bool insert_suspect(u64 inode, u32 flags, u32 owner)
{
	struct suspect fresh = {
		.file = identify(inode),
		.flags = flags,
		.owner = owner,
		.born = state.next_row,
	};

	return !bpf_map_update_elem(&files, &inode, &fresh, BPF_NOEXIST);
}

/*
 * Make a file a suspect; 1: its user has no share left, and it is none. What cannot be entered makes every
 * file one.
 */
__noinline int mark_suspect(u64 inode, u32 flags, u32 owner)
{
	if (mark_known(inode, flags))
		return 0;
	drop_stale(inode);
	if (!take_share(owner))
		return 1;
	/* First the filter: too high costs a lookup, too low a hold. */
	__sync_fetch_and_add(&filter[filter_slot(inode)], 1);
	if (insert_suspect(inode, flags, owner)) {
		__sync_fetch_and_add(&state.all_files, 1);
		return 0;
	}
	__sync_fetch_and_add(&filter[filter_slot(inode)], -1);
	give_share_back(owner);
	/* Somebody else entered it meanwhile, or the table is full. */
	if (!mark_known(inode, flags)) {
		__sync_fetch_and_add(&state.files_lost, 1);
		suspect_all();
	}
	return 0;
}

#endif
