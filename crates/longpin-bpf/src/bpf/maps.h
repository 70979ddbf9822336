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
	__type(value, struct suspect);
} files SEC(".maps");

/* How many of them are charged to each user other than root. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FILES);
	__type(key, u32); /* uid */
	__type(value, u64);
} users SEC(".maps");

/* Files that are held because somebody asked for it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LENT);
	__type(key, struct file_identity);
	__type(value, struct explicit_hold);
} explicit_holds SEC(".maps");

/* How many of them hash to each slot, by inode number: read as `filter` is. */
u32 explicit_filter[EXPLICIT_SLOTS];

/* Which hold ends with which inode: the one whose descriptors its holder has. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_LENT);
	__type(key, u64); /* inode address */
	__type(value, struct row_key);
} tokens SEC(".maps");

/* Who pinned what: for people. Nothing is decided from it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ROWS);
	__type(key, struct row_key);
	__type(value, struct row);
} rows SEC(".maps");

/* The last events, by number modulo MAX_EVENTS. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_EVENTS);
	__type(key, u32);
	__type(value, struct event);
} events SEC(".maps");

/* Two banks of rules; `state.rules` says which one counts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_RULES);
	__type(key, u32);
	__type(value, struct rule);
} rules SEC(".maps");

/* RULE_DENY or RULE_ALLOW for single files, by `longpin deny` and `allow`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FILE_RULES);
	__type(key, struct file_identity);
	__type(value, u32);
} file_rules SEC(".maps");

/* Where `inspect` writes its answer. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct sight);
} sights SEC(".maps");

/* The answer to IDENTIFY: `file`, and the inode's address in `row`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct suspect);
} identified SEC(".maps");

/* Where `ask_inode` and `count_openings` write their answer: one command at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct answer);
} answers SEC(".maps");

/* Open files that were met and counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FILES);
	__type(key, u64); /* struct file */
	__type(value, u32);
} openings SEC(".maps");

const volatile struct skeleton_only skeleton_only;

/* Facts of the running kernel, found by the user side before the programs load. */
const volatile u32 foll_longterm;
const volatile u32
	hugetlb_by_huge_page;	  /* page cache of hugetlbfs is indexed by huge page (before 6.7) */
const volatile u32 remote_probed; /* pin_user_pages_remote is watched by probes */
const volatile u32
	writable_file_pins; /* the kernel lets a device write to page cache (before 6.5) */
/*
 * Where the kernel keeps the address of the first struct page, and the distance to each CPU's own data; its first task;
 * whether it calls programs at functions, and at probes (0: no such variable). Not `__ksym`: libbpf would read
 * /proc/kallsyms once more, for more than the programs cost.
 */
const volatile u64 per_cpu_offset;
const volatile u64 init_task;
const volatile u64 ftrace_enabled;
const volatile u64 kprobes_all_disarmed;
/* The table of mount points. Addresses, or 0. */
const volatile struct mountpoint_table {
	u64 heads;
	u64 mask;  /* which bits of a hash count, */
	u64 shift; /* and by how much it is shifted */
} mountpoint_table;
/* Functions that ask file_permission for other reasons than a write: the addresses of their code. */
struct code {
	u64 start;
	u64 end;
};
const volatile struct code operations[6];
/* Functions that open a file for the program that asks, where the system call does not say so. */
const volatile struct code openers[2];

#endif
