/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * May the current task write a file? Owner, mode bits or capability, however the file was opened: the
 * pins of those who may are holds. What depends on an ACL counts as no.
 */
#ifndef LONGPIN_OWNER_H
#define LONGPIN_OWNER_H

#include "folio.h"

#define CAP_DAC_OVERRIDE 1
#define SB_POSIXACL (1 << 16)
#define MAX_GROUPS 1024
#define GROUP_BITS 070
#define GROUP_WRITE 020
#define OTHER_WRITE 002
#define MAP_EXTENTS 5 /* of a user namespace, kept in place */

struct membership {
	u64 gids; /* address of the first */
	u32 wanted;
	u32 found;
};

static long compare_group(u32 i, struct membership *m)
{
	m->found = load32(m->gids + (u64)i * 4) == m->wanted;
	return m->found;
}

static __noinline bool is_in_group(u64 cred, u32 gid)
{
	u64 groups = FIELD64(cred, struct cred, group_info);
	struct membership m = { .wanted = gid };
	u32 count;

	if (FIELD32(cred, struct cred, fsgid.val) == gid)
		return true;
	if (!groups)
		return false;
	m.gids = ADDRESS_OF(groups, struct group_info, gid);
	count = FIELD32(groups, struct group_info, ngroups);
	bpf_loop(count < MAX_GROUPS ? count : MAX_GROUPS, compare_group, &m, 0);
	return m.found;
}

/* Does this map of a user namespace know a kernel id? */
static __always_inline bool maps_id(u64 map, u32 id)
{
	u32 count = FIELD32(map, struct uid_gid_map, nr_extents);
	u64 extent = ADDRESS_OF(map, struct uid_gid_map, extent);
	u32 lower, i;

	for (i = 0; i < MAP_EXTENTS && i < count; i++) {
		u64 at = extent + i * bpf_core_type_size(struct uid_gid_extent);

		lower = FIELD32(at, struct uid_gid_extent, lower_first);
		if (id >= lower && id - lower < FIELD32(at, struct uid_gid_extent, count))
			return true;
	}
	return false;
}

/* A capability counts over files whose owner and group its user namespace knows. */
static __noinline bool overrides(u64 cred, u64 inode)
{
	u64 space = FIELD64(cred, struct cred, user_ns);

	if (!(FIELD64(cred, struct cred, cap_effective) >> CAP_DAC_OVERRIDE & 1))
		return false;
	if (FIELD32(space, struct user_namespace, level) == 0)
		return true;
	return maps_id(ADDRESS_OF(space, struct user_namespace, uid_map),
		       FIELD32(inode, struct inode, i_uid.val)) &&
	       maps_id(ADDRESS_OF(space, struct user_namespace, gid_map),
		       FIELD32(inode, struct inode, i_gid.val));
}

static __always_inline bool has_acl(u64 inode, u32 mode)
{
	u64 acl = FIELD64(inode, struct inode, i_acl);
	u64 sb = FIELD64(inode, struct inode, i_sb);

	if (!(FIELD64(sb, struct super_block, s_flags) & SB_POSIXACL) || !(mode & GROUP_BITS))
		return false;
	return acl != 0;
}

/* HELD, READER or ACL_UNKNOWN */
__noinline int judge_task(u64 inode)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 cred = FIELD64((u64)task, struct task_struct, cred);
	u32 mode = FIELD32(inode, struct inode, i_mode);

	if (FIELD32(cred, struct cred, fsuid.val) == FIELD32(inode, struct inode, i_uid.val))
		return HELD;
	if (overrides(cred, inode))
		return HELD;
	if (has_acl(inode, mode))
		return ACL_UNKNOWN;
	if (is_in_group(cred, FIELD32(inode, struct inode, i_gid.val)))
		return mode & GROUP_WRITE ? HELD : READER;
	return mode & OTHER_WRITE ? HELD : READER;
}

#endif
