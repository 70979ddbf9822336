/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the kernel's own functions and variables lie (BPF_PROG_TEST_RUN, before the other programs are loaded). The
 * same is in /proc/kallsyms, all 200,000 lines of which the kernel writes anew for each reader.
 */
#include "kernel.h"

#define MAX_SYMBOLS 24

struct symbol {
	char name[64];
	u64 address;	/* out; 0: there is none, or it is hidden */
	char place[96]; /* out: name+0x0/0xLENGTH */
} symbols[MAX_SYMBOLS];

SEC("syscall")
int find_symbols(void *ctx)
{
	static const char format[] = "%pS";
	struct symbol *symbol;
	u64 address;
	u32 i;

	for (i = 0; i < MAX_SYMBOLS; i++) {
		symbol = &symbols[i];
		if (!symbol->name[0])
			break;
		address = 0;
		if (bpf_kallsyms_lookup_name(symbol->name, sizeof(symbol->name), 0, &address))
			continue;
		symbol->address = address;
		bpf_snprintf(symbol->place, sizeof(symbol->place), format, &address,
			     sizeof(address));
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
