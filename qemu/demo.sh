#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Boots the stock kernel and runs selftests/demo.sh.

. "$(dirname -- "$0")/lib.sh"

cd "$NFZR_TOP"
lock_clone
qemu/build.sh stock
rm -rf build/demo
mkdir -p build/demo
cp -r build/stock/nf_zoneroute.ko selftests/demo.sh selftests/lib selftests/tools build/demo/
read -r release _ <<<"$(pinned_kernel)"
printf '\nbooting the stock kernel %s\n' "$release"
qemu/boot.sh --timeout 300 --console "$NFZR_TOP/build/console-demo.log" build/demo 'exec bash demo.sh' | tr -d '\r'
