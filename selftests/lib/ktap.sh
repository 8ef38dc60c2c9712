# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# KTAP output, the cleanup at the end of a script, and polling.

CHECKS=0
JOBS=()

# Set to 1 by a failed check; the exit status of the script.
FAILED=0

plan() {
	PLAN=$1
	echo "1..$PLAN"
	trap finish EXIT
	set -o errtrace
	trap 'echo "# ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
}

ok() {
	CHECKS=$((CHECKS + 1))
	echo "ok $CHECKS - $*"
}

not_ok() {
	CHECKS=$((CHECKS + 1))
	FAILED=1
	echo "not ok $CHECKS - $*"
}

skip() {
	CHECKS=$((CHECKS + 1))
	echo "ok $CHECKS - $1 # SKIP $2"
}

# check NAME COMMAND...: makes one test, which passes if COMMAND succeeds.
check() {
	local name=$1
	shift
	if "$@"; then
		ok "$name"
	else
		not_ok "$name"
		printf '# failed: %s\n' "$*"
		show_state
	fi
}

# is ACTUAL EXPECTED: succeeds if both are equal; prints them if not.
is() {
	[ "$1" = "$2" ] || {
		printf '# got %s, expected %s\n' "$1" "$2"
		return 1
	}
}

show_state() {
	shown stats 2>/dev/null | sed '/ 0$/d; s/^/# /' || true
	shown routes 2>/dev/null | sed 's/^/# /; 12q' || true
}

# Cleanup run on every exit; scripts override it.
at_end() {
	:
}

# end_jobs PID...: kills these jobs and waits for them.
end_jobs() {
	local job
	for job; do
		kill "$job" 2>/dev/null || true
		kill -CONT "$job" 2>/dev/null || true
		# Wait for these PIDs only: waiting for an rmmod that hangs would never return.
		wait "$job" 2>/dev/null || true
	done
}

finish() {
	local status=$?
	at_end
	end_jobs "${JOBS[@]}"
	[ "$status" -ne 0 ] || references_agree || status=1
	end_jobs "${HOLDER[@]}"
	rm -f /tmp/agent.*
	for ns in $(ip netns list | awk '{ print $1 }'); do
		ip netns del "$ns"
	done
	if [ "$status" -ne 0 ]; then
		echo "# the script ended early with status $status"
	fi
	[ "$status" -ne 0 ] || [ "$CHECKS" -eq "$PLAN" ] || status=1
	[ "$status" -ne 0 ] || status=$FAILED
	exit "$status"
}

# until_true SECONDS COMMAND...: polls until COMMAND succeeds; fails after SECONDS * SLOW, or rather
# three times as much, because other work may keep the host's CPUs busy.
until_true() {
	local limit=$((SECONDS + $1 * SLOW * 3))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$limit" ] || return 1
		sleep 0.05
	done
}

# Runs every function test_* of the script, in the order of the file.
run_cases() {
	local name functions
	functions=$(sed -n 's/^\(test_[a-z0-9_]*\)() {$/\1/p' "${CASES:-$SCRIPT}")
	for name in $functions; do
		"$name"
	done
}
