/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who else may write to a file that is to be held: the inode is asked, on behalf of the user side
 * (BPF_PROG_TEST_RUN, by one command at a time). It knows mappings and open files of all namespaces, of processes
 * whose main thread has ended, and of the kernel itself.
 *
 * Nothing is locked. The kernel's counts say whether all that they count was met.
 */
#include "intervals.h"
#include "explicit.h"
#include "real.h"

#define MAPPING_STEPS (1 << 20)
#define TASK_STEPS (1 << 20)

static __always_inline struct answer *answer_in_hand(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&answers, &zero);
}

/* Signed numbers of 32 bits. */
static __always_inline s64 count_at(u64 address)
{
	return (s64)(int)load32(address);
}

static __always_inline s64 count_shared(u64 inode)
{
	u64 mapping = FIELD64(inode, struct inode, i_mapping);

	return count_at(ADDRESS_OF(mapping, struct address_space, i_mmap_writable.counter));
}

static __always_inline s64 count_writers(u64 inode)
{
	return count_at(ADDRESS_OF(inode, struct inode, i_writecount.counter));
}

/*
 * An open file that may write to this inode is counted once, wherever it is met. Overlayfs and FUSE have one of their
 * own for each that is open.
 */
static __noinline int note_opening(struct answer *answer, u64 file)
{
	u32 one = 1, i;

	for (i = 0; i < OVERLAY_DEPTH && file && answer; i++) {
		if (FIELD64(file, struct file, f_inode) == answer->inode)
			break;
		file = opened_behind(file);
	}
	if (!answer || !file || FIELD64(file, struct file, f_inode) != answer->inode ||
	    !(FIELD32(file, struct file, f_mode) & FMODE_WRITER))
		return 0;
	if (!bpf_map_update_elem(&openings, &file, &one, BPF_NOEXIST))
		answer->openings++;
	return 0;
}

static __noinline int name_mapper(struct mapper *mapper, u64 vma)
{
	u64 mm = FIELD64(vma, struct vm_area_struct, vm_mm);
	u64 task = FIELD64(mm, struct mm_struct, owner), leader;

	if (!mapper)
		return 0;
	mapper->tgid = 0;
	mapper->comm[0] = 0;
	if (!task)
		return 0;
	leader = FIELD64(task, struct task_struct, group_leader);
	mapper->tgid = FIELD32(task, struct task_struct, tgid);
	bpf_probe_read_kernel_str(mapper->comm, sizeof(mapper->comm),
				  (void *)ADDRESS_OF(leader, struct task_struct, comm));
	return 0;
}

static __noinline int note_mapping(struct answer *answer, u64 vma)
{
	u64 flags = FIELD64(vma, struct vm_area_struct, vm_flags), n;

	if (!answer)
		return 0;
	note_opening(answer, FIELD64(vma, struct vm_area_struct, vm_file));
	if (!(flags & VM_SHARED))
		return 0;
	if (flags & VM_MAYWRITE)
		answer->seen++;
	else
		answer->seen_sealed++;
	if (!(flags & VM_WRITE))
		return 0;
	n = answer->mappers++;
	if (n < MAX_MAPPERS)
		name_mapper(&answer->mapper[n & (MAX_MAPPERS - 1)], vma);
	return 0;
}

#define MAPPING_NODE bpf_core_field_offset(((struct vm_area_struct *)0)->shared.rb)
#define LINK(vma, field) FIELD64(vma, struct vm_area_struct, shared.rb.field)

static __always_inline u64 to_mapping(u64 node)
{
	return node ? node - MAPPING_NODE : 0;
}

static __always_inline void climb_mappings(struct answer *answer)
{
	u64 parent = to_mapping(LINK(answer->at, __rb_parent_color) & ~3ULL);

	answer->direction = UP;
	if (parent && to_mapping(LINK(parent, rb_left)) == answer->at)
		answer->direction = VISIT;
	answer->at = parent;
}

static __always_inline void enter_mapping(struct answer *answer, u64 child)
{
	answer->at = child;
	answer->direction = DOWN;
}

/* In order of the tree: what is left of a mapping, itself, what is right of it. */
static long step_mapping(u32 i, struct answer **in_hand)
{
	struct answer *answer = *in_hand;
	u64 child;

	if (!answer->at) {
		answer->finished = 1;
		return 1;
	}
	if (answer->direction == UP) {
		climb_mappings(answer);
		return 0;
	}
	if (answer->direction == DOWN) {
		child = to_mapping(LINK(answer->at, rb_left));
		if (child)
			enter_mapping(answer, child);
		else
			answer->direction = VISIT;
		return 0;
	}
	note_mapping(answer, answer->at);
	child = to_mapping(LINK(answer->at, rb_right));
	if (child)
		enter_mapping(answer, child);
	else
		climb_mappings(answer);
	return 0;
}

/* A global function: the verifier takes `answer` for memory, instead of following it round the loop. */
__noinline int look_at_mappings(struct answer *answer)
{
	u64 mapping;

	if (!answer)
		return 0;
	mapping = FIELD64(answer->inode, struct inode, i_mapping);
	enter_mapping(answer,
		      to_mapping(FIELD64(mapping, struct address_space, i_mmap.rb_root.rb_node)));
	bpf_loop(MAPPING_STEPS, step_mapping, &answer, 0);
	return 0;
}

static const struct answer no_answer;

/* ask_inode(inode): who maps it, how many may write. `answers` has the answer; `openings` must be empty. */
SEC("raw_tp")
int ask_inode(u64 *ctx)
{
	struct answer *answer;
	u32 zero = 0;

	bpf_map_update_elem(&answers, &zero, &no_answer, BPF_ANY);
	answer = answer_in_hand();
	if (!answer)
		return -ENOENT;
	answer->inode = ctx[0];
	answer->shared = count_shared(answer->inode);
	answer->flags = FIELD32(answer->inode, struct inode, i_flags);
	look_at_mappings(answer);
	answer->shared_after = count_shared(answer->inode);
	answer->writers = count_writers(answer->inode);
	return 0;
}

static long look_at_opening(u32 i, struct answer **in_hand)
{
	struct answer *answer = *in_hand;

	note_opening(answer, load64(answer->at + (u64)i * 8));
	return 0;
}

/* The descriptors of a task; threads that share a table share its address. */
static __noinline int look_at_table(struct answer *answer, u64 files)
{
	u64 table;
	u32 count;

	if (!answer)
		return 0;
	table = FIELD64(files, struct files_struct, fdt);
	count = FIELD32(table, struct fdtable, max_fds);
	answer->at = FIELD64(table, struct fdtable, fd);
	answer->files = files;
	bpf_loop(count < MAX_DESCRIPTORS ? count : MAX_DESCRIPTORS, look_at_opening, &answer, 0);
	return 0;
}

#define NEXT_IN(address, field)                             \
	(FIELD64(address, struct task_struct, field.next) - \
	 bpf_core_field_offset(((struct task_struct *)0)->field))

/* The next thread of the process, or the first of the next process. */
static __always_inline u64 task_after(u64 task)
{
	u64 signal = FIELD64(task, struct task_struct, signal);
	u64 next = FIELD64(task, struct task_struct, thread_node.next);

	if (next && next != ADDRESS_OF(signal, struct signal_struct, thread_head))
		return next - bpf_core_field_offset(((struct task_struct *)0)->thread_node);
	return NEXT_IN(FIELD64(task, struct task_struct, group_leader), tasks);
}

static long step_task(u32 i, struct answer **in_hand)
{
	struct answer *answer = *in_hand;
	u64 files;

	answer->task = task_after(answer->task);
	if (answer->task == init_task) {
		answer->finished = 1;
		return 1;
	}
	files = FIELD64(answer->task, struct task_struct, files);
	if (files && files != answer->files)
		look_at_table(answer, files);
	return 0;
}

__noinline int look_at_tasks(struct answer *answer)
{
	if (!answer)
		return 0;
	answer->task = init_task;
	answer->finished = 0;
	bpf_loop(TASK_STEPS, step_task, &answer, 0);
	return 0;
}

/* count_openings(): after `ask_inode`, the open files in the tables of all tasks, of all namespaces. */
SEC("raw_tp")
int count_openings(u64 *ctx)
{
	struct answer *answer = answer_in_hand();

	if (!answer || !answer->inode)
		return -ENOENT;
	look_at_tasks(answer);
	answer->writers = count_writers(answer->inode);
	return 0;
}
