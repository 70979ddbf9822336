/* SPDX-License-Identifier: GPL-2.0-only */
/* The guard, one object for every kernel row. */
#include "acquire.bpf.c"
#include "broken.bpf.c"
#include "evict.bpf.c"
#include "hold.bpf.c"
#include "ioctl.bpf.c"
#include "layout.bpf.c"
#include "look.bpf.c"
#include "mounts.bpf.c"
#include "notes.bpf.c"
#include "on_demand.bpf.c"
#include "pins.bpf.c"
#include "programs.bpf.c"
#include "quota.bpf.c"
#include "remote.bpf.c"
#include "silence.bpf.c"
#include "swapfile.bpf.c"
#include "sweep.bpf.c"

char LICENSE[] SEC("license") = "GPL";
