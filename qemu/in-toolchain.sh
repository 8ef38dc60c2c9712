#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# in-toolchain.sh COMMAND...: run a command in the toolchain root, in the clone.

. "$(dirname -- "$0")/lib.sh"

in_toolchain "$@"
