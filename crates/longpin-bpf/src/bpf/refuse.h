/* SPDX-License-Identifier: GPL-2.0-only */
/* The one way to a refusal: is the file a suspect, is a page of the range pinned, is the guard armed? */
#ifndef LONGPIN_REFUSE_H
#define LONGPIN_REFUSE_H

#include "events.h"
#include "explicit.h"
#include "rules.h"
#include "suspects.h"
#include "walk.h"

/* What somebody is about to do to a file. */
struct act {
	u64 inode;
	u64 first; /* page indexes, inclusive */
	u64 last;
	u64 detail;
	u32 operation;
	u32 often; /* is asked often: look for lost hints now and then only */
	u64 page;  /* out: the first pinned page that it meets */
	u64 row;   /* the hold that is met, where the file has left memory, and `inode` is 0 */
};

#define WHOLE_FILE .first = 0, .last = ~0ULL

/* Whom does the guard refuse just now? */
static __always_inline bool is_armed(void)
{
	u32 mode = state.mode;

	if (mode == MODE_ENFORCING || mode == MODE_AUDIT)
		return true;
	return mode == MODE_PROVING && bpf_get_current_pid_tgid() >> 32 == state.prover;
}

#define NO_PAGE (~0ULL)

/*
 * The first page of the range that is pinned long-term. A walk that cannot finish says that there is one: a file of more
 * leaves than a loop takes, or of more than are looked at in time.
 */
__noinline u64 first_pinned_until(u64 inode, u64 first, u64 last, u64 deadline)
{
	struct walk walk = {
		.index = first,
		.end = last,
		.only_first = 1,
		.max_steps = MAX_STEPS,
		.deadline = deadline,
	};

	__sync_fetch_and_add(&state.walks, 1);
	walk_pages(inode, &walk);
	if (walk.pages)
		return walk.first_pinned;
	if (walk.finished)
		return NO_PAGE;
	__sync_fetch_and_add(&state.unfinished, 1);
	return first;
}

static __always_inline u64 first_pinned(u64 inode, u64 first, u64 last)
{
	return first_pinned_until(inode, first, last, deadline_of_walk());
}

#define ACT_ACTIONS (1 << RULE_EXEMPT)

static __always_inline bool is_exempt(const struct act *act)
{
	return state.rules & RULES_EXEMPT && find_rule(act->inode, ACT_ACTIONS, false);
}

/* The last row of a file: of an explicit hold, or of a pin. */
__noinline u64 row_of(u64 inode)
{
	struct explicit_hold *explicit = find_explicit(inode);
	struct suspect *known;

	if (explicit && (explicit->swapfiles || explicit->layouts))
		return explicit->row;
	known = find_suspect(inode);
	return known ? known->row : 0;
}

/* What a held file answers: ETXTBSY for all but the exempt, unless the guard only records. */
static __always_inline bool decide_act(const struct act *act)
{
	struct happening what = {
		.kind = EVENT_REFUSED,
		.operation = act->operation,
		.detail = act->detail,
		.inode = act->inode,
		.first = act->first,
		.last = act->last,
		.page = act->page,
		.row = act->row ? act->row : row_of(act->inode),
	};

	if (is_exempt(act)) {
		what.kind = EVENT_EXEMPTED;
		__sync_fetch_and_add(&state.exempted, 1);
	} else if (state.mode == MODE_AUDIT) {
		what.kind = EVENT_WOULD_REFUSE;
		__sync_fetch_and_add(&state.would_refuse, 1);
	} else {
		__sync_fetch_and_add(&state.refused, 1);
	}
	record(&what);
	return what.kind == EVENT_REFUSED;
}

/*
 * What a judge says: no held file is concerned, and another may be asked; or it is decided, and nobody else is to be asked,
 * lest one act be counted twice.
 */
#define NOT_CONCERNED 0
#define REFUSED 1
#define ALLOWED 2 /* only recorded, or exempt */

/* Functions that judge are global, so that the verifier goes through each once, and not from every caller anew. */
__noinline int decide(const struct act *act)
{
	return act && decide_act(act);
}

/* An explicit hold refuses without a look at the pages. */
static __noinline bool meets_hold(struct act *act)
{
	struct explicit_hold *explicit = find_explicit(act->inode);

	if (!explicit || !covers(explicit, act->first, act->last))
		return false;
	act->page = act->first > explicit->first ? act->first : explicit->first;
	return true;
}

static __always_inline bool meets_pin(struct act *act)
{
	if (!WATCHES_PINS)
		return false;
	if (act->often ? !is_suspect_lately(act->inode) : !is_suspect(act->inode))
		return false;
	act->page = first_pinned(act->inode, act->first, act->last);
	return act->page != NO_PAGE;
}

__noinline int judge(struct act *act)
{
	if (!act || !is_regular(act->inode))
		return NOT_CONCERNED;
	if (!(state.explicit_files && meets_hold(act)) && !meets_pin(act))
		return NOT_CONCERNED;
	return decide(act) ? REFUSED : ALLOWED;
}

static __always_inline bool is_refused(struct act *act)
{
	return judge(act) == REFUSED;
}

#endif
