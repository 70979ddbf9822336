/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The inode behind the inode. A file of overlayfs, or one of FUSE that the server lets through, has no pages of its own:
 * what is done to it is done to another file, for some calls without another word to the hooks (splice, mmap). Each hook
 * that is given an open file takes the inode from here.
 */
#ifndef LONGPIN_REAL_H
#define LONGPIN_REAL_H

#include "folio.h"

#define OVERLAY_DEPTH 2 /* FILESYSTEM_MAX_STACK_DEPTH */
#define MAX_LOWER 512	/* OVL_MAX_STACK */

/*
 * The upper file; 0: there is none yet. Before the types of overlayfs are known (a module that came after the guard):
 * every kernel has had its place right behind the inode.
 */
static __always_inline u64 upper_of(u64 inode)
{
	u32 where = state.overlay[OVERLAY_UPPER];
	u64 dentry = load64(inode + (where ? where : bpf_core_type_size(struct inode)));

	return dentry ? FIELD64(dentry, struct dentry, d_inode) : 0;
}

/* The file whose data a lower layer has; 0: not known. */
static __always_inline u64 lower_of(u64 inode)
{
	u64 place = inode + state.overlay[OVERLAY_LOWER], dentry;
	u32 step = state.overlay[OVERLAY_STEP], count;

	if (!state.overlay[OVERLAY_LOWER])
		return 0;
	if (step) {
		place = load64(place);
		count = place ? load32(place + state.overlay[OVERLAY_COUNT]) : 0;
		if (!count || count > MAX_LOWER)
			return 0;
		/* The last one: those above it may have names and modes only. */
		place += state.overlay[OVERLAY_STACK] + (u64)(count - 1) * step;
	}
	dentry = load64(place);
	return dentry ? FIELD64(dentry, struct dentry, d_inode) : 0;
}

/* Not all upper files have data: some only names and modes. */
static __always_inline bool has_upper_data(u64 inode)
{
	u32 back = state.overlay[OVERLAY_FLAGS];

	return !back || load64(inode - back) >> OVERLAY_UPPER_DATA & 1;
}

/* The open file to which FUSE passes on what is done to this one; 0: the server does it. */
static __always_inline u64 passed_on(u64 file, u64 inode)
{
	u32 where = state.fuse_passthrough;
	u64 own;

	if (where <= NOT_THERE || !is_regular(inode))
		return 0;
	own = FIELD64(file, struct file, private_data);
	return own ? load64(own + where) : 0;
}

static __noinline u64 written_behind(u64 file, u64 inode)
{
	u64 next;
	u32 i;

	if (magic_of(inode) == FUSE_MAGIC) {
		next = passed_on(file, inode);
		if (next)
			inode = inode_of_file(next);
	}
	for (i = 0; i < OVERLAY_DEPTH && inode && magic_of(inode) == OVERLAYFS_MAGIC; i++) {
		next = upper_of(inode);
		/* A lower file is never written to: it is copied up before. */
		if (!next)
			break;
		inode = next;
	}
	return inode;
}

/* Is there perhaps another inode behind it? */
static __always_inline bool is_front(u64 inode)
{
	u64 magic = magic_of(inode);

	return magic == OVERLAYFS_MAGIC || magic == FUSE_MAGIC;
}

/* Whose contents change when somebody writes by this open file; 0: nobody's. */
static __always_inline u64 written_inode(u64 file)
{
	u64 inode = inode_of_file(file);

	if (!inode || !is_front(inode))
		return inode;
	return written_behind(file, inode);
}

/* Whose contents are read by this open file: those that a device has pinned. */
static __noinline u64 read_inode(u64 file)
{
	u64 inode = inode_of_file(file), upper, next;
	u32 i;

	next = inode && magic_of(inode) == FUSE_MAGIC ? passed_on(file, inode) : 0;
	if (next)
		inode = inode_of_file(next);
	for (i = 0; i < OVERLAY_DEPTH && inode && magic_of(inode) == OVERLAYFS_MAGIC; i++) {
		upper = upper_of(inode);
		next = upper && has_upper_data(inode) ? upper : lower_of(inode);
		if (!next)
			break;
		inode = next;
	}
	return inode;
}

/*
 * The open file that overlayfs or FUSE has behind this one; 0: none. Of a file that was open when it was copied up
 * overlayfs may have two, the second one for reading.
 */
static __always_inline u64 opened_behind(u64 file)
{
	u64 inode = inode_of_file(file), behind;

	if (!inode || !is_front(inode) || !is_regular(inode))
		return 0;
	if (magic_of(inode) == FUSE_MAGIC)
		return passed_on(file, inode);
	behind = FIELD64(file, struct file, private_data);
	if (behind && state.overlay[OVERLAY_FILES])
		behind = load64(behind);
	return behind;
}

#endif
