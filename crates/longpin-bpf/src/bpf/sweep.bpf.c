/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The sweep (BPF_PROG_TEST_RUN): which files have pinned pages at all, from the page frames' side. It makes good
 * pins that are older than itself, and such a pin holds its folio in one piece, with its count, all the time.
 */
#include "rules.h"
#include "suspects.h"

/* In frames. */
#define SUBSECTION (1U << (SUBSECTION_SHIFT - PAGE_SHIFT))
/* Frames that one step looks at. */
#define STEP 16

struct sweep {
	u64 frame;
	u64 end;
	u64 found;
};

static __always_inline u64 page_at(u64 frame)
{
	return first_struct_page() + frame * struct_page_bytes();
}

/* Whose pin it is is not known: of the rules about levels, the path counts. */
static __noinline int mark_found(u64 inode)
{
	return mark_suspect(inode, FILE_HELD | strict_flag_of_file(inode), 0);
}

/* 1 for a pinned folio of a file, by its first struct page. Global: there are many callers. */
__noinline int look_at_page(u64 page)
{
	u64 inode;

	if (is_tail(page) || !is_pinned(page))
		return 0;
	inode = inode_of(page);
	if (!inode)
		return 0;
	/* Who may not hold does not come to hold because somebody looked. */
	if (state.sweep_promotes || !find_suspect(inode))
		mark_found(inode);
	return 1;
}

/*
 * Are `count` frames from `page` of one folio? 0: no, or not any more; else its first struct page. The last frame
 * is asked: a tail whose head is not behind `page` had all between in the same folio at that moment, whatever became
 * of them since. A pin older than the sweep on any of them would be counted in that head, then and now.
 */
static __always_inline u64 folio_of_all(u64 page, u32 count)
{
	u64 last = page + (count - 1) * struct_page_bytes();
	u64 info = tail_info(last), head;

	if (!(info & 1))
		return 0;
	head = head_by(last, info);
	return head <= page ? head : 0;
}

#ifdef WITH_RDONLY_CAST
/* A look at a frame costs little more than to find out whether one may do without. */
static __always_inline u32 free_frames(u64 page, u64 frame)
{
	return 0;
}
#else
/* PG_buddy and PAGE_TYPE_BASE as they were before 6.11. */
static __always_inline bool is_free(u64 page)
{
	return (FIELD32(page, struct page, page_type) & 0xf0000080) == 0xf0000000;
}

/*
 * Frames of the free block that begins here; none is pinned. Its order lies where whoever takes the frame keeps
 * something else. So the frame must be free before and after the order is read, twice, and the order be one
 * that a block in this place may have. What goes wrong otherwise: between two reads the frame is taken, given
 * this very number and freed, and between the next two once more.
 */
static __always_inline u32 free_frames(u64 page, u64 frame)
{
	u64 order;

	if (!is_free(page))
		return 0;
	order = FIELD64(page, struct page, private);
	if (order < 4 || order > 10 || frame & ((1 << order) - 1))
		return 0;
	if (!is_free(page) || FIELD64(page, struct page, private) != order || !is_free(page))
		return 0;
	return 1 << order;
}
#endif

/* Frames that can be left out, as they have no struct page, are free, or of one folio, which is looked at. */
static __always_inline u32 leave_out(struct sweep *sweep, u64 page)
{
	u32 count = STEP;
	u64 head, probe;

	if (!(sweep->frame & (SUBSECTION - 1))) {
		if (bpf_probe_read_kernel(&probe, sizeof(probe), (void *)page))
			return SUBSECTION;
		if (folio_of_all(page, SUBSECTION))
			count = SUBSECTION;
	}
	head = folio_of_all(page, count);
	if (!head)
		return free_frames(page, sweep->frame);
	if (head == page)
		sweep->found += look_at_page(page);
	return count;
}

/*
 * A frame with fewer than two references is none of a pinned file folio: the page cache has one, the pin another.
 */
static long sweep_step(u32 i, struct sweep *sweep)
{
	u64 page = page_at(sweep->frame);
	u32 skip, k;

	if (sweep->frame >= sweep->end)
		return 1;
	skip = leave_out(sweep, page);
	if (skip) {
		sweep->frame += skip;
		return 0;
	}
#pragma unroll
	for (k = 0; k < STEP; k++) {
		if (FIELD32(page, struct page, _refcount) >= 2)
			sweep->found += look_at_page(page);
		page += struct_page_bytes();
	}
	sweep->frame += STEP;
	return 0;
}

/*
 * sweep_frames(first, count): every page frame of the range, which begins and ends on a subsection; the file
 * behind each pinned one becomes a suspect.
 */
SEC("raw_tp")
int sweep_frames(u64 *ctx)
{
	struct sweep sweep = { .frame = ctx[0], .end = ctx[0] + ctx[1] };

	bpf_loop(ctx[1] / STEP, sweep_step, &sweep, 0);
	return sweep.found;
}
