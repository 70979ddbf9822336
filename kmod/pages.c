// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pins that do not say FOLL_LONGTERM: the kernel grants them on a DAX file, and the file system waits for their end before
 * it frees a block. Each page is proved to be the file's, at its place, while it is pinned: no mapping that changes
 * meanwhile deceives. Kept are runs of frames, not pages.
 */
#include "module.h"

#include <linux/memremap.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#define BATCH 256UL
/* Mapped at a time: page tables are for so much only. */
#define CHUNK (SZ_1G >> PAGE_SHIFT)

/* Which file's page it is, and where in it. The page is pinned, so the answer stays. */
bool place_of_page(struct page *page, struct address_space **mapping, pgoff_t *index)
{
	if (!is_zone_device_page(page))
		return false;
#if SINCE(6, 15)
	struct folio *folio = page_folio(page);

	if (!folio_is_fsdax(folio))
		return false;
	*mapping = READ_ONCE(folio->mapping);
	*index = folio->index + folio_page_idx(folio, page);
#else
	if (page->pgmap->type != MEMORY_DEVICE_FS_DAX)
		return false;
	*mapping = READ_ONCE(page->mapping);
	*index = page->index;
#endif
	/* None, or a mark, while several files share the page. */
	return *mapping;
}

static bool is_of_file(const struct lend *l, struct page *page, unsigned long i)
{
	struct address_space *mapping;
	pgoff_t index;

	return place_of_page(page, &mapping, &index) && mapping == l->mapping && index == l->range.start + i;
}

static struct dev_pagemap *device_of(const struct page *page)
{
#if SINCE(6, 15)
	return page_pgmap(page);
#else
	return page->pgmap;
#endif
}

/*
 * Whoever takes the device away (ndctl disable-namespace) waits until nobody has a reference on it. Before 6.15 each pin is one;
 * later a pin is none, and the memory's struct pages would go under us.
 */
static struct dev_pagemap *get_device(const struct page *page)
{
	struct dev_pagemap *device;

	rcu_read_lock();
	device = device_of(page);
	if (!percpu_ref_tryget_live(&device->ref))
		device = NULL;
	rcu_read_unlock();
	return device;
}

static int make_room(struct lend *l)
{
	unsigned int room = l->run_room ? 2 * l->run_room : 8;
	struct run *more;

	if (l->run_count < l->run_room)
		return 0;
	more = kvmalloc_array(room, sizeof(*more), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!more)
		return -ENOMEM;
	if (l->run_count)
		memcpy(more, l->runs, l->run_count * sizeof(*more));
	kvfree(l->runs);
	l->runs = more;
	l->run_room = room;
	return 0;
}

static int add_to_runs(struct lend *l, struct page *page)
{
	struct run *last = l->run_count ? &l->runs[l->run_count - 1] : NULL;
	struct run run = { .at = l->pinned, .pfn = page_to_pfn(page), .nr = 1 };
	int err;

	if (last && last->pfn + last->nr == run.pfn && last->device == device_of(page)) {
		last->nr++;
		l->pinned++;
		return 0;
	}
	err = make_room(l);
	if (err)
		return err;
	run.device = get_device(page);
	if (!run.device)
		return -ENXIO;
	l->runs[l->run_count++] = run;
	l->pinned++;
	return 0;
}

unsigned long pfn_at(const struct lend *l, unsigned long i)
{
	unsigned int low = 0, high = l->run_count - 1;

	while (low < high) {
		unsigned int middle = low + (high - low + 1) / 2;

		if (l->runs[middle].at <= i)
			low = middle;
		else
			high = middle - 1;
	}
	return l->runs[low].pfn + (i - l->runs[low].at);
}

/* What is proved and noted is the lend's; the rest of the batch is given back. */
static int keep_batch(struct lend *l, struct page **pages, int n)
{
	int i, err = 0;

	for (i = 0; i < n && !err; i++) {
		if (!is_of_file(l, pages[i], l->pinned))
			err = -EOPNOTSUPP;
		else
			err = add_to_runs(l, pages[i]);
	}
	if (err)
		unpin_user_pages(pages + i - 1, n - i + 1);
	return err;
}

/*
 * From 6.2 to 6.14 a page that several files share bears the mark of an anonymous one, and a pin that only reads faults for
 * ever to have it unshared (docs/findings.md). A reference is no pin and wants nothing unshared, so it is asked first.
 * Answers how many of the pages may be pinned. Held files get no clone in between; else SIGKILL ends the pin.
 */
static int without_shared(unsigned long va, int nr, unsigned int flags, struct page **pages)
{
	int i, n = get_user_pages_fast(va, nr, flags, pages);
	bool shared = false;

	for (i = 0; i < n; i++) {
		shared |= is_zone_device_page(pages[i]) && PageAnon(pages[i]);
		put_page(pages[i]);
	}
	return shared ? -EOPNOTSUPP : n;
}

/* As pin_user_pages_fast(). EOPNOTSUPP for what it would not come back from. */
int pin_pages(unsigned long va, int nr, unsigned int flags, struct page **pages)
{
	if (!SINCE(6, 15) && !(flags & FOLL_WRITE)) {
		nr = without_shared(va, nr, flags, pages);
		if (nr <= 0)
			return nr;
	}
	return pin_user_pages_fast(va, nr, flags, pages);
}

static int pin_mapped(struct lend *l, unsigned long va, unsigned long nr, struct page **pages)
{
	unsigned long done = 0;
	int n, err;

	while (done < nr) {
		if (fatal_signal_pending(current))
			return -EINTR;
		n = pin_pages(va + (done << PAGE_SHIFT), min(nr - done, BATCH), may_write(l) ? FOLL_WRITE : 0, pages);
		if (n <= 0)
			return n ?: -EFAULT;
		err = keep_batch(l, pages, n);
		if (err)
			return err;
		done += n;
		cond_resched();
	}
	return 0;
}

/* By a mapping of our own in the caller: it faults, allocates and asks for permission as the caller's would. */
int pin_range(struct lend *l)
{
	unsigned long prot = PROT_READ | (may_write(l) ? PROT_WRITE : 0);
	struct page **pages = kmalloc_array(BATCH, sizeof(*pages), GFP_KERNEL);
	int err = 0;

	if (!pages)
		return -ENOMEM;
	while (!err && l->pinned < l->nr) {
		unsigned long nr = min(l->nr - l->pinned, CHUNK);
		u64 at = (u64)(l->range.start + l->pinned) << PAGE_SHIFT;
		unsigned long va = vm_mmap(l->entry.file, 0, nr << PAGE_SHIFT, prot, MAP_SHARED, at);

		if (IS_ERR_VALUE(va)) {
			err = va;
			break;
		}
		err = pin_mapped(l, va, nr, pages);
		vm_munmap(va, nr << PAGE_SHIFT);
	}
	kfree(pages);
	return err;
}

void unpin_range(struct lend *l)
{
	unsigned int r;

	for (r = 0; r < l->run_count; r++) {
		unsigned long done, nr;

		for (done = 0; done < l->runs[r].nr; done += nr) {
			nr = min(l->runs[r].nr - done, CHUNK);
			unpin_user_page_range_dirty_lock(pfn_to_page(l->runs[r].pfn + done), nr, false);
			cond_resched();
		}
		put_dev_pagemap(l->runs[r].device);
	}
	kvfree(l->runs);
	l->runs = NULL;
	l->run_count = 0;
	l->pinned = 0;
}

/*
 * Pins of somebody else. A page's pins are 1,024 references each, a large folio's have a counter of their own; what lends
 * have pinned is taken off. References that are no pins may be taken for one: then the lend lasts longer.
 */
#if SINCE(6, 15)
/* The census counts the whole folio, also what lies outside of this lend. Answers the page behind it. */
static unsigned long look_at_folio(const struct lend *l, unsigned long i, bool *used)
{
	struct page *page = pfn_to_page(pfn_at(l, i));
	struct folio *folio = page_folio(page);
	pgoff_t first = l->range.start + i - folio_page_idx(folio, page);
	unsigned long nr = folio_nr_pages(folio);
	struct census census;

	do {
		count_pages(l, first, first + nr - 1, &census);
		*used = (unsigned int)atomic_read(&folio->_pincount) > census.lends;
	} while (!is_true_still(l, &census));
	return first + nr - l->range.start;
}
#endif

static bool is_large(const struct lend *l, unsigned long i)
{
#if SINCE(6, 15)
	return folio_test_large(page_folio(pfn_to_page(pfn_at(l, i))));
#else
	return false;
#endif
}

/* Pages that as many lends have, none of a large folio, and not more than a few thousand. Answers the page behind them. */
static unsigned long look_at_pages(struct lend *l, unsigned long from, bool *used)
{
	struct census census;
	unsigned long i, end;

	do {
		count_page(l, l->range.start + from, &census);
		end = min(from + 4096, (unsigned long)(census.last - l->range.start) + 1);
		*used = false;
		for (i = from; i < end && !*used && !is_large(l, i); i++) {
			unsigned int references = folio_ref_count(page_folio(pfn_to_page(pfn_at(l, i))));

			*used = references >= (census.lends + 1) * GUP_PIN_COUNTING_BIAS;
		}
	} while (!is_true_still(l, &census));
	if (*used)
		WRITE_ONCE(l->used_at, i - 1);
	return i;
}

static unsigned long look(struct lend *l, unsigned long i, bool *used)
{
#if SINCE(6, 15)
	if (is_large(l, i)) {
		WRITE_ONCE(l->used_at, i);
		return look_at_folio(l, i, used);
	}
#endif
	return look_at_pages(l, i, used);
}

bool is_used(struct lend *l)
{
	unsigned long i;
	bool used;

	/* Most likely it still is where it was: no need to look at all of a terabyte each time. */
	look(l, READ_ONCE(l->used_at), &used);
	/* LIST can be killed while it looks; the worker cannot. */
	for (i = 0; i < l->nr && !used && !fatal_signal_pending(current); i = look(l, i, &used))
		cond_resched();
	return used;
}
