#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As jump.sh, for packets that jump at ingress too.
#
# Group: jump
# Kernel: stock
# Long: quick

# For the other script, and the file with the cases.
# shellcheck disable=SC2034
LEVEL=2 CASES=jump/jump.sh
# shellcheck source=selftests/jump/jump.sh
. jump/jump.sh
