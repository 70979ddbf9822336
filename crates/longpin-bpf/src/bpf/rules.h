/* SPDX-License-Identifier: GPL-2.0-only */
/* The administrator's rules. Paths are inodes here, consumers addresses: the user side looked them up. */
#ifndef LONGPIN_RULES_H
#define LONGPIN_RULES_H

#include "folio.h"
#include "names.h"

#define MAX_ANCESTORS 64

struct ascent {
	u64 dentry;
	u64 wanted;
	u32 found;
};

static long look_at_ancestor(u32 i, struct ascent *a)
{
	u64 parent = parent_of(a->dentry);

	a->found = inode_number(a->dentry) == a->wanted;
	if (a->found || parent == a->dentry || !parent)
		return 1;
	a->dentry = parent;
	return 0;
}

/* Is this the file, or is the file below this directory? Of the same file system. */
static __always_inline bool is_below(u64 inode, u64 wanted)
{
	struct ascent a = { .dentry = first_dentry(inode), .wanted = wanted };

	if (FIELD64(inode, struct inode, i_ino) == wanted)
		return true;
	if (a.dentry)
		bpf_loop(MAX_ANCESTORS, look_at_ancestor, &a, 0);
	return a.found;
}

struct query {
	u64 stack; /* address of the pin call's stack, STACK_DEPTH frames; 0: no pin */
	u64 inode;
	u32 actions;  /* bit per action that is asked for */
	u32 action;   /* of the first rule that matches; 0: none */
	u32 rules;    /* `state.rules` when it was asked: they may be replaced meanwhile */
	u32 any_task; /* whoever pinned is not known: only the path counts */
};

static __always_inline bool is_in_range(const struct rule *rule, u64 address)
{
	u32 i;

#pragma clang loop unroll(full)
	for (i = 0; i < MAX_RANGES; i++)
		if (i < rule->ranges && address > rule->range[2 * i] &&
		    address <= rule->range[2 * i + 1])
			return true;
	return false;
}

static __always_inline bool is_consumer(const struct query *query, const struct rule *rule)
{
	u32 i;

	if (!query->stack)
		return false;
		/* Unrolled: older verifiers take a call in a loop for an endless one. */
#pragma clang loop unroll(full)
	for (i = 0; i < STACK_DEPTH; i++)
		if (is_in_range(rule, load64(query->stack + i * 8)))
			return true;
	return false;
}

static __always_inline bool is_on_path(u64 inode, const struct rule *rule)
{
	u64 sb = FIELD64(inode, struct inode, i_sb);

	return FIELD32(sb, struct super_block, s_dev) == rule->dev && is_below(inode, rule->ino);
}

static __always_inline bool matches(const struct query *query, const struct rule *rule, bool pins)
{
	u32 conditions = rule->conditions;

	if (query->any_task)
		return !(conditions & RULE_PATH) || is_on_path(query->inode, rule);
	if (conditions & RULE_UID && (u32)bpf_get_current_uid_gid() != rule->uid)
		return false;
	if (conditions & RULE_CGROUP &&
	    bpf_get_current_ancestor_cgroup_id(rule->cgroup_level) != rule->cgroup)
		return false;
	if (conditions & RULE_CONSUMER && !(pins && is_consumer(query, rule)))
		return false;
	return !(conditions & RULE_PATH) || is_on_path(query->inode, rule);
}

static __always_inline long try_one(u32 i, struct query *query, bool pins)
{
	u32 slot = i + (query->rules & RULES_BANK ? MAX_RULES : 0);
	struct rule *rule = bpf_map_lookup_elem(&rules, &slot);

	if (!rule || !(query->actions >> (rule->action & 31) & 1) || !matches(query, rule, pins))
		return 0;
	query->action = rule->action;
	return 1;
}

static long try_rule(u32 i, struct query *query)
{
	return try_one(i, query, false);
}

static long try_pin_rule(u32 i, struct query **in_hand)
{
	return try_one(i, *in_hand, true);
}

/*
 * The first rule with one of the actions asked for that matches the current task (or any) and the file. Rules
 * about consumers do not: those are for pins. Numbers for arguments, and not a query on the caller's stack: what gets
 * a pointer to a stack, the verifier of Linux 7.2 goes through anew for every chain of calls to it.
 */
__noinline int find_rule(u64 inode, u32 actions, u32 any_task)
{
	struct query query = {
		.inode = inode,
		.actions = actions,
		.rules = state.rules,
		.any_task = any_task,
	};

	bpf_loop(query.rules & RULES_COUNT, try_rule, &query, 0);
	return query.action;
}

/* The same of the current task's pin, with the stack of its call. */
__noinline int find_pin_rule(struct query *query)
{
	if (!query)
		return 0;
	query->action = 0;
	query->rules = state.rules;
	bpf_loop(query->rules & RULES_COUNT, try_pin_rule, &query, 0);
	return query->action;
}

#define LEVEL_ACTIONS (1 << RULE_LAYOUT | 1 << RULE_SWAPFILE)

static __always_inline u32 strict_flag(u32 action)
{
	if (action)
		return action == RULE_SWAPFILE ? FILE_STRICT : 0;
	return state.strict & STRICT_ALL ? FILE_STRICT : 0;
}

static __always_inline bool asks_levels(void)
{
	return state.strict && state.rules & RULES_LEVELS;
}

/* FILE_STRICT, if the current task's pins of this file ask for level swapfile. */
static __always_inline u32 strict_flag_of_pin(struct query *query)
{
	query->actions = LEVEL_ACTIONS;
	return strict_flag(asks_levels() ? find_pin_rule(query) : 0);
}

/* The same of pins of which nobody knows whose they are. */
static __always_inline u32 strict_flag_of_file(u64 inode)
{
	return strict_flag(asks_levels() ? find_rule(inode, LEVEL_ACTIONS, true) : 0);
}

#endif
