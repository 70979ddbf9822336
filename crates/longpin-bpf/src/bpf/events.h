/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The last events, for people: a ring of slots that is written over. Whoever reads knows by the numbers
 * what it missed. A slot is whole when both of its numbers say so.
 */
#ifndef LONGPIN_EVENTS_H
#define LONGPIN_EVENTS_H

#include "folio.h"
#include "names.h"

struct happening {
	u32 kind;
	u32 operation;
	u64 detail;
	u64 inode;
	u64 first;
	u64 last;
	u64 page;
	u64 row;
	u32 verdict;
	u32 pad;
};

static __always_inline bool is_recording(void)
{
	return state.mode == MODE_ENFORCING || state.mode == MODE_AUDIT;
}

/* The next slot, marked as being written. */
static __always_inline struct event *begin_event(u64 *number)
{
	struct event *event;
	u32 slot;

	*number = __sync_fetch_and_add(&state.next_event, 1);
	slot = *number & (MAX_EVENTS - 1);
	event = bpf_map_lookup_elem(&events, &slot);
	if (!event)
		return 0;
	event->seq = 0;
	event->end = 0;
	barrier();
	event->time = bpf_ktime_get_boot_ns();
	event->name[0] = 0;
	return event;
}

static __always_inline void finish_event(struct event *event, u64 number)
{
	event->end = number + 1;
	barrier();
	event->seq = number + 1;
}

static __always_inline void describe_event(struct event *event, const struct happening *what)
{
	event->kind = what->kind;
	event->operation = what->operation;
	event->detail = what->detail;
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->uid = (u32)bpf_get_current_uid_gid();
	event->inode = what->inode;
	event->first = what->first;
	event->last = what->last;
	event->page = what->page;
	event->row = what->row;
	event->verdict = what->verdict;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->file = identify(what->inode);
	read_short_name(what->inode, event->name);
}

__noinline int record(const struct happening *what)
{
	struct event *event;
	u64 number;

	if (!what || !is_recording())
		return 0;
	event = begin_event(&number);
	if (!event)
		return 0;
	describe_event(event, what);
	finish_event(event, number);
	return 0;
}

#endif
