/* SPDX-License-Identifier: GPL-2.0-only */
/* The file systems of an overlay's layers. It keeps private mounts of them, which end with it. */
#ifndef LONGPIN_OVERLAY_H
#define LONGPIN_OVERLAY_H

#include "kread.h"
#include "maps.h"

/* OVL_MAX_STACK, twice: layers above data only have names. */
#define MAX_LAYERS 1024

/* How many it has room for, some of which it may not have; 0: this is no overlay, or it is not known where it keeps them. */
static __noinline u32 layers_of(u64 sb)
{
	u32 where = state.overlay[OVERLAY_LAYERS], count;

	if (!where || FIELD64(sb, struct super_block, s_magic) != OVERLAYFS_MAGIC)
		return 0;
	count = load32(FIELD64(sb, struct super_block, s_fs_info) + LAYERS_COUNT(where));
	return count < MAX_LAYERS ? count : MAX_LAYERS;
}

/* Number `i` of them; 0: it has not. */
static __always_inline u64 layer_of(u64 sb, u32 i)
{
	u32 where = state.overlay[OVERLAY_LAYERS];
	u64 own = FIELD64(sb, struct super_block, s_fs_info);

	return load64(load64(own + LAYERS_AT(where)) + (u64)i * LAYERS_SIZE(where));
}

#endif
