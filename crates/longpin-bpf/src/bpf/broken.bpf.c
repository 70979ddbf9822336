/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C13: a page that leaves its file while it is pinned: something went round the hooks, or had asked them
 * before the pin. It cannot be held up here; it is reported, with who did it.
 */
#include "losses.h"

/* mm_filemap_delete_from_page_cache(struct folio *folio): C13 */
SEC("?tp_btf/mm_filemap_delete_from_page_cache")
int page_removed(u64 *ctx)
{
	struct suspect *known;
	struct loss loss = {};
	u64 folio;

	if (!state.all_files && !is_somebody_pinning())
		return 0;
	folio = number(ctx, 0);
	if (!is_pinned(folio))
		return 0;
	loss.inode = inode_of(folio);
	if (!loss.inode)
		return 0;
	known = find_suspect(loss.inode);
	if (!known || !(known->flags & FILE_HELD))
		return is_somebody_pinning() ? keep_loss(folio, loss.inode) : 0;
	loss.index = FIELD64(folio, struct folio, index);
	keep_stray(folio, loss.inode, loss.index);
	loss.call = system_call();
	return tell_of_loss(known, &loss);
}

/* No longer pinned, or something else by now. */
static long drop_if_ended(void *map, u64 *folio, struct stray *stray, void *none)
{
	u64 key = *folio;

	if (FIELD64(key, struct folio, mapping) ||
	    FIELD64(key, struct folio, index) != stray->first || !is_pinned(key))
		bpf_map_delete_elem(&strays, &key);
	return 0;
}

/* end_strays(): what is left in `strays` is still pinned. */
SEC("raw_tp")
int end_strays(u64 *ctx)
{
	bpf_for_each_map_elem(&strays, drop_if_ended, 0, 0);
	return 0;
}
