/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Notes: the arguments of the operation that a task is in, which the LSM hook called inside it does
 * not get. A note can be missed (tracing programs may be suppressed) or be left over (so may their
 * exits), so whether the task is in such an operation at all is told by its system call or its kernel
 * stack; a missing note then means "the whole file". A note serves once for each of its files.
 */
#ifndef LONGPIN_NOTES_H
#define LONGPIN_NOTES_H

#include "commands.h"
#include "kread.h"
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

/* System calls of x86-64. */
enum call {
	CALL_UNKNOWN = -1, /* the number says nothing: a kernel thread */
	CALL_WRITES = -2,
	CALL_IOCTL = 16,
	CALL_MADVISE = 28,
	CALL_FALLOCATE = 285,
	CALL_COPY_FILE_RANGE = 326,
};

/* A 64-bit program with pointers of 32 bits; from 512 on calls have numbers of its own. */
#define X32_CALL 0x40000000
#define X32_OWN 512
#define X32_IOCTL 514

/* 32-bit programs number calls otherwise. Those that are no operations for sure are told by the stack. */
static __always_inline long call_of_32_bit(u64 number)
{
	switch (number) {
	case 54:
		return CALL_IOCTL;
	case 219:
		return CALL_MADVISE;
	case 324:
		return CALL_FALLOCATE;
	case 377:
		return CALL_COPY_FILE_RANGE;
	}
	return CALL_UNKNOWN;
}

static __always_inline long call_of_x32(u64 number)
{
	if (number == X32_IOCTL)
		return CALL_IOCTL;
	return number < X32_OWN ? (long)number : CALL_UNKNOWN;
}

/* The system call that this task is in, by its number on x86-64. */
static __always_inline long system_call(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return CALL_UNKNOWN;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (task->thread_info.status & TS_COMPAT)
		return call_of_32_bit((u32)regs->orig_ax);
	if (regs->orig_ax & X32_CALL)
		return call_of_x32((u32)regs->orig_ax & ~X32_CALL);
	return regs->orig_ax;
}

/*
 * Most calls of the permission hook come from the read and write system calls, which lead to one of the
 * operations only inside drivers. Told without a look at the file or the stack.
 */
static __always_inline bool is_plain_io(long call)
{
	switch (call) {
	case 0:	  /* read */
	case 1:	  /* write */
	case 17:  /* pread64 */
	case 18:  /* pwrite64 */
	case 19:  /* readv */
	case 20:  /* writev */
	case 40:  /* sendfile */
	case 275: /* splice */
	case 295: /* preadv */
	case 296: /* pwritev */
	case 327: /* preadv2 */
	case 328: /* pwritev2 */
		return true;
	}
	return false;
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
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	u32 command = task->thread_info.status & TS_COMPAT ? regs->cx : regs->si;

	command &= 0xffff;
	return call == CALL_IOCTL && command_layout(command) == LAYOUT_FLAGS;
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
