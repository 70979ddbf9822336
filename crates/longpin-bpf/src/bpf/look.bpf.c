/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looking, on behalf of the user side (BPF_PROG_TEST_RUN): what of a range is pinned now, and which
 * files have pinned pages at all. Attached to nothing.
 */
#include "suspects.h"
#include "walk.h"

extern const void vmemmap_base __ksym;

/* The names from the file up to the root of its file system. */
static __always_inline u64 first_dentry(u64 inode)
{
	u64 alias = load64(ADDRESS_OF(inode, struct inode, i_dentry));

	if (!alias)
		return 0;
	if (bpf_core_field_exists(((struct dentry *)0)->d_alias))
		return alias - bpf_core_field_offset(((struct dentry *)0)->d_alias);
	return alias - bpf_core_field_offset(((struct dentry___d_u *)0)->d_u.d_alias);
}

static __noinline int read_names(u64 inode, struct sight *sight)
{
	u64 dentry = first_dentry(inode);
	u64 parent;
	u32 depth;

	for (depth = 0; depth < MAX_DEPTH && dentry; depth++) {
		parent = FIELD64(dentry, struct dentry, d_parent);
		/* The root has no name of its own; a file that is its own parent (memfd) has. */
		if (parent == dentry && depth)
			break;
		bpf_probe_read_kernel_str((char *)(sight + 1) + depth * NAME_LEN, NAME_LEN,
					  (void *)FIELD64(dentry, struct dentry, d_name.name));
		dentry = parent == dentry ? 0 : parent;
	}
	sight->depth = depth;
	return 0;
}

/* inspect(inode, ino, dev << 32 | generation, first, last): fills `sights`; -ENOENT: the inode is gone */
SEC("raw_tp")
int inspect(u64 *ctx)
{
	u64 inode = ctx[0];
	struct file_identity wanted = { .ino = ctx[1], .dev = ctx[2] >> 32, .generation = ctx[2] };
	struct file_identity found = identify(inode);
	struct walk walk = { .index = ctx[3], .end = ctx[4], .max_steps = FEW_STEPS };
	struct sight *sight;
	u32 zero = 0;

	sight = bpf_map_lookup_elem(&sights, &zero);
	if (!sight || !same_file(&wanted, &found) || !is_regular(inode))
		return -ENOENT;
	walk_pages(inode, &walk);
	sight->pages = walk.pages;
	sight->first = walk.first_pinned;
	sight->last = walk.last_pinned;
	sight->finished = walk.finished;
	sight->next = walk.index;
	sight->size = FIELD64(inode, struct inode, i_size);
	sight->links = FIELD32(inode, struct inode, i_nlink);
	return read_names(inode, sight);
}

struct sweep {
	u64 pages; /* address of the first struct page */
	u64 found;
};

static long sweep_page(u32 i, struct sweep *sweep)
{
	u64 page = sweep->pages + i * page_size_bytes();
	u64 inode;

	if (is_tail(page) || !is_pinned(page))
		return 0;
	inode = inode_of(page);
	if (inode) {
		mark_suspect(inode);
		sweep->found++;
	}
	return 0;
}

/*
 * sweep_frames(first, count): every page frame of the range; the file behind each pinned one becomes a
 * suspect. The caller goes by memory sections: where the first frame has no struct page, none has.
 */
SEC("raw_tp")
int sweep_frames(u64 *ctx)
{
	struct sweep sweep = {
		.pages = load64((u64)&vmemmap_base) + ctx[0] * page_size_bytes(),
	};
	u64 probe;

	if (bpf_probe_read_kernel(&probe, sizeof(probe), (void *)sweep.pages))
		return 0;
	bpf_loop(ctx[1], sweep_page, &sweep, 0);
	return sweep.found;
}

/*
 * begin_sweep(): what the sweep is about to make good. The counts are taken before the first frame is
 * looked at; what is lost from now on is not made good by it.
 */
SEC("raw_tp")
int begin_sweep(u64 *ctx)
{
	state.suspect_all = SWEEPING;
	state.prover = bpf_get_current_pid_tgid() >> 32;
	state.sweep_balance = state.entered - state.left;
	state.sweep_misses = count_misses();
	return 0;
}

/* check_hints(): 1 when every pin is known */
SEC("raw_tp")
int check_hints(u64 *ctx)
{
	return hints_complete();
}
