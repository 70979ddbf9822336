/* SPDX-License-Identifier: GPL-2.0-only */
/* The guard, one object for every kernel row. */
#include "evict.bpf.c"
#include "layout.bpf.c"
#include "look.bpf.c"
#include "notes.bpf.c"
#include "pins.bpf.c"
#include "programs.bpf.c"

char LICENSE[] SEC("license") = "GPL";
