/* SPDX-License-Identifier: GPL-2.0-only */
#include "rows.h"

/*
 * void inode_free_security(struct inode *inode): the inode goes away, and with it the suspect, or the hold whose
 * token it was. With the last name of a file its explicit holds go, too.
 */
SEC("?lsm/inode_free_security")
int inode_free_security(u64 *ctx)
{
	u64 inode = number(ctx, 0);

	drop_suspect(inode);
	if (state.lent_files && !FIELD32(inode, struct inode, i_nlink))
		end_holds_of(inode);
	if (state.tokens)
		end_token(inode);
	return 0;
}
