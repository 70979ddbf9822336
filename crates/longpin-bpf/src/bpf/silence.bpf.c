/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Witnesses: whoever switches programs off, or on again, is seen before it is so. Pins were missed meanwhile: every
 * file is a suspect until a sweep that begins after that has looked.
 */
#include "silence.h"
#include "suspects.h"

#define SWITCH_NAME "kernel/ftrace_enabled"

/* A write to a file below /proc/sys, by anybody; 1: it goes on. */
SEC("?cgroup/sysctl")
int ftrace_switched(struct bpf_sysctl *ctx)
{
	const char wanted[] = SWITCH_NAME;
	char name[32] = {};
	u32 i;

	if (!ctx->write || bpf_sysctl_get_name(ctx, name, sizeof(name), 0) < 0)
		return 1;
	for (i = 0; i < sizeof(wanted); i++)
		if (name[i] != wanted[i])
			return 1;
	suspect_all();
	return 1;
}

/* ssize_t write_enabled_file_bool(file, buffer, count, position): of kprobes */
SEC("?fentry/write_enabled_file_bool")
int write_enabled_file_bool_entry(u64 *ctx)
{
	suspect_all();
	return 0;
}
