/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Lends a file: check, plan, hold, what is refused meanwhile, release. `lend check FILE` only asks.
 *
 *	cc -I include tests/lend.c -L ../../target/release -llongpin_c -o lend
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
	if (longpin_check(path, LONGPIN_PAGES, 0, 0, text, sizeof(text)) != LONGPIN_YES)
		return fail("check for pages");
	if (longpin_check(path, LONGPIN_PAGES, 1ULL << 40, 1, text, sizeof(text)) !=
		    LONGPIN_REFUSED ||
	    !strstr(text, "beyond-end"))
		return fail("check behind the end");
	if (longpin_check(NULL, LONGPIN_PAGES, 0, 0, text, sizeof(text)) != LONGPIN_MISUSED)
		return fail("check of nothing");
	if (longpin_check("/nowhere", LONGPIN_PAGES, 0, 0, NULL, 0) != LONGPIN_CANNOT_TELL)
		return fail("check of no file");
	if (longpin_plan(path, "no device", LONGPIN_READ, LONGPIN_LAYOUT, 0, 0, text,
			 sizeof(text)) != LONGPIN_CANNOT_TELL)
		return fail("plan for no device");
	if (longpin_hold(path, 9, 0, 0, NULL, text, sizeof(text)) != LONGPIN_MISUSED)
		return fail("hold without room");
	return longpin_release(NULL, NULL, 0);
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

static int lend(const char *path)
{
	struct longpin_hold *hold, *second;
	int file = open(path, O_RDWR | O_CLOEXEC);
	char byte;

	if (file == -1 || longpin_plan(path, "io_uring", LONGPIN_READ_WRITE, LONGPIN_LAYOUT, 0, 0,
				       text, sizeof(text)) == LONGPIN_CANNOT_TELL)
		return fail("plan for io_uring");
	if (longpin_hold(path, LONGPIN_SWAPFILE, 0, 0, &hold, text, sizeof(text)))
		return fail("hold");
	if (longpin_hold(path, LONGPIN_SWAPFILE, 0, 0, &second, text, sizeof(text)) !=
		    LONGPIN_REFUSED ||
	    second || !strstr(text, "held already"))
		return fail("a second hold");
	if (use(file, hold))
		return 1;
	if (longpin_release(hold, text, sizeof(text)))
		return fail("release");
	if (pread(file, &byte, 1, 0) != 1 || byte != 'h')
		return fail("the holder's store is not there");
	if (pwrite(file, "x", 1, 0) != 1)
		return fail("a write afterwards was refused");
	return close(file);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "check"))
		return ask(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "lend"))
		return ask(argv[2]) || lend(argv[2]);
	fprintf(stderr, "usage: lend check|lend FILE\n");
	return 16;
}
