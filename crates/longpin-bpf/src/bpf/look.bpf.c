/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looking, on behalf of the user side (BPF_PROG_TEST_RUN): what of a range is pinned now, and which
 * files have pinned pages at all. Attached to nothing.
 */
#include "losses.h"
#include "names.h"
#include "rows.h"
#include "rules.h"
#include "silence.h"
#include "suspects.h"
#include "walk.h"

/* The names from the file up to the root of its file system. */
static __noinline int read_names(u64 inode, struct sight *sight)
{
	u64 dentry = first_dentry(inode);
	u64 parent;
	u32 depth;

	sight->parent = 0;
	for (depth = 0; depth < MAX_DEPTH && dentry; depth++) {
		parent = parent_of(dentry);
		if (depth == 0)
			sight->parent = inode_number(parent);
		/* The root has no name of its own; a file that is its own parent (memfd) has. */
		if (parent == dentry && depth)
			break;
		read_name(dentry, sight->names[depth].text, NAME_LEN);
		dentry = parent == dentry ? 0 : parent;
	}
	sight->depth = depth;
	return 0;
}

/*
 * inspect(inode, ino, dev << 32 | generation, first, last, only_run, nonce): fills `sights`; -ENOENT: the
 * inode is gone
 */
SEC("raw_tp")
int inspect(u64 *ctx)
{
	u64 inode = ctx[0];
	struct file_identity wanted = { .ino = ctx[1], .dev = ctx[2] >> 32, .generation = ctx[2] };
	struct file_identity found = identify(inode);
	struct walk walk = {
		.index = ctx[3],
		.end = ctx[4],
		.only_run = ctx[5],
		.max_steps = FEW_STEPS,
	};
	struct sight *sight;
	u64 other = 0;
	u32 zero = 0;

	sight = bpf_map_lookup_elem(&sights, &zero);
	if (!sight || !same_file(&wanted, &found) || !is_regular(inode) || is_evicted(inode))
		return -ENOENT;
	sight->nonce = 0;
	barrier();
	walk_pages(inode, &walk);
	sight->pages = walk.pages;
	sight->first = walk.first_pinned;
	sight->last = walk.last_pinned;
	if (walk.pages) {
		find_folio(inode, walk.first_pinned, &sight->folio_first, &other);
		find_folio(inode, walk.last_pinned, &other, &sight->folio_last);
	}
	sight->finished = walk.finished;
	sight->next = walk.index;
	sight->size = FIELD64(inode, struct inode, i_size);
	sight->links = FIELD32(inode, struct inode, i_nlink);
	read_names(inode, sight);
	barrier();
	sight->nonce = ctx[6];
	return 0;
}

/*
 * begin_sweep(): what the sweep is about to make good. The counts are taken before the first frame is
 * looked at; what is lost from now on is not made good by it.
 */
SEC("raw_tp")
int begin_sweep(u64 *ctx)
{
	u64 misses = count_misses();

	state.sweep_promotes = state.suspect_all || misses != state.acked_misses;
	/* While programs are not called, a sweep finds pins and misses the next one. */
	state.suspect_all = is_silent() || is_unprobed() ? SUSPECT_ALL : SWEEPING;
	state.prover = bpf_get_current_pid_tgid() >> 32;
	state.sweep_balance = state.entered - state.left;
	state.sweep_misses = misses;
	return 0;
}

/* introduce(): this process speaks for the user side. */
SEC("raw_tp")
int introduce(u64 *ctx)
{
	state.prover = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

/* check_hints(): HINTS_COMPLETE when every pin is known, HINTS_SILENT when no program is called */
SEC("raw_tp")
int check_hints(u64 *ctx)
{
	if (is_silent())
		return HINTS_SILENT;
	return !is_unprobed() && hints_complete() ? HINTS_COMPLETE : HINTS_INCOMPLETE;
}

static __always_inline bool has_pinned(u64 inode)
{
	struct walk walk = {
		.end = ~0ULL,
		.only_first = 1,
		.max_steps = MAX_STEPS,
		.deadline = deadline_of_walk(),
	};

	walk_pages(inode, &walk);
	return walk.pages || !walk.finished;
}

struct stray_search {
	u64 inode;
	u32 found;
};

static long is_stray_of(void *map, u64 *folio, struct stray *stray, struct stray_search *search)
{
	search->found = stray->inode == search->inode;
	return search->found;
}

/* A device still has pages that were this file's. */
static __always_inline bool has_strays(const struct suspect *known, u64 inode)
{
	struct stray_search search = { .inode = inode };

	if (known->broken)
		bpf_for_each_map_elem(&strays, is_stray_of, &search, 0);
	return search.found;
}

/*
 * forget(inode, only_flags): a suspect without a pinned page leaves the table (1), or, with `only_flags`, its
 * pins are no longer holds. A pin that comes meanwhile undoes that, or makes every file a suspect.
 */
SEC("raw_tp")
int forget(u64 *ctx)
{
	u64 inode = ctx[0], epoch;
	struct suspect *known = find_suspect(inode);

	if (!known)
		return 0;
	epoch = known->epoch;
	if (epoch & FORGETTING ||
	    __sync_val_compare_and_swap(&known->epoch, epoch, epoch | FORGETTING) != epoch)
		return 0;
	if (ctx[1]) {
		__sync_fetch_and_and(&known->flags, ~(FILE_HELD | FILE_STRICT));
		/* A pin since then saw the mark, and every file is a suspect: a sweep holds it anew. */
		__sync_fetch_and_and(&known->epoch, ~(u64)FORGETTING);
		return 1;
	}
	/* While a broken row is listed the suspect tells whether its file is still there. */
	if (!has_strays(known, inode) && !has_pinned(inode) && known->epoch == (epoch | FORGETTING))
		return drop_suspect(inode);
	__sync_fetch_and_and(&known->epoch, ~(u64)FORGETTING);
	return 0;
}

/*
 * end_row(inode, caller, tgid, kind, pins): unless it was pinned again since, an event in the name of the row's process; EVENT_ENDED also removes the
 * row, any other kind makes it one that is no hold.
 */
SEC("raw_tp")
int end_row(u64 *ctx)
{
	struct row_key key = { .inode = ctx[0], .caller = ctx[1], .tgid = ctx[2] };
	struct row *row = bpf_map_lookup_elem(&rows, &key);

	if (!row || !row->id || row->pins != ctx[4])
		return -ENOENT;
	if (tell_in_name_of(row, key.inode, key.tgid, ctx[3], OP_PIN))
		return -ENOENT;
	if (ctx[3] == EVENT_ENDED)
		bpf_map_delete_elem(&rows, &key);
	else
		row->verdict = RELEASED;
	return 0;
}
