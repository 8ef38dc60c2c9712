#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Sets up everything that building and booting needs. Steps that are already done are skipped.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP/qemu"
./toolchain.sh
./kernel.sh
./guest.sh
# Remove the leftovers of killed boots.
find "$NFZR_CACHE" -maxdepth 1 -name 'boot.*' -mmin +600 -exec rm -rf -- {} +
