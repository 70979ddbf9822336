/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C11: on-demand regions, which hold nothing and refuse nobody. Nothing here decides; it notes for `ls` and
 * `watch`.
 *
 * Why the core of the kernel and not the drivers: every driver's callback is a static function of a module that
 * may be loaded after the guard started, while all of them are called from
 * __mmu_notifier_invalidate_range_start. That one is called for processes with notifiers only, and a virtual
 * machine monitor has notifiers of another kind: it pays for three loads.
 *
 * Why at its exit: while an interval is being invalidated the kernel keeps the tree as it is, which begins inside
 * the function; and a call that was given up (it may not sleep) has taken nothing back.
 */
#include "intervals.h"
#include "notes.h"

#define MAX_MET 1024 /* regions of one call */
#define TOLD_A_SECOND 8
#define ALL_TOLD_A_SECOND 32 /* of all regions: the ring is for holds and refusals, too */
#define SECOND 1000000000
#define MAX_ROWS_OF_TASK 256 /* what the kernel's buffer has room for */
#define MAX_GAPS 65536

/* int mmu_interval_notifier_insert(interval_sub, mm, start, length, ops), which may fail */
SEC("?fexit/mmu_interval_notifier_insert")
int mmu_interval_notifier_insert_exit(u64 *ctx)
{
	u64 interval = number(ctx, 0), mm = number(ctx, 1);
	struct place place = { .mm = mm, .address = ctx[2] };
	struct region region = {};

	if (!is_recording() || (int)ctx[5])
		return 0;
	find_place(&place);
	/* Memory of no file would only fill the table. */
	if (!place.inode)
		return 0;
	region.mm = mm;
	region.start = ctx[2];
	region.last = ctx[2] + ctx[3] - 1;
	region.since = bpf_ktime_get_boot_ns();
	region.inode = place.inode;
	region.first = place.first;
	region.end = place.end;
	region.file = identify(place.inode);
	region.tgid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(region.comm, sizeof(region.comm));
	bpf_map_update_elem(&regions, &interval, &region, BPF_ANY);
	return 0;
}

/*
 * void mmu_interval_notifier_remove(interval_sub). At its exit: an invalidation that is under way keeps the interval in the
 * tree until then, and might note it again.
 */
SEC("?fexit/mmu_interval_notifier_remove")
int mmu_interval_notifier_remove_exit(u64 *ctx)
{
	u64 interval = number(ctx, 0);

	bpf_map_delete_elem(&regions, &interval);
	return 0;
}

/* A region that is older than the guard, or whose beginning was missed. */
static __noinline struct region *adopt_region(u64 interval)
{
	struct region region = {
		.mm = FIELD64(interval, struct mmu_interval_notifier, mm),
		.start = INTERVAL(interval, start),
		.last = INTERVAL(interval, last),
	};
	u64 task;

	if (bpf_core_field_exists(((struct mm_struct *)0)->owner)) {
		task = FIELD64(region.mm, struct mm_struct, owner);
		region.tgid = FIELD32(task, struct task_struct, tgid);
		bpf_probe_read_kernel_str(region.comm, sizeof(region.comm),
					  (void *)ADDRESS_OF(task, struct task_struct, comm));
	}
	bpf_map_update_elem(&regions, &interval, &region, BPF_ANY);
	return bpf_map_lookup_elem(&regions, &interval);
}

struct teardown {
	struct interval_walk walk;
	u64 mm;
	u64 inode;
	u64 first; /* page indexes in the file */
	u64 last;
	u64 untold;
	u32 notice;
	u32 pad;
	u64 stack[STACK_DEPTH];
};

/* By which operation: the note of a fallocate or the like, or the system call. */
static __always_inline void tell_cause(struct event *event)
{
	u64 task = bpf_get_current_task();
	struct note *note = bpf_map_lookup_elem(&notes, &task);
	long call = system_call();

	event->operation = OP_TEARDOWN;
	event->detail = call;
	if (!note || note->operation == OP_REMOUNT)
		return;
	if (call == CALL_UNKNOWN || call == CALL_FALLOCATE || call == CALL_MADVISE ||
	    call == CALL_IOCTL || call == CALL_COPY_FILE_RANGE) {
		event->operation = note->operation;
		event->detail = note->mode;
	}
}

static __noinline int tell_of_teardown(const struct teardown *torn, const struct region *region)
{
	struct event *event;
	u64 number;

	event = begin_event(&number);
	if (!event)
		return 0;
	event->kind = EVENT_TORN;
	tell_cause(event);
	event->tgid = bpf_get_current_pid_tgid() >> 32;
	event->uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->inode = torn->inode;
	event->file = identify(torn->inode);
	read_short_name(torn->inode, event->name);
	event->first = torn->first;
	event->last = torn->last;
	event->page = torn->first;
	event->row = 0;
	event->verdict = 0;
	event->notice = torn->notice;
	event->untold = torn->untold;
	event->owner = region->tgid;
	__builtin_memcpy(event->owner_comm, region->comm, sizeof(event->owner_comm));
	__builtin_memcpy(event->stack, torn->stack, sizeof(event->stack));
	finish_event(event, number);
	return 0;
}

/*
 * Not more than a few a second: write-back and reclaim come page by page. Counted apart by process and notice, or the
 * write-back that a punch begins with would hide the punch.
 */
static __always_inline bool is_told(struct region *region, u32 notice)
{
	u64 second = bpf_ktime_get_boot_ns() / SECOND;
	struct budget *budget;
	u32 zero = 0;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u32 slot = (tgid ^ tgid >> 3 ^ notice << 1) & (TOLD_SLOTS - 1);

	if (region->second != second) {
		region->second = second;
		*(u64 *)region->told = 0;
	}
	budget = bpf_map_lookup_elem(&budgets, &zero);
	if (!budget)
		return false;
	if (budget->second != second) {
		budget->second = second;
		budget->told = 0;
	}
	if (region->told[slot] >= TOLD_A_SECOND || budget->told >= ALL_TOLD_A_SECOND) {
		__sync_fetch_and_add(&region->untold, 1);
		return false;
	}
	region->told[slot]++;
	__sync_fetch_and_add(&budget->told, 1);
	return true;
}

/*
 * Which file lies there? munmap takes the mapping away before it asks for the pages: then it is the file that the
 * region began with.
 */
static __noinline bool find_torn_file(struct teardown *torn, const struct region *region, u64 start,
				      u64 last)
{
	struct place place = { .mm = torn->mm, .address = start };
	struct file_identity now;

	find_place(&place);
	torn->inode = place.inode;
	torn->first = place.first;
	/* One event for each region: of several mappings the first one is told. */
	if (place.inode && place.end - 1 < last)
		last = place.end - 1;
	if (!place.inode && torn->notice == MMU_NOTIFY_UNMAP && region && region->inode &&
	    start < region->end) {
		now = identify(region->inode);
		if (!same_file(&region->file, &now))
			return false;
		torn->inode = region->inode;
		torn->first = region->first + ((start - region->start) >> PAGE_SHIFT);
	}
	torn->last = torn->first + ((last - start) >> PAGE_SHIFT);
	return torn->inode != 0;
}

/* A global function: the verifier takes `torn` for memory. */
__noinline int tell_region(struct teardown *torn)
{
	struct region *region;
	u64 start, last;

	if (!torn)
		return 0;
	region = find_region(torn->walk.found);
	start = INTERVAL(torn->walk.found, start);
	if (start < torn->walk.first)
		start = torn->walk.first;
	last = INTERVAL(torn->walk.found, last);
	if (last > torn->walk.last)
		last = torn->walk.last;
	if (!find_torn_file(torn, region, start, last))
		return 0;
	if (!region)
		region = adopt_region(torn->walk.found);
	if (!region) {
		__sync_fetch_and_add(&state.rows_lost, 1);
		return 0;
	}
	__sync_fetch_and_add(&region->torn, 1);
	if (!is_told(region, torn->notice))
		return 0;
	torn->untold = __sync_lock_test_and_set(&region->untold, 0);
	return tell_of_teardown(torn, region);
}

static long tell_next(u32 i, struct teardown *torn)
{
	next_interval(&torn->walk);
	if (!torn->walk.found)
		return 1;
	tell_region(torn);
	return 0;
}

/* int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range) */
SEC("?fexit/__mmu_notifier_invalidate_range_start")
int __mmu_notifier_invalidate_range_start_exit(u64 *ctx)
{
	u64 range = number(ctx, 0), subscriptions;
	struct teardown torn = {};

	if (!is_recording() || (int)ctx[1])
		return 0;
	torn.mm = FIELD64(range, struct mmu_notifier_range, mm);
	subscriptions = subscriptions_of(torn.mm);
	/* Odd: an interval is being invalidated. */
	if (!(FIELD64(subscriptions, struct mmu_notifier_subscriptions, invalidate_seq) & 1))
		return 0;
	/* The process ends, and its regions with it. */
	if (!FIELD32(torn.mm, struct mm_struct, mm_users.counter))
		return 0;
	torn.walk.first = FIELD64(range, struct mmu_notifier_range, start);
	torn.walk.last = FIELD64(range, struct mmu_notifier_range, end) - 1;
	torn.notice = FIELD32(range, struct mmu_notifier_range, event);
	begin_walk(&torn.walk, subscriptions);
	bpf_get_stack(ctx, torn.stack, sizeof(torn.stack), 0);
	bpf_loop(MAX_MET, tell_next, &torn, 0);
	return 0;
}

struct listing {
	struct interval_walk walk;
	u64 interval; /* in hand; 0: the next one */
	u64 address;  /* where to go on in it */
	struct region_row row;
};

static __always_inline u64 invalidate_of(u64 interval)
{
	u64 ops = FIELD64(interval, struct mmu_interval_notifier, ops);
	u64 code = FIELD64(ops, struct mmu_interval_notifier_ops, invalidate);

	if (!code && bpf_core_field_exists(
			     ((struct mmu_interval_notifier_ops___start *)0)->invalidate_start))
		code = FIELD64(ops, struct mmu_interval_notifier_ops___start, invalidate_start);
	return code;
}

static __noinline int fill_region_row(struct region_row *row, u64 interval)
{
	struct region *region = find_region(interval);

	row->subscription = interval;
	row->invalidate = invalidate_of(interval);
	row->since = region ? region->since : 0;
	row->torn = region ? region->torn : 0;
	return 0;
}

/* One mapping, or one gap between mappings, of the region in hand. */
static long look_further(u32 i, struct listing **in_hand)
{
	struct listing *list = *in_hand;
	struct place place = {};
	u64 last;

	if (!list->interval) {
		next_interval(&list->walk);
		list->interval = list->walk.found;
		if (!list->interval)
			return 1;
		list->address = INTERVAL(list->interval, start);
	}
	last = INTERVAL(list->interval, last);
	place.mm = FIELD64(list->interval, struct mmu_interval_notifier, mm);
	place.address = list->address;
	find_place(&place);
	if (place.inode) {
		list->row.inode = place.inode;
		list->row.file = identify(place.inode);
		list->row.first = place.first;
		list->row.start = list->address;
		list->row.end = place.end - 1 < last ? place.end : last + 1;
		fill_region_row(&list->row, list->interval);
	}
	list->address = place.end;
	if (place.end - 1 >= last)
		list->interval = 0;
	return place.inode != 0;
}

/* `row.inode` is 0 when there are no more. */
__noinline int next_row(struct listing *list)
{
	if (!list)
		return 0;
	list->row.inode = 0;
	bpf_loop(MAX_GAPS, look_further, &list, 0);
	return 0;
}

static __always_inline void describe_owner(struct region_row *row, u64 task)
{
	u64 cred = FIELD64(task, struct task_struct, cred);

	row->tgid = FIELD32(task, struct task_struct, tgid);
	row->uid = FIELD32(cred, struct cred, fsuid.val);
	bpf_probe_read_kernel_str(row->comm, sizeof(row->comm),
				  (void *)ADDRESS_OF(task, struct task_struct, comm));
}

struct output {
	struct listing list;
	struct seq_file *seq;
};

static long write_row(u32 i, struct output *output)
{
	struct listing *list = &output->list;

	next_row(list);
	/* Given up among memory of no file: a row that says no more than that. */
	list->row.cut = i == MAX_ROWS_OF_TASK - 1 ||
			(!list->row.inode && (list->interval || list->walk.at));
	if (list->row.inode || list->row.cut)
		bpf_seq_write(output->seq, &list->row, sizeof(list->row));
	return !list->row.inode;
}

/*
 * list_regions: of each process, the files in its on-demand regions. The tree may change meanwhile: what begins or
 * ends at this moment may be missing. A process is looked at by its first thread, or by all if that has ended.
 */
SEC("?iter/task")
int list_regions(struct bpf_iter__task *ctx)
{
	struct task_struct *found = ctx->task;
	struct output output = { .list.walk.last = ~0ULL, .seq = ctx->meta->seq };
	u64 task = (u64)found, leader, subscriptions;

	if (!found)
		return 0;
	leader = FIELD64(task, struct task_struct, group_leader);
	if (FIELD32(task, struct task_struct, pid) != FIELD32(task, struct task_struct, tgid) &&
	    FIELD64(leader, struct task_struct, mm))
		return 0;
	subscriptions = subscriptions_of(FIELD64(task, struct task_struct, mm));
	if (!subscriptions)
		return 0;
	describe_owner(&output.list.row, task);
	begin_walk(&output.list.walk, subscriptions);
	bpf_loop(MAX_ROWS_OF_TASK, write_row, &output, 0);
	return 0;
}
