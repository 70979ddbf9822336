/* SPDX-License-Identifier: GPL-2.0-only */
/* Folios: is one pinned long-term, and which file's is it? */
#ifndef LONGPIN_FOLIO_H
#define LONGPIN_FOLIO_H

#include "arch.h"
#include "maps.h"

/* GUP_PIN_COUNTING_BIAS: what one pin adds to the reference count of a small folio. */
#define PIN_BIAS 1024

/* What a tail page holds to name its head: a pointer plus 1 or, since 7.x, a mask plus 1. */
#define TAIL_MASK_FLOOR 0xffffffff00000000ULL

static __always_inline u64 struct_page_bytes(void)
{
	return bpf_core_type_size(struct page);
}

static __always_inline u64 tail_info(u64 page)
{
	if (bpf_core_field_exists(((struct page___compound_info *)0)->compound_info))
		return FIELD64(page, struct page___compound_info, compound_info);
	return FIELD64(page, struct page___compound_head, compound_head);
}

static __always_inline bool is_tail(u64 page)
{
	return tail_info(page) & 1;
}

/* The head that a tail page names. */
static __always_inline u64 head_by(u64 page, u64 info)
{
	if (info >= TAIL_MASK_FLOOR)
		return page & (info - 1);
	return info - 1;
}

static __always_inline u64 head_of(u64 page)
{
	u64 info = tail_info(page);

	return info & 1 ? head_by(page, info) : page;
}

static __always_inline bool is_large(u64 folio)
{
	return load64(folio) >> bpf_core_enum_value(enum pageflags, PG_head) & 1;
}

/*
 * A large folio counts its pins; a small one adds PIN_BIAS to its reference count for each. So a
 * small folio with more than a thousand plain references looks pinned. Very many pins make the count
 * negative: compare unsigned.
 */
static __always_inline bool is_pinned(u64 folio)
{
	if (is_large(folio))
		return FIELD32(folio, struct folio, _pincount) != 0;
	return FIELD32(folio, struct folio, _refcount) >= PIN_BIAS;
}

/* How many pages a large folio has. Read from memory that may be in use for something else by now. */
static __always_inline u32 pages_of_large(u64 folio)
{
	if (bpf_core_field_exists(((struct folio *)0)->_nr_pages))
		return FIELD32(folio, struct folio, _nr_pages);
	return FIELD32(folio, struct folio___folio_nr_pages, _folio_nr_pages);
}

static __always_inline bool is_regular(u64 inode)
{
	return (FIELD32(inode, struct inode, i_mode) & S_IFMT) == S_IFREG;
}

/* Which file system it is on. */
static __always_inline u64 magic_of(u64 inode)
{
	return FIELD64(FIELD64(inode, struct inode, i_sb), struct super_block, s_magic);
}

/* The inode whose pages an open file reads and writes; 0: none. */
static __always_inline u64 inode_of_file(u64 file)
{
	u64 mapping = FIELD64(file, struct file, f_mapping);

	return mapping ? FIELD64(mapping, struct address_space, host) : 0;
}

/* The regular file a folio caches, by inode address; 0 for anonymous memory and everything else. */
static __always_inline u64 inode_of(u64 folio)
{
	u64 mapping = FIELD64(folio, struct folio, mapping);
	u64 inode;

	/* The low bits mark anonymous, movable and merged pages. */
	if (!mapping || mapping & 3)
		return 0;
	inode = FIELD64(mapping, struct address_space, host);
	if (!inode || !is_regular(inode))
		return 0;
	return inode;
}

static __always_inline struct file_identity identify(u64 inode)
{
	u64 sb = FIELD64(inode, struct inode, i_sb);
	struct file_identity file = {
		.ino = FIELD64(inode, struct inode, i_ino),
		.dev = FIELD32(sb, struct super_block, s_dev),
		.generation = FIELD32(inode, struct inode, i_generation),
	};

	return file;
}

/* The generation is left out: on some file systems an ioctl changes it. */
static __always_inline bool same_file(const struct file_identity *a, const struct file_identity *b)
{
	return a->ino == b->ino && a->dev == b->dev;
}

/* What was an inode, until its memory is used again: it has left the list of its file system. */
static __always_inline bool is_evicted(u64 inode)
{
	u64 link = ADDRESS_OF(inode, struct inode, i_sb_list);

	return load64(link) == link;
}

/*
 * How far a page index must be shifted down to index this file's page cache: nothing, except that
 * hugetlbfs before 6.7 counts in huge pages.
 */
static __always_inline u32 index_unit(u64 inode)
{
	u64 sb, hstate;

	if (!hugetlb_by_huge_page)
		return 0;
	sb = FIELD64(inode, struct inode, i_sb);
	if (FIELD64(sb, struct super_block, s_magic) != HUGETLBFS_MAGIC)
		return 0;
	hstate = FIELD64(FIELD64(sb, struct super_block, s_fs_info), struct hugetlbfs_sb_info,
			 hstate);
	return FIELD32(hstate, struct hstate, order) & 63;
}

#endif
