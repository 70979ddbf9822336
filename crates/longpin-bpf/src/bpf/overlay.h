/* SPDX-License-Identifier: GPL-2.0-only */
/* The file systems of an overlay's layers. It keeps private mounts of them, which end with it. */
#ifndef LONGPIN_OVERLAY_H
#define LONGPIN_OVERLAY_H

#include "kread.h"
#include "maps.h"

#define MAX_LAYERS 4

/* Number `i` of them; 0: there are no more, or this is no overlay, or it is not known where it keeps them. */
static __always_inline u64 layer_of(u64 sb, u32 i)
{
	u32 where = state.overlay[OVERLAY_LAYERS];
	u64 own;

	if (!where || FIELD64(sb, struct super_block, s_magic) != OVERLAYFS_MAGIC)
		return 0;
	own = FIELD64(sb, struct super_block, s_fs_info);
	if (i >= load32(own + LAYERS_COUNT(where)))
		return 0;
	return load64(load64(own + LAYERS_AT(where)) + (u64)i * LAYERS_SIZE(where));
}

#endif
