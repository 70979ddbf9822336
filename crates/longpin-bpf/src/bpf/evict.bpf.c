/* SPDX-License-Identifier: GPL-2.0-only */
#include "gone.h"

/*
 * void inode_free_security(struct inode *inode): the inode goes away, and with it the suspect, or the hold whose
 * token it was. With the last name of a file, or with its subvolume, its explicit holds go, too.
 */
SEC("?lsm/inode_free_security")
int inode_free_security(u64 *ctx)
{
	u64 inode = number(ctx, 0);

	drop_suspect(inode);
	if (state.explicit_files) {
		if (!FIELD32(inode, struct inode, i_nlink))
			break_holds_of(inode);
		break_holds_in(inode);
		forget_inode(inode);
	}
	if (state.tokens)
		end_token(inode);
	return 0;
}

/*
 * void sb_delete(struct super_block *sb): C13. A file system ends, whoever was not asked about it: its inodes have gone, and
 * its device number is not yet free for another one.
 */
SEC("?lsm/sb_delete")
int sb_delete(u64 *ctx)
{
	if (state.explicit_files)
		break_holds_on(number(ctx, 0));
	return 0;
}
