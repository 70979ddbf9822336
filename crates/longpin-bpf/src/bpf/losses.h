/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C13: pages that left their file while they were pinned. Of a file that is known to be held that is told at
 * once. While long-term pin calls are under way it may be one of theirs, whose file nobody knows yet: such
 * pages are kept until the calls end, and each call looks for its own among them. What was told stays known
 * until its pins have gone: so long its row is listed.
 */
#ifndef LONGPIN_LOSSES_H
#define LONGPIN_LOSSES_H

#include "events.h"
#include "notes.h"
#include "suspects.h"

#define BROKEN_GRAIN 1000000000 /* ns: one event a second for each file */
#define MAX_LOSSES 4096

struct loss {
	u64 inode;
	u64 index;
	u64 call; /* system call that took it away */
	u64 epoch;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_LOSSES);
	__type(key, u64); /* folio */
	__type(value, struct loss);
} losses SEC(".maps");

/* With all its room from the beginning: entries come while interrupts are off. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STRAYS);
	__type(key, u64); /* folio */
	__type(value, struct stray);
} strays SEC(".maps");

/* How many were kept since no pin call was under way; and how often that was so. */
u64 losses_open;
u64 losses_epoch;

static __always_inline bool is_somebody_pinning(void)
{
	return state.entered - state.left != state.acked_balance;
}

static __always_inline int keep_loss(u64 folio, u64 inode)
{
	struct loss loss = {
		.inode = inode,
		.index = FIELD64(folio, struct folio, index),
		.call = system_call(),
		.epoch = losses_epoch,
	};

	bpf_map_update_elem(&losses, &folio, &loss, BPF_ANY);
	__sync_fetch_and_add(&losses_open, 1);
	return 0;
}

/* A full table keeps the first ones: the pins of a row go together. */
__noinline int keep_stray(u64 folio, u64 inode, u64 index)
{
	struct stray stray = {
		.inode = inode,
		.file = identify(inode),
		.first = index,
		.pages = is_large(folio) ? pages_of_large(folio) : 1,
	};

	bpf_map_update_elem(&strays, &folio, &stray, BPF_ANY);
	return 0;
}

/* `known` is 0 where the pin call got no page that is still the file's. */
static __noinline int tell_of_loss(struct suspect *known, const struct loss *loss)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct happening what = {
		.kind = EVENT_BROKEN,
		.operation = OP_REMOVAL,
		.detail = loss->call,
		.inode = loss->inode,
		.first = loss->index,
		.last = loss->index,
		.page = loss->index,
	};

	__sync_fetch_and_add(&state.broken, 1);
	if (known) {
		what.row = known->row;
		__sync_fetch_and_add(&known->broken, 1);
		if (known->broken_time && now - known->broken_time < BROKEN_GRAIN)
			return 0;
		known->broken_time = now;
	}
	record(&what);
	return 0;
}

/* Page `i` of a pin call that ends: was it taken away meanwhile? */
static long look_for_loss(u32 i, u64 *pages)
{
	u64 folio = head_of(load64(*pages + (u64)i * 8));
	struct suspect *known;
	struct loss *kept, loss;

	if (FIELD64(folio, struct folio, mapping))
		return 0;
	kept = bpf_map_lookup_elem(&losses, &folio);
	if (!kept || kept->epoch != losses_epoch)
		return 0;
	loss = *kept;
	bpf_map_delete_elem(&losses, &folio);
	keep_stray(folio, loss.inode, loss.index);
	known = find_suspect(loss.inode);
	if (!known || known->flags & FILE_HELD)
		tell_of_loss(known, &loss);
	return 0;
}

__noinline int look_for_losses(u64 pages, u64 count)
{
	bpf_loop(count, look_for_loss, &pages, 0);
	return 0;
}

/* A pin call has ended. Was it the last, then what is left belongs to nobody. */
static __always_inline void forget_losses(void)
{
	u64 open = losses_open;

	if (!open || is_somebody_pinning())
		return;
	if (__sync_val_compare_and_swap(&losses_open, open, 0) == open)
		__sync_fetch_and_add(&losses_epoch, 1);
}

#endif
