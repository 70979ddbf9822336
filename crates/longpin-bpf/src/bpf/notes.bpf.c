/* SPDX-License-Identifier: GPL-2.0-only */
#include "notes.h"

/* int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len): C02 */
SEC("?fentry/vfs_fallocate")
int vfs_fallocate_entry(u64 *ctx)
{
	u64 task = bpf_get_current_task();
	struct note note = {
		.file = number(ctx, 0), .mode = ctx[1], .offset = ctx[2], .len = ctx[3]
	};

	if (state.mode != MODE_OFF)
		bpf_map_update_elem(&notes, &task, &note, BPF_ANY);
	return 0;
}

SEC("?fexit/vfs_fallocate")
int vfs_fallocate_exit(u64 *ctx)
{
	u64 task = bpf_get_current_task();

	bpf_map_delete_elem(&notes, &task);
	return 0;
}
