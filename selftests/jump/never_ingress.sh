#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As never.sh, for packets that jump at ingress too.
#
# Group: jump
# Long: stock quick

# For the other script, and the file with the cases.
# shellcheck disable=SC2034
LEVEL=2 CASES=jump/never.sh
# shellcheck source=selftests/jump/never.sh
. jump/never.sh
