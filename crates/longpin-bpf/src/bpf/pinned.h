/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a pin call leaves behind: a suspect and a row for each file whose pages it got (C09), if the task
 * may hold it.
 */
#ifndef LONGPIN_PINNED_H
#define LONGPIN_PINNED_H

#include "losses.h"
#include "mapped.h"
#include "owner.h"
#include "rows.h"
#include "rules.h"
#include "suspects.h"

/* A run of pages of one file, in the order in which the caller's array has them. */
struct run {
	u64 pages; /* struct page ** */
	u64 count;
	u64 mapping; /* 0: no run in hand */
	struct claim claim;
};

#define PIN_ACTIONS (1 << RULE_ENFORCE | 1 << RULE_IGNORE | 1 << RULE_DENY | 1 << RULE_ALLOW)

/* `query` is made anew for each question. */
static __always_inline u32 rule_for_pin(const struct claim *claim, struct query *query)
{
	struct file_identity file;
	u32 *action;

	if (state.rules & RULES_FILES) {
		file = identify(claim->inode);
		file.generation = 0;
		action = bpf_map_lookup_elem(&file_rules, &file);
		if (action)
			return *action;
	}
	if (!(state.rules & RULES_PINS))
		return 0;
	query->actions = PIN_ACTIONS;
	return find_pin_rule(query);
}

static __always_inline u32 judge_pin(const struct claim *claim, struct query *query)
{
	switch (rule_for_pin(claim, query)) {
	case RULE_ENFORCE:
		return HELD;
	case RULE_IGNORE:
		return IGNORED;
	case RULE_DENY:
		return DENIED;
	}
	return judge_task(claim->inode);
}

/* C15: the process ends before it can use the pin; nothing milder makes the call fail. */
static __always_inline void deny_pin(void)
{
	__sync_fetch_and_add(&state.denied, 1);
	if (state.mode == MODE_ENFORCING)
		bpf_send_signal(SIGKILL);
}

/* A global function: the verifier takes `claim` for memory, instead of following it round the loops. */
__noinline int enter_claim(struct claim *claim)
{
	u32 owner = (u32)bpf_get_current_uid_gid();
	struct query query = {};
	bool held;
	u32 flags;
	u64 row;

	if (!claim || !is_regular(claim->inode))
		return 0;
	query.inode = claim->inode;
	query.stack = (u64)claim->stack;
	claim->verdict = judge_pin(claim, &query);
	/* A pin that is denied is held while it lasts, if its task may hold at all. */
	held = claim->verdict == HELD ||
	       (claim->verdict == DENIED && judge_task(claim->inode) == HELD);
	flags = held ? FILE_HELD | strict_flag_of_pin(&query) : 0;
	if (mark_suspect(claim->inode, flags, owner) && claim->verdict == HELD)
		claim->verdict = OVER_QUOTA;
	row = enter_row(claim);
	if (row)
		tell_of_row(claim, row == NO_ROW ? 0 : row);
	if (claim->verdict == DENIED)
		deny_pin();
	return 0;
}

static __always_inline int enter_run(struct run *run)
{
	struct claim *claim = &run->claim;
	u64 inode;

	/* The low bits mark anonymous, movable and merged pages. */
	if (!run->mapping || run->mapping & 3)
		return 0;
	inode = FIELD64(run->mapping, struct address_space, host);
	if (!inode)
		return 0;
	claim->inode = inode;
	/* Where hugetlbfs counts in huge pages, the row is as wide as the file: only people read it. */
	if (index_unit(inode)) {
		claim->first = 0;
		claim->last = ~0ULL >> PAGE_SHIFT;
	}
	return enter_claim(claim);
}

/*
 * One page: it goes on with the run in hand, or ends it and begins another. Each page is looked at: a
 * file may be mapped in the middle of another, or of anonymous memory. After the last page comes none, which
 * ends the last run.
 */
static long extend_run(u32 i, struct run *run)
{
	u64 page = i < run->count ? load64(run->pages + (u64)i * 8) : 0;
	u64 head = head_of(page);
	u64 mapping = page ? FIELD64(head, struct folio, mapping) : 0;
	u64 index = FIELD64(head, struct folio, index) + (page - head) / struct_page_bytes();

	if (mapping == run->mapping && index == run->claim.last + 1) {
		run->claim.last = index;
		return 0;
	}
	enter_run(run);
	run->mapping = mapping;
	run->claim.first = index;
	run->claim.last = index;
	return 0;
}

/* Unwinding the stack is dear: only for a new row, or for rules that ask for the consumer. */
static __always_inline void read_stack(void *ctx, struct claim *claim)
{
	if (state.rules & (RULES_PINS | RULES_LEVELS) || !find_row(claim))
		bpf_get_stack(ctx, claim->stack, sizeof(claim->stack), 0);
}

static const struct run no_run;

static __noinline int enter_each_page(void *ctx, u64 caller, u64 pages, u64 count)
{
	struct run run;
	long steps;

	/*
	 * Copied, so that nothing in it is known: before 6.7 the verifier goes through a loop's function once, as it is
	 * called first, and cuts out what only a later step can come to: the end of a run that an earlier one began.
	 */
	bpf_probe_read_kernel(&run, sizeof(run), &no_run);
	run.pages = pages;
	run.count = count;
	run.claim.caller = caller;
	bpf_get_stack(ctx, run.claim.stack, sizeof(run.claim.stack), 0);
	steps = bpf_loop(count + 1, extend_run, &run, 0);
	if (steps < 0 || (u64)steps != count + 1)
		suspect_all();
	return 0;
}

static __noinline int enter_file(void *ctx, u64 caller, const struct span *span, u64 count)
{
	struct claim claim = {
		.inode = span->inode,
		.first = span->first,
		.last = span->first + count - 1,
		.caller = caller,
	};

	read_stack(ctx, &claim);
	return enter_claim(&claim);
}

/* `start`: address in the current process, or 0 where it is another one's. */
static __always_inline int enter_pages(void *ctx, u64 caller, u64 start, u64 pages, u64 count)
{
	struct span span = { .start = start & ~0xfffULL };

	span.end = span.start + (count << PAGE_SHIFT);
	if (start)
		find_mapping(&span, pages, count);
	if (span.kind == MAPS_ANONYMOUS)
		return 0;
	if (span.kind == MAPS_FILE)
		return enter_file(ctx, caller, &span, count);
	return enter_each_page(ctx, caller, pages, count);
}

#define LONGTERM_ACTIONS (1 << RULE_LONGTERM)

/* Does a rule say that this caller's pins are long-term, whatever it says itself? */
static __noinline bool is_longterm_consumer(void *ctx)
{
	struct query query = { .actions = LONGTERM_ACTIONS };
	u64 stack[STACK_DEPTH] = {};

	bpf_get_stack(ctx, stack, sizeof(stack), 0);
	query.stack = (u64)stack;
	return find_pin_rule(&query);
}

static __always_inline bool is_longterm(void *ctx, u64 flags)
{
	if (flags & foll_longterm)
		return true;
	return state.rules & RULES_LONGTERM && is_longterm_consumer(ctx);
}

static __always_inline void count_entry(void)
{
	__sync_fetch_and_add(&state.entered, 1);
}

/*
 * After the hint: until it stands, the balance says that something is on its way. Fewer calls under way
 * than a sweep took for lost exits: it was wrong about one.
 */
static __always_inline void count_exit(void)
{
	u64 left = __sync_fetch_and_add(&state.left, 1) + 1;

	if ((s64)(state.entered - left) < (s64)state.acked_balance)
		suspect_all();
	forget_losses();
}

static __always_inline void enter_returned(void *ctx, u64 caller, u64 start, u64 pages,
					   u64 returned)
{
	s64 count = (s64)returned;

	if (count > 0 && count < 1LL << 31)
		enter_pages(ctx, caller, start, pages, count);
	if (losses_open && count > 0 && count < 1LL << 31)
		look_for_losses(pages, count);
	count_exit();
}

#endif
