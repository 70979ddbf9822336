/* SPDX-License-Identifier: GPL-2.0-only */
/* The refusals: what would take a pinned page away from its file is answered ETXTBSY, by range. */
#include "notes.h"
#include "real.h"
#include "strict.h"

/*
 * A file gets an end at or behind the one that it has, so no page is to go. But file systems drop what lies behind the
 * new end: the kernel splits the large folio that it cuts, which it cannot while that is pinned, and drops all of it
 * unless it is dirty. Dirty now may be clean by then. Files in memory dirty it themselves.
 */
__noinline int is_end_refused(struct act *act, u64 size)
{
	u64 first = 0, last = 0, magic;

	if (!act)
		return false;
	magic = magic_of(act->inode);
	if (magic == TMPFS_MAGIC || !is_regular(act->inode) || !is_suspect(act->inode))
		return false;
	find_folio(act->inode, size >> PAGE_SHIFT, &first, &last);
	act->first = size >> PAGE_SHIFT;
	/* The end of a small folio is only overwritten with zeroes. */
	if (first == last && size & (PAGE_SIZE - 1))
		act->first++;
	/* FUSE drops every page of a file whose size has changed. */
	if (magic == FUSE_MAGIC && size != FIELD64(act->inode, struct inode, i_size))
		act->first = 0;
	act->page = first_pinned(act->inode, act->first, ~0ULL);
	return act->page != NO_PAGE && decide(act);
}

/*
 * C01: truncate, ftruncate, O_TRUNC. A page that the new end cuts counts as affected. Growing and the size that the
 * file has are allowed, as long as the pages stay; level swapfile refuses that size, and of a DAX file any.
 */
static __always_inline int judge_setattr(u64 *ctx, u32 dentry, struct iattr *attr)
{
	s64 size = attr->ia_size, old;
	int strictly = NOT_CONCERNED;
	struct act act = { .operation = OP_TRUNCATE, .last = ~0ULL, .detail = size };

	if (!(attr->ia_valid & ATTR_SIZE) || !is_armed())
		return 0;
	act.inode = FIELD64(number(ctx, dentry), struct dentry, d_inode);
	if (!act.inode || size < 0)
		return 0;
	old = FIELD64(act.inode, struct inode, i_size);
	/* Growing, too, the file system waits until no device has a DAX page of the file: for as long as it is lent. */
	if (state.strict && (size <= old || FIELD32(act.inode, struct inode, i_flags) & S_DAX))
		strictly = judge_strictly(&act);
	if (strictly != NOT_CONCERNED)
		return strictly == REFUSED ? -ETXTBSY : 0;
	if (size >= old) {
		/* btrfs drops nothing when a file grows. */
		if (size > old && magic_of(act.inode) == BTRFS_MAGIC)
			return 0;
		return WATCHES_PINS && is_end_refused(&act, size) ? -ETXTBSY : 0;
	}
	act.first = size >> PAGE_SHIFT;
	return is_refused(&act) ? -ETXTBSY : 0;
}

/* int inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr): C01 */
SEC("?lsm/inode_setattr")
int inode_setattr(u64 *ctx)
{
	return judge_setattr(ctx, 1, (struct iattr *)ctx[2]);
}

/* The same on kernels where the hook has no idmap: C01 */
SEC("?lsm/inode_setattr")
int inode_setattr_without_idmap(u64 *ctx)
{
	return judge_setattr(ctx, 0, (struct iattr *)ctx[1]);
}

/*
 * Modes that change the pages of their range only. Collapse and insert move all that follows, and xfs
 * begins a block before that; a mode that this build does not know may do anything.
 */
#define RANGE_MODES                                                          \
	(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | \
	 FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_WRITE_ZEROES)

/* Which pages does the operation take away or replace? False: none. */
static __always_inline bool is_affected(const struct note *note, struct act *act)
{
	u64 size;

	act->operation = note->operation;
	act->detail = note->mode;
	if (note->operation == OP_FALLOCATE) {
		if (!(note->mode & ~FALLOC_FL_KEEP_SIZE))
			return false;
		if (note->mode & ~RANGE_MODES)
			return true;
	}
	act->first = note->offset >> PAGE_SHIFT;
	/* No length: up to the end of the source. */
	if (note->len && note->offset + note->len > note->offset)
		act->last = (note->offset + note->len - 1) >> PAGE_SHIFT;
	/* What xfs shares behind the end makes it drop all from the old end on. */
	if (note->operation != OP_FALLOCATE && magic_of(act->inode) == XFS_MAGIC) {
		size = FIELD64(act->inode, struct inode, i_size);
		if (size < note->offset)
			act->first = size >> PAGE_SHIFT;
	}
	return true;
}

/* Plain allocation behind the end: xfs sets the new one as truncate does. */
static __always_inline bool sets_end(const struct note *note, u64 inode)
{
	return note->operation == OP_FALLOCATE && !note->mode && magic_of(inode) == XFS_MAGIC &&
	       note->offset + note->len > FIELD64(inode, struct inode, i_size);
}

/*
 * C02, C03: fallocate, clone, dedupe and copy_file_range ask for write permission before anything is
 * changed; so does every write, which is none of this program's business. System call and kernel stack
 * say which of them this is, the note which range.
 */
static __noinline bool is_operation_refused(u64 *ctx, u64 inode, long call)
{
	struct act act = { .inode = inode, .operation = OP_UNKNOWN, .detail = call, WHOLE_FILE };
	struct note note;

	if (!is_in_operation(ctx, call))
		return false;
	if (!take_note(number(ctx, 0), &note))
		__sync_fetch_and_add(&state.unnoted, 1);
	else if (!is_affected(&note, &act))
		return WATCHES_PINS && sets_end(&note, inode) &&
		       is_end_refused(&act, note.offset + note.len);
	return is_refused(&act);
}

/*
 * C06: a direct write throws the page cache of its range away, and the hook does not know the range.
 * Files in memory have no other place to write to: their direct writes are plain ones.
 */
__noinline int judge_direct_write(u64 inode, long call)
{
	struct act act = {
		.inode = inode,
		.operation = OP_DIRECT_WRITE,
		.detail = call,
		.often = 1,
		WHOLE_FILE,
	};
	u64 magic = magic_of(inode);

	if (magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC)
		return NOT_CONCERNED;
	return judge(&act);
}

/*
 * C04: where a device may write to page cache, a clone of the page's blocks would be written, too. Its
 * source only asks for read permission.
 */
static __noinline bool is_source_refused(u64 *ctx, u64 inode, long call)
{
	struct act act = { .inode = inode, .operation = OP_UNKNOWN, .detail = call, WHOLE_FILE };
	struct note note;

	if (call == CALL_FALLOCATE || call == CALL_MADVISE || !is_source_operation(ctx, call))
		return false;
	if (take_source_note(number(ctx, 0), &note)) {
		act.operation = note.operation;
		act.first = note.source_offset >> PAGE_SHIFT;
		if (note.len && note.source_offset + note.len > note.source_offset)
			act.last = (note.source_offset + note.len - 1) >> PAGE_SHIFT;
	}
	return is_refused(&act);
}

static __always_inline bool can_share_blocks(struct file *file)
{
	return file->f_op && file->f_op->remap_file_range;
}

static __noinline int judge_access(u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	long call = system_call();
	int judged = NOT_CONCERNED;
	u64 inode;

	if ((is_plain_io(call) && !(file->f_flags & O_DIRECT)) || !is_armed())
		return 0;
	if (ctx[1] & MAY_WRITE)
		inode = written_inode(number(ctx, 0));
	else /* Overlayfs asks again for the file that it clones from. */
		inode = inode_of_file(number(ctx, 0));
	if (!inode || !is_regular(inode))
		return 0;
	if (!(ctx[1] & MAY_WRITE))
		return can_share_blocks(file) && is_source_refused(ctx, inode, call) ? -ETXTBSY : 0;
	if (file->f_flags & O_DIRECT)
		judged = judge_direct_write(inode, call);
	if (judged != NOT_CONCERNED)
		return judged == REFUSED ? -ETXTBSY : 0;
	if (is_plain_io(call))
		return 0;
	return is_operation_refused(ctx, inode, call) ? -ETXTBSY : 0;
}

/* An operation that reads: a clone's source only asks for read permission. */
static __always_inline bool is_copied_from(u64 *ctx, long call)
{
	if (is_plain_io(call) || call == CALL_FALLOCATE || call == CALL_MADVISE)
		return false;
	return is_source_operation(ctx, call);
}

/* At level swapfile: no write at all, and no copy of its blocks. For what is cloned from, overlayfs asks again. */
static __noinline int judge_strict_access(u64 *ctx)
{
	u64 file = number(ctx, 0);
	struct act act = { .operation = OP_UNKNOWN, WHOLE_FILE };

	act.inode = ctx[1] & MAY_WRITE ? written_inode(file) : inode_of_file(file);
	if (!act.inode || is_surely_free(act.inode))
		return NOT_CONCERNED;
	act.detail = system_call();
	if (is_plain_io(act.detail))
		act.operation = OP_WRITE;
	if (!(ctx[1] & MAY_WRITE) && !is_copied_from(ctx, act.detail))
		return NOT_CONCERNED;
	return judge_strictly(&act);
}

/*
 * int file_permission(struct file *file, int mask): C02, C03, C04, C06
 *
 * Each read and write comes by here: most reads need none of the registers that the other functions save.
 */
SEC("?lsm/file_permission")
int file_permission(u64 *ctx)
{
	u32 mask = ctx[1];
	int strictly = state.strict ? judge_strict_access(ctx) : NOT_CONCERNED;

	if (strictly != NOT_CONCERNED)
		return strictly == REFUSED ? -ETXTBSY : 0;
	if (!(mask & MAY_WRITE) && !(writable_file_pins && mask & MAY_READ))
		return 0;
	return judge_access(ctx);
}
