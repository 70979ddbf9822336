/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lies at an address of any process: the maple tree of its mappings, read without its lock. A tree that
 * changes meanwhile may yield nothing; what it yields is asked whether it covers the address.
 */
#ifndef LONGPIN_VMA_H
#define LONGPIN_VMA_H

#include "folio.h"

#define MAPLE_DEPTH 10
#define MAPLE_NODE_MASK 0xffULL
/* enum maple_type, in the pointer to a node */
#define MAPLE_TYPE(node) ((node) >> 3 & 0xf)
#define MAPLE_LEAF 1
#define MAPLE_RANGE 2
#define MAPLE_ARANGE 3
#define MAPLE_PIVOTS(type) ((type) == MAPLE_ARANGE ? 9 : 15)

struct descent {
	u64 node;
	u64 address;
	u64 last; /* of the entry found */
	u64 entry;
};

/* The slot of the first pivot that is not below the address; which ends the entry is noted. */
__noinline int find_slot(struct descent *d, u64 pivots, u32 count)
{
	u64 pivot;
	u32 i;

	if (!d)
		return 0;
	for (i = 0; i < 15; i++) {
		if (i == count)
			break;
		pivot = load64(pivots + i * 8);
		if (pivot >= d->address)
			d->last = pivot;
		if (pivot >= d->address || (i && !pivot))
			break;
	}
	return i;
}

/* One level: the entry of the first pivot that is not below the address. A pivot of 0 is an unused one. */
static long descend_mappings(u32 depth, struct descent *d)
{
	u64 type = MAPLE_TYPE(d->node), node = d->node & ~MAPLE_NODE_MASK, pivots, slots;
	u32 i;

	if (type == MAPLE_ARANGE) {
		pivots = ADDRESS_OF(node, struct maple_arange_64, pivot);
		slots = ADDRESS_OF(node, struct maple_arange_64, slot);
	} else if (type == MAPLE_RANGE || type == MAPLE_LEAF) {
		pivots = ADDRESS_OF(node, struct maple_range_64, pivot);
		slots = ADDRESS_OF(node, struct maple_range_64, slot);
	} else {
		return 1;
	}
	i = find_slot(d, pivots, MAPLE_PIVOTS(type));
	d->node = load64(slots + i * 8);
	if (type != MAPLE_LEAF)
		return 0;
	d->entry = d->node;
	return 1;
}

struct place {
	u64 mm;
	u64 address;
	u64 end;   /* out: of the mapping, or of the gap; 0: the end of all */
	u64 inode; /* out: 0: no regular file is mapped there */
	u64 first; /* out: page index of `address` in it */
};

static __noinline int look_at_vma(u64 vma, struct place *place)
{
	u64 start = FIELD64(vma, struct vm_area_struct, vm_start);
	u64 end = FIELD64(vma, struct vm_area_struct, vm_end);
	u64 file, inode;

	if (start > place->address || end <= place->address)
		return 0;
	place->end = end;
	file = FIELD64(vma, struct vm_area_struct, vm_file);
	if (!file)
		return 0;
	inode = FIELD64(FIELD64(file, struct file, f_mapping), struct address_space, host);
	if (!is_regular(inode))
		return 0;
	place->inode = inode;
	place->first = FIELD64(vma, struct vm_area_struct, vm_pgoff) +
		       ((place->address - start) >> PAGE_SHIFT);
	return 0;
}

__noinline int find_place(struct place *place)
{
	struct descent d = { .last = ~0ULL };

	if (!place)
		return 0;
	d.node = FIELD64(place->mm, struct mm_struct, mm_mt.ma_root);
	d.address = place->address;
	place->inode = 0;
	bpf_loop(MAPLE_DEPTH, descend_mappings, &d, 0);
	place->end = d.last + 1;
	/* Small numbers are marks, and no mappings. */
	if (d.entry > 4096)
		look_at_vma(d.entry, place);
	return 0;
}

#endif
