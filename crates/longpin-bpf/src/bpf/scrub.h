/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C05: xfs checks and repairs its own structures while it is in use (xfs_scrub(8); since 6.8 it repairs). Whoever may have
 * the block map of a file repaired makes it drop all its pages first, whether there is something to repair or not.
 */
#ifndef LONGPIN_SCRUB_H
#define LONGPIN_SCRUB_H

#include "commands.h"
#include "folio.h"

/* struct xfs_scrub_metadata, and of many questions about one file struct xfs_scrub_vec. */
struct scrub {
	u32 type;
	u32 flags;
	u64 ino; /* 0: of the file that it is called on */
};
struct scrub_head {
	u64 ino;
	u32 rest[3];
	u16 rest_us;
	u16 count;
	u64 reserved;
	u64 list;
};
#define SCRUB_STEP 16
#define MAX_SCRUBS 256
#define REPAIR 1
#define MAP_OF_DATA 12
#define MAP_OF_COPIES 14

struct scrubs {
	u64 list;
	u64 repairs;
};

static __always_inline bool repairs_map(u64 at)
{
	struct scrub scrub = {};

	if (bpf_probe_read_user(&scrub, 8, (void *)at))
		return true;
	return scrub.flags & REPAIR && (scrub.type == MAP_OF_DATA || scrub.type == MAP_OF_COPIES);
}

static long look_at_scrub(u32 i, struct scrubs *scrubs)
{
	scrubs->repairs = repairs_map(scrubs->list + (u64)i * SCRUB_STEP);
	return scrubs->repairs != 0;
}

#define NO_FILE (~0ULL)

/*
 * Of which file does xfs repair the block map? NO_FILE: of none. It takes CAP_SYS_ADMIN, so user memory is believed; what
 * cannot be read is a repair.
 */
__noinline u64 repaired_file(u64 argument)
{
	struct scrub scrub = {};

	if (!repairs_map(argument))
		return NO_FILE;
	if (bpf_probe_read_user(&scrub, sizeof(scrub), (void *)argument))
		return 0;
	return scrub.ino;
}

__noinline u64 repaired_file_of_all(u64 argument)
{
	struct scrub_head head = {};
	struct scrubs scrubs = {};

	if (bpf_probe_read_user(&head, sizeof(head), (void *)argument))
		return 0;
	scrubs.list = head.list;
	bpf_loop(head.count < MAX_SCRUBS ? head.count : MAX_SCRUBS, look_at_scrub, &scrubs, 0);
	return scrubs.repairs ? head.ino : NO_FILE;
}

/* The file that a command of this kind, on a file of xfs, drops the pages of; NO_FILE: none. */
__noinline u64 scrubbed_file(u64 inode, u64 command, u64 argument)
{
	u64 ino = NO_FILE;

	if (magic_of(inode) != XFS_MAGIC)
		return NO_FILE;
	if ((command & 0xffff) == XFS_IOC_SCRUB_METADATA)
		ino = repaired_file(argument);
	else
		ino = repaired_file_of_all(argument);
	return ino ? ino : FIELD64(inode, struct inode, i_ino);
}

#endif
