/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs by architecture, all of it: registers, the numbers of system calls and the marks of 32-bit programs, flags
 * of open, where struct pages lie, the size of a page. x86-64; another one is another file like this. On the user side
 * longpin-linux's arch.rs.
 */
#ifndef LONGPIN_ARCH_H
#define LONGPIN_ARCH_H

#include "kread.h"

#define O_DIRECT 040000

/* Set at the start. The verifier knows it as a number. */
const volatile u32 page_shift = 12;
#define PAGE_SHIFT page_shift
#define PAGE_SIZE (1UL << PAGE_SHIFT)

/* The array of all struct pages begins where this kernel variable says. */
const volatile u64 vmemmap_base;
/* The kernel maps struct pages for so many bytes of memory at once: where the first has none, none has. */
#define SUBSECTION_SHIFT 21

static __always_inline u64 first_struct_page(void)
{
	return load64(vmemmap_base);
}

struct pt_regs {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long cx;
	unsigned long r8;
	unsigned long r9;
	unsigned long ax;
	unsigned long sp;
	unsigned long orig_ax;
} KERNEL_TYPE;

#define REGISTER(regs, name) FIELD64((u64)(regs), struct pt_regs, name)

/* A kernel function's arguments, where it was entered, and what it returned. */
#define ARGUMENT_3(regs) REGISTER(regs, cx)
#define ARGUMENT_4(regs) REGISTER(regs, r8)
#define RETURNED(regs) REGISTER(regs, ax)

/* Of `thread_info.status`: in a system call of a 32-bit program. */
#define TS_COMPAT 0x0002
/* A 64-bit program with pointers of 32 bits; from 512 on calls have numbers of its own. */
#define X32_CALL 0x40000000
#define X32_OWN 512
#define X32_IOCTL 514

/* System calls: what programs and events call them, whoever makes them. */
enum call {
	CALL_UNKNOWN = -1, /* the number says nothing: a kernel thread */
	CALL_WRITES = -2,
	CALL_IOCTL = 16,
	CALL_MADVISE = 28,
	CALL_FALLOCATE = 285,
	CALL_COPY_FILE_RANGE = 326,
};

/* Where the calling program's registers are kept. */
static __always_inline struct pt_regs *registers_of(struct task_struct *task)
{
	return (struct pt_regs *)bpf_task_pt_regs(task);
}

static __always_inline bool is_32_bit(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

/* What tells the call that a task is in from others; of registers that may be another task's. */
static __always_inline u64 call_by(u64 registers)
{
	return REGISTER(registers, orig_ax);
}

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

/* The system call that this task is in. */
static __always_inline long system_call(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return CALL_UNKNOWN;
	regs = registers_of(task);
	if (is_32_bit(task))
		return call_of_32_bit((u32)regs->orig_ax);
	if (regs->orig_ax & X32_CALL)
		return call_of_x32((u32)regs->orig_ax & ~X32_CALL);
	return regs->orig_ax;
}

/* Is this task in a system call of which system_call() tells no name? By its number in the table of 32-bit programs, or else. */
static __always_inline bool is_in_call(u64 number, u64 number_of_32_bit)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	regs = registers_of(task);
	if (is_32_bit(task))
		return regs->orig_ax == number_of_32_bit;
	return (regs->orig_ax & ~(u64)X32_CALL) == number;
}

#define IS_IN_RENAMEAT2() is_in_call(316, 353)
#define IS_IN_SWAPON() is_in_call(167, 87)

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

/* Is this task, which is a program's, in a call that opens a file for it, by name or handle? */
static __always_inline bool is_opening(struct task_struct *task)
{
	long call = registers_of(task)->orig_ax;

	/* openat2: the same in both tables */
	if (call == 437)
		return true;
	/* open, creat, openat, open_by_handle_at */
	return is_32_bit(task) ? call == 5 || call == 8 || call == 295 || call == 342
			       : call == 2 || call == 85 || call == 257 || call == 304;
}

/* The second, third and fifth argument of the system call that this task, which is a program's, is in. */
static __always_inline u64 second_argument(struct task_struct *task)
{
	struct pt_regs *regs = registers_of(task);

	return is_32_bit(task) ? regs->cx : regs->si;
}

static __always_inline u32 third_argument(struct task_struct *task)
{
	/* In 32-bit programs, too; the upper half may be anything then. */
	return registers_of(task)->dx;
}

static __always_inline u64 fifth_argument(struct task_struct *task)
{
	struct pt_regs *regs = registers_of(task);

	return is_32_bit(task) ? regs->di : regs->r8;
}

#endif
