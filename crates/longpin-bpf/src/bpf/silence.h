/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Attached is not called: kernel.ftrace_enabled=0 stops every program that is attached to a function, those of LSM
 * hooks included, and /sys/kernel/debug/kprobes/enabled every probe. What is not attached to functions can tell.
 */
#ifndef LONGPIN_SILENCE_H
#define LONGPIN_SILENCE_H

#include "kread.h"
#include "maps.h"

/* Nothing is refused, and no pin is seen. */
static __always_inline bool is_silent(void)
{
	return !load32(ftrace_enabled);
}

/* Pins by a function that is probed are not seen. */
static __always_inline bool is_unprobed(void)
{
	return remote_probed && kprobes_all_disarmed && load32(kprobes_all_disarmed) & 0xff;
}

#endif
