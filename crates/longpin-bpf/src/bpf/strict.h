/* SPDX-License-Identifier: GPL-2.0-only */
/* Level swapfile: is the whole file held, contents and name included? */
#ifndef LONGPIN_STRICT_H
#define LONGPIN_STRICT_H

#include "refuse.h"

/*
 * Is it out of the question that this file is held at level swapfile? Two loads for most files: each write
 * and each name that goes away asks.
 */
static __always_inline bool is_surely_free(u64 inode)
{
	if (explicit_filter[explicit_slot(FIELD64(inode, struct inode, i_ino))])
		return false;
	if (!WATCHES_PINS || !(state.strict & STRICT_PINS))
		return true;
	if (filter[filter_slot(inode)])
		return false;
	return !(state.strict & STRICT_ALL) || hints_complete_lately();
}

/* A file whose pin asks for the level; where pins may be unknown, each file's may. */
static __noinline bool is_strict_suspect(u64 inode)
{
	struct suspect *known = find_suspect(inode);

	if (known && known->flags & FILE_HELD)
		return known->flags & FILE_STRICT;
	return state.strict & STRICT_ALL && !hints_complete_lately();
}

/* Is the file held at level swapfile? By an explicit hold, or by a pin as long as a page is pinned. */
static __always_inline bool is_strictly_held(struct act *act)
{
	struct explicit_hold *explicit = find_explicit(act->inode);

	if (explicit && explicit->swapfiles) {
		act->page = 0;
		return true;
	}
	if (!WATCHES_PINS || !(state.strict & STRICT_PINS) || !is_strict_suspect(act->inode))
		return false;
	act->page = first_pinned(act->inode, 0, ~0ULL);
	return act->page != NO_PAGE;
}

/* The holder of an explicit hold may map its file shared and writable: to register it, it must. */
static __always_inline bool is_holder(u64 inode)
{
	struct explicit_hold *explicit = find_explicit(inode);

	return explicit && explicit->swapfiles && has_token(explicit->token);
}

/* What level swapfile says of an act. */
__noinline int judge_strictly(struct act *act)
{
	if (!act || !act->inode || !state.strict || is_surely_free(act->inode) || !is_armed() ||
	    !is_regular(act->inode) || !is_strictly_held(act))
		return NOT_CONCERNED;
	return decide(act) ? REFUSED : ALLOWED;
}

static __always_inline bool is_strictly_refused(struct act *act)
{
	return judge_strictly(act) == REFUSED;
}

#endif
