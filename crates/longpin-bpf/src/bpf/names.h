/* SPDX-License-Identifier: GPL-2.0-only */
/* The directory entries that name an inode. */
#ifndef LONGPIN_NAMES_H
#define LONGPIN_NAMES_H

#include "kread.h"
#include "shared.h"

/*
 * The first of the names that an inode has in the dentry cache; 0: none. In an inode that is being freed the
 * place holds something else: a name knows its inode.
 */
static __always_inline u64 first_dentry(u64 inode)
{
	u64 alias = load64(ADDRESS_OF(inode, struct inode, i_dentry));
	u64 dentry;

	if (!alias)
		return 0;
	if (bpf_core_field_exists(((struct dentry *)0)->d_alias))
		dentry = alias - bpf_core_field_offset(((struct dentry *)0)->d_alias);
	else
		dentry = alias - bpf_core_field_offset(((struct dentry___d_u *)0)->d_u.d_alias);
	return FIELD64(dentry, struct dentry, d_inode) == inode ? dentry : 0;
}

static __always_inline u64 parent_of(u64 dentry)
{
	return FIELD64(dentry, struct dentry, d_parent);
}

static __always_inline u64 inode_number(u64 dentry)
{
	u64 inode = FIELD64(dentry, struct dentry, d_inode);

	return inode ? FIELD64(inode, struct inode, i_ino) : 0;
}

static __always_inline void read_name(u64 dentry, char *name, u32 size)
{
	bpf_probe_read_kernel_str(name, size, (void *)FIELD64(dentry, struct dentry, d_name.name));
}

/* The name of an inode, and the number of the directory that it is in. */
static __always_inline u64 read_short_name(u64 inode, char *name)
{
	u64 dentry = first_dentry(inode);

	if (!dentry)
		return 0;
	read_name(dentry, name, SHORT_NAME_LEN);
	return inode_number(parent_of(dentry));
}

#endif
