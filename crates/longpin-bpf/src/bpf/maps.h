/* SPDX-License-Identifier: GPL-2.0-only */
/* The guard's state and tables. The user side pins each under /sys/fs/bpf/longpin/. */
#ifndef LONGPIN_MAPS_H
#define LONGPIN_MAPS_H

#include "shared.h"

/* In a section of its own, so that the user side can map exactly this. */
struct guard_state state SEC(".data.state");

/*
 * How many suspect files hash to each slot. Read without a helper call, so that a truncate of a file
 * that nobody pinned costs one load.
 */
u32 filter[FILTER_SLOTS];

/* Suspects: files that somebody pinned long-term since the guard began, or that a sweep found. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FILES);
	__type(key, u64); /* inode address */
	__type(value, struct file_identity);
} files SEC(".maps");

/* Who pinned what: for people. Nothing is decided from it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ROWS);
	__type(key, struct row_key);
	__type(value, struct row);
} rows SEC(".maps");

/* Where `inspect` writes its answer. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct sight) + MAX_DEPTH * NAME_LEN);
} sights SEC(".maps");

/* Facts of the running kernel, found by the user side before the programs load. */
const volatile u32 foll_longterm;
const volatile u32
	hugetlb_by_huge_page; /* page cache of hugetlbfs is indexed by huge page (before 6.7) */
const volatile u64 fallocate_start; /* vfs_fallocate: the addresses of its code */
const volatile u64 fallocate_end;

#endif
