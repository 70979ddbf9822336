/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs and the user side both read and write. The Rust twins are in ../shared.rs; the
 * assertions here and there hold the two together. ABI changes raise GUARD_ABI.
 */
#ifndef LONGPIN_SHARED_H
#define LONGPIN_SHARED_H

#include "kernel.h"

#define GUARD_ABI 1
#define MAX_FILES 65536
#define MAX_ROWS 65536
#define FILTER_SLOTS 65536
#define MAX_PIN_PROGRAMS 16
#define STACK_DEPTH 12
#define MAX_DEPTH 32
#define NAME_LEN 256

/* guard_state.mode */
#define MODE_OFF 0     /* attached, refuses nothing: being started or stopped */
#define MODE_PROVING 1 /* refuses only the process that swept last: it proves the guard at start */
#define MODE_ENFORCING 2

/* guard_state.suspect_all */
#define SUSPECT_ALL 1
#define SWEEPING 2

struct guard_state {
	u32 abi;
	u32 mode;
	u32 prover;	   /* thread group that MODE_PROVING refuses */
	u32 suspect_all;   /* not 0: hints are known to be incomplete until a sweep has looked */
	u64 entered;	   /* long-term calls of the pin functions that began */
	u64 left;	   /* and that ended, as far as the programs saw */
	u64 acked_balance; /* entered - left that a sweep found to be lost exits */
	u64 acked_misses;  /* suppressed program runs that a sweep has made good */
	u64 sweep_balance; /* entered - left when the sweep in hand began */
	u64 sweep_misses;
	u64 files_lost; /* files that found the table full */
	u64 rows_lost;	/* rows that found the table full */
	u64 refused;
	u64 walks;
	u64 unfinished; /* walks that could not finish: refused */
	u64 unnoted; /* fallocate calls whose arguments were not seen: judged for the whole file */
	u32 pin_programs;
	u32 cpus;
	u32 program_ids[MAX_PIN_PROGRAMS];
	u32 some_pins_unseen; /* a pin function exists that cannot be watched: all files are suspect */
	u32 pad;
	u64 program_stats[MAX_PIN_PROGRAMS]; /* kernel addresses of their per-CPU statistics */
};
_Static_assert(sizeof(struct guard_state) == 320, "guard_state");

/* A file, by its inode. The address is the key; the rest says whether it is still that inode. */
struct file_identity {
	u64 ino;
	u32 dev;
	u32 generation;
};
_Static_assert(sizeof(struct file_identity) == 16, "file_identity");

struct row_key {
	u64 inode;  /* kernel address */
	u64 caller; /* return address of the pin function: who asked for the pin */
	u32 tgid;
	u32 pad;
};
_Static_assert(sizeof(struct row_key) == 24, "row_key");

struct row {
	struct file_identity file;
	u64 first; /* page indexes, both inclusive: the hull of what was pinned */
	u64 last;
	u64 since; /* boot-time nanoseconds of the first pin */
	u64 task_start;
	u64 cgroup;
	u32 uid;
	u32 pid_in_ns;
	char comm[16];
	u64 stack[STACK_DEPTH];
};
_Static_assert(sizeof(struct row) == 176, "row");

/* What `inspect` saw of one file range; `depth` names of NAME_LEN bytes follow, the file's first. */
struct sight {
	u64 pages; /* pinned now */
	u64 first; /* page index of the first pinned page in the range */
	u64 last;  /* and of the last */
	u64 size;  /* of the file, bytes */
	u32 links; /* hard links; 0: deleted */
	u32 depth; /* path components that follow */
	u32 finished;
	u32 pad;
	u64 next; /* where to go on, when not finished */
};
_Static_assert(sizeof(struct sight) == 56, "sight");

#endif
