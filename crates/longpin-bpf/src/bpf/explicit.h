/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that are held because somebody asked for it: the range is the truth, no page is looked at. */
#ifndef LONGPIN_EXPLICIT_H
#define LONGPIN_EXPLICIT_H

#include "folio.h"

#define MAX_DESCRIPTORS (1 << 20)

static __always_inline u32 explicit_slot(u64 ino)
{
	return (u32)(ino ^ ino >> 12) & (EXPLICIT_SLOTS - 1);
}

/* On btrfs each subvolume numbers its files anew: the number of the subvolume. Elsewhere, and if not known, 0. */
static __always_inline u32 subvolume_of(u64 inode)
{
	u64 sb = FIELD64(inode, struct inode, i_sb);
	u32 where = state.subvolumes;

	if (!where || FIELD64(sb, struct super_block, s_magic) != BTRFS_MAGIC)
		return 0;
	return load32(load64(inode - SUBVOLUME_BACK(where)) + SUBVOLUME_NUMBER(where));
}

/* The identity under which a file is held: on some file systems an ioctl changes the generation. */
static __always_inline struct file_identity explicit_key(u64 inode)
{
	struct file_identity file = identify(inode);

	file.generation = subvolume_of(inode);
	return file;
}

static __always_inline bool same_explicit(const struct file_identity *a,
					  const struct file_identity *b)
{
	return same_file(a, b) && a->generation == b->generation;
}

static __always_inline struct explicit_hold *find_explicit(u64 inode)
{
	struct file_identity file;
	struct explicit_hold *found;

	if (!explicit_filter[explicit_slot(FIELD64(inode, struct inode, i_ino))])
		return 0;
	file = explicit_key(inode);
	found = bpf_map_lookup_elem(&explicit_holds, &file);
	/* It has come back at another address: there it has names. */
	if (found && found->inode != inode)
		found->inode = inode;
	return found;
}

/* Does an explicit hold cover pages of this range? One of level swapfile covers the whole file. */
static __always_inline bool covers(const struct explicit_hold *explicit, u64 first, u64 last)
{
	return explicit->swapfiles ||
	       (explicit->layouts && explicit->first <= last && first <= explicit->last);
}

struct possession {
	u64 files; /* address of the first struct file pointer */
	u64 token;
	u32 found;
};

static long look_at_descriptor(u32 i, struct possession *p)
{
	u64 file = load64(p->files + (u64)i * 8);

	p->found = file && FIELD64(file, struct file, f_inode) == p->token;
	return p->found;
}

/* The descriptors of this process: how many there is room for, and where the first one's file is. */
static __always_inline u32 descriptors(u64 *first)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 files = FIELD64((u64)task, struct task_struct, files);
	u64 table;

	if (!files)
		return 0;
	table = FIELD64(files, struct files_struct, fdt);
	*first = FIELD64(table, struct fdtable, fd);
	return FIELD32(table, struct fdtable, max_fds);
}

/* The file behind a descriptor of this process, or 0. */
static __always_inline u64 file_of_descriptor(u32 descriptor)
{
	u64 first = 0;

	if (descriptor >= descriptors(&first))
		return 0;
	return load64(first + (u64)descriptor * 8);
}

/* Has this process a descriptor of the token? Then it is the holder, or was started by it. */
static __noinline bool has_token(u64 token)
{
	struct possession p = { .token = token };
	u32 count = descriptors(&p.files);

	if (!token || !count)
		return false;
	bpf_loop(count < MAX_DESCRIPTORS ? count : MAX_DESCRIPTORS, look_at_descriptor, &p, 0);
	return p.found;
}

#endif
