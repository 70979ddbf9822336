/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which file systems are mounted at a place, in any namespace? Who removes the place in one namespace unmounts them in
 * the others, and no hook is asked about that but the one that sees the place.
 */
#ifndef LONGPIN_MOUNTPOINT_H
#define LONGPIN_MOUNTPOINT_H

#include "kread.h"
#include "maps.h"

#define MAX_COPIES (1 << 16)
#define CACHE_LINE 64

/* DCACHE_MOUNTED: the former since 6.8 or so, the latter before. Either means something rare in the other's time. */
#define MAY_BE_MOUNTED (1 << 15 | 1 << 16)

struct mounted {
	u64 place;
	u64 entry; /* of the list in hand */
	u64 found;
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

/* The list of mounts there, by its first entry; 0: there are none. */
static __noinline u64 first_mounted_at(u64 dentry)
{
	struct mounted mounted = { .place = dentry };
	u64 hash = dentry / CACHE_LINE;

	if (!mountpoint_table.heads)
		return 0;
	hash += hash >> load32(mountpoint_table.shift);
	hash &= load32(mountpoint_table.mask);
	mounted.entry = load64(load64(mountpoint_table.heads) + hash * 8);
	bpf_loop(MAX_COPIES, find_mountpoint, &mounted, 0);
	return mounted.found ? FIELD64(mounted.found, struct mountpoint, m_list) : 0;
}

#endif
