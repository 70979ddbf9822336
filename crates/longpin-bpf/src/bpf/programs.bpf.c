/* SPDX-License-Identifier: GPL-2.0-only */
#include "kread.h"
#include "maps.h"

/*
 * Run once at start: finds the statistics of the pin programs, which only the kernel's own list of
 * programs leads to. The refusals read in them whether a run was suppressed.
 */
SEC("iter/bpf_prog")
int find_statistics(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *program = ctx->prog;
	u32 id, i;

	if (!program)
		return 0;
	id = program->aux->id;
	for (i = 0; i < MAX_PIN_PROGRAMS; i++)
		if (state.program_ids[i] == id)
			bpf_core_read(&state.program_stats[i], sizeof(u64), &program->stats);
	return 0;
}
