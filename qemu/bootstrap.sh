# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Makes a Debian root of the pinned suite from the mirror that this host's apt uses. Sourced by
# toolchain.sh, guest.sh and tool-root.sh.

# Prints NFZR_MIRROR if it is set, else the mirror that this host's apt uses for Debian itself.
debian_mirror() {
	if [ -n "${NFZR_MIRROR-}" ]; then
		printf '%s\n' "$NFZR_MIRROR"
		return
	fi
	command -v apt-get >/dev/null ||
		die "this host is not Debian: set NFZR_MIRROR to a Debian mirror"
	local sites
	sites=$(debian_sites)
	if [ -z "$sites" ]; then
		apt-get update >&2
		sites=$(debian_sites)
	fi
	[ -n "$sites" ] ||
		die "apt on this host names no Debian mirror: set NFZR_MIRROR to one"
	sites=$(grep -E '^https?://' <<<"$sites") ||
		die "apt on this host has Debian from a place that only it can read: set NFZR_MIRROR to a mirror (http or https)"
	printf '%s\n' "${sites%%$'\n'*}"
}

debian_sites() {
	# $(SITE) is apt's own format syntax.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(SITE)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u
}

# bootstrap PACKAGES-FILE TARGET [MMDEBSTRAP-OPTION...]: make an essential system of the pinned
# suite plus the packages that the file lists.
bootstrap() {
	local packages mirror list=$2.list
	packages=$(paste -sd, "$1")
	mirror=$(debian_mirror)
	printf 'deb %s %s main\n' "$mirror" "$DEBIAN_SUITE" "$mirror" "$DEBIAN_KERNEL_SUITE" >"$list"
	unshare --mount --propagation private --fork --kill-child \
		mmdebstrap --mode=root --variant=essential \
		--aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="$packages" "${@:3}" "$DEBIAN_SUITE" "$2" "$list"
	rm -- "$list"
}
