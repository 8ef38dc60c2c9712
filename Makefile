# SPDX-License-Identifier: GPL-2.0
#
# Everything that is not an ordinary module build is a script in qemu/ or selftests/; this only
# names them. `make help` lists the targets.

# The kernel to build for: this machine's, unless told otherwise.
KREL ?= $(shell uname -r)
# A prepared kernel tree, for an ordinary out-of-tree build by the tools of the host.
KDIR ?=

.PHONY: modules modules_install prepare setup debug-kernel demo test mutants bench bench-profile shell check rust-analyzer clean help

modules:
ifneq ($(KDIR),)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules
else
	@qemu/build.sh host $(KREL)
endif

modules_install:
ifneq ($(KDIR),)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install
else
	@qemu/install.sh $(KREL)
endif

prepare:
	@qemu/toolchain.sh
	@qemu/kernel.sh --prepare $(KREL)

setup:
	@qemu/setup.sh

demo: setup
	@qemu/demo.sh

debug-kernel: setup
	@qemu/kernel.sh --debug

test: debug-kernel
	@selftests/run $(TESTS)

mutants: debug-kernel
	@selftests/mutants/run $(MUTANTS)

bench: setup
	@selftests/bench/run $(ROW)

bench-profile: setup
	@selftests/bench/profile "$(ROW)" "$(WAYS)"

shell: setup
	@qemu/shell.sh

check: setup
	@qemu/check.sh

rust-analyzer: setup
	@qemu/build.sh rust-analyzer

clean:
	@qemu/clean.sh

help:
	@echo 'make demo              two tenants with the same addresses behind one router, in a booted kernel'
	@echo 'make test              every test; TESTS="hits.sh …" for some'
	@echo 'make mutants           every bug of selftests/mutants, each to be noticed; MUTANTS="…" for some'
	@echo 'make bench             what a packet costs, beside plain forwarding, conntrack and the nft flowtable; ROW="…" for some'
	@echo 'make bench-profile     by function; ROW=udp4 WAYS=plain,conntrack,both'
	@echo 'make check             format, lints, layers, shell scripts'
	@echo 'make shell             an interactive guest with the module loaded'
	@echo ''
	@echo 'make prepare           prepare a kernel tree for this machine (or KREL=…) from Debian'"'"'s packages'
	@echo 'make                   build nf_zoneroute.ko for it; KDIR=… for any prepared kernel tree with Rust'
	@echo 'make modules_install   install it for that kernel'
	@echo ''
	@echo 'make setup             only install and prepare what demo needs'
	@echo 'make debug-kernel      that and the debug kernel, which test and mutants need'
	@echo 'make rust-analyzer     rust-project.json for an editor'
	@echo 'make clean             remove what was built here (the cache stays: $${XDG_CACHE_HOME:-~/.cache}/nf_zoneroute)'
