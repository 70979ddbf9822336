/* SPDX-License-Identifier: GPL-2.0-only */
/* Rows: who pinned which range of which file. For people; nothing is decided from them. */
#ifndef LONGPIN_ROWS_H
#define LONGPIN_ROWS_H

#include "folio.h"

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

static __always_inline void describe_task(struct row *row)
{
	struct task_struct *task = bpf_get_current_task_btf();

	row->task_start = task->group_leader->start_boottime;
	row->cgroup = bpf_get_current_cgroup_id();
	row->uid = (u32)bpf_get_current_uid_gid();
	bpf_probe_read_kernel_str(row->comm, sizeof(row->comm), task->group_leader->comm);
}

/* Frames: the kernel's helper, the program, its trampoline; then who called the pin function. */
static __always_inline u64 caller_of(const u64 *stack)
{
	return stack[CALLER_FRAME];
}

static __noinline int enter_row(void *ctx, u64 inode, u64 first, u64 last)
{
	struct row_key key = { .inode = inode, .tgid = bpf_get_current_pid_tgid() >> 32 };
	struct row fresh = {};
	struct row *row;

	bpf_get_stack(ctx, fresh.stack, sizeof(fresh.stack), 0);
	key.caller = caller_of(fresh.stack);
	row = bpf_map_lookup_elem(&rows, &key);
	fresh.file = identify(inode);
	if (row && same_file(&row->file, &fresh.file)) {
		lower(&row->first, first);
		raise(&row->last, last);
		return 0;
	}
	fresh.first = first;
	fresh.last = last;
	fresh.since = bpf_ktime_get_boot_ns();
	describe_task(&fresh);
	if (bpf_map_update_elem(&rows, &key, &fresh, BPF_ANY))
		__sync_fetch_and_add(&state.rows_lost, 1);
	return 0;
}

#endif
