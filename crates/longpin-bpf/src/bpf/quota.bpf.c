/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C05: quotaon drops the pages of the file that quota is to be kept in, and so does quotaoff of the file in which it is.
 * Of xfs's and btrfs's own quota no file has a name.
 */
#include "refuse.h"

#define Q_QUOTAOFF 0x800003
#define CALL_QUOTACTL 179
#define MAX_QUOTAS 3

static __noinline bool is_quota_refused(u64 inode)
{
	struct act act = {
		.inode = inode,
		.operation = OP_UNKNOWN,
		.detail = CALL_QUOTACTL,
		WHOLE_FILE,
	};

	return inode && is_refused(&act);
}

/* int quota_on(struct dentry *dentry): C05 */
SEC("?lsm/quota_on")
int quota_on(u64 *ctx)
{
	u64 inode = FIELD64(number(ctx, 0), struct dentry, d_inode);
	int answer = -ETXTBSY;

	barrier_var(answer);
	return is_armed() && is_quota_refused(inode) ? answer : 0;
}

/* int quotactl(int cmds, int type, int id, const struct super_block *sb): C05 */
SEC("?lsm/quotactl")
int quotactl(u64 *ctx)
{
	u64 sb = number(ctx, 3);
	u32 type = ctx[1];
	int answer = -ETXTBSY;
	u64 files;

	if ((u32)ctx[0] != Q_QUOTAOFF || type >= MAX_QUOTAS || !sb || !is_armed())
		return 0;
	files = ADDRESS_OF(sb, struct super_block, s_dquot.files);
	barrier_var(answer);
	return is_quota_refused(load64(files + (u64)type * 8)) ? answer : 0;
}
