/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * longpin for C: may a device have this file, what will the kernel answer, and hold it.
 *
 * Link with -llongpin_c. Linux on x86-64; what a host needs stands in docs/kernel-support.md.
 *
 * Each call answers one of enum longpin_answer. `text` gets words for people, one line each, cut to `size` bytes with
 * the terminating 0: on refusal the reasons, then lines that begin with "hint: ". It may be NULL if `size` is 0.
 * `offset` and `len` are bytes of the file; a `len` of 0 means all of it. Calls may be made from any thread.
 */
#ifndef LONGPIN_H
#define LONGPIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum longpin_answer {
	LONGPIN_YES = 0,
	LONGPIN_REFUSED = 1,	 /* by a rule; `text` names it */
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

struct longpin_hold;

/* `longpin check`: is the file fit? Holds nothing: true when it is said. */
int longpin_check(const char *path, enum longpin_purpose purpose, uint64_t offset, uint64_t len,
		  char *text, size_t size);

/*
 * `longpin check --device`: how a registration with this device ("io_uring", or an RDMA device's name) will go. On yes
 * `text` has the plan's name: "on-demand", "held-on-demand", "longterm", "copy".
 */
int longpin_plan(const char *path, const char *device, enum longpin_access access,
		 enum longpin_level level, uint64_t offset, uint64_t len, char *text, size_t size);

/*
 * `longpin hold`: from a yes on, the file is held, until longpin_release or the end of the last process that has the
 * token. Takes CAP_LINUX_IMMUTABLE and CAP_SYS_ADMIN. Level swapfile holds the whole file. Does not wait for another hold.
 */
int longpin_hold(const char *path, enum longpin_level level, uint64_t offset, uint64_t len,
		 struct longpin_hold **hold, char *text, size_t size);

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
