/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Explicit holds, on behalf of the user side (BPF_PROG_TEST_RUN, by one command at a time). What they count down
 * may come at any moment: a token's last descriptor is closed.
 */
#include "explicit.h"
#include "rows.h"

static const struct explicit_hold no_explicit = { .first = ~0ULL };

static __always_inline struct explicit_hold *enter_explicit(struct file_identity *file)
{
	struct explicit_hold *found = bpf_map_lookup_elem(&explicit_holds, file);

	if (found)
		return found;
	if (bpf_map_update_elem(&explicit_holds, file, &no_explicit, BPF_NOEXIST))
		return 0;
	__sync_fetch_and_add(&explicit_filter[explicit_slot(file->ino)], 1);
	__sync_fetch_and_add(&state.explicit_files, 1);
	return bpf_map_lookup_elem(&explicit_holds, file);
}

static __always_inline void arm_explicit(struct explicit_hold *explicit, const struct row_key *key,
					 u64 first, u64 last, u64 id)
{
	explicit->inode = key->inode;
	explicit->row = id;
	if ((key->level & LEVEL_MASK) == LEVEL_SWAPFILE) {
		explicit->token = key->caller;
		__sync_fetch_and_add(&explicit->swapfiles, 1);
		return;
	}
	/* The last one may have gone: its range is nobody's now. */
	if (!explicit->layouts) {
		explicit->first = first;
		explicit->last = last;
	}
	lower(&explicit->first, first);
	raise(&explicit->last, last);
	__sync_fetch_and_add(&explicit->layouts, 1);
}

static __always_inline struct row *enter_hold_row(const struct row_key *key, u64 first, u64 last)
{
	struct claim claim = {
		.inode = key->inode, .first = first, .last = last, .verdict = PENDING
	};
	struct row *row;

	if (bpf_map_update_elem(&rows, key, &empty_row, BPF_NOEXIST))
		return 0;
	row = bpf_map_lookup_elem(&rows, key);
	if (!row)
		return 0;
	fill_row(row, &claim);
	/* Who ends it looks the file up, which may have left memory by then. */
	row->file = explicit_key(key->inode);
	return row;
}

/*
 * enter_hold(inode, level, first, last, token): from its return on the file is held, as long as the token is there, and
 * listed as not yet judged. -EBUSY: another hold excludes it, -ENOSPC: no room.
 */
SEC("raw_tp")
int enter_hold(u64 *ctx)
{
	struct row_key key = {
		.inode = ctx[0],
		.caller = ctx[4],
		.tgid = bpf_get_current_pid_tgid() >> 32,
		.level = ctx[1],
	};
	struct file_identity file = explicit_key(key.inode);
	struct explicit_hold *found = enter_explicit(&file);
	u64 token = key.caller;
	struct row *row;

	if (!found)
		return -ENOSPC;
	if (found->swapfiles || ((key.level & LEVEL_MASK) == LEVEL_SWAPFILE && found->layouts))
		return -EBUSY;
	row = enter_hold_row(&key, ctx[2], ctx[3]);
	if (!row)
		return -ENOSPC;
	if (bpf_map_update_elem(&tokens, &token, &key, BPF_NOEXIST)) {
		bpf_map_delete_elem(&rows, &key);
		return -ENOSPC;
	}
	__sync_fetch_and_add(&state.tokens, 1);
	arm_explicit(found, &key, row->first, row->last, row->id);
	return 0;
}

/* publish(inode, token, level), by who entered it: it is judged. From then on it is a hold, and persists if it is to. */
SEC("raw_tp")
int publish(u64 *ctx)
{
	struct row_key key = {
		.inode = ctx[0],
		.caller = ctx[1],
		.tgid = bpf_get_current_pid_tgid() >> 32,
		.level = ctx[2],
	};
	struct row *row = bpf_map_lookup_elem(&rows, &key);

	if (!row || row->verdict != PENDING)
		return -ENOENT;
	row->verdict = HELD;
	tell_in_name_of(row, key.inode, key.tgid, EVENT_HELD, OP_PIN);
	return 0;
}

/*
 * adopt(inode, token, tgid, level, first, last, ino, dev, subvolume, id): a hold of other programs, whose token the user side
 * has brought, and whose row it brings next: one that ends without its row is counted until the user side takes it back.
 * With 0 for the id, the row is there: its token may have gone before. -ENOSPC: no room.
 */
SEC("raw_tp")
int adopt(u64 *ctx)
{
	struct row_key key = {
		.inode = ctx[0],
		.caller = ctx[1],
		.tgid = ctx[2],
		.level = ctx[3],
	};
	struct file_identity file = { .ino = ctx[6], .dev = ctx[7], .generation = ctx[8] };
	struct file_identity now = explicit_key(key.inode);
	struct explicit_hold *found = enter_explicit(&file);
	u64 token = key.caller, id = ctx[9];
	struct row_key *end;

	if (!found)
		return -ENOSPC;
	if (id) {
		arm_explicit(found, &key, ctx[4], ctx[5], id);
		/* It may have left memory: who meets it again finds it by its numbers. */
		if (!same_explicit(&now, &file) || is_evicted(key.inode))
			found->inode = 0;
	}
	end = bpf_map_lookup_elem(&tokens, &token);
	if (found->token == token && (!end || end->inode != key.inode || end->tgid != key.tgid))
		found->token = 0;
	return 0;
}

/* take_back(inode, token, tgid, level, kind): a hold ends, with an event of this kind */
SEC("raw_tp")
int take_back(u64 *ctx)
{
	struct row_key key = {
		.inode = ctx[0],
		.caller = ctx[1],
		.tgid = ctx[2],
		.level = ctx[3],
	};

	drop_token(&key);
	return end_hold(&key, ctx[4], OP_PIN) ? 0 : -ENOENT;
}

/* tidy(ino, dev, subvolume): a file of which no hold is left is no longer looked up */
SEC("raw_tp")
int tidy(u64 *ctx)
{
	struct file_identity file = { .ino = ctx[0], .dev = ctx[1], .generation = ctx[2] };
	struct explicit_hold *found = bpf_map_lookup_elem(&explicit_holds, &file);

	if (!found || found->swapfiles || found->layouts ||
	    bpf_map_delete_elem(&explicit_holds, &file))
		return 0;
	__sync_fetch_and_add(&explicit_filter[explicit_slot(file.ino)], -1);
	__sync_fetch_and_add(&state.explicit_files, -1);
	return 1;
}

/* count_direct(inode): direct reads and writes that are under way */
SEC("raw_tp")
int count_direct(u64 *ctx)
{
	return FIELD32(ctx[0], struct inode, i_dio_count.counter);
}
