/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Level swapfile: what an active swap file answers and level layout does not ask about. While nobody asks for the level
 * each costs a load. Of writes, sizes and commands the programs of level layout know.
 */
#include "leaving.h"
#include "real.h"
#include "strict.h"

static __noinline int judge_mapping(u64 file, u32 operation)
{
	struct act act = { .operation = operation, WHOLE_FILE };

	if (!file)
		return 0;
	act.inode = written_inode(file);
	if (!act.inode || is_surely_free(act.inode) || is_holder(act.inode))
		return 0;
	return is_strictly_refused(&act) ? -ETXTBSY : 0;
}

/* int mmap_file(struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags): C06 */
SEC("?lsm/mmap_file")
int strict_mmap(u64 *ctx)
{
	if (!state.strict || !(ctx[2] & PROT_WRITE) || !(ctx[3] & MAP_SHARED))
		return 0;
	return judge_mapping(number(ctx, 0), OP_MMAP);
}

/*
 * int file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot): C06. Of a swap file
 * the kernel allows it, and the store gets SIGBUS.
 */
SEC("?lsm/file_mprotect")
int strict_mprotect(u64 *ctx)
{
	u64 vma = number(ctx, 0);

	if (!state.strict || !(ctx[2] & PROT_WRITE) ||
	    !(FIELD64(vma, struct vm_area_struct, vm_flags) & VM_SHARED))
		return 0;
	return judge_mapping(FIELD64(vma, struct vm_area_struct, vm_file), OP_MPROTECT);
}

/* The file that a name leads to, if any. */
static __noinline bool is_name_refused(u64 dentry, u32 operation)
{
	struct act act = { .operation = operation, WHOLE_FILE };

	act.inode = FIELD64(dentry, struct dentry, d_inode);
	return is_strictly_refused(&act);
}

/*
 * -EPERM or 0. Clang makes a negation of it, of which older verifiers do not know that it is one of the two: keep the
 * number from it.
 */
static __always_inline int answer_for_name(bool refused)
{
	int answer = -EPERM;

	barrier_var(answer);
	return refused ? answer : 0;
}

/* int inode_unlink(struct inode *dir, struct dentry *dentry): C07 */
SEC("?lsm/inode_unlink")
int strict_unlink(u64 *ctx)
{
	return answer_for_name(state.strict && is_name_refused(number(ctx, 1), OP_UNLINK));
}

/* Two places change names by renameat2, and none goes. */
static __always_inline bool is_exchange(void)
{
	return IS_IN_RENAMEAT2() && fifth_argument(bpf_get_current_task_btf()) & RENAME_EXCHANGE;
}

/*
 * int inode_rename(old_dir, struct dentry *old, new_dir, struct dentry *new): C07, C08. What is renamed over goes, with
 * what is mounted there elsewhere.
 */
SEC("?lsm/inode_rename")
int inode_rename(u64 *ctx)
{
	u64 old = number(ctx, 1), new = number(ctx, 3);

	if (state.strict && (is_name_refused(old, OP_RENAME) || is_name_refused(new, OP_RENAME)))
		return answer_for_name(true);
	if (!may_be_mountpoint(new) || !is_armed() || is_exchange())
		return 0;
	return judge_place(new);
}

#define OPEN_DEPTH 24 /* an overlay's file opens one behind it, whose opening is deep down */

/* Is the task in one of the functions that open files for programs? A stack that cannot be read says no. */
static __noinline bool is_in_opener(void *ctx)
{
	u64 stack[OPEN_DEPTH] = {};
	u32 i, k;

	if (bpf_get_stack(ctx, stack, sizeof(stack), 0) <= 0)
		return false;
	for (i = 0; i < OPEN_DEPTH; i++)
		for (k = 0; k < sizeof(openers) / sizeof(openers[0]); k++)
			if (stack[i] > openers[k].start && stack[i] <= openers[k].end)
				return true;
	return false;
}

/*
 * Does a program open a file for itself, or a kernel thread for somebody? Then each write asks. What any other call
 * opens (acct, a setting of nvmet's or LIO's, a core dump), the kernel writes to without asking. By io_uring a program
 * may open a file, or write such a setting; reading from fanotify opens the file of each event.
 */
static __always_inline bool opens_for_a_program(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (task->flags & PF_KTHREAD)
		return true;
	if (task->flags & PF_IO_WORKER)
		return is_in_opener(ctx);
	return is_opening(task) || is_in_opener(ctx);
}

/*
 * int file_open(struct file *file): C06, C16. A swap file is opened by the call that activates it, and what the kernel
 * writes to by the call that tells it to.
 */
SEC("?lsm/file_open")
int strict_open(u64 *ctx)
{
	struct act act = { .operation = OP_SWAPON, WHOLE_FILE };
	u64 file = number(ctx, 0);
	int answer = -ETXTBSY;
	bool swaps;

	if (!state.strict)
		return 0;
	swaps = IS_IN_SWAPON();
	if (!swaps && !(FIELD32(file, struct file, f_mode) & FMODE_WRITE))
		return 0;
	act.inode = inode_of_file(file);
	if (!act.inode || is_surely_free(act.inode) || (!swaps && opens_for_a_program(ctx)))
		return 0;
	if (!swaps) {
		act.operation = OP_UNKNOWN;
		act.detail = system_call();
	}
	if (!is_strictly_refused(&act))
		return 0;
	if (swaps)
		answer = -EBUSY;
	barrier_var(answer);
	return answer;
}

/* int bprm_check_security(struct linux_binprm *bprm): C16 */
SEC("?lsm/bprm_check_security")
int strict_exec(u64 *ctx)
{
	struct act act = { .operation = OP_EXEC, WHOLE_FILE };
	u64 file;

	if (!state.strict)
		return 0;
	file = FIELD64(number(ctx, 0), struct linux_binprm, file);
	act.inode = file ? inode_of_file(file) : 0;
	return is_strictly_refused(&act) ? -ETXTBSY : 0;
}

/*
 * int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg): C06. The program that judges cannot wait for
 * the page that names a loop device's file; this one, which is attached after it, is called before it and can.
 */
SEC("?lsm.s/file_ioctl")
int strict_touch(u64 *ctx)
{
	u32 descriptor;

	if (state.strict && (u32)ctx[1] == LOOP_CONFIGURE)
		bpf_copy_from_user(&descriptor, sizeof(descriptor), (void *)ctx[2]);
	return 0;
}
