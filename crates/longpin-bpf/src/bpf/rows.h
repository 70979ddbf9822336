/* SPDX-License-Identifier: GPL-2.0-only */
/* Rows: who pinned which range of which file. For people; nothing is decided from them. */
#ifndef LONGPIN_ROWS_H
#define LONGPIN_ROWS_H

#include "events.h"
#include "explicit.h"
#include "notes.h"
#include "suspects.h"

#define TRIES 8

static __always_inline void lower(u64 *bound, u64 value)
{
	u64 seen;
	int i;

	for (i = 0; i < TRIES; i++) {
		seen = *(volatile u64 *)bound;
		if (seen <= value || __sync_val_compare_and_swap(bound, seen, value) == seen)
			return;
	}
}

static __always_inline void raise(u64 *bound, u64 value)
{
	u64 seen;
	int i;

	for (i = 0; i < TRIES; i++) {
		seen = *(volatile u64 *)bound;
		if (seen >= value || __sync_val_compare_and_swap(bound, seen, value) == seen)
			return;
	}
}

/* What is pinned, and the stack that asked for it. */
struct claim {
	u64 inode;
	u64 first;
	u64 last;
	u64 caller; /* return address of the pin function; 0: not known */
	u32 verdict;
	u32 pad;
	u64 stack[STACK_DEPTH]; /* for a new row */
};

static const struct row empty_row;

static __always_inline void describe_task(struct row *row)
{
	struct task_struct *task = bpf_get_current_task_btf();

	row->task_start = task->group_leader->start_boottime;
	row->cgroup = bpf_get_current_cgroup_id();
	row->uid = (u32)bpf_get_current_uid_gid();
	bpf_probe_read_kernel_str(row->comm, sizeof(row->comm), task->group_leader->comm);
}

static __always_inline void fill_row(struct row *row, const struct claim *claim)
{
	row->file = identify(claim->inode);
	row->first = claim->first;
	row->last = claim->last;
	row->since = bpf_ktime_get_boot_ns();
	row->verdict = claim->verdict;
	row->parent = read_short_name(claim->inode, row->name);
	__builtin_memcpy(row->stack, claim->stack, sizeof(row->stack));
	describe_task(row);
	row->pins = 1;
	row->id = __sync_fetch_and_add(&state.next_row, 1) + 1;
}

static __always_inline int tell_of_claim(const struct claim *claim, u64 id)
{
	struct happening what = {
		.kind = EVENT_HELD,
		.operation = OP_PIN,
		.inode = claim->inode,
		.first = claim->first,
		.last = claim->last,
		.page = claim->first,
		.row = id,
		.verdict = claim->verdict,
	};
	struct suspect *known = find_suspect(claim->inode);

	if (known && (claim->verdict == HELD || claim->verdict == DENIED))
		known->row = id;
	if (claim->verdict == DENIED)
		what.kind = state.mode == MODE_AUDIT ? EVENT_WOULD_REFUSE : EVENT_DENIED;
	else if (claim->verdict != HELD)
		what.kind = EVENT_NOT_HELD;
	record(&what);
	return 0;
}

__noinline int tell_of_row(const struct claim *claim, u64 id)
{
	return claim ? tell_of_claim(claim, id) : 0;
}

static __always_inline void widen_row(struct row *row, const struct claim *claim)
{
	lower(&row->first, claim->first);
	raise(&row->last, claim->last);
	if (row->verdict != claim->verdict)
		row->verdict = claim->verdict;
	__sync_fetch_and_add(&row->pins, 1);
}

static __always_inline struct row_key key_of(const struct claim *claim)
{
	struct row_key key = {
		.inode = claim->inode,
		.caller = claim->caller,
		.tgid = bpf_get_current_pid_tgid() >> 32,
	};

	return key;
}

/* Of this very file, and not of one that had its inode's address and number before? */
static __always_inline bool is_row_of(const struct row *row, u64 inode)
{
	struct file_identity file = identify(inode);
	struct suspect *known;

	if (!same_file(&row->file, &file))
		return false;
	known = find_suspect(inode);
	/* A suspect ends with its inode, or when nothing of it is pinned. The table may have no room for it, too. */
	return known ? row->id > known->born : state.suspect_all != 0;
}

__noinline int find_row(const struct claim *claim)
{
	struct row_key key = {};
	struct row *row;

	if (!claim)
		return false;
	key = key_of(claim);
	row = bpf_map_lookup_elem(&rows, &key);
	return row && is_row_of(row, claim->inode);
}

/* Who did it, and in which call: not whose hold it was. */
static __always_inline void describe_breaker(struct event *event)
{
	event->detail = system_call();
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* An event about a row, in the name of its process; but what breaks it has a name of its own. */
static __noinline int tell_in_name_of(const struct row *row, u64 inode, u32 tgid, u32 kind,
				      u32 operation)
{
	struct event *event;
	u64 number;

	if (!is_recording())
		return 0;
	event = begin_event(&number);
	if (!event)
		return -ENOENT;
	event->kind = kind;
	event->operation = operation;
	event->detail = 0;
	event->tgid = tgid;
	event->uid = row->uid;
	event->inode = inode;
	event->file = row->file;
	event->first = row->first;
	event->last = row->last;
	event->page = row->first;
	event->row = row->id;
	event->verdict = row->verdict;
	__builtin_memcpy(event->comm, row->comm, sizeof(event->comm));
	__builtin_memcpy(event->name, row->name, sizeof(event->name));
	if (kind == EVENT_BROKEN)
		describe_breaker(event);
	finish_event(event, number);
	return 0;
}

/* An explicit hold is over, by this operation; false: there was none. Whoever comes first ends it. */
static __noinline bool end_hold(const struct row_key *key, u32 kind, u32 operation)
{
	struct row *row = bpf_map_lookup_elem(&rows, key);
	struct file_identity file;
	struct explicit_hold *found;
	bool is_told;

	if (!row)
		return false;
	file = row->file;
	/* What was not judged yet has not begun either. */
	is_told = row->verdict != PENDING;
	if (is_told)
		tell_in_name_of(row, key->inode, key->tgid, kind, operation);
	if (bpf_map_delete_elem(&rows, key))
		return false;
	if (is_told && kind == EVENT_BROKEN)
		__sync_fetch_and_add(&state.broken_holds, 1);
	found = bpf_map_lookup_elem(&explicit_holds, &file);
	if (!found)
		return true;
	if ((key->level & LEVEL_MASK) == LEVEL_SWAPFILE)
		__sync_fetch_and_add(&found->swapfiles, -1);
	else
		__sync_fetch_and_add(&found->layouts, -1);
	return true;
}

/* A hold that goes on without its token: nobody is its holder any more. False: it does not go on. */
static __noinline bool forget_token(const struct row_key *key)
{
	struct row *row = bpf_map_lookup_elem(&rows, key);
	struct file_identity file;
	struct explicit_hold *found;

	if (!row || row->verdict == PENDING)
		return false;
	file = row->file;
	found = bpf_map_lookup_elem(&explicit_holds, &file);
	if (found && found->token == key->caller)
		found->token = 0;
	return true;
}

/* Of a hold that goes on without its token, another hold's token may be at that address now. */
static __always_inline void drop_token(const struct row_key *key)
{
	u64 token = key->caller;
	struct row_key *found = bpf_map_lookup_elem(&tokens, &token);

	if (!found || found->inode != key->inode || found->tgid != key->tgid)
		return;
	if (!bpf_map_delete_elem(&tokens, &token))
		__sync_fetch_and_add(&state.tokens, -1);
}

/* The last descriptor of a token is closed. */
static __noinline int end_token(u64 inode)
{
	struct row_key *found = bpf_map_lookup_elem(&tokens, &inode);
	struct row_key key;

	if (!found)
		return 0;
	key = *found;
	if (bpf_map_delete_elem(&tokens, &inode))
		return 0;
	__sync_fetch_and_add(&state.tokens, -1);
	if (key.level & LEVEL_PERSISTS && forget_token(&key))
		return 0;
	return end_hold(&key, EVENT_ENDED, OP_PIN);
}

#define NO_ROW (~0ULL)

/*
 * The number of a fresh row; 0 when there was one already, NO_ROW when there is no room. Rows are filled in
 * where they lie: they are larger than the stack allows. Until `id` is there, readers pass over them.
 */
__noinline u64 enter_row(const struct claim *claim)
{
	struct row_key key = {};
	struct row *row;

	if (!claim)
		return 0;
	key = key_of(claim);
	row = bpf_map_lookup_elem(&rows, &key);
	if (row && is_row_of(row, claim->inode)) {
		widen_row(row, claim);
		return 0;
	}
	/* Nobody has looked since its file went away. */
	if (row && row->id)
		tell_in_name_of(row, key.inode, key.tgid, EVENT_ENDED, OP_PIN);
	if (!bpf_map_update_elem(&rows, &key, &empty_row, BPF_ANY))
		row = bpf_map_lookup_elem(&rows, &key);
	if (!row) {
		__sync_fetch_and_add(&state.rows_lost, 1);
		return NO_ROW;
	}
	fill_row(row, claim);
	return row->id;
}

#endif
