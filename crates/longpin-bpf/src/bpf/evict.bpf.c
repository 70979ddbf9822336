/* SPDX-License-Identifier: GPL-2.0-only */
#include "suspects.h"

/* void inode_free_security(struct inode *inode): the inode goes away, and with it the suspect */
SEC("?lsm/inode_free_security")
int inode_free_security(u64 *ctx)
{
	drop_suspect(number(ctx, 0));
	return 0;
}
