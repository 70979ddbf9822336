/* SPDX-License-Identifier: GPL-2.0-only */
/* Is a file of this file system held? For what concerns the file system as a whole. */
#ifndef LONGPIN_SUPERBLOCK_H
#define LONGPIN_SUPERBLOCK_H

#include "refuse.h"

struct search {
	u64 sb;	   /* 0: on any file system */
	u64 entry; /* of the list of inodes */
	u64 ino;   /* only the file with this number; 0: all */
	u64 found; /* a held file; 0: one that has left memory */
	u64 row;   /* whose hold this is */
	u64 page;
	u64 deadline;  /* one for the walks over all files */
	u32 subvolume; /* only files of this one; 0: of all */
	u8 strict;     /* only files held at level swapfile */
	u8 encrypted;  /* only pinned files that the file system encrypts */
	u8 restarts;
	u8 seen;      /* came back to the head of the list */
	u8 is_held;   /* a file was found */
	u8 is_exempt; /* files were found of which this task may do anything: there may be others */
};

/* search.strict; STRICTLY_FIRST: all held files are asked about next, and that one is exempt says nothing yet */
#define STRICTLY 1
#define STRICTLY_FIRST 2

#define MAX_RESTARTS 16

static __always_inline bool is_in_question(const struct search *search, u32 dev)
{
	return !search->sb || dev == FIELD32(search->sb, struct super_block, s_dev);
}

/* 1: found one, stop. An exempt one is kept as long as there is no other. */
static __always_inline long find(struct search *search, u64 inode)
{
	struct act act = { .inode = inode };

	search->found = inode;
	search->is_exempt = is_exempt(&act);
	search->is_held = !search->is_exempt;
	return search->is_held;
}

static __always_inline long look_at_file(struct search *search, u64 inode)
{
	u64 page;

	if (search->ino && search->ino != FIELD64(inode, struct inode, i_ino))
		return 0;
	if (search->encrypted && !(FIELD32(inode, struct inode, i_flags) & S_ENCRYPTED))
		return 0;
	if (!is_regular(inode) || (search->subvolume && search->subvolume != subvolume_of(inode)))
		return 0;
	page = first_pinned_until(inode, 0, ~0ULL, search->deadline);
	if (page == NO_PAGE)
		return 0;
	search->row = 0;
	search->page = page;
	return find(search, inode);
}

static long look_at_suspect(void *map, u64 *inode, struct suspect *known, struct search *search)
{
	struct file_identity now;

	if (!(known->flags & FILE_HELD) || !is_in_question(search, known->file.dev))
		return 0;
	if (search->strict && !(known->flags & FILE_STRICT))
		return 0;
	now = identify(*inode);
	return same_file(&known->file, &now) ? look_at_file(search, *inode) : 0;
}

static long look_at_explicit(void *map, struct file_identity *file, struct explicit_hold *explicit,
			     struct search *search)
{
	if (!is_in_question(search, file->dev) || (search->ino && search->ino != file->ino))
		return 0;
	if (!explicit->swapfiles && (search->strict || !explicit->layouts))
		return 0;
	if (search->subvolume && search->subvolume != file->generation)
		return 0;
	search->row = explicit->row;
	return find(search, explicit->inode);
}

static long look_at_inode(u32 i, struct search **in_hand)
{
	struct search *search = *in_hand;
	u64 head = ADDRESS_OF(search->sb, struct super_block, s_inodes);
	u64 entry = load64(search->entry);

	if (bpf_ktime_get_ns() > search->deadline)
		return 1;
	if (entry == head || !entry) {
		search->seen = entry != 0;
		return 1;
	}
	/* An inode that left the list points at itself: begin anew, a few times. */
	if (entry == search->entry) {
		search->entry = head;
		search->restarts++;
		return search->restarts > MAX_RESTARTS;
	}
	search->entry = entry;
	return look_at_file(search, entry - bpf_core_field_offset(((struct inode *)0)->i_sb_list));
}

/*
 * Walk the file system's own list of inodes: some pins may be unknown. The list may change meanwhile; a walk
 * that does not come back to its head in time is not finished. A global function, as walk_pages().
 */
__noinline int walk_inodes(struct search *search)
{
	if (!search)
		return 0;
	search->entry = ADDRESS_OF(search->sb, struct super_block, s_inodes);
	bpf_loop(MAX_STEPS, look_at_inode, &search, 0);
	return search->seen || search->is_held;
}

/*
 * Which file keeps the file system as it is? None, and the search not finished: counts as one. With `strict`, only
 * files held at level swapfile do. Files of which the task may do anything do not, but are told. One function: the walk
 * below it needs the frames.
 */
static __always_inline bool find_held(struct search *search)
{
	if (state.explicit_files && !search->encrypted)
		bpf_for_each_map_elem(&explicit_holds, look_at_explicit, search, 0);
	if (search->is_held)
		return true;
	if (!WATCHES_PINS || (search->strict && !(state.strict & STRICT_PINS)))
		return true;
	if (!search->deadline)
		search->deadline = deadline_of_walk();
	bpf_for_each_map_elem(&files, look_at_suspect, search, 0);
	if (search->is_held || hints_complete() || (search->strict && !(state.strict & STRICT_ALL)))
		return true;
	return search->sb && walk_inodes(search);
}

static __always_inline int judge_search(struct search *search, u32 operation, u64 detail)
{
	struct act act = { .operation = operation, .detail = detail, WHOLE_FILE };

	if (!find_held(search)) {
		__sync_fetch_and_add(&state.unfinished, 1);
		return decide(&act) ? REFUSED : ALLOWED;
	}
	if (!search->is_held && (!search->is_exempt || search->strict == STRICTLY_FIRST))
		return NOT_CONCERNED;
	act.inode = search->found;
	act.row = search->row;
	act.page = search->page;
	return decide(&act) ? REFUSED : ALLOWED;
}

static __always_inline bool is_search_refused(struct search *search, u32 operation, u64 detail)
{
	return judge_search(search, operation, detail) == REFUSED;
}

__noinline int judge_subvolume(u64 sb, u32 subvolume, u32 operation, u64 detail, u32 strict)
{
	struct search search = { .sb = sb, .subvolume = subvolume, .strict = strict };

	return judge_search(&search, operation, detail);
}

/* One file of the file system, by its number. */
__noinline int is_numbered_refused(u64 sb, u64 ino, u64 command)
{
	struct search search = { .sb = sb, .ino = ino };

	return is_search_refused(&search, OP_IOCTL, command);
}

/* Without the key nobody finds the file any more, and the kernel lets it go. */
__noinline int is_key_refused(u64 sb, u64 command)
{
	struct search search = { .sb = sb, .encrypted = 1 };

	return is_search_refused(&search, OP_IOCTL, command);
}

static __always_inline bool is_file_system_refused(u64 sb, u32 operation, u64 detail)
{
	return judge_subvolume(sb, 0, operation, detail, false) == REFUSED;
}

#endif
