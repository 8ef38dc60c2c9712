#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As order.sh, for packets that jump at ingress too.
#
# Group: jump
# Kernel: stock
# Long: quick

# For the other script, and the file with the cases.
# shellcheck disable=SC2034
LEVEL=2 CASES=jump/order.sh
# shellcheck source=selftests/jump/order.sh
. jump/order.sh
