// SPDX-License-Identifier: GPL-2.0-only
/* Which pages of which file are lent, and how many times each. */
#include "module.h"

#include <linux/hashtable.h>
#include <linux/spinlock.h>

/* A file with lends. */
struct place {
	struct hlist_node node;
	struct address_space *mapping;
	struct rb_root_cached lends;
	unsigned long count;
	unsigned long changes;	/* a lend has come or gone */
};

static DEFINE_HASHTABLE(places, 8);
static DEFINE_SPINLOCK(places_lock);

static struct place *find_place(const struct address_space *mapping)
{
	struct place *place;

	hash_for_each_possible(places, place, node, (unsigned long)mapping)
		if (place->mapping == mapping)
			return place;
	return NULL;
}

/* From here on the lend's pins are taken off what others have pinned. Its pages must be pinned. */
int enter_place(struct lend *l)
{
	struct place *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT), *place;

	if (!new)
		return -ENOMEM;
	new->mapping = l->mapping;
	new->lends = RB_ROOT_CACHED;
	spin_lock(&places_lock);
	place = find_place(l->mapping);
	if (!place) {
		place = new;
		new = NULL;
		hash_add(places, &place->node, (unsigned long)l->mapping);
	}
	place->count++;
	place->changes++;
	interval_tree_insert(&l->range, &place->lends);
	l->place = place;
	l->open = true;
	spin_unlock(&places_lock);
	kfree(new);
	return 0;
}

/* Before the pages are unpinned: a lend that is counted and has no pins would hide somebody else's. */
void leave_place(struct lend *l)
{
	struct place *place = l->place;

	if (!place)
		return;
	spin_lock(&places_lock);
	interval_tree_remove(&l->range, &place->lends);
	place->changes++;
	if (--place->count)
		place = NULL;
	else
		hash_del(&place->node);
	spin_unlock(&places_lock);
	l->place = NULL;
	kfree(place);
}

/* No registration finds it any more; who found it before has its pins, and is_used() sees them. */
void close_lend(struct lend *l)
{
	spin_lock(&places_lock);
	l->open = false;
	spin_unlock(&places_lock);
}

void set_in_test(struct lend *l, bool in_test)
{
	spin_lock(&places_lock);
	l->in_test = in_test;
	spin_unlock(&places_lock);
}

/* How many lends have this page, and the pages behind it up to the census' last. */
void count_page(const struct lend *l, pgoff_t index, struct census *census)
{
	struct interval_tree_node *node;

	census->lends = 0;
	census->last = l->range.last;
	spin_lock(&places_lock);
	census->changes = l->place->changes;
	/* In ascending order of their starts. */
	for (node = interval_tree_iter_first(&l->place->lends, index, l->range.last); node;
	     node = interval_tree_iter_next(node, index, l->range.last)) {
		if (node->start > index) {
			census->last = min(census->last, node->start - 1);
			break;
		}
		census->lends++;
		census->last = min(census->last, node->last);
	}
	spin_unlock(&places_lock);
}

/* How many times lends have pinned these pages: once for each page of each lend. */
void count_pages(const struct lend *l, pgoff_t first, pgoff_t last, struct census *census)
{
	struct interval_tree_node *node;

	census->lends = 0;
	census->last = last;
	spin_lock(&places_lock);
	census->changes = l->place->changes;
	for (node = interval_tree_iter_first(&l->place->lends, first, last); node;
	     node = interval_tree_iter_next(node, first, last))
		census->lends += min(node->last, last) - max(node->start, first) + 1;
	spin_unlock(&places_lock);
}

/* No lend has come or gone since: what was read of the pages meanwhile may be compared with it. */
bool is_true_still(const struct lend *l, const struct census *census)
{
	bool same;

	spin_lock(&places_lock);
	same = l->place->changes == census->changes;
	spin_unlock(&places_lock);
	return same;
}

/* The page, which the caller has pinned, is lent to registrations of this process. */
bool is_lent_page(struct page *page, bool write)
{
	struct interval_tree_node *node;
	struct address_space *mapping;
	struct place *place;
	bool found = false;
	pgoff_t index;

	if (!place_of_page(page, &mapping, &index))
		return false;
	spin_lock(&places_lock);
	place = find_place(mapping);
	node = place ? interval_tree_iter_first(&place->lends, index, index) : NULL;
	for (; node && !found; node = interval_tree_iter_next(node, index, index)) {
		struct lend *l = container_of(node, struct lend, range);

		found = l->open && !l->in_test && READ_ONCE(l->registers) && l->mm == current->mm &&
			(!write || may_write(l)) && pfn_at(l, index - l->range.start) == page_to_pfn(page);
	}
	spin_unlock(&places_lock);
	return found;
}
