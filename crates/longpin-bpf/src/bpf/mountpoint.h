/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which file systems are mounted at a place, in any namespace? Who removes the place in one namespace unmounts them in
 * the others, and no hook is asked about that but the one that sees the place.
 */
#ifndef LONGPIN_MOUNTPOINT_H
#define LONGPIN_MOUNTPOINT_H

#include "kread.h"
#include "maps.h"

#define MAX_ON_ONE 4
#define MAX_COPIES (1 << 16)
#define CACHE_LINE 64

/* DCACHE_MOUNTED: the former since 6.8 or so, the latter before. Either means something rare in the other's time. */
#define MAY_BE_MOUNTED (1 << 15 | 1 << 16)

struct mounted {
	u64 place;
	u64 entry; /* of the list in hand */
	u64 found;
	u64 seen[MAX_ON_ONE];
	u32 count;
	u32 skip;
};

static __always_inline bool may_be_mountpoint(u64 dentry)
{
	return dentry && FIELD32(dentry, struct dentry, d_flags) & MAY_BE_MOUNTED;
}

static long find_mountpoint(u32 i, struct mounted *mounted)
{
	u64 at = mounted->entry;

	if (!at)
		return 1;
	at -= bpf_core_field_offset(((struct mountpoint *)0)->m_hash);
	if (FIELD64(at, struct mountpoint, m_dentry) == mounted->place) {
		mounted->found = at;
		return 1;
	}
	mounted->entry = load64(mounted->entry);
	return 0;
}

static long look_at_copy(u32 i, struct mounted *mounted)
{
	u64 mount = mounted->entry, sb;
	int k;

	if (!mount)
		return 1;
	mounted->entry = load64(mount);
	mount -= bpf_core_field_offset(((struct mount *)0)->mnt_mp_list);
	sb = FIELD64(mount, struct mount, mnt.mnt_sb);
	for (k = 0; k < MAX_ON_ONE; k++)
		if (mounted->seen[k] == sb)
			return 0;
	if (mounted->count == mounted->skip) {
		mounted->found = sb;
		return 1;
	}
	mounted->seen[mounted->count & (MAX_ON_ONE - 1)] = sb;
	mounted->count++;
	return 0;
}

/* The file system number `skip` of those that are mounted there; 0: there are no more. */
static __noinline u64 mounted_at(u64 dentry, u32 skip)
{
	struct mounted mounted = { .place = dentry, .skip = skip };
	u64 hash = dentry / CACHE_LINE;

	if (!mountpoint_table[0])
		return 0;
	hash += hash >> load32(mountpoint_table[2]);
	hash &= load32(mountpoint_table[1]);
	mounted.entry = load64(load64(mountpoint_table[0]) + hash * 8);
	bpf_loop(MAX_COPIES, find_mountpoint, &mounted, 0);
	if (!mounted.found)
		return 0;
	mounted.entry = FIELD64(mounted.found, struct mountpoint, m_list);
	mounted.found = 0;
	bpf_loop(MAX_COPIES, look_at_copy, &mounted, 0);
	return mounted.found;
}

#endif
