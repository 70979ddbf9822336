/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C13: a page that leaves its file while it is pinned: something went round the hooks, or had asked them
 * before the pin. It cannot be held up here; it is reported, with who did it.
 */
#include "events.h"
#include "notes.h"
#include "suspects.h"

#define BROKEN_GRAIN 1000000000 /* ns: one event a second for each file */

static __noinline int tell_of_loss(struct suspect *known, u64 inode, u64 index)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct happening what = {
		.kind = EVENT_BROKEN,
		.operation = OP_REMOVAL,
		.detail = system_call(),
		.inode = inode,
		.first = index,
		.last = index,
		.page = index,
		.row = known->row,
	};

	__sync_fetch_and_add(&known->broken, 1);
	if (known->broken_time && now - known->broken_time < BROKEN_GRAIN)
		return 0;
	known->broken_time = now;
	record(&what);
	return 0;
}

/* mm_filemap_delete_from_page_cache(struct folio *folio): C13 */
SEC("?tp_btf/mm_filemap_delete_from_page_cache")
int page_removed(u64 *ctx)
{
	struct suspect *known;
	u64 folio, inode;

	if (!state.all_files)
		return 0;
	folio = number(ctx, 0);
	if (!is_pinned(folio))
		return 0;
	inode = inode_of(folio);
	known = inode ? find_suspect(inode) : 0;
	if (!known || !(known->flags & FILE_HELD))
		return 0;
	__sync_fetch_and_add(&state.broken, 1);
	return tell_of_loss(known, inode, FIELD64(folio, struct folio, index));
}
