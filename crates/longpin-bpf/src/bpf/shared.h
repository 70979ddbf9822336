/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs and the user side both read and write: the skeleton has these structures and enumerations in Rust,
 * by way of BTF, which only knows of macros what they became. Each change of a structure raises GUARD_ABI.
 */
#ifndef LONGPIN_SHARED_H
#define LONGPIN_SHARED_H

#include "kernel.h"

/* No byte is left out: the user side takes structures for bytes. */
#pragma clang diagnostic push
#pragma clang diagnostic error "-Wpadded"

#define MAX_ROWS 65536
#define MAX_FILE_RULES 4096
#define FILTER_SLOTS 65536
#define MAX_LENT 65536
#define MAX_STRAYS 16384
#define EXPLICIT_SLOTS 4096
#define DEFAULT_WALK_BUDGET 5000000000ULL /* ns */

enum constant {
	GUARD_ABI = 13,
	/* The ioctl command by which the process that introduced itself asks which inode a descriptor stands for. */
	IDENTIFY = 0x6c700001,
	MAX_FILES = 65536,
	MAX_EVENTS = 1024,
	MAX_RULES = 64,
	MAX_RANGES = 4,
	MAX_PIN_PROGRAMS = 6,
	STACK_DEPTH = 8,
	MAX_DEPTH = 32,
	NAME_LEN = 256,
	SHORT_NAME_LEN = 64,
	MAX_MAPPERS = 8,
	SUBVOLUME_SHIFT = 16,
	LAYERS_COUNT_SHIFT = 12,
	LAYERS_SIZE_SHIFT = 24,
	NOT_THERE = 1, /* guard_state.fuse_passthrough: this kernel's FUSE passes nothing on */
};

/* guard_state.mode */
enum guard_mode {
	MODE_OFF,     /* attached, refuses nothing: being started or stopped */
	MODE_PROVING, /* refuses only the process that swept last: it proves the guard at start */
	MODE_ENFORCING,
	MODE_AUDIT, /* records what it would refuse */
};

/* guard_state.suspect_all; 0: no hint is known to be lost */
enum lost_hints {
	SUSPECT_ALL = 1, /* no sweep has looked since */
	SWEEPING,
};

/* What `check_hints` returns. */
enum hints {
	HINTS_INCOMPLETE,
	HINTS_COMPLETE,
	HINTS_SILENT, /* kernel.ftrace_enabled is 0 */
};

/* guard_state.rules: one word, so that one store changes them all */
enum rules_word {
	RULES_COUNT = 0xff,
	RULES_BANK = 0x100,
	RULES_LONGTERM = 0x200, /* some consumers' pins count as long-term */
	RULES_EXEMPT = 0x400,	/* somebody is never refused */
	RULES_PINS = 0x800,	/* some rules are about who may hold */
	RULES_FILES = 0x1000,	/* `file_rules` is not empty */
	RULES_LEVELS = 0x2000,	/* some rules say at which level a file is held */
};

/*
 * guard_state.subvolumes, two offsets: how many bytes before the inode the address of its root lies, and where in the
 * root its number. btrfs may be a module that comes after the guard, so neither is known when the programs load.
 */
#define SUBVOLUME_BACK(word) ((word) & ((1 << SUBVOLUME_SHIFT) - 1))
#define SUBVOLUME_NUMBER(word) ((word) >> SUBVOLUME_SHIFT)

/*
 * guard_state.overlay: where overlayfs, a module too, keeps what is behind its inodes. In bytes; 0 as the first: none
 * of it is known.
 */
enum overlay_word {
	OVERLAY_UPPER,	/* from the inode to the upper file's dentry */
	OVERLAY_LOWER,	/* to the lower file's dentry or, with OVERLAY_STEP, to a list of them */
	OVERLAY_STEP,	/* from one dentry in the list to the next */
	OVERLAY_STACK,	/* from the list to its first dentry */
	OVERLAY_COUNT,	/* from the list to their number */
	OVERLAY_FLAGS,	/* from the flags to the inode */
	OVERLAY_FILES,	/* not 0: an open file has a structure that begins with the layer's */
	OVERLAY_LAYERS, /* of the super block: LAYERS_ */
	OVERLAY_WORDS,
};
#define OVERLAY_UPPER_DATA 3 /* OVL_UPPERDATA, the number of a flag */

/*
 * guard_state.overlay[OVERLAY_LAYERS]: where the array of its layers' file systems lies, how many there are, and how large
 * each entry is. 0: not known.
 */
#define LAYERS_AT(word) ((word) & ((1 << LAYERS_COUNT_SHIFT) - 1))
#define LAYERS_COUNT(word) \
	((word) >> LAYERS_COUNT_SHIFT & ((1 << (LAYERS_SIZE_SHIFT - LAYERS_COUNT_SHIFT)) - 1))
#define LAYERS_SIZE(word) ((word) >> LAYERS_SIZE_SHIFT)

/* guard_state.strict: who asks for level swapfile */
enum strict {
	STRICT_ALL = 1,	  /* each pin does, unless a rule says otherwise */
	STRICT_RULES = 2, /* some rules do */
	STRICT_HOLDS = 4, /* explicit holds may */
	STRICT_PINS = STRICT_ALL | STRICT_RULES,
};

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
	u32 max_files;	    /* room in `files`; an eighth of it is kept for root */
	u32 strict;	    /* STRICT_ bits */
	u64 explicit_files; /* entries in `explicit_holds`, some of holds that have ended */
	u64 tokens;	    /* explicit holds that end with a descriptor */
	u32 holds_only;	    /* started by an explicit hold: pins are not watched */
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

/* A file, by its inode. The address is the key; the rest says whether it is still that inode. */
struct file_identity {
	u64 ino;
	u32 dev;
	u32 generation;
};

/* suspect.flags */
enum file_flag {
	FILE_HELD = 1,	 /* else its pins are only reported */
	FILE_STRICT = 2, /* at level swapfile */
};

/* suspect.epoch: raised with each pin, by this; the low bit says that it is being forgotten */
#define EPOCH 2
#define FORGETTING 1

struct suspect {
	struct file_identity file;
	enum file_flag flags;
	u32 owner; /* user it is charged to */
	u64 epoch;
	u64 broken; /* pages that left it while pinned */
	u64 broken_time;
	u64 row;  /* the last one entered */
	u64 born; /* the last row of all, when it was entered: older ones are of an earlier file */
};

/* row_key.level */
enum level {
	LEVEL_LAYOUT = 1,
	LEVEL_SWAPFILE,
	LEVEL_MASK = 0xff,
	LEVEL_PERSISTS = 0x100, /* does not end with its token */
};

struct row_key {
	u64 inode; /* kernel address */
	u64 caller; /* return address of the pin function: who asked for the pin; of an explicit hold, its token */
	u32 tgid;
	enum level level; /* of an explicit hold; 0: a pin */
};

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

/* row.verdict, event.verdict: is it a hold, and if not, why */
enum verdict {
	HELD,
	READER,	     /* the task may not write the file */
	ACL_UNKNOWN, /* whether it may depends on an ACL */
	IGNORED,     /* by rule */
	OVER_QUOTA,
	RELEASED, /* by an administrator */
	DENIED,	  /* by rule: the process was killed */
	PENDING, /* an explicit hold that is not judged yet: it refuses, and ends with its process */
};

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
	enum verdict verdict;
	u64 pins; /* calls */
	char comm[16];
	char name[SHORT_NAME_LEN]; /* when pinned */
	u64 stack[STACK_DEPTH];
};

/* event.kind */
enum event_kind {
	EVENT_HELD = 1,
	EVENT_ENDED,
	EVENT_BROKEN,
	EVENT_REFUSED,
	EVENT_WOULD_REFUSE,
	EVENT_EXEMPTED,
	EVENT_DENIED,
	EVENT_NOT_HELD,
	EVENT_RELEASED,
	EVENT_TORN,
};

/* event.operation */
enum operation {
	OP_PIN = 1,
	OP_TRUNCATE,
	OP_FALLOCATE, /* detail: mode */
	OP_CLONE,
	OP_COPY,
	OP_DEDUPE,
	OP_DIRECT_WRITE,
	OP_IOCTL, /* detail: command */
	OP_UMOUNT,
	OP_REMOUNT,
	OP_UNKNOWN, /* detail: system call */
	OP_REMOVAL, /* a page left the page cache; detail: system call */
	OP_WRITE,   /* detail: system call */
	OP_MMAP,
	OP_MPROTECT,
	OP_UNLINK,
	OP_RENAME,
	OP_EXEC,
	OP_HOLD,
	OP_SWAPON,
	OP_LOOP,
	OP_TEARDOWN,  /* detail: system call */
	OP_FILE_GONE, /* the last name, and then the file; detail: system call */
	OP_END,	      /* of a file system; detail: system call */
};

struct event {
	u64 seq; /* of this event plus 1; 0 while it is being written */
	u64 time;
	enum event_kind kind;
	enum operation operation;
	u64 detail;
	u32 tgid;
	u32 uid;
	u64 inode;
	struct file_identity file;
	u64 first; /* the operation's range, page indexes, inclusive */
	u64 last;
	u64 page; /* the first pinned page that it met */
	u64 row;
	enum verdict verdict;
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

/* A folio that left its file while it was pinned, and is pinned still. The key is its address. */
struct stray {
	u64 inode;
	struct file_identity file;
	u64 first; /* page index in the file */
	u64 pages;
};

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

/* rule.action */
enum rule_action {
	RULE_ENFORCE = 1,
	RULE_IGNORE,
	RULE_DENY,
	RULE_ALLOW,
	RULE_LONGTERM,
	RULE_EXEMPT,
	RULE_LAYOUT,
	RULE_SWAPFILE,
};

/* rule.conditions */
enum rule_condition {
	RULE_PATH = 1,
	RULE_UID = 2,
	RULE_CGROUP = 4,
	RULE_CONSUMER = 8,
};

struct rule {
	enum rule_action action;
	enum rule_condition conditions;
	u64 ino; /* of the file or directory that the path names */
	u32 dev;
	u32 uid;
	u64 cgroup;
	u32 cgroup_level;
	u32 ranges;
	u64 range[2 * MAX_RANGES]; /* kernel addresses: start, end, … */
};

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

struct file_name {
	char text[NAME_LEN];
};

/* What `inspect` saw of one file range. */
struct sight {
	u64 pages; /* pinned now */
	u64 first; /* page index of the first pinned page in the range */
	u64 last;  /* and of the last */
	u64 size;  /* of the file, bytes */
	u32 links; /* hard links; 0: deleted */
	u32 depth; /* of `names` */
	u32 finished;
	u32 pad;
	u64 next;	 /* where to go on, when not finished */
	u64 parent;	 /* inode number of the directory */
	u64 folio_first; /* where the folio of the first pinned page begins, */
	u64 folio_last;	 /* and that of the last ends */
	u64 nonce;	 /* of the question; 0 while the answer is being written */
	struct file_name names[MAX_DEPTH]; /* path components, the file's first */
};

/* Of what is here only the skeleton wants to know: nothing reads it. */
struct skeleton_only {
	enum constant constant;
	enum guard_mode guard_mode;
	enum lost_hints lost_hints;
	enum hints hints;
	enum rules_word rules_word;
	enum overlay_word overlay_word;
	enum strict strict;
};

#pragma clang diagnostic pop

#endif
