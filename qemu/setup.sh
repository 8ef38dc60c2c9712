#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that building and booting needs, step by step; what is there already is not done again.

set -euo pipefail

cd -- "$(dirname -- "$0")"
./toolchain.sh
./kernel.sh
./guest.sh
# What a boot that was killed left behind.
find "${NFZR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nf_zoneroute}" -maxdepth 1 -name 'boot.*' -mmin +600 -exec rm -rf -- {} +
