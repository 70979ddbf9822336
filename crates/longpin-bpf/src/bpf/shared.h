/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs and the user side both read and write. The Rust twins are in ../shared.rs; the
 * assertions here and there hold the two together. ABI changes raise GUARD_ABI.
 */
#ifndef LONGPIN_SHARED_H
#define LONGPIN_SHARED_H

#include "kernel.h"

#define GUARD_ABI 13
#define MAX_FILES 65536
#define MAX_ROWS 65536
#define MAX_EVENTS 1024
#define MAX_RULES 64
#define MAX_FILE_RULES 4096
#define MAX_RANGES 4
#define FILTER_SLOTS 65536
#define MAX_LENT 65536
#define MAX_STRAYS 16384
#define EXPLICIT_SLOTS 4096
#define DEFAULT_WALK_BUDGET 5000000000ULL /* ns */
#define MAX_PIN_PROGRAMS 6
#define STACK_DEPTH 8
#define MAX_DEPTH 32
#define NAME_LEN 256
#define SHORT_NAME_LEN 64

/* guard_state.mode */
#define MODE_OFF 0     /* attached, refuses nothing: being started or stopped */
#define MODE_PROVING 1 /* refuses only the process that swept last: it proves the guard at start */
#define MODE_ENFORCING 2
#define MODE_AUDIT 3 /* records what it would refuse */

/* guard_state.suspect_all */
#define SUSPECT_ALL 1
#define SWEEPING 2

/* Returned by `check_hints`: kernel.ftrace_enabled is 0 */
#define HINTS_SILENT 2

/* guard_state.rules: one word, so that one store changes them all */
#define RULES_COUNT 0xff
#define RULES_BANK 0x100
#define RULES_LONGTERM 0x200 /* some consumers' pins count as long-term */
#define RULES_EXEMPT 0x400   /* somebody is never refused */
#define RULES_PINS 0x800     /* some rules are about who may hold */
#define RULES_FILES 0x1000   /* `file_rules` is not empty */
#define RULES_LEVELS 0x2000  /* some rules say at which level a file is held */

/*
 * guard_state.subvolumes, two offsets: how many bytes before the inode the address of its root lies, and where in the
 * root its number. btrfs may be a module that comes after the guard, so neither is known when the programs load.
 */
#define SUBVOLUME_BACK(word) ((word)&0xffff)
#define SUBVOLUME_NUMBER(word) ((word) >> 16)

/*
 * guard_state.overlay: where overlayfs, a module too, keeps what is behind its inodes. In bytes; 0 as the first: none
 * of it is known.
 */
#define OVERLAY_UPPER 0	 /* from the inode to the upper file's dentry */
#define OVERLAY_LOWER 1	 /* to the lower file's dentry or, with OVERLAY_STEP, to a list of them */
#define OVERLAY_STEP 2	 /* from one dentry in the list to the next */
#define OVERLAY_STACK 3	 /* from the list to its first dentry */
#define OVERLAY_COUNT 4	 /* from the list to their number */
#define OVERLAY_FLAGS 5	 /* from the flags to the inode */
#define OVERLAY_FILES 6	 /* not 0: an open file has a structure that begins with the layer's */
#define OVERLAY_LAYERS 7 /* of the super block: LAYERS_ */
#define OVERLAY_WORDS 8
#define OVERLAY_UPPER_DATA 3 /* OVL_UPPERDATA, the number of a flag */

/* guard_state.fuse_passthrough: this kernel's FUSE passes nothing on */
#define NOT_THERE 1

/*
 * guard_state.overlay[OVERLAY_LAYERS]: where the array of its layers' file systems lies, how many there are, and how large
 * each entry is. 0: not known.
 */
#define LAYERS_AT(word) ((word)&0xfff)
#define LAYERS_COUNT(word) ((word) >> 12 & 0xfff)
#define LAYERS_SIZE(word) ((word) >> 24)

/* guard_state.strict: who asks for level swapfile */
#define STRICT_ALL 1   /* each pin does, unless a rule says otherwise */
#define STRICT_RULES 2 /* some rules do */
#define STRICT_HOLDS 4 /* explicit holds may */
#define STRICT_PINS (STRICT_ALL | STRICT_RULES)

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
	u64 rows_lost;	/* rows, and notices of on-demand regions, that found a table full */
	u64 refused;
	u64 walks;
	u64 unfinished; /* walks that could not finish: refused */
	u64 unnoted;	/* operations whose arguments were not seen: judged for the whole file */
	u32 pin_programs;
	u32 cpus;
	u32 program_ids[MAX_PIN_PROGRAMS];
	u32 some_pins_unseen; /* a pin function exists that cannot be watched: all files are suspect */
	u32 sweep_promotes; /* a hint was lost: pinned files that nobody may hold are held too */
	u64 program_stats[MAX_PIN_PROGRAMS]; /* kernel addresses of their per-CPU statistics */
	u32 rules;			     /* RULES_ bits */
	u32 quota_files;		     /* of one user other than root */
	u64 next_row;
	u64 next_event;
	u64 user_files; /* entries in `files` charged to users other than root */
	u64 all_files;	/* entries in `files` */
	u64 broken;	/* pages that left their file while pinned */
	u64 would_refuse;
	u64 exempted;
	u64 denied;
	u64 misses_seen; /* as of `misses_time` */
	u64 misses_time;
	u32 max_files;	/* room in `files`; an eighth of it is kept for root */
	u32 strict;	/* STRICT_ bits */
	u64 explicit_files; /* entries in `explicit_holds`, some of holds that have ended */
	u64 tokens;	/* explicit holds that end with a descriptor */
	u32 holds_only; /* started by an explicit hold: pins are not watched */
	u32 subvolumes; /* where btrfs keeps the subvolume of an inode: SUBVOLUME_; 0: not known */
	u32 ext4_flags; /* how many bytes before the inode ext4 keeps its flags; 0: not known */
	u32 xfs_flags;	/* the same of xfs */
	u32 home;	/* device of the bpffs in which all this is pinned */
	u32 fuse_passthrough; /* where FUSE keeps the file that it passes an open one on to; 0: not known, or NOT_THERE */
	u32 overlay[OVERLAY_WORDS];
	u64 broken_holds; /* explicit ones whose file, or file system, went */
	u32 subvolume_refs; /* how many bytes into its root btrfs keeps whether a subvolume was deleted; 0: not known */
	u32 pad;
};
_Static_assert(sizeof(struct guard_state) == 384, "guard_state");

/* A file, by its inode. The address is the key; the rest says whether it is still that inode. */
struct file_identity {
	u64 ino;
	u32 dev;
	u32 generation;
};
_Static_assert(sizeof(struct file_identity) == 16, "file_identity");

/* suspect.flags */
#define FILE_HELD 1   /* else its pins are only reported */
#define FILE_STRICT 2 /* at level swapfile */

/* suspect.epoch: raised with each pin, by this; the low bit says that it is being forgotten */
#define EPOCH 2
#define FORGETTING 1

struct suspect {
	struct file_identity file;
	u32 flags;
	u32 owner; /* user it is charged to */
	u64 epoch;
	u64 broken; /* pages that left it while pinned */
	u64 broken_time;
	u64 row;  /* the last one entered */
	u64 born; /* the last row of all, when it was entered: older ones are of an earlier file */
};
_Static_assert(sizeof(struct suspect) == 64, "suspect");

/* row_key.level */
#define LEVEL_LAYOUT 1
#define LEVEL_SWAPFILE 2
#define LEVEL_MASK 0xff
#define LEVEL_PERSISTS 0x100 /* does not end with its token */

struct row_key {
	u64 inode; /* kernel address */
	u64 caller; /* return address of the pin function: who asked for the pin; of an explicit hold, its token */
	u32 tgid;
	u32 level; /* of an explicit hold: LEVEL_; 0: a pin */
};
_Static_assert(sizeof(struct row_key) == 24, "row_key");

/*
 * The explicit holds of one file. The key is its identity, with the number of its subvolume in the place of the
 * generation: the file may leave memory while it is held, and come back at another address.
 */
struct explicit_hold {
	u64 inode; /* when it was looked at last; 0: it has left memory since */
	u64 first; /* hull of the holds of level layout, page indexes, inclusive */
	u64 last;
	u64 row;       /* the last one */
	u64 token;     /* of the hold of level swapfile: who has a descriptor of it is the holder */
	u32 layouts;   /* holds of level layout */
	u32 swapfiles; /* of level swapfile: 0 or 1 */
};
_Static_assert(sizeof(struct explicit_hold) == 48, "explicit");

/* row.verdict, event.verdict: is it a hold, and if not, why */
#define HELD 0
#define READER 1      /* the task may not write the file */
#define ACL_UNKNOWN 2 /* whether it may depends on an ACL */
#define IGNORED 3     /* by rule */
#define OVER_QUOTA 4
#define RELEASED 5 /* by an administrator */
#define DENIED 6   /* by rule: the process was killed */
#define PENDING \
	7 /* an explicit hold that is not judged yet: it refuses, and ends with its process */

struct row {
	struct file_identity file;
	u64 id;	   /* 0: not yet filled in */
	u64 first; /* page indexes, both inclusive: the hull of what was pinned */
	u64 last;
	u64 since; /* boot-time nanoseconds of the first pin */
	u64 task_start;
	u64 cgroup;
	u64 parent; /* inode number of the directory, when pinned */
	u32 uid;
	u32 verdict;
	u64 pins; /* calls */
	char comm[16];
	char name[SHORT_NAME_LEN]; /* when pinned */
	u64 stack[STACK_DEPTH];
};
_Static_assert(sizeof(struct row) == 232, "row");

/* event.kind */
#define EVENT_HELD 1
#define EVENT_ENDED 2
#define EVENT_BROKEN 3
#define EVENT_REFUSED 4
#define EVENT_WOULD_REFUSE 5
#define EVENT_EXEMPTED 6
#define EVENT_DENIED 7
#define EVENT_NOT_HELD 8
#define EVENT_RELEASED 9
#define EVENT_TORN 10

/* event.operation */
#define OP_PIN 1
#define OP_TRUNCATE 2
#define OP_FALLOCATE 3 /* detail: mode */
#define OP_CLONE 4
#define OP_COPY 5
#define OP_DEDUPE 6
#define OP_DIRECT_WRITE 7
#define OP_IOCTL 8 /* detail: command */
#define OP_UMOUNT 9
#define OP_REMOUNT 10
#define OP_UNKNOWN 11 /* detail: system call */
#define OP_REMOVAL 12 /* a page left the page cache; detail: system call */
#define OP_WRITE 13   /* detail: system call */
#define OP_MMAP 14
#define OP_MPROTECT 15
#define OP_UNLINK 16
#define OP_RENAME 17
#define OP_EXEC 18
#define OP_HOLD 19
#define OP_SWAPON 20
#define OP_LOOP 21
#define OP_TEARDOWN 22	/* detail: system call */
#define OP_FILE_GONE 23 /* the last name, and then the file; detail: system call */
#define OP_END 24	/* of a file system; detail: system call */

struct event {
	u64 seq; /* of this event plus 1; 0 while it is being written */
	u64 time;
	u32 kind;
	u32 operation;
	u64 detail;
	u32 tgid;
	u32 uid;
	u64 inode;
	struct file_identity file;
	u64 first; /* the operation's range, page indexes, inclusive */
	u64 last;
	u64 page; /* the first pinned page that it met */
	u64 row;
	u32 verdict;
	u32 pad;
	char comm[16];
	char name[SHORT_NAME_LEN];
	/* Of EVENT_TORN only: */
	u32 owner;  /* thread group whose region it is */
	u32 notice; /* enum mmu_notifier_event */
	u64 untold; /* that were torn down before, and not told of */
	char owner_comm[16];
	u64 stack[STACK_DEPTH];
	u64 end; /* as seq */
};
_Static_assert(sizeof(struct event) == 288, "event");

/* A folio that left its file while it was pinned, and is pinned still. The key is its address. */
struct stray {
	u64 inode;
	struct file_identity file;
	u64 first; /* page index in the file */
	u64 pages;
};
_Static_assert(sizeof(struct stray) == 40, "stray");

/* What `list_regions` tells of each file mapping in an on-demand region. */
struct region_row {
	u64 subscription; /* struct mmu_interval_notifier */
	u64 invalidate;	  /* the driver's function */
	u64 start;	  /* addresses in the process */
	u64 end;
	u64 inode;
	struct file_identity file;
	u64 first; /* page index of `start` in the file */
	u64 since; /* 0: the guard did not see it begin */
	u64 torn;  /* how often something was taken back, as far as the guard saw */
	u32 tgid;
	u32 uid;
	u32 cut; /* there may be more of this process, which are not told */
	u32 pad;
	char comm[16];
};
_Static_assert(sizeof(struct region_row) == 112, "region_row");

/* rule.action */
#define RULE_ENFORCE 1
#define RULE_IGNORE 2
#define RULE_DENY 3
#define RULE_ALLOW 4
#define RULE_LONGTERM 5
#define RULE_EXEMPT 6
#define RULE_LAYOUT 7
#define RULE_SWAPFILE 8

/* rule.conditions */
#define RULE_PATH 1
#define RULE_UID 2
#define RULE_CGROUP 4
#define RULE_CONSUMER 8

struct rule {
	u32 action;
	u32 conditions;
	u64 ino; /* of the file or directory that the path names */
	u32 dev;
	u32 uid;
	u64 cgroup;
	u32 cgroup_level;
	u32 ranges;
	u64 range[2 * MAX_RANGES]; /* kernel addresses: start, end, … */
};
_Static_assert(sizeof(struct rule) == 104, "rule");

/* The ioctl command by which the process that introduced itself asks which inode a descriptor stands for. */
#define IDENTIFY 0x6c700001

#define MAX_MAPPERS 8

/* A process that maps a file shared and writable. */
struct mapper {
	u32 tgid; /* in the initial pid namespace; 0: nobody is named */
	u32 pad;
	char comm[16];
};

/* What the inode itself says of who else may write to the file: the answer of `ask_inode` and `count_openings`. */
struct answer {
	s64 shared; /* mappings that are shared and may become writable, as the kernel counts them */
	s64 shared_after; /* the same, when all were looked at */
	u64 seen;	  /* such mappings that were met, */
	u64 seen_sealed;  /* and those that a seal keeps from becoming writable */
	u64 mappers;	  /* shared and writable now; the first ones follow */
	s64 writers;	  /* open files that may write, as the kernel counts them */
	u64 openings;	  /* and those that were met in mappings and tables of descriptors */
	u32 flags;	  /* of the inode */
	u32 finished;	  /* all were looked at */
	struct mapper mapper[MAX_MAPPERS];
	/* Where the walk is: */
	u64 inode;
	u64 at;
	u64 task;
	u64 files;
	u32 direction;
	u32 pad;
};
_Static_assert(sizeof(struct answer) == 296, "answer");

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
	u64 next;	 /* where to go on, when not finished */
	u64 parent;	 /* inode number of the directory */
	u64 folio_first; /* where the folio of the first pinned page begins, */
	u64 folio_last;	 /* and that of the last ends */
	u64 nonce;	 /* of the question; 0 while the answer is being written */
};
_Static_assert(sizeof(struct sight) == 88, "sight");

#endif
