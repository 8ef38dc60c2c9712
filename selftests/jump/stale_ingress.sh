#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As stale.sh, for packets that jump at ingress before the change.
#
# Group: stale-jump
# Long: stock quick

# For stale.sh, and the file with the cases.
# shellcheck disable=SC2034
JUMPS='jumping at ingress' LEVEL=2 CASES=route/stale.sh
# shellcheck source=selftests/route/stale.sh
. route/stale.sh
