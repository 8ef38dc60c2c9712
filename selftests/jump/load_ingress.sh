#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As under_load.sh, for packets that jump at ingress too.
#
# Group: debug
# Kernel: debug
# Long: stock

# For the other script, and the file with the cases.
# shellcheck disable=SC2034
LEVEL=2 CASES=jump/under_load.sh
# shellcheck source=selftests/jump/under_load.sh
. jump/under_load.sh
