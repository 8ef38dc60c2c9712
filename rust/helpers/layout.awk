# SPDX-License-Identifier: GPL-2.0
#
# Translates bindgen's layout tests into static_asserts in C. Anonymous members have no name in C
# and are checked by rustc only.

BEGIN {
	# A record is a Rust statement, no matter how rustfmt broke its lines.
	RS = ";"
	print "/* Generated from bindings_generated.rs. */"
}

/__bindgen/ { next }

/\["Size of / {
	match($0, /size_of::<[a-z0-9_]+>/)
	name = substr($0, RSTART + 10, RLENGTH - 11)
	match($0, /- [0-9]+usize/)
	size = substr($0, RSTART + 2, RLENGTH - 7)
	printf "static_assert(sizeof(struct %s) == %s);\n", name, size
	count++
}

/\["Offset of field: / {
	match($0, /offset_of!\([a-z0-9_]+, [a-z0-9_]+\)/)
	split(substr($0, RSTART + 11, RLENGTH - 12), part, ", ")
	match($0, /- [0-9]+usize/)
	offset = substr($0, RSTART + 2, RLENGTH - 7)
	field = part[2]
	sub(/_$/, "", field)
	printf "static_assert(offsetof(struct %s, %s) == %s);\n", part[1], field, offset
	count++
}

END {
	if (count < 20) {
		print "layout.awk: bindgen's layout tests were not found" > "/dev/stderr"
		exit 1
	}
}
