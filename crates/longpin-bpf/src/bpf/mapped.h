/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Most pin calls are about memory of one mapping. What it maps then says whose all the pages are, without a
 * look at each. The kernel only lets us try for the lock of the mappings; where that fails, or the memory is
 * of several mappings, or of a private one of a file, the answer is "unknown" and each page is looked at.
 */
#ifndef LONGPIN_MAPPED_H
#define LONGPIN_MAPPED_H

#include "folio.h"

#define MAPS_UNKNOWN 0
#define MAPS_ANONYMOUS 1
#define MAPS_FILE 2

struct span {
	u64 start;
	u64 end;
	u64 inode;
	u64 first; /* page index in the file */
	u64 kind;
};

static long look_at_mapping(struct task_struct *task, struct vm_area_struct *mapped,
			    struct span **in_hand)
{
	struct span *span = *in_hand;
	u64 vma = (u64)mapped, file, start;

	start = FIELD64(vma, struct vm_area_struct, vm_start);
	if (start > span->start || FIELD64(vma, struct vm_area_struct, vm_end) < span->end)
		return 0;
	file = FIELD64(vma, struct vm_area_struct, vm_file);
	if (!file) {
		span->kind = MAPS_ANONYMOUS;
		return 0;
	}
	if (!(FIELD64(vma, struct vm_area_struct, vm_flags) & VM_SHARED))
		return 0;
	span->inode = FIELD64(FIELD64(file, struct file, f_mapping), struct address_space, host);
	span->first = FIELD64(vma, struct vm_area_struct, vm_pgoff) +
		      ((span->start - start) >> PAGE_SHIFT);
	span->kind = span->inode ? MAPS_FILE : MAPS_UNKNOWN;
	return 0;
}

/* Does a page belong to what the mapping says? */
static __always_inline bool is_of(const struct span *span, u64 page)
{
	u64 mapping = FIELD64(head_of(page), struct folio, mapping);

	if (span->kind == MAPS_ANONYMOUS)
		return !mapping || mapping & 3;
	return mapping && !(mapping & 3) &&
	       FIELD64(mapping, struct address_space, host) == span->inode;
}

/*
 * What `count` pages from `start` of the current process are. The mapping may have changed since they were
 * pinned: the first and the last page, and one between, must agree.
 */
__noinline int find_mapping(struct span *span, u64 pages, u64 count)
{
	if (!span)
		return 0;
	span->kind = MAPS_UNKNOWN;
	bpf_find_vma(bpf_get_current_task_btf(), span->start, look_at_mapping, &span, 0);
	if (span->kind == MAPS_UNKNOWN)
		return 0;
	if (!is_of(span, load64(pages)) || !is_of(span, load64(pages + count / 2 * 8)) ||
	    !is_of(span, load64(pages + (count - 1) * 8)))
		span->kind = MAPS_UNKNOWN;
	return 0;
}

#endif
