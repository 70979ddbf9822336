/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The page is the truth: look for pinned folios in a range of a file's page cache.
 *
 * The page cache is an xarray. Entries, by their low bits: ..00 a folio; ....1 a value (shadow, swap
 * or DAX entry: no page); ..10 above 4096 a node; ..10 below it a sibling (this slot belongs to a
 * large folio whose entry is in an earlier slot), a retry mark, or a reserved zero.
 *
 * The tree may grow and shrink meanwhile (read-ahead, reclaim), but a pinned folio is neither split,
 * migrated nor reclaimed and nodes are freed by RCU, so each step descends anew from the head to the
 * next index and a pinned folio that was there before the walk is always met. Callers are programs
 * that run inside an RCU read section.
 */
#ifndef LONGPIN_WALK_H
#define LONGPIN_WALK_H

#include "folio.h"

#define XA_CHUNK 64
#define XA_CHUNK_SHIFT 6
#define XA_RETRY 1026
#define XA_LAST_SIBLING 62
#define MAX_HEIGHT 12
#define MAX_STEPS (1 << 23) /* what bpf_loop allows */
#define FEW_STEPS (1 << 12) /* for callers that can come back */
#define STEPS_A_LOOK 64	    /* between two looks at the clock */

/* Set at the start: so long may a walk take. Nobody else runs on this processor meanwhile. */
const volatile u64 walk_budget_ns = DEFAULT_WALK_BUDGET;

static __always_inline u64 deadline_of_walk(void)
{
	return bpf_ktime_get_ns() + walk_budget_ns;
}

struct walk {
	u64 mapping;
	u64 index; /* the next to look at */
	u64 end;   /* the last to look at */
	u64 node;  /* the leaf being read */
	u64 base;  /* index of its first slot */
	u32 shift; /* log2 of the pages that each of its slots covers */
	u32 slot;
	u32 max_steps; /* leaves to look at in this call */
	u8 only_first; /* stop at the first pinned folio */
	u8 only_run;   /* stop where the first run of pinned pages ends */
	u8 in_pinned;  /* the last folio entry met is pinned: its siblings are too */
	u8 finished;
	u8 again;     /* a node or a retry mark was met: descend anew from `index` */
	u64 deadline; /* 0: the steps are few */
	u64 pages;
	u64 first_pinned;
	u64 last_pinned;
};

static __always_inline bool is_node(u64 entry)
{
	return (entry & 3) == 2 && entry > 4096;
}

static __always_inline bool is_sibling(u64 entry)
{
	return (entry & 3) == 2 && entry >> 2 <= XA_LAST_SIBLING;
}

static __always_inline u64 slot_of(u64 node, u64 offset)
{
	return load64(ADDRESS_OF(node, struct xa_node, slots) + (offset & (XA_CHUNK - 1)) * 8);
}

static __always_inline u32 shift_of(u64 node)
{
	return FIELD32(node, struct xa_node, shift) & 0xff;
}

/* Enter the part of one slot that lies in the range. Slots are met in rising order. */
static __always_inline void note_pinned(struct walk *w, u64 from, u64 to)
{
	if (from < w->index)
		from = w->index;
	if (to > w->end)
		to = w->end;
	if (!w->pages)
		w->first_pinned = from;
	w->last_pinned = to;
	w->pages += to - from + 1;
}

/*
 * How many slots after this one belong to the same folio, as far as it says so itself; 0 unless the last of them
 * is a sibling of this one now: then all between are.
 */
static __always_inline u32 siblings_of(const struct walk *w, u32 slot, u64 folio)
{
	u32 more = (pages_of_large(folio) >> w->shift) - 1;
	u64 last;

	if (more >= XA_CHUNK - slot)
		return 0;
	last = slot_of(w->node, slot + more);
	return is_sibling(last) && last >> 2 == slot ? more : 0;
}

/*
 * Slot `w->slot + i` of the leaf in hand; 1 ends the leaf. What the loop changes is kept apart from what
 * the verifier must follow: it walks a loop once for each state that it can tell apart.
 */
static long look_at_slot(u32 i, struct walk **in_hand)
{
	struct walk *w = *in_hand;
	u32 slot = w->slot + i;
	u64 from = w->base + ((u64)slot << w->shift);
	u64 entry;

	if (slot >= XA_CHUNK || from > w->end)
		return 1;
	entry = slot_of(w->node, slot);
	/* The range may begin in the middle of a large folio: its entry is in an earlier slot. */
	if (is_sibling(entry) && i == 0)
		entry = slot_of(w->node, entry >> 2);
	if (is_node(entry) || entry == XA_RETRY) {
		if (from > w->index)
			w->index = from;
		w->again = 1;
		return 1;
	}
	if (!is_sibling(entry))
		w->in_pinned = entry && !(entry & 3) && is_pinned(entry);
	if (!w->in_pinned) {
		/* Nobody pins a large folio: on to the next one. */
		if (entry && !(entry & 3) && is_large(entry))
			w->slot += siblings_of(w, slot, entry);
		return 0;
	}
	if (w->only_run && w->pages && from > w->last_pinned + 1) {
		w->finished = 1;
		return 1;
	}
	note_pinned(w, from, from + ((1ULL << w->shift) - 1));
	return w->only_first ? 1 : 0;
}

/*
 * From the head down to the node whose slot for `w->index` is not a node; 0 where the tree ends, -1 where
 * this is no tree.
 */
static __noinline int descend(struct walk *w)
{
	u64 entry = FIELD64(ADDRESS_OF(w->mapping, struct address_space, i_pages), struct xarray,
			    xa_head);
	u64 node = 0;
	u32 shift = 0;
	int level;

	for (level = 0; level < MAX_HEIGHT && is_node(entry); level++) {
		node = entry - 2;
		shift = shift_of(node);
		if (shift > 60)
			return -1;
		if (level == 0 && shift < 58 && w->index >> shift >= XA_CHUNK)
			return 0;
		entry = slot_of(node, w->index >> shift);
		/* A sibling of a folio stays here; a node never has siblings. */
	}
	w->node = node;
	w->shift = shift;
	w->slot = w->index >> shift & (XA_CHUNK - 1);
	w->base =
		shift >= 58 ? 0 : w->index >> (shift + XA_CHUNK_SHIFT) << (shift + XA_CHUNK_SHIFT);
	return 1;
}

/* A tree of one entry has no node: the head is the folio of index 0. */
static __noinline int look_at_head(struct walk *w)
{
	u64 entry = FIELD64(ADDRESS_OF(w->mapping, struct address_space, i_pages), struct xarray,
			    xa_head);

	if (is_node(entry))
		return 0; /* it grew meanwhile: go on */
	if (entry && !(entry & 3) && w->index == 0 && is_pinned(entry))
		note_pinned(w, 0, 0);
	w->finished = entry != XA_RETRY;
	return w->finished ? 1 : 0;
}

/* One leaf. */
static long step(u32 i, struct walk **in_hand)
{
	struct walk *w = *in_hand;
	u64 next;
	int found;

	if (!(i % STEPS_A_LOOK) && w->deadline && bpf_ktime_get_ns() > w->deadline)
		return 1;
	w->in_pinned = 0;
	w->again = 0;
	found = descend(w);
	if (found <= 0) {
		w->finished = found == 0;
		return 1;
	}
	if (!w->node)
		return look_at_head(w);
	bpf_loop(XA_CHUNK, look_at_slot, &w, 0);
	if (w->finished)
		return 1;
	next = w->base + ((u64)XA_CHUNK << w->shift);
	if (w->only_first && w->pages)
		w->finished = 1;
	else if (w->again)
		return 0;
	else if (next <= w->index || next > w->end)
		w->finished = 1;
	w->index = next;
	return w->finished ? 1 : 0;
}

/*
 * Walk [w->index, w->end] of the inode's page cache, page indexes, both ends included. A global
 * function: the verifier looks at it once, and at `w` as at any memory, instead of following the values
 * in it round the loops from every caller.
 */
__noinline int walk_pages(u64 inode, struct walk *w)
{
	u32 unit = index_unit(inode);

	if (!w)
		return 0;
	w->mapping = FIELD64(inode, struct inode, i_mapping);
	w->index >>= unit;
	w->end >>= unit;
	bpf_loop(w->max_steps, step, &w, 0);
	w->index <<= unit;
	if (unit && w->pages) {
		w->pages <<= unit;
		w->first_pinned <<= unit;
		w->last_pinned = ((w->last_pinned + 1) << unit) - 1;
	}
	return 0;
}

/* The first and the last page index of the folio at one index; a tree of one entry has one page. */
__noinline int find_folio(u64 inode, u64 index, u64 *first, u64 *last)
{
	u32 unit = index_unit(inode), slot, end;
	struct walk w = {
		.mapping = FIELD64(inode, struct inode, i_mapping),
		.index = index >> unit,
	};
	u64 entry;

	if (!first || !last)
		return 0;
	*first = index;
	*last = index;
	if (descend(&w) <= 0 || !w.node)
		return 0;
	slot = w.slot;
	entry = slot_of(w.node, slot);
	if (is_sibling(entry))
		slot = entry >> 2;
	for (end = w.slot + 1; end < XA_CHUNK; end++)
		if (!is_sibling(slot_of(w.node, end)))
			break;
	*first = (w.base + ((u64)slot << w.shift)) << unit;
	*last = ((w.base + ((u64)end << w.shift)) << unit) - 1;
	return 0;
}

#endif
