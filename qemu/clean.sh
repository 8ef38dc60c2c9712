#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Removes the output of builds and runs from the clone. Does not touch the cache.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP"
rm -rf build rust-project.json
find . -path ./.git -prune -o -type f \( -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' \
	-o -name '.*.cmd' -o -name '.*.d' -o -name '*.rmeta' -o -name '*_generated.h' -o -name '*_generated.rs' \
	-o -name Module.symvers -o -name modules.order -o -name '.module-common*' \) -exec rm -f -- {} +
