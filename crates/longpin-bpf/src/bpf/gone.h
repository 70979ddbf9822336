/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Explicit holds whose file goes, alone or with its file system. Nothing could refuse that, and nothing is left to be held:
 * they are told as broken, and end. They know their files by numbers, which may be other files' soon.
 */
#ifndef LONGPIN_GONE_H
#define LONGPIN_GONE_H

#include "rows.h"

struct dying {
	u64 inode; /* 0: the whole file system, or all of a subvolume */
	struct file_identity file;
};

/* On some file systems the number is free a moment before the inode is: this may be the next file's hold. */
static __always_inline bool is_anothers(u64 inode, const struct dying *dying)
{
	struct file_identity now;

	if (inode == dying->inode)
		return false;
	now = explicit_key(inode);
	return same_explicit(&now, &dying->file) && !is_evicted(inode);
}

static __always_inline bool goes(const struct row_key *key, const struct row *row,
				 const struct dying *dying)
{
	if (!dying->inode)
		return row->file.dev == dying->file.dev &&
		       (!dying->file.generation || row->file.generation == dying->file.generation);
	return same_explicit(&row->file, &dying->file) && !is_anothers(key->inode, dying);
}

static long break_if_gone(void *map, struct row_key *key, struct row *row, struct dying *dying)
{
	struct row_key copy = *key;

	if (!copy.level || !goes(&copy, row, dying))
		return 0;
	drop_token(&copy);
	end_hold(&copy, EVENT_BROKEN,
		 dying->inode || dying->file.generation ? OP_FILE_GONE : OP_END);
	return 0;
}

/* A file without a name leaves memory: that is its end. */
static __noinline int break_holds_of(u64 inode)
{
	struct dying dying = { .inode = inode, .file = explicit_key(inode) };

	if (find_explicit(inode))
		bpf_for_each_map_elem(&rows, break_if_gone, &dying, 0);
	return 0;
}

#define BTRFS_TOP 256 /* the number of the top directory, in each subvolume */

/* The number of the subvolume whose top directory this is, when that has been deleted; else 0. */
static __always_inline u32 deleted_subvolume(u64 inode)
{
	u64 root;
	u32 where = state.subvolumes;

	if (!where || !state.subvolume_refs || magic_of(inode) != BTRFS_MAGIC)
		return 0;
	if (FIELD64(inode, struct inode, i_ino) != BTRFS_TOP)
		return 0;
	root = load64(inode - SUBVOLUME_BACK(where));
	if (!root || load32(root + state.subvolume_refs))
		return 0;
	return subvolume_of(inode);
}

/*
 * The top directory of a deleted subvolume leaves memory, as it does whoever deletes it. Its files go with it, those, too,
 * that are not in memory, and whose names nobody took away.
 */
static __noinline int break_holds_in(u64 inode)
{
	struct dying dying = { .file.generation = deleted_subvolume(inode) };

	if (!dying.file.generation)
		return 0;
	dying.file.dev = identify(inode).dev;
	bpf_for_each_map_elem(&rows, break_if_gone, &dying, 0);
	return 0;
}

/* A held file leaves memory, and will come back at another address. */
static __always_inline void forget_inode(u64 inode)
{
	struct explicit_hold *explicit = find_explicit(inode);

	if (explicit)
		explicit->inode = 0;
}

/* All files of a file system have left memory. One pass, however many were held. */
static __noinline int break_holds_on(u64 sb)
{
	struct dying dying = { .file.dev = FIELD32(sb, struct super_block, s_dev) };

	bpf_for_each_map_elem(&rows, break_if_gone, &dying, 0);
	return 0;
}

#endif
