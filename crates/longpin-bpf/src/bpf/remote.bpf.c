/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pin_user_pages_remote where it takes seven arguments, more than a tracing program can be attached to
 * (6.1): probes instead. The probe at the return does not see the arguments, so the one at the entry keeps
 * them. An entry without its return leaves the balance uneven, a return without its entry makes every file
 * a suspect.
 */
#include "pinned.h"

#define MAX_REMOTE_CALLS 16384

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_REMOTE_CALLS);
	__type(key, u64);   /* task */
	__type(value, u64); /* struct page **; 0: a call that is not long-term */
} remote_calls SEC(".maps");

/* long pin_user_pages_remote(mm, start, nr_pages, gup_flags, pages, vmas, locked) */
SEC("?kprobe/pin_user_pages_remote")
int remote_probe_entry(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_task();
	u64 pages = 0;

	if (is_longterm(ctx, ARGUMENT_3(ctx))) {
		pages = ARGUMENT_4(ctx);
		count_entry();
	}
	bpf_map_update_elem(&remote_calls, &task, &pages, BPF_ANY);
	return 0;
}

SEC("?kretprobe/pin_user_pages_remote")
int remote_probe_exit(struct pt_regs *ctx)
{
	u64 task = bpf_get_current_task();
	u64 *known = bpf_map_lookup_elem(&remote_calls, &task);
	u64 pages;

	if (!known) {
		suspect_all();
		return 0;
	}
	pages = *known;
	bpf_map_delete_elem(&remote_calls, &task);
	/* Most calls are not long-term. */
	if (!pages)
		return 0;
	enter_returned(ctx, 0, 0, pages, RETURNED(ctx));
	return 0;
}
