#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As drop.sh, where packets jump at ingress too.
#
# Group: jump
# Long: stock quick

# For the other script, and the file with the cases.
# shellcheck disable=SC2034
LEVEL=2 CASES=jump/drop.sh
# shellcheck source=selftests/jump/drop.sh
. jump/drop.sh
