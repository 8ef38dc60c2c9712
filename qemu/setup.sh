#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that building and booting needs, step by step; what is there already is not done again.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP/qemu"
./toolchain.sh
./kernel.sh
./guest.sh
# What a boot that was killed left behind.
find "$NFZR_CACHE" -maxdepth 1 -name 'boot.*' -mmin +600 -exec rm -rf -- {} +
