/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Notes: the arguments of the operation that a task is in, which the LSM hook called inside it does
 * not get. A note can be missed (tracing programs may be suppressed) or be left over (so may their
 * exits), so whether the task is in such an operation at all is told by its system call or its kernel
 * stack; a missing note then means "the whole file". A note serves once for each of its files.
 */
#ifndef LONGPIN_NOTES_H
#define LONGPIN_NOTES_H

#include "arch.h"
#include "commands.h"
#include "maps.h"

#define MAX_NOTES 16384
#define CALL_DEPTH 12

struct note {
	u64 target; /* file that is changed; super block of a remount */
	u64 source; /* file that is read from, or 0 */
	u64 offset; /* in the target */
	u64 source_offset;
	u64 len; /* 0: to the end */
	u32 operation;
	u32 mode; /* of fallocate; whether a remount makes read-only */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); /* what is left over goes first */
	__uint(max_entries, MAX_NOTES);
	__type(key, u64); /* task */
	__type(value, struct note);
} notes SEC(".maps");

static __always_inline int write_note(const struct note *note)
{
	u64 task = bpf_get_current_task();

	if (state.mode != MODE_OFF)
		bpf_map_update_elem(&notes, &task, note, BPF_ANY);
	return 0;
}

static __always_inline int drop_note(void)
{
	u64 task = bpf_get_current_task();

	bpf_map_delete_elem(&notes, &task);
	return 0;
}

/* The note of an operation that changes this object; it is used up. */
static __always_inline bool take_note(u64 target, struct note *out)
{
	u64 task = bpf_get_current_task();
	struct note *note = bpf_map_lookup_elem(&notes, &task);

	if (!note || note->target != target)
		return false;
	*out = *note;
	/* Some file systems ask about one remount twice. */
	if (note->operation != OP_REMOUNT)
		note->target = 0;
	return true;
}

/* The note of an operation that reads from this file. */
static __always_inline bool take_source_note(u64 source, struct note *out)
{
	u64 task = bpf_get_current_task();
	struct note *note = bpf_map_lookup_elem(&notes, &task);

	if (!note || note->source != source)
		return false;
	*out = *note;
	note->source = 0;
	return true;
}

static __always_inline bool is_inside(u64 address)
{
	u32 i;

	for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (address > operations[i].start && address <= operations[i].end)
			return true;
	return false;
}

struct calls {
	u64 stack[CALL_DEPTH];
};

__noinline int is_any_inside(const struct calls *calls)
{
	u32 i;

	if (!calls)
		return true;
	for (i = 0; i < CALL_DEPTH; i++)
		if (is_inside(calls->stack[i]))
			return true;
	return false;
}

/*
 * Is the task in an operation that asks for permission and then does something else than read or write?
 * An unreadable stack counts as yes: the file then decides, and only a pinned one is refused.
 */
static __noinline bool is_in_operation(void *ctx, long call)
{
	struct calls calls = {};

	if (call == CALL_FALLOCATE || call == CALL_MADVISE || call == CALL_IOCTL ||
	    call == CALL_COPY_FILE_RANGE)
		return true;
	if (bpf_get_stack(ctx, calls.stack, sizeof(calls.stack), 0) <= 0)
		return true;
	return is_any_inside(&calls);
}

/* Is this task in the ioctl that sets flags? */
static __always_inline bool is_setting_flags(long call)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return call == CALL_IOCTL && command_layout((u32)second_argument(task)) == LAYOUT_FLAGS;
}

/*
 * The same of a file that is only read. Overlayfs copies a file up before it sets flags: there the stack says whether it
 * clones or reads.
 */
static __always_inline bool is_source_operation(void *ctx, long call)
{
	return is_in_operation(ctx, is_setting_flags(call) ? CALL_UNKNOWN : call);
}

#endif
