/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Notes: the arguments of the operation that a task is in, which the LSM hook called inside it does
 * not get. A note can be missed (tracing programs may be suppressed) or be left over (so may their
 * exits), so whether the task is in the operation at all is read from its kernel stack; a missing note
 * then means "the whole file". A note serves once.
 */
#ifndef LONGPIN_NOTES_H
#define LONGPIN_NOTES_H

#include "kread.h"
#include "maps.h"

#define MAX_NOTES 16384
#define CALL_DEPTH 12

struct note {
	u64 file;
	u64 offset;
	u64 len;
	u32 mode;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH); /* what is left over goes first */
	__uint(max_entries, MAX_NOTES);
	__type(key, u64); /* task */
	__type(value, struct note);
} notes SEC(".maps");

static __always_inline bool take_note(u64 file, struct note *out)
{
	u64 task = bpf_get_current_task();
	struct note *note = bpf_map_lookup_elem(&notes, &task);

	if (!note || note->file != file)
		return false;
	*out = *note;
	bpf_map_delete_elem(&notes, &task);
	return true;
}

static __always_inline u64 inode_of_file(struct file *file)
{
	u64 mapping = 0;

	bpf_core_read(&mapping, sizeof(mapping), &file->f_mapping);
	return mapping ? FIELD64(mapping, struct address_space, host) : 0;
}

/* The system call that this task is in; -1 where its number says nothing about that. */
static __always_inline long system_call(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER) || task->thread_info.status & TS_COMPAT)
		return -1;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	return regs->orig_ax;
}

/*
 * Most calls of the write-permission hook come from the write system calls, which lead to vfs_fallocate
 * only inside drivers. Told without a look at the file or the stack.
 */
static __always_inline bool is_plain_write(void)
{
	switch (system_call()) {
	case 1:	  /* write */
	case 18:  /* pwrite64 */
	case 20:  /* writev */
	case 40:  /* sendfile */
	case 275: /* splice */
	case 296: /* pwritev */
	case 328: /* pwritev2 */
		return true;
	}
	return false;
}

/* An unreadable stack counts as yes: the file then decides, and only a pinned one is refused. */
static __noinline bool is_in_fallocate(void *ctx)
{
	u64 stack[CALL_DEPTH] = {};
	long call = system_call();
	int i;

	if (call == 285 /* fallocate */ || call == 28 /* madvise */)
		return true;
	if (bpf_get_stack(ctx, stack, sizeof(stack), 0) <= 0)
		return true;
	for (i = 0; i < CALL_DEPTH; i++)
		if (stack[i] > fallocate_start && stack[i] <= fallocate_end)
			return true;
	return false;
}

#endif
