/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * longpin for C: may a device have this file, what will the kernel answer, and hold it.
 *
 * Compile with what `pkg-config --cflags --libs longpin` says. Linux on x86-64; what a host needs stands in
 * docs/kernel-support.md.
 *
 * Each call answers one of enum longpin_answer. `result` gets the same in numbers, and may be NULL. `text` gets words for
 * people, one line each, cut to `size` bytes with the terminating 0: on refusal the reasons, then lines that begin with
 * "hint: ". It may be NULL. `offset` and `len` are bytes of the file; a `len` of 0 means all of it. Calls may be made
 * from any thread.
 *
 * Numbers keep their meaning, and later versions add new ones. When a structure changes, the library's soname does.
 */
#ifndef LONGPIN_H
#define LONGPIN_H

#include <stddef.h>
#include <stdint.h>

#define LONGPIN_VERSION_MAJOR 0
#define LONGPIN_VERSION_MINOR 1
#define LONGPIN_VERSION_PATCH 0
#define LONGPIN_VERSION                                                        \
	((LONGPIN_VERSION_MAJOR << 16) | (LONGPIN_VERSION_MINOR << 8) | LONGPIN_VERSION_PATCH)

#ifdef __cplusplus
extern "C" {
#endif

enum longpin_answer {
	LONGPIN_YES = 0,
	LONGPIN_REFUSED = 1,	 /* by a rule; `result` and `text` name it */
	LONGPIN_CANNOT_TELL = 2, /* the system did not answer, or took too much privilege to ask */
	LONGPIN_MISUSED = 16,	 /* a NULL path, an unknown number */
};

/* What a file is checked for. */
enum longpin_purpose {
	LONGPIN_PAGES = 0,  /* a device pins its pages */
	LONGPIN_BLOCKS = 1, /* a device reads and writes its blocks */
	LONGPIN_SWAP = 2,   /* swapon(2) */
};

/* What is refused while a file is held; docs/guarantee.md. */
enum longpin_level {
	LONGPIN_LAYOUT = 1,   /* what would take pages or blocks away */
	LONGPIN_SWAPFILE = 2, /* all that is refused of an active swap file */
};

enum longpin_access {
	LONGPIN_READ = 0,
	LONGPIN_READ_WRITE = 1,
};

/* Why a file is not fit, by the names that `longpin check` prints. */
enum longpin_reason_name {
	LONGPIN_REASON_NOT_REGULAR = 1,
	LONGPIN_REASON_MOVES_DATA = 2,
	LONGPIN_REASON_NOT_LOCAL = 3,
	LONGPIN_REASON_OVERLAY = 4,
	LONGPIN_REASON_NO_BLOCKS = 5,
	LONGPIN_REASON_DELETED = 6,
	LONGPIN_REASON_READ_ONLY = 7,
	LONGPIN_REASON_BEYOND_END = 8,
	LONGPIN_REASON_OVERFLOW = 9,
	LONGPIN_REASON_NOT_ON_PAGES = 10,
	LONGPIN_REASON_EMPTY = 11,
	LONGPIN_REASON_TOO_SMALL = 12,
	LONGPIN_REASON_ACTIVE_SWAP = 13,
	LONGPIN_REASON_IMMUTABLE = 14,
	LONGPIN_REASON_APPEND_ONLY = 15,
	LONGPIN_REASON_VERITY = 16,
	LONGPIN_REASON_ENCRYPTED = 17,
	LONGPIN_REASON_COMPRESSED = 18,
	LONGPIN_REASON_DAX = 19,
	LONGPIN_REASON_COPY_ON_WRITE = 20,
	LONGPIN_REASON_NOT_PINNED = 21,
	LONGPIN_REASON_LOG_STRUCTURED = 22,
	LONGPIN_REASON_JOURNALLED = 23,
	LONGPIN_REASON_FILE_SYSTEM_BUSY = 24,
	LONGPIN_REASON_INTERRUPTED = 25,
	LONGPIN_REASON_HOLE = 26,
	LONGPIN_REASON_UNWRITTEN = 27,
	LONGPIN_REASON_DELALLOC = 28,
	LONGPIN_REASON_SHARED = 29,
	LONGPIN_REASON_SNAPSHOTTED = 30,
	LONGPIN_REASON_INLINE = 31,
	LONGPIN_REASON_ENCODED = 32,
	LONGPIN_REASON_UNALIGNED = 33,
	LONGPIN_REASON_UNKNOWN_LOCATION = 34,
	LONGPIN_REASON_FOREIGN_DEVICE = 35,
	LONGPIN_REASON_PROFILE = 36,
	LONGPIN_REASON_CHANGED = 37,
};

#define LONGPIN_MAX_REASONS 16

struct longpin_reason {
	uint32_t name; /* enum longpin_reason_name */
	uint32_t reserved;
	uint64_t count; /* how often: extents or holes; 1 for what is true of the whole file */
	uint64_t bytes; /* of the file; 0 for what is true of the whole file */
	uint64_t first; /* offset of the first; UINT64_MAX for what is true of the whole file */
};

struct longpin_reasons {
	uint32_t count; /* how many there are; the first LONGPIN_MAX_REASONS of them are here */
	uint32_t reserved;
	struct longpin_reason list[LONGPIN_MAX_REASONS];
};

struct longpin_check_result {
	uint64_t start;	  /* what was judged: the first byte */
	uint64_t end;	  /* and the first one after the last */
	uint64_t extents; /* that were looked at; 0 where the blocks do not matter */
	struct longpin_reasons reasons;
};

/* How a registration will go. */
enum longpin_plan_kind {
	LONGPIN_PLAN_ON_DEMAND = 1,	 /* the device faults pages in; no pin, no hold */
	LONGPIN_PLAN_HELD_ON_DEMAND = 2, /* the same, after the file is held at level swapfile */
	LONGPIN_PLAN_LONGTERM = 3,	 /* the file's pages are pinned */
	LONGPIN_PLAN_COPY = 4,		 /* pages are pinned that are no longer the file's */
	LONGPIN_PLAN_LEND_BLOCKS = 5,	 /* refused by `rule`; the file's blocks could be lent */
	LONGPIN_PLAN_REFUSED = 6,	 /* refused by `rule` */
};

/* Why a registration is refused; docs/registration.md. */
enum longpin_rule {
	LONGPIN_RULE_FILE_UNFIT = 1,
	LONGPIN_RULE_SECRET_MEMORY = 2,
	LONGPIN_RULE_NOT_WRITABLE = 3,
	LONGPIN_RULE_IO_URING_DISABLED = 4,
	LONGPIN_RULE_DEVICE_CANNOT_FAULT = 5,
	LONGPIN_RULE_ACCESS_NOT_ON_DEMAND = 6,
	LONGPIN_RULE_DAX_LONGTERM = 7,
	LONGPIN_RULE_DIRTY_TRACKING = 8,
	LONGPIN_RULE_IO_URING_MEMORY_ONLY = 9,
	LONGPIN_RULE_RDMA_WRITES = 10,
	LONGPIN_RULE_MEMLOCK = 11,
	LONGPIN_RULE_DEVICE_LIMIT = 12,
	LONGPIN_RULE_BUFFER_LIMIT = 13,
	LONGPIN_RULE_NO_ROOM = 14,
	LONGPIN_RULE_NO_HUGE_PAGES = 15,
};

struct longpin_plan_result {
	uint32_t plan;		   /* enum longpin_plan_kind; 0: none could be made */
	uint32_t rule;		   /* enum longpin_rule; 0: nothing is refused */
	uint32_t level;		   /* enum longpin_level that it is held at meanwhile; 0: nobody holds it */
	uint32_t writable_mapping; /* 1: it must be mapped for writing, although the device may only read */
	uint64_t start;		   /* bytes of the file, as for a check */
	uint64_t end;
	int32_t errnos[2]; /* what the registration would answer, one or the other; 0: nothing more */
	struct longpin_reasons reasons; /* for LONGPIN_RULE_FILE_UNFIT */
};

/* Why a file is not held. */
enum longpin_refusal {
	LONGPIN_REFUSAL_NO_PRIVILEGE = 1,
	LONGPIN_REFUSAL_OPEN = 2,
	LONGPIN_REFUSAL_BUSY = 3,
	LONGPIN_REFUSAL_UNFIT = 4,
	LONGPIN_REFUSAL_SUBVOLUME = 5,
	LONGPIN_REFUSAL_MAPPED = 6,
	LONGPIN_REFUSAL_SOMEBODY = 7,
	LONGPIN_REFUSAL_PINNED = 8,
	LONGPIN_REFUSAL_LOOPED = 9,
	LONGPIN_REFUSAL_IN_FLIGHT = 10,
	LONGPIN_REFUSAL_DIRECT = 11,
	LONGPIN_REFUSAL_MOVED = 12,
	LONGPIN_REFUSAL_UNPROVED = 13,
	LONGPIN_REFUSAL_KERNEL = 14,
	LONGPIN_REFUSAL_AUDIT = 15,
	LONGPIN_REFUSAL_SILENT = 16,
	LONGPIN_REFUSAL_NO_ROOM = 17,
	LONGPIN_REFUSAL_RELEASED = 18,
	LONGPIN_REFUSAL_CANNOT_TELL = 19,
	LONGPIN_REFUSAL_OTHER = 20,
};

struct longpin_hold_result {
	uint32_t refusal; /* enum longpin_refusal; 0: it is held */
	int32_t pid;	  /* who is in the way, where one is known, in the initial pid namespace; 0: nobody */
	struct longpin_reasons reasons; /* for LONGPIN_REFUSAL_UNFIT */
};

struct longpin_hold;

/* Of the library that is loaded, as LONGPIN_VERSION is of this header. */
uint32_t longpin_version(void);

/* `longpin check`: is the file fit? Holds nothing: true when it is said. */
int longpin_check(const char *path, enum longpin_purpose purpose, uint64_t offset, uint64_t len,
		  struct longpin_check_result *result, char *text, size_t size);

/*
 * `longpin check --device`: how a registration with this device ("io_uring", or an RDMA device's name) will go. On yes
 * `text` has the plan's name: "on-demand", "held-on-demand", "longterm", "copy".
 */
int longpin_plan(const char *path, const char *device, enum longpin_access access,
		 enum longpin_level level, uint64_t offset, uint64_t len,
		 struct longpin_plan_result *result, char *text, size_t size);

/*
 * `longpin hold`: from a yes on, the file is held, until longpin_release or the end of the last process that has the
 * token. Takes CAP_LINUX_IMMUTABLE and CAP_SYS_ADMIN. Level swapfile holds the whole file. Does not wait for another hold.
 */
int longpin_hold(const char *path, enum longpin_level level, uint64_t offset, uint64_t len,
		 struct longpin_hold **hold, struct longpin_hold_result *result, char *text,
		 size_t size);

/* The same for an open file, whatever its name leads to now. `file` stays the caller's. */
int longpin_hold_file(int file, enum longpin_level level, uint64_t offset, uint64_t len,
		      struct longpin_hold **hold, struct longpin_hold_result *result, char *text,
		      size_t size);

/*
 * The descriptor that the hold stands and falls with; it is the hold's. Children inherit it, and are holders: they may map
 * the file shared and writable.
 */
int longpin_hold_token(const struct longpin_hold *hold);

/* End it. Whatever it answers, `hold` is gone. The file stays held while others have the token. NULL is allowed. */
int longpin_release(struct longpin_hold *hold, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
