# The front door. Every target but install-c is one line into `cargo xtask`, which explains itself with --help.

XTASK := cargo xtask
# Every row if none is named.
CHOSEN = $(foreach row,$(ROWS),--row $(row)) $(TESTS)
ROW   ?= latest
ROWS  ?=
TESTS ?=
PART  ?=
PREFIX ?= /usr/local
CMD   ?= uname -a
SUDO  := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup kernels kmod demo test test-long test-reboot test-weakened bench bench-all vm lint install-c
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# cargo needs a linker before it can build anything, xtask included.
setup: ## Install what is missing on a Debian machine
	@command -v cc >/dev/null || { $(SUDO) apt-get -q update && $(SUDO) apt-get -q -y --no-install-recommends install gcc libc6-dev; }
	@$(XTASK) setup

kernels: setup ## Fetch all kernels of KERNELS
	@$(XTASK) kernels

kmod: setup ## Build the kernel module for every row, into target/kmod/ROW. ROWS='6.1 latest': only for these
	@$(XTASK) kmod $(foreach row,$(ROWS),--row $(row))

demo: setup ## See the hazard and the cure, in a guest with a real kernel
	@$(XTASK) demo

test: setup ## Host tests, guest tests on every kernel, the demo. ROWS='6.1 latest', TESTS='c01 punch': only these in guests
	@$(XTASK) test $(CHOSEN)

test-long: setup ## The long tests, into docs/long-tests.md. ROWS=, TESTS=; PART=2/4: the second of four parts
	@$(XTASK) test --long $(if $(PART),--part $(PART)) $(CHOSEN)

test-reboot: setup ## See that what RDMA wrote to persistent memory outlives a killed guest
	@$(XTASK) reboot

test-weakened: setup ## See that tests fail when the guard is weaker, on kernel ROW
	@$(XTASK) weakened --kernel $(ROW)

bench: setup ## Count what the guard costs, in instructions, on kernel ROW (emulated: some minutes)
	@$(XTASK) bench $(ROW)

bench-all: setup ## The same on every kernel, into docs/benchmarks.md
	@$(XTASK) bench --all --write

vm: setup ## Run CMD in the guest with kernel ROW: make vm ROW=6.1 CMD='uname -r'
	@$(XTASK) vm --kernel $(ROW) -- sh -c '$(subst ','\'',$(CMD))'

lint: setup ## Formatting, lints, licences
	@$(XTASK) lint

install-c: ## Install the library for C, its header and longpin.pc below PREFIX
	@cargo build --release -p longpin-c
	@sh crates/longpin-c/install.sh target/release/liblongpin_c.so $(PREFIX)
