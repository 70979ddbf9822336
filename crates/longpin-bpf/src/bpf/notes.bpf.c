/* SPDX-License-Identifier: GPL-2.0-only */
#include "notes.h"

/* int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len): C02 */
SEC("?fentry/vfs_fallocate")
int vfs_fallocate_entry(u64 *ctx)
{
	struct note note = {
		.operation = OP_FALLOCATE,
		.target = number(ctx, 0),
		.mode = ctx[1],
		.offset = ctx[2],
		.len = ctx[3],
	};

	return write_note(&note);
}

SEC("?fexit/vfs_fallocate")
int vfs_fallocate_exit(u64 *ctx)
{
	return drop_note();
}

/* Functions whose arguments begin with source, offset, target, offset, length. */
static __always_inline int note_transfer(u64 *ctx, u32 operation)
{
	struct note note = {
		.operation = operation,
		.source = number(ctx, 0),
		.source_offset = ctx[1],
		.target = number(ctx, 2),
		.offset = ctx[3],
		.len = ctx[4],
	};

	return write_note(&note);
}

/* loff_t vfs_clone_file_range(file_in, pos_in, file_out, pos_out, len, flags): C03, C04 */
SEC("?fentry/vfs_clone_file_range")
int vfs_clone_file_range_entry(u64 *ctx)
{
	return note_transfer(ctx, OP_CLONE);
}

SEC("?fexit/vfs_clone_file_range")
int vfs_clone_file_range_exit(u64 *ctx)
{
	return drop_note();
}

/* ssize_t vfs_copy_file_range(file_in, pos_in, file_out, pos_out, len, flags): C03, C04 */
SEC("?fentry/vfs_copy_file_range")
int vfs_copy_file_range_entry(u64 *ctx)
{
	return note_transfer(ctx, OP_COPY);
}

SEC("?fexit/vfs_copy_file_range")
int vfs_copy_file_range_exit(u64 *ctx)
{
	return drop_note();
}

/* loff_t vfs_dedupe_file_range_one(src_file, src_pos, dst_file, dst_pos, len, flags): C03, C04 */
SEC("?fentry/vfs_dedupe_file_range_one")
int vfs_dedupe_file_range_one_entry(u64 *ctx)
{
	return note_transfer(ctx, OP_DEDUPE);
}

SEC("?fexit/vfs_dedupe_file_range_one")
int vfs_dedupe_file_range_one_exit(u64 *ctx)
{
	return drop_note();
}

/* int reconfigure_super(struct fs_context *fc): C08 */
SEC("?fentry/reconfigure_super")
int reconfigure_super_entry(u64 *ctx)
{
	u64 context = number(ctx, 0);
	u64 root = FIELD64(context, struct fs_context, root);
	struct note note = {
		.operation = OP_REMOUNT,
		.target = FIELD64(root, struct dentry, d_sb),
		.mode = FIELD32(context, struct fs_context, sb_flags) & SB_RDONLY,
	};

	return write_note(&note);
}

SEC("?fexit/reconfigure_super")
int reconfigure_super_exit(u64 *ctx)
{
	return drop_note();
}
