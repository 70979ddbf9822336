/* SPDX-License-Identifier: GPL-2.0-only */
/* The refusals: what would take a pinned page away from its file is answered ETXTBSY, by range. */
#include "notes.h"
#include "suspects.h"
#include "walk.h"

/* Whom does the guard refuse just now? */
static __always_inline bool is_armed(void)
{
	if (state.mode == MODE_ENFORCING)
		return true;
	return state.mode == MODE_PROVING && bpf_get_current_pid_tgid() >> 32 == state.prover;
}

/* Is a page of [first, end] of this file pinned long-term? A walk that cannot finish says yes. */
static __noinline bool holds(u64 inode, u64 first, u64 end)
{
	struct walk walk = { .index = first, .end = end, .only_first = 1, .max_steps = MAX_STEPS };

	__sync_fetch_and_add(&state.walks, 1);
	walk_pages(inode, &walk);
	if (!walk.finished)
		__sync_fetch_and_add(&state.unfinished, 1);
	return walk.pages || !walk.finished;
}

static __noinline int refuse_if_held(u64 inode, u64 first, u64 end)
{
	if (!is_regular(inode) || !is_suspect(inode) || !holds(inode, first, end))
		return 0;
	__sync_fetch_and_add(&state.refused, 1);
	return -ETXTBSY;
}

/*
 * C01: truncate, ftruncate, O_TRUNC. A page that the new end cuts counts as affected. Growing is
 * allowed, and so is the size that the file has.
 */
static __always_inline int judge_setattr(struct dentry *dentry, struct iattr *attr)
{
	s64 size = attr->ia_size;
	u64 inode = 0;

	if (!(attr->ia_valid & ATTR_SIZE) || !is_armed())
		return 0;
	bpf_core_read(&inode, sizeof(inode), &dentry->d_inode);
	if (!inode || size < 0 || size >= (s64)FIELD64(inode, struct inode, i_size))
		return 0;
	return refuse_if_held(inode, size >> PAGE_SHIFT, ~0ULL);
}

/* int inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr): C01 */
SEC("?lsm/inode_setattr")
int inode_setattr(u64 *ctx)
{
	return judge_setattr((struct dentry *)ctx[1], (struct iattr *)ctx[2]);
}

/* The same on kernels where the hook has no idmap: C01 */
SEC("?lsm/inode_setattr")
int inode_setattr_without_idmap(u64 *ctx)
{
	return judge_setattr((struct dentry *)ctx[0], (struct iattr *)ctx[1]);
}

/* Which pages does this fallocate take away or replace? False: none. */
static __always_inline bool affected(const struct note *note, u64 *first, u64 *end)
{
	if (!(note->mode & ~FALLOC_FL_KEEP_SIZE))
		return false;
	*first = note->offset >> PAGE_SHIFT;
	*end = (note->offset + note->len - 1) >> PAGE_SHIFT;
	/*
	 * Collapse and insert move all that follows, and xfs begins a block before that; a mode that
	 * this build does not know may do anything.
	 */
	if (note->mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
			   FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_WRITE_ZEROES)) {
		*first = 0;
		*end = ~0ULL;
	}
	return true;
}

/*
 * int file_permission(struct file *file, int mask): C02. vfs_fallocate asks it for write permission
 * before anything is changed; so does every write, which is none of this program's business. The kernel
 * stack says which of the two this is, the note which range.
 */
SEC("?lsm/file_permission")
int file_permission(u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	int mask = ctx[1];
	u64 first = 0, end = ~0ULL, inode;
	struct note note;

	if (!(mask & MAY_WRITE) || state.mode == MODE_OFF || is_plain_write() || !is_armed())
		return 0;
	inode = inode_of_file(file);
	if (!inode || !is_regular(inode) || !is_in_fallocate(ctx))
		return 0;
	if (!take_note(number(ctx, 0), &note))
		__sync_fetch_and_add(&state.unnoted, 1);
	else if (!affected(&note, &first, &end))
		return 0;
	return refuse_if_held(inode, first, end);
}
