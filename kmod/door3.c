// SPDX-License-Identifier: GPL-2.0-only
/*
 * Door 3: registrations by programs that know nothing of lends. While a lend allows it, a long-term pin of the process that
 * lent is sent to pin_lent(), which pins without FOLL_LONGTERM and keeps the pins if each page is lent; else the kernel is
 * asked as it was asked. Pages are compared, not mappings: those may change meanwhile.
 *
 * The probe is on the function behind pin_user_pages_fast, which has the same arguments: longpin's own programs are on that
 * one, and on 6.1 a BPF trampoline and a probe that changes the instruction pointer do not bear each other there.
 */
#include "module.h"

#include <linux/hashtable.h>
#include <linux/kprobes.h>
#include <linux/mman.h>
#include <linux/rculist.h>
#include <linux/rcupdate.h>
#include <linux/wait.h>

#if SINCE(6, 3)
#define INNER "gup_fast_fallback"
#else
#define INNER "internal_get_user_pages_fast"
#endif

#if SINCE(6, 2)
#define FOLL_KEPT (FOLL_WRITE | FOLL_FORCE | FOLL_NOFAULT | FOLL_PCI_P2PDMA)
#else
#define FOLL_KEPT (FOLL_WRITE | FOLL_FORCE | FOLL_NOFAULT)
#endif

static bool door3;
module_param(door3, bool, 0444);
MODULE_PARM_DESC(door3, "let FOLL_LONGTERM pins of lent pages pass, for lends that ask for it (default: no)");

/* Lends whose process may register, by that process. */
static DEFINE_HASHTABLE(registering, 6);
static DEFINE_MUTEX(arm_lock);
static unsigned int armed_for;
static bool has_failed;

/* Tasks in pin_lent(): not to be sent there again. A return address would not tell: a trampoline may lie between. */
struct inside {
	struct list_head node;
	struct task_struct *task;
};
static LIST_HEAD(insiders);
static DEFINE_SPINLOCK(insiders_lock);
static DECLARE_WAIT_QUEUE_HEAD(insiders_wait);

static bool is_inside(void)
{
	struct inside *inside;
	bool found = false;

	spin_lock(&insiders_lock);
	list_for_each_entry(inside, &insiders, node)
		found |= inside->task == current;
	spin_unlock(&insiders_lock);
	return found;
}

static void enter(struct inside *inside)
{
	inside->task = current;
	spin_lock(&insiders_lock);
	list_add(&inside->node, &insiders);
	spin_unlock(&insiders_lock);
}

static void leave(struct inside *inside)
{
	spin_lock(&insiders_lock);
	list_del(&inside->node);
	if (list_empty(&insiders))
		wake_up(&insiders_wait);
	spin_unlock(&insiders_lock);
}

/* A signal, or too little memory: it says nothing about the pages, nor about the probe. */
static bool is_passing(int answer)
{
	return answer == -EINTR || answer == -ENOMEM;
}

static noinline int pin_lent(unsigned long start, unsigned long nr, unsigned int flags, struct page **pages)
{
	struct inside inside;
	int n, i = 0;

	enter(&inside);
	n = pin_pages(start, nr, flags & FOLL_KEPT, pages);
	while (i < n && is_lent_page(pages[i], flags & FOLL_WRITE))
		i++;
	if (!is_passing(n) && (n <= 0 || i < n)) {
		if (n > 0)
			unpin_user_pages(pages, n);
		n = pin_user_pages_fast(start, nr, flags & (FOLL_KEPT | FOLL_LONGTERM), pages);
	}
	leave(&inside);
	return n;
}

static bool may_register(const struct mm_struct *mm)
{
	struct lend *l;
	bool found = false;

	rcu_read_lock();
	hash_for_each_possible_rcu(registering, l, by_mm, (unsigned long)mm)
		found |= l->mm == mm;
	rcu_read_unlock();
	return found;
}

/* (start, nr_pages, gup_flags, pages) */
static int before_pin(struct kprobe *probe, struct pt_regs *regs)
{
	if (!(regs->dx & FOLL_LONGTERM) || !current->mm || !may_register(current->mm) || is_inside())
		return 0;
	regs->ip = (unsigned long)pin_lent;
	return 1;
}
NOKPROBE_SYMBOL(before_pin);

/* It is there so that the probe counts as one that changes the instruction pointer. */
static void after_nothing(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe probe;

static int put_probe(void)
{
	probe = (struct kprobe){
		.symbol_name = INNER,
		.pre_handler = before_pin,
		.post_handler = after_nothing,
	};
	return register_kprobe(&probe);
}

/* One page of the lend, asked for as a registration would. */
static int try_pin(const struct lend *l, unsigned long va)
{
	struct page *page = NULL;
	int n = pin_user_pages_fast(va, 1, FOLL_LONGTERM | (may_write(l) ? FOLL_WRITE : 0), &page);
	bool right;

	if (n != 1)
		return n;
	right = page_to_pfn(page) == pfn_at(l, 0);
	unpin_user_page(page);
	return right ? 1 : -EIO;
}

/* A lent page passes, and the same page is refused while it is not lent. */
static int test_probe(struct lend *l)
{
	unsigned long prot = PROT_READ | (may_write(l) ? PROT_WRITE : 0);
	unsigned long va = vm_mmap(l->entry.file, 0, PAGE_SIZE, prot, MAP_SHARED, (u64)l->range.start << PAGE_SHIFT);
	int lent, other;

	if (IS_ERR_VALUE(va))
		return va;
	lent = try_pin(l, va);
	set_in_test(l, true);
	other = try_pin(l, va);
	set_in_test(l, false);
	vm_munmap(va, PAGE_SIZE);
	if (lent == 1 && other == -EOPNOTSUPP)
		return 0;
	if (is_passing(lent) || is_passing(other))
		return is_passing(lent) ? lent : other;
	pr_err("the self-test of door 3 failed: a lent page answers %d, one that is not lent %d\n", lent, other);
	return -ENXIO;
}

static void add_registering(struct lend *l)
{
	WRITE_ONCE(l->registers, true);
	hash_add_rcu(registering, &l->by_mm, (unsigned long)l->mm);
	armed_for++;
}

static void remove_registering(struct lend *l)
{
	hash_del_rcu(&l->by_mm);
	WRITE_ONCE(l->registers, false);
	if (!--armed_for)
		unregister_kprobe(&probe);
}

/* The probe is there while a lend needs it. */
int arm(struct lend *l)
{
	int err = 0;

	if (!(l->flags & LONGPIN_LEND_REGISTER))
		return 0;
	mutex_lock(&arm_lock);
	if (has_failed) {
		err = -ENXIO;
		goto unlock;
	}
	if (armed_for) {
		add_registering(l);
		goto unlock;
	}
	err = put_probe();
	if (err) {
		pr_err("door 3: no probe on " INNER ": %d\n", err);
		has_failed = true;
		err = -ENXIO;
		goto unlock;
	}
	add_registering(l);
	err = test_probe(l);
	if (err) {
		has_failed |= err == -ENXIO;
		remove_registering(l);
	}
unlock:
	mutex_unlock(&arm_lock);
	return err;
}

void disarm(struct lend *l)
{
	if (!l->registers)
		return;
	mutex_lock(&arm_lock);
	remove_registering(l);
	mutex_unlock(&arm_lock);
}

bool can_register(void)
{
	return door3 && !READ_ONCE(has_failed);
}

static bool nobody_is_inside(void)
{
	bool nobody;

	spin_lock(&insiders_lock);
	nobody = list_empty(&insiders);
	spin_unlock(&insiders_lock);
	return nobody;
}

/*
 * No probe is left, but tasks may be on their way into pin_lent() or out of it. Each has been in user space or slept of
 * itself after the first grace period: whoever sleeps in there has entered himself in the list.
 */
void door3_exit(void)
{
	if (!door3)
		return;
	synchronize_rcu_tasks();
	wait_event(insiders_wait, nobody_is_inside());
	synchronize_rcu_tasks();
}
