/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which files are worth walking. A hint (a pin that was seen) makes its file a suspect until the inode
 * goes away; a suspect costs walks and nothing else, so a stale one does no harm. A lost hint would
 * lose a hold, so whatever may have lost one makes every file suspect until a sweep has looked.
 */
#ifndef LONGPIN_SUSPECTS_H
#define LONGPIN_SUSPECTS_H

#include "folio.h"

extern const void __per_cpu_offset __ksym;

static __always_inline u32 filter_slot(u64 inode)
{
	/* Inodes are slab objects: their low bits say little. */
	return (u32)(inode >> 6 ^ inode >> 22) & (FILTER_SLOTS - 1);
}

struct tally {
	u64 misses;
};

static long add_misses(u32 i, struct tally *tally)
{
	u32 cpus = state.cpus ?: 1;
	u64 cpu = i % cpus;
	u64 stats = state.program_stats[i / cpus & (MAX_PIN_PROGRAMS - 1)];

	if (stats)
		tally->misses += FIELD64(stats + load64((u64)&__per_cpu_offset + cpu * 8),
					 struct bpf_prog_stats, misses);
	return 0;
}

/*
 * Runs of the pin programs that the kernel suppressed: a tracing program that another task interrupted
 * on the same CPU is not run a second time.
 */
static __noinline u64 count_misses(void)
{
	struct tally tally = {};

	bpf_loop(state.pin_programs * state.cpus, add_misses, &tally, 0);
	return tally.misses;
}

/*
 * Seen every pin? Not while a pin call is between its two programs, nor after a lost exit, nor after
 * a suppressed run.
 */
__noinline int hints_complete(void)
{
	if (state.some_pins_unseen || state.suspect_all)
		return false;
	if (state.entered - state.left != state.acked_balance)
		return false;
	return count_misses() == state.acked_misses;
}

static __noinline bool is_known(u64 inode)
{
	struct file_identity *known, now;

	if (!filter[filter_slot(inode)])
		return false;
	known = bpf_map_lookup_elem(&files, &inode);
	if (!known)
		return false;
	now = identify(inode);
	return same_file(known, &now);
}

/* The second look is for the pin whose hint came while the first two were asked. */
__noinline int is_suspect(u64 inode)
{
	return is_known(inode) || !hints_complete() || is_known(inode);
}

/* Make a file a suspect. What cannot be entered makes every file one. */
__noinline int mark_suspect(u64 inode)
{
	struct file_identity file = identify(inode);
	u32 slot = filter_slot(inode);
	bool stale;
	long err;

	if (is_known(inode))
		return 0;
	stale = bpf_map_lookup_elem(&files, &inode);
	/* First the filter: too high costs a lookup, too low a hold. */
	__sync_fetch_and_add(&filter[slot], 1);
	err = bpf_map_update_elem(&files, &inode, &file, stale ? BPF_ANY : BPF_NOEXIST);
	if (!err && !stale)
		return 0;
	__sync_fetch_and_add(&filter[slot], -1);
	if (err && !is_known(inode)) {
		__sync_fetch_and_add(&state.files_lost, 1);
		state.suspect_all = SUSPECT_ALL;
	}
	return 0;
}

static __always_inline void forget_suspect(u64 inode)
{
	if (!filter[filter_slot(inode)])
		return;
	if (!bpf_map_delete_elem(&files, &inode))
		__sync_fetch_and_add(&filter[filter_slot(inode)], -1);
}

#endif
