/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading kernel memory at a computed address. Where the kernel has bpf_rdonly_cast (6.2 and later)
 * a load is one machine instruction with an exception entry; before, a helper call. A load that
 * faults yields 0 either way. The object is built once for each: hundreds of branches of which one
 * side is never taken cost the verifier, which cuts them out one by one, more than all the rest.
 */
#ifndef LONGPIN_KREAD_H
#define LONGPIN_KREAD_H

#include "kernel.h"

#ifdef WITH_RDONLY_CAST
extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym;

static __always_inline u64 read_word(const void *address)
{
	struct timespec64 *word =
		bpf_rdonly_cast(address, bpf_core_type_id_kernel(struct timespec64));

	return word->tv_sec;
}
#else
static __always_inline u64 read_word(const void *address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), address);
	return value;
}
#endif

static __always_inline u64 load64(u64 address)
{
	return read_word((void *)address);
}

static __always_inline u32 load32(u64 address)
{
	return (u32)load64(address);
}

/*
 * Argument N of a hook as a plain number. Read from memory, because the verifier lets nobody calculate
 * with a pointer that it knows.
 */
static __always_inline u64 number(const u64 *ctx, u32 n)
{
	return read_word(ctx + n);
}

/* The value of TYPE's FIELD in the object at ADDRESS; pointers come back as numbers. */
#define FIELD64(address, type, field) load64((address) + bpf_core_field_offset(((type *)0)->field))
#define FIELD32(address, type, field) load32((address) + bpf_core_field_offset(((type *)0)->field))
#define ADDRESS_OF(address, type, field) ((address) + bpf_core_field_offset(((type *)0)->field))

#endif
