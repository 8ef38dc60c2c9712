# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by selftests/bench/run and selftests/bench/profile. Sourced after selftests/lib/host.sh, in
# the root of the clone.

# all_rows: prints the names of all rows.
all_rows() {
	awk '!/^#/ && NF { printf "%s ", $1 }' selftests/bench/rows
}

# settings_of ROW: prints its settings in selftests/bench/rows.
settings_of() {
	awk -v row="$1" '$1 == row { $1 = ""; print substr($0, 2); found = 1 } END { exit !found }' selftests/bench/rows ||
		die "there is no row $1 in selftests/bench/rows: there are $(all_rows)"
}

# script_of ROW: prints the script that runs it.
script_of() {
	case $1 in
	memory | whole) echo "$1.sh" ;;
	*) echo bench.sh ;;
	esac
}

# bench_disk: builds the module and the programs, and fills the guest's disk.
bench_disk() {
	local program
	qemu/build.sh stock
	rm -rf build/disk-bench
	mkdir -p build/disk-bench build/bench
	for program in send rr; do
		in_toolchain gcc -O2 -Wall -Wextra -Werror -static -o "build/disk-bench/$program" "selftests/bench/$program.c"
	done
	cp build/stock/nf_zoneroute.ko selftests/bench/*.sh build/disk-bench/
	copy_selftests build/disk-bench
}

# bench_guest ROW SETTINGS LOG [KIND]: runs one scenario in a guest of its own, whose output goes to
# LOG.
bench_guest() {
	NFZR_SCALE=2000000 boot_guest "${4:-scale}" build/disk-bench "$3" "${3%.log}-console.log" \
		"bash $(script_of "$1") $1 $2 && echo '# row done'"
}

# count_lines SETTINGS LOG: counts the cache lines that a packet touches, by function, with some methods
# side by side, and the lines that two CPUs share which forward different connections. Prints tables.
count_lines() {
	local settings=$1 log=$2 trace=${2%.log}.trace control=${2%.log}.control
	local ways=plain,conntrack,flowtable,both,jump,ingress status=0
	in_toolchain gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o build/bench/lines.so selftests/bench/lines.c
	rm -rf -- "$control" "$log"
	mkdir -p "$control"
	printf '\0' >"$trace.on"
	NFZR_BOOT_OPTIONS="--control $control --plugin $NFZR_TOP/build/bench/lines.so,to=$NFZR_TOP/$trace" \
		bench_guest udp4 "$settings profile=$ways pair=1" "$log" pair &
	in_toolchain python3 selftests/bench/lines.py "$control" "$log" "$trace" "$ways" || status=$?
	wait $! || true
	[ "$status" -eq 0 ] || echo 'not ok - the accesses were not counted' >>"$log"
}

# judged LOG: whether all checks of a row were run and passed.
judged() {
	grep -q '^# row done$' "$1" && ! grep -q '^not ok' "$1"
}

# versions: prints the versions of the module, the kernel and the tools.
versions() {
	local release version
	read -r release version <<<"$(pinned_kernel)"
	echo "nf_zoneroute $(git describe --always --dirty)"
	echo "kernel $release $version"
	in_toolchain qemu-system-x86_64 --version | head -n 1
	in_toolchain gcc --version | head -n 1
	in_toolchain rustc --version
}
