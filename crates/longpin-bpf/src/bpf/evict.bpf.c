/* SPDX-License-Identifier: GPL-2.0-only */
#include "rows.h"

/* void inode_free_security(struct inode *inode): the inode goes away, and with it the suspect, or the hold whose
 * token it was */
SEC("?lsm/inode_free_security")
int inode_free_security(u64 *ctx)
{
	u64 inode = number(ctx, 0);

	drop_suspect(inode);
	if (state.tokens)
		end_token(inode);
	return 0;
}
