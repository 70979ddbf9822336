/* SPDX-License-Identifier: GPL-2.0-only */
/* Is a file of this file system held? For what concerns the file system as a whole. */
#ifndef LONGPIN_SUPERBLOCK_H
#define LONGPIN_SUPERBLOCK_H

#include "refuse.h"

struct search {
	u64 sb;
	u64 entry; /* of the list of inodes */
	u64 head;
	u64 found; /* a held file */
	u64 page;
	u16 strict;    /* only files held at level swapfile */
	u16 encrypted; /* only pinned files that the file system encrypts */
	u32 subvolume; /* only files of this one; 0: of all */
	u16 restarts;
	u16 seen; /* came back to the head of the list */
};

#define MAX_RESTARTS 16

/* 1: found one, stop. */
static __always_inline long look_at_file(struct search *search, u64 inode)
{
	u64 page;

	if (search->encrypted && !(FIELD32(inode, struct inode, i_flags) & S_ENCRYPTED))
		return 0;
	if (!is_regular(inode) || (search->subvolume && search->subvolume != subvolume_of(inode)))
		return 0;
	page = first_pinned(inode, 0, ~0ULL);
	if (page == NO_PAGE)
		return 0;
	search->found = inode;
	search->page = page;
	return 1;
}

static long look_at_suspect(void *map, u64 *inode, struct suspect *known, struct search *search)
{
	struct file_identity now;

	if (!(known->flags & FILE_HELD) ||
	    known->file.dev != FIELD32(search->sb, struct super_block, s_dev))
		return 0;
	if (search->strict && !(known->flags & FILE_STRICT))
		return 0;
	now = identify(*inode);
	return same_file(&known->file, &now) ? look_at_file(search, *inode) : 0;
}

static long look_at_lent(void *map, struct file_identity *file, struct lent *lent,
			 struct search *search)
{
	if (file->dev != FIELD32(search->sb, struct super_block, s_dev))
		return 0;
	if (!lent->swapfiles && (search->strict || !lent->layouts))
		return 0;
	if (search->subvolume && search->subvolume != file->generation)
		return 0;
	search->found = lent->inode;
	return 1;
}

static long look_at_inode(u32 i, struct search **in_hand)
{
	struct search *search = *in_hand;
	u64 entry = load64(search->entry);

	if (entry == search->head || !entry) {
		search->seen = entry != 0;
		return 1;
	}
	/* An inode that left the list points at itself: begin anew, a few times. */
	if (entry == search->entry) {
		search->entry = search->head;
		search->restarts++;
		return search->restarts > MAX_RESTARTS;
	}
	search->entry = entry;
	return look_at_file(search, entry - bpf_core_field_offset(((struct inode *)0)->i_sb_list));
}

/*
 * Walk the file system's own list of inodes: some pins may be unknown. The list may change meanwhile; a walk
 * that does not come back to its head is not finished. A global function, as walk_pages().
 */
__noinline int walk_inodes(struct search *search)
{
	if (!search)
		return 0;
	search->head = ADDRESS_OF(search->sb, struct super_block, s_inodes);
	search->entry = search->head;
	bpf_loop(MAX_STEPS, look_at_inode, &search, 0);
	return search->seen || search->found;
}

/*
 * Which file keeps the file system as it is? None, and the search not finished: counts as one. With `strict`, only
 * files held at level swapfile do. One function: the walk below it needs the frames.
 */
static __always_inline bool find_held(struct search *search)
{
	if (state.lent_files && !search->encrypted)
		bpf_for_each_map_elem(&lent, look_at_lent, search, 0);
	if (search->found)
		return true;
	if (!WATCHES_PINS || (search->strict && !(state.strict & STRICT_PINS)))
		return true;
	bpf_for_each_map_elem(&files, look_at_suspect, search, 0);
	if (search->found || hints_complete() || (search->strict && !(state.strict & STRICT_ALL)))
		return true;
	return walk_inodes(search);
}

static __always_inline bool is_search_refused(struct search *search, u32 operation, u64 detail)
{
	struct act act = { .operation = operation, .detail = detail, WHOLE_FILE };

	if (!find_held(search)) {
		__sync_fetch_and_add(&state.unfinished, 1);
		return true;
	}
	act.inode = search->found;
	act.page = search->page;
	return search->found && decide(&act);
}

__noinline int is_subvolume_refused(u64 sb, u32 subvolume, u32 operation, u64 detail, u32 strict)
{
	struct search search = { .sb = sb, .subvolume = subvolume, .strict = strict };

	return is_search_refused(&search, operation, detail);
}

/* Without the key nobody finds the file any more, and the kernel lets it go. */
__noinline int is_key_refused(u64 sb, u64 command)
{
	struct search search = { .sb = sb, .encrypted = 1 };

	return is_search_refused(&search, OP_IOCTL, command);
}

static __always_inline bool is_file_system_refused(u64 sb, u32 operation, u64 detail, u32 strict)
{
	return is_subvolume_refused(sb, 0, operation, detail, strict);
}

#endif
