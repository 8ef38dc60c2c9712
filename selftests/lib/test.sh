# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by all selftests. Sourced in the guest by a script that calls `plan N` first and then makes
# N checks. The current directory is the one of the selftests from here on.

set -euo pipefail

SCRIPT=$(realpath -- "$0")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

# The debug kernel is slow: timeouts are multiplied by SLOW, and repetition counts divided by it.
SLOW=1
case $(uname -r) in *-debug | *-kcsan) SLOW=4 ;; esac

. lib/ktap.sh
. lib/topology.sh
# Most tests are about what a flow does. They want one from the first packet on.
PARAMETERS=(learn_after=0)
. lib/traffic.sh
. lib/proc.sh
