/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The pin functions, at entry and exit: hints (C09). At exit the pages are pinned and the driver has
 * not yet seen them, so the file is a suspect before the device can use it. Only FOLL_LONGTERM calls
 * count: direct I/O and process_vm_readv pin for a moment and are none of ours (C14).
 */
#include "pinned.h"

static __always_inline u64 argument(void *ctx, u32 n)
{
	u64 value = 0;

	bpf_get_func_arg(ctx, n, &value);
	return value;
}

static __always_inline int pin_begins(void *ctx, u32 flags_argument)
{
	if (is_longterm(ctx, argument(ctx, flags_argument)))
		count_entry();
	return 0;
}

#define KERNEL_TEXT 0xffffffff80000000ULL

/*
 * Who called the function, from the frame of its trampoline: above the arguments lie the return value, the
 * frame pointer, the address in the function, and its own return address. Cheaper than unwinding; what is no
 * address of code is left out.
 */
static __always_inline u64 caller_of(u64 *ctx, u32 arguments)
{
	u64 address = number(ctx, arguments + 3);

	return address > KERNEL_TEXT ? address : 0;
}

static __always_inline int pin_ends(u64 *ctx, u32 arguments, u32 flags_argument, u32 pages_argument,
				    bool remote)
{
	u64 start = remote ? 0 : argument(ctx, 0);
	u64 returned = 0;

	if (!is_longterm(ctx, argument(ctx, flags_argument)))
		return 0;
	bpf_get_func_ret(ctx, &returned);
	enter_returned(ctx, caller_of(ctx, arguments), start, argument(ctx, pages_argument),
		       returned);
	return 0;
}

/* long pin_user_pages(start, nr_pages, gup_flags, pages) */
SEC("?fentry/pin_user_pages")
int pin_user_pages_entry(u64 *ctx)
{
	return pin_begins(ctx, 2);
}

SEC("?fexit/pin_user_pages")
int pin_user_pages_exit(u64 *ctx)
{
	return pin_ends(ctx, 4, 2, 3, false);
}

/* int pin_user_pages_fast(start, nr_pages, gup_flags, pages) */
SEC("?fentry/pin_user_pages_fast")
int pin_user_pages_fast_entry(u64 *ctx)
{
	return pin_begins(ctx, 2);
}

SEC("?fexit/pin_user_pages_fast")
int pin_user_pages_fast_exit(u64 *ctx)
{
	return pin_ends(ctx, 4, 2, 3, false);
}

/* long pin_user_pages_remote(mm, start, nr_pages, gup_flags, pages, …) */
SEC("?fentry/pin_user_pages_remote")
int pin_user_pages_remote_entry(u64 *ctx)
{
	return pin_begins(ctx, 3);
}

SEC("?fexit/pin_user_pages_remote")
int pin_user_pages_remote_exit(u64 *ctx)
{
	return pin_ends(ctx, 6, 3, 4, true);
}

/* long pin_user_pages_unlocked(start, nr_pages, pages, gup_flags) */
SEC("?fentry/pin_user_pages_unlocked")
int pin_user_pages_unlocked_entry(u64 *ctx)
{
	return pin_begins(ctx, 3);
}

SEC("?fexit/pin_user_pages_unlocked")
int pin_user_pages_unlocked_exit(u64 *ctx)
{
	return pin_ends(ctx, 4, 3, 2, false);
}

/* long memfd_pin_folios(memfd, start, end, folios, max_folios, offset): always long-term */
SEC("?fentry/memfd_pin_folios")
int memfd_pin_folios_entry(u64 *ctx)
{
	count_entry();
	return 0;
}

SEC("?fexit/memfd_pin_folios")
int memfd_pin_folios_exit(u64 *ctx)
{
	struct claim claim = {
		.first = argument(ctx, 1) >> PAGE_SHIFT,
		.last = argument(ctx, 2) >> PAGE_SHIFT,
		.caller = caller_of(ctx, 6),
	};
	u64 returned = 0;

	bpf_get_func_ret(ctx, &returned);
	claim.inode = inode_of_file(argument(ctx, 0));
	if ((s64)returned > 0 && claim.inode) {
		read_stack(ctx, &claim);
		enter_claim(&claim);
		if (losses_open)
			look_for_losses(argument(ctx, 3), returned);
	}
	count_exit();
	return 0;
}
