/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pin functions, at entry and exit: hints (C09). At exit the pages are pinned and the driver has
 * not yet seen them, so the file is a suspect before the device can use it. Only FOLL_LONGTERM calls
 * count: direct I/O and process_vm_readv pin for a moment and are none of ours (C14).
 */
#include "rows.h"
#include "suspects.h"

/* A run of pages of one file, in the order in which the caller's array has them. */
struct run {
	void *ctx;
	u64 pages;   /* struct page ** */
	u64 mapping; /* 0: no run in hand */
	u64 first;
	u64 last;
};

static __noinline int enter_run(struct run *run)
{
	u64 inode, unit;

	/* The low bits mark anonymous, movable and merged pages. */
	if (!run->mapping || run->mapping & 3)
		return 0;
	inode = FIELD64(run->mapping, struct address_space, host);
	if (!inode || !is_regular(inode))
		return 0;
	mark_suspect(inode);
	/* Where hugetlbfs counts in huge pages, the row is as wide as the file: only people read it. */
	unit = index_unit(inode);
	enter_row(run->ctx, inode, unit ? 0 : run->first, unit ? ~0ULL >> PAGE_SHIFT : run->last);
	return 0;
}

/*
 * One page: it goes on with the run in hand, or ends it and begins another. Each page is looked at: a
 * file may be mapped in the middle of another, or of anonymous memory.
 */
static long extend_run(u32 i, struct run *run)
{
	u64 page = load64(run->pages + (u64)i * 8);
	u64 head = head_of(page);
	u64 mapping = FIELD64(head, struct folio, mapping);
	u64 index = FIELD64(head, struct folio, index) + (page - head) / page_size_bytes();

	if (mapping == run->mapping && index == run->last + 1) {
		run->last = index;
		return 0;
	}
	enter_run(run);
	run->mapping = mapping;
	run->first = index;
	run->last = index;
	return 0;
}

static __noinline int enter_pages(void *ctx, u64 pages, u64 count)
{
	struct run run = { .ctx = ctx, .pages = pages };
	long steps = bpf_loop(count, extend_run, &run, 0);

	enter_run(&run);
	if (steps < 0 || (u64)steps != count)
		state.suspect_all = SUSPECT_ALL;
	return 0;
}

static __always_inline u64 argument(void *ctx, u32 n)
{
	u64 value = 0;

	bpf_get_func_arg(ctx, n, &value);
	return value;
}

static __always_inline int pin_begins(void *ctx, u32 flags_argument)
{
	if (argument(ctx, flags_argument) & foll_longterm)
		__sync_fetch_and_add(&state.entered, 1);
	return 0;
}

/*
 * After the hint: until it stands, the balance says that something is on its way. Fewer calls under way
 * than a sweep took for lost exits: it was wrong about one.
 */
static __always_inline void count_exit(void)
{
	u64 left = __sync_fetch_and_add(&state.left, 1) + 1;

	if ((s64)(state.entered - left) < (s64)state.acked_balance)
		state.suspect_all = SUSPECT_ALL;
}

static __always_inline int pin_ends(void *ctx, u32 flags_argument, u32 pages_argument)
{
	u64 returned = 0;
	s64 count;

	if (!(argument(ctx, flags_argument) & foll_longterm))
		return 0;
	bpf_get_func_ret(ctx, &returned);
	count = (s64)returned;
	if (count > 0 && count < 1LL << 31)
		enter_pages(ctx, argument(ctx, pages_argument), count);
	count_exit();
	return 0;
}

/* long pin_user_pages(start, nr_pages, gup_flags, pages) */
SEC("?fentry/pin_user_pages")
int pin_user_pages_entry(u64 *ctx)
{
	return pin_begins(ctx, 2);
}

SEC("?fexit/pin_user_pages")
int pin_user_pages_exit(u64 *ctx)
{
	return pin_ends(ctx, 2, 3);
}

/* int pin_user_pages_fast(start, nr_pages, gup_flags, pages) */
SEC("?fentry/pin_user_pages_fast")
int pin_user_pages_fast_entry(u64 *ctx)
{
	return pin_begins(ctx, 2);
}

SEC("?fexit/pin_user_pages_fast")
int pin_user_pages_fast_exit(u64 *ctx)
{
	return pin_ends(ctx, 2, 3);
}

/* long pin_user_pages_remote(mm, start, nr_pages, gup_flags, pages, …) */
SEC("?fentry/pin_user_pages_remote")
int pin_user_pages_remote_entry(u64 *ctx)
{
	return pin_begins(ctx, 3);
}

SEC("?fexit/pin_user_pages_remote")
int pin_user_pages_remote_exit(u64 *ctx)
{
	return pin_ends(ctx, 3, 4);
}

/* long pin_user_pages_unlocked(start, nr_pages, pages, gup_flags) */
SEC("?fentry/pin_user_pages_unlocked")
int pin_user_pages_unlocked_entry(u64 *ctx)
{
	return pin_begins(ctx, 3);
}

SEC("?fexit/pin_user_pages_unlocked")
int pin_user_pages_unlocked_exit(u64 *ctx)
{
	return pin_ends(ctx, 3, 2);
}

/* long memfd_pin_folios(memfd, start, end, folios, max_folios, offset): always long-term */
SEC("?fentry/memfd_pin_folios")
int memfd_pin_folios_entry(u64 *ctx)
{
	__sync_fetch_and_add(&state.entered, 1);
	return 0;
}

SEC("?fexit/memfd_pin_folios")
int memfd_pin_folios_exit(u64 *ctx)
{
	u64 returned = 0, inode;

	bpf_get_func_ret(ctx, &returned);
	inode = FIELD64(FIELD64(argument(ctx, 0), struct file, f_mapping), struct address_space,
			host);
	if ((s64)returned > 0 && inode) {
		mark_suspect(inode);
		enter_row(ctx, inode, argument(ctx, 1) >> PAGE_SHIFT,
			  argument(ctx, 2) >> PAGE_SHIFT);
	}
	count_exit();
	return 0;
}
