# SPDX-License-Identifier: GPL-2.0
#
# Everything except an ordinary module build is a script in qemu/ or selftests/; the targets only
# call it. `make help` lists the targets.

# The kernel release to build for; by default that of the running kernel.
KREL ?= $(shell uname -r)
# A prepared kernel tree for an ordinary out-of-tree build with the host's tools.
KDIR ?=

.PHONY: modules modules_install prepare setup debug-kernel demo test test-long mutants bench bench-profile shell check docs rust-analyzer clean help

modules:
ifneq ($(KDIR),)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules
else
	@qemu/build.sh host $(KREL)
endif

# Where modules_install puts the manual page.
MANDIR ?= $(INSTALL_MOD_PATH)/usr/local/share/man

modules_install:
ifneq ($(KDIR),)
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules_install
else
	@qemu/install.sh $(KREL)
endif
	install -D -m 644 docs/nf_zoneroute.4 $(MANDIR)/man4/nf_zoneroute.4

prepare:
	@qemu/toolchain.sh
	@qemu/kernel.sh --prepare $(KREL)

setup:
	@qemu/setup.sh

demo: setup
	@qemu/demo.sh

debug-kernel: setup
	@qemu/kernel.sh --debug

ifeq ($(origin KREL),file)
test: debug-kernel
	@selftests/run $(TESTS)
else
test:
	@NFZR_KREL=$(KREL) qemu/setup.sh
	@NFZR_KREL=$(KREL) selftests/run $(TESTS)
endif

test-long: debug-kernel
	@NFZR_DEBUG=kcsan qemu/kernel.sh --debug
	@NFZR_LONG=1 selftests/run $(TESTS)

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

docs: setup
	@qemu/in-toolchain.sh python3 qemu/documents.py

rust-analyzer: setup
	@qemu/build.sh rust-analyzer

clean:
	@qemu/clean.sh

help:
	@echo 'make demo              two tenants with the same addresses behind a router'
	@echo 'make test              all tests; TESTS="hits.sh …" selects; KREL=… those for the stock'
	@echo '                       kernel on another kernel of the archive'
	@echo 'make test-long         the tests that make test leaves out because they take long'
	@echo 'make mutants           check that tests notice each mutant; MUTANTS="…" selects'
	@echo 'make bench             packet cost beside plain, conntrack, flowtable; ROW="…"'
	@echo 'make bench-profile     packet cost by function; ROW=udp4 WAYS=plain,conntrack,both'
	@echo 'make check             format, lints, layers, shell scripts, documents'
	@echo 'make docs              write the generated tables of docs/, from the last results'
	@echo 'make shell             an interactive guest with the module loaded'
	@echo ''
	@echo 'make prepare           prepare a tree for this kernel (or KREL=…), Debian only'
	@echo 'make                   build nf_zoneroute.ko for it; KDIR=… for any prepared tree'
	@echo 'make modules_install   install nf_zoneroute.ko and nf_zoneroute(4)'
	@echo ''
	@echo 'make setup             install and prepare everything that demo needs'
	@echo 'make debug-kernel      setup, and build the debug kernel for test and mutants'
	@echo 'make rust-analyzer     make rust-project.json for an editor'
	@echo 'make clean             remove what was built here (the cache stays: $${XDG_CACHE_HOME:-~/.cache}/nf_zoneroute)'
