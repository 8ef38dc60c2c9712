#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that building and booting needs, step by step; what is there already is not done again.

set -euo pipefail

cd -- "$(dirname -- "$0")"
./toolchain.sh
./kernel.sh
./guest.sh
