/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Level swapfile: what an active swap file answers, operation by operation. These programs are attached only
 * while somebody asks for the level; every write pays for them.
 */
#include "commands.h"
#include "notes.h"
#include "real.h"
#include "strict.h"

/* An operation that reads: a clone's source only asks for read permission. */
static __always_inline bool is_copied_from(u64 *ctx, long call)
{
	if (is_plain_io(call) || call == CALL_FALLOCATE || call == CALL_MADVISE)
		return false;
	return is_source_operation(ctx, call);
}

static __noinline int judge_strict_access(u64 *ctx, u64 inode)
{
	long call = system_call();
	struct act act = {
		.inode = inode,
		.operation = is_plain_io(call) ? OP_WRITE : OP_UNKNOWN,
		.detail = call,
		WHOLE_FILE,
	};

	if (!(ctx[1] & MAY_WRITE) && !is_copied_from(ctx, call))
		return 0;
	return is_strictly_refused(&act) ? -ETXTBSY : 0;
}

/*
 * int file_permission(struct file *file, int mask): C02, C03, C04, C06. Reads go on. For what is cloned from,
 * overlayfs asks again.
 */
SEC("?lsm/file_permission")
int strict_permission(u64 *ctx)
{
	u64 file = number(ctx, 0);
	u64 inode = ctx[1] & MAY_WRITE ? written_inode(file) : inode_of_file(file);

	if (!inode || is_surely_free(inode))
		return 0;
	return judge_strict_access(ctx, inode);
}

/* The holder of an explicit hold may map its file shared and writable: to register it, it must. */
static __always_inline bool is_holder(u64 inode)
{
	struct lent *lent = find_lent(inode);

	return lent && lent->swapfiles && has_token(lent->token);
}

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
	if (!(ctx[2] & PROT_WRITE) || !(ctx[3] & MAP_SHARED))
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

	if (!(ctx[2] & PROT_WRITE) || !(FIELD64(vma, struct vm_area_struct, vm_flags) & VM_SHARED))
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
	return answer_for_name(is_name_refused(number(ctx, 1), OP_UNLINK));
}

/* int inode_rename(old_dir, struct dentry *old, new_dir, struct dentry *new): C07 */
SEC("?lsm/inode_rename")
int strict_rename(u64 *ctx)
{
	return answer_for_name(is_name_refused(number(ctx, 1), OP_RENAME) ||
			       is_name_refused(number(ctx, 3), OP_RENAME));
}

/* Is this task in swapon(2)? */
static __always_inline bool is_in_swapon(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	if (task->thread_info.status & TS_COMPAT)
		return regs->orig_ax == 87;
	return (regs->orig_ax & ~(u64)X32_CALL) == 167;
}

/*
 * Does a program open a file for itself, or a kernel thread for somebody? Then each write asks. What any other call
 * opens (acct, a setting of nvmet's or LIO's, a core dump), the kernel writes to without asking.
 */
static __always_inline bool opens_for_a_program(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;
	long call;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return true;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	call = regs->orig_ax;
	/* io_uring_enter, openat2: the same in both tables */
	if (call == 426 || call == 437)
		return true;
	/* open, creat, openat, open_by_handle_at */
	if (task->thread_info.status & TS_COMPAT)
		return call == 5 || call == 8 || call == 295 || call == 342;
	return call == 2 || call == 85 || call == 257 || call == 304;
}

/*
 * int file_open(struct file *file): C06, C16. A swap file is opened by the call that activates it, and what the kernel
 * writes to by the call that tells it to.
 */
SEC("?lsm/file_open")
int strict_open(u64 *ctx)
{
	u64 file = number(ctx, 0);
	bool swaps = is_in_swapon();
	struct act act = {
		.operation = swaps ? OP_SWAPON : OP_UNKNOWN,
		.detail = swaps ? 0 : system_call(),
		WHOLE_FILE,
	};
	int answer = -ETXTBSY;

	if (!swaps &&
	    (!(FIELD32(file, struct file, f_mode) & FMODE_WRITE) || opens_for_a_program()))
		return 0;
	act.inode = inode_of_file(file);
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
	u64 file = FIELD64(number(ctx, 0), struct linux_binprm, file);

	act.inode = file ? inode_of_file(file) : 0;
	return is_strictly_refused(&act) ? -ETXTBSY : 0;
}

/*
 * int file_ioctl(struct file *file, unsigned int cmd, unsigned long arg): C06. The program that judges cannot wait for
 * the page that names a loop device's file; this one, attached after it, is called before it and can.
 */
SEC("?lsm.s/file_ioctl")
int strict_touch(u64 *ctx)
{
	u32 descriptor;

	if ((u32)ctx[1] == LOOP_CONFIGURE)
		bpf_copy_from_user(&descriptor, sizeof(descriptor), (void *)ctx[2]);
	return 0;
}
