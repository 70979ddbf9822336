/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Holds a file: check, plan, hold, what is refused meanwhile, release. `hold check FILE` only asks.
 *
 *	cc tests/hold.c $(pkg-config --cflags --libs longpin) -o hold
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "longpin.h"

static char text[4096];

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, text);
	return 1;
}

static int ask(const char *path)
{
	struct longpin_check_result check;
	struct longpin_plan_result plan;
	struct longpin_hold_result held;

	if (longpin_version() != LONGPIN_VERSION)
		return fail("another version");
	if (longpin_check(path, LONGPIN_PAGES, 0, 0, &check, text, sizeof(text)) != LONGPIN_YES ||
	    check.start || check.end != 65536 || check.reasons.count)
		return fail("check for pages");
	if (longpin_check(path, LONGPIN_PAGES, 1ULL << 40, 1, &check, text, sizeof(text)) !=
		    LONGPIN_REFUSED ||
	    !strstr(text, "beyond-end") || check.reasons.count != 1 ||
	    check.reasons.list[0].name != LONGPIN_REASON_BEYOND_END ||
	    check.reasons.list[0].first != UINT64_MAX)
		return fail("check behind the end");
	if (longpin_check(NULL, LONGPIN_PAGES, 0, 0, &check, text, sizeof(text)) !=
		    LONGPIN_MISUSED ||
	    check.reasons.count)
		return fail("check of nothing");
	if (longpin_check("/nowhere", LONGPIN_PAGES, 0, 0, NULL, NULL, 0) != LONGPIN_CANNOT_TELL)
		return fail("check of no file");
	if (longpin_plan(path, "no device", LONGPIN_READ, LONGPIN_LAYOUT, 0, 0, &plan, text,
			 sizeof(text)) != LONGPIN_CANNOT_TELL ||
	    plan.plan)
		return fail("plan for no device");
	if (longpin_hold(path, 9, 0, 0, NULL, &held, text, sizeof(text)) != LONGPIN_MISUSED)
		return fail("hold without room");
	return longpin_release(NULL, NULL, 0);
}

/* The rule, and what the registration would answer. */
static int plan(const char *path)
{
	struct longpin_plan_result plan;
	int answer = longpin_plan(path, "io_uring", LONGPIN_READ_WRITE, LONGPIN_LAYOUT, 0, 0, &plan,
				  text, sizeof(text));

	if (answer == LONGPIN_CANNOT_TELL)
		return fail("plan for io_uring");
	/* ext4: which of the two rules depends on the kernel. */
	if (answer != LONGPIN_REFUSED || plan.plan < LONGPIN_PLAN_LEND_BLOCKS ||
	    (plan.rule != LONGPIN_RULE_DIRTY_TRACKING &&
	     plan.rule != LONGPIN_RULE_IO_URING_MEMORY_ONLY) ||
	    !plan.errnos[0] || plan.level)
		return fail("plan for io_uring in numbers");
	return 0;
}

/* Only what the header says is allowed, is. */
static int use(int file, const struct longpin_hold *hold)
{
	char byte = 'x';
	char *memory;

	if (pwrite(file, &byte, 1, 0) != -1 || errno != ETXTBSY)
		return fail("a write was not refused");
	if (ftruncate(file, 0) != -1 || errno != ETXTBSY)
		return fail("a truncate was not refused");
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (memory == MAP_FAILED)
		return fail("the holder may not map the file");
	memory[0] = 'h';
	munmap(memory, 4096);
	if (fcntl(longpin_hold_token(hold), F_GETFD) == -1)
		return fail("the token is not open");
	return 0;
}

static int hold(const char *path)
{
	struct longpin_hold *hold, *second;
	struct longpin_hold_result held;
	int file = open(path, O_RDWR | O_CLOEXEC);
	char byte;

	if (file == -1)
		return fail("open");
	if (longpin_hold_file(file, LONGPIN_SWAPFILE, 0, 0, &hold, &held, text, sizeof(text)) ||
	    held.refusal)
		return fail("hold");
	if (longpin_hold(path, LONGPIN_SWAPFILE, 0, 0, &second, &held, text, sizeof(text)) !=
		    LONGPIN_REFUSED ||
	    second || held.refusal != LONGPIN_REFUSAL_BUSY || !strstr(text, "held already"))
		return fail("a second hold");
	if (use(file, hold))
		return 1;
	if (longpin_release(hold, text, sizeof(text)))
		return fail("release");
	if (pread(file, &byte, 1, 0) != 1 || byte != 'h')
		return fail("the holder's store is not there");
	if (pwrite(file, "x", 1, 0) != 1)
		return fail("a write afterwards was refused");
	if (longpin_hold(path, LONGPIN_SWAPFILE, 0, 0, &hold, NULL, NULL, 0) ||
	    longpin_release(hold, NULL, 0))
		return fail("a hold by name");
	return close(file);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "check"))
		return ask(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "hold"))
		return ask(argv[2]) || plan(argv[2]) || hold(argv[2]);
	fprintf(stderr, "usage: hold check|hold FILE\n");
	return 16;
}
