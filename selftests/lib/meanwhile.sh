# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Commands that run over and over beside a test. A script that sources this defines at_end to call
# end_meanwhile.

MEANWHILE=/tmp/meanwhile
rm -rf "$MEANWHILE"
mkdir "$MEANWHILE"
MEANWHILE_JOBS=()
# The names of the commands.
MEANWHILE_NAMES=()

# meanwhile NAME PAUSE COMMAND...: runs the command until end_meanwhile, with pauses of so many
# seconds, and counts how often it succeeded.
meanwhile() {
	local name=$1 pause=$2 times=0
	shift 2
	(
		trap - ERR EXIT
		set +e
		while [ ! -e "$MEANWHILE/end" ]; do
			if "$@" >/dev/null 2>&1; then
				times=$((times + 1))
				echo "$times" >"$MEANWHILE/$name"
			fi
			sleep "$pause"
		done
	) &
	MEANWHILE_JOBS+=($!)
	MEANWHILE_NAMES+=("$name")
}

# times_of NAME: prints how often a command succeeded.
times_of() {
	cat "$MEANWHILE/$1" 2>/dev/null || echo 0
}

# each_succeeded TIMES: succeeds if each command did so at least so often.
each_succeeded() {
	local name
	for name in "${MEANWHILE_NAMES[@]}"; do
		[ "$(times_of "$name")" -ge "$1" ] || return 1
	done
}

# end_meanwhile: lets the commands run to their end.
end_meanwhile() {
	local job
	touch "$MEANWHILE/end"
	for job in "${MEANWHILE_JOBS[@]}"; do
		wait "$job" || true
	done
	MEANWHILE_JOBS=()
}
