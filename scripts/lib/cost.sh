#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Usage: scripts/lib/cost.sh [--rows "ROW..."] NONE WITH
#        scripts/lib/cost.sh --trace ROW NONE WITH
#
# What khealthd costs on hot paths, in instructions. NONE and WITH are kernels for
# x86-64 (bzImage), without khealthd and with it. QEMU runs each of them with
# "-icount shift=0", where an instruction takes one virtual nanosecond, and prints
# for each row what an iteration takes: in NONE, in WITH while khealthd is off, and
# while it is on, with its defaults; and how much more that is.
#
#   udp4 udp6    a datagram of 512 bytes is sent on lo and received
#   udp4_half    the same, with 70 % of the receive buffer taken
#   udp4_short   the same, with 95 % taken: below the low watermark
#   udp4_full    a datagram is sent to a full socket, and dropped
#   veth         as udp4, from another namespace through veth with RPS
#   tcp          a segment of 512 bytes is sent on lo and read
#   raw netlink packet
#                as udp4, with sockets of these kinds; ..._short with 95 % taken
#   ring         as packet, with a ring for what is received (TPACKET_V2)
#   ring_short   the same, with 30 of 32 frames taken
#   ring_full    as packet, but dropped as the ring is full
#   accept       a TCP connection on lo is made, accepted and reset
#   conntrack    as udp4, with connection tracking; each packet is a new connection
#   neighbour    an entry of the neighbour table is made and deleted, by rtnetlink
#   fragments    as udp4, in two fragments
#   file         a file is opened and closed
#   task         vfork(), and the child exits
#
# The last six are what the second series watches.
#
# --rows does only some of them. A row's number is what most of its batches agree
# on. "?" behind it says that these are less than half: then it cannot be compared.
#
# QEMU counts each round of a "rep" instruction as one.
#
# --trace tells where they differ: for an iteration in each of the three, the
# instructions by function, and the instructions themselves in three files to be
# given to diff. It wants each kernel's vmlinux, where the build left it.
#
# The kernels that scripts/test builds for this, in the cache's build folder, are
# x86-BASE-base and x86-BASE (arch/x86/boot/bzImage).

if [[ ${BASH_SOURCE[0]} = "$0" ]]; then
	# shellcheck source=scripts/lib/common.sh
	. "$(dirname "$0")/common.sh"
	# shellcheck source=scripts/lib/source.sh
	. "$top/scripts/lib/source.sh"
	# shellcheck source=scripts/lib/boot.sh
	. "$top/scripts/lib/boot.sh"
fi

cost_rows=(udp4 udp6 udp4_half udp4_short udp4_full veth tcp raw raw_short netlink
	netlink_short packet packet_short ring ring_short ring_full accept conntrack neighbour
	fragments file task)
cost_states=(none off on)

# cost_boot STATE KERNEL ARGUMENT...: run cost.c in the guest, with $boot_share;
# below another command if $cost_below is one. A kernel that is "none" has no khealthd.
cost_boot()
{
	local state=$1 kernel=$2 set=: sysctl=/proc/sys/kernel/khealthd/enabled

	shift 2
	[[ -f $kernel ]] || die "there is no kernel $kernel; scripts/test qemu builds two"
	if [[ $state != none ]]; then
		set="[[ -e $sysctl ]] || { echo 'no khealthd in this kernel: give one that has it second'; exit 1; }
			echo $([[ $state = on ]] && echo 1 || echo 0) >$sysctl"
	fi
	gcc -static -O2 -Wall -o "$boot_share/cost" "$top/scripts/lib/cost.c" || return
	boot_qemu_options="-icount shift=0,sleep=off ${boot_qemu_options:-}" \
	boot_append="norandmaps nokaslr ${boot_append:-}" \
		boot qemu "$kernel" 512M 1 "${cost_seconds:-900}" \
		"$set && ${cost_below:-} /run/share/cost $*"
}

# cost_measure OUT NONE WITH [ROW...]: what the guest prints, to OUT.none, OUT.off,
# OUT.on; the table made of it to OUT.
cost_measure()
{
	local out=$1 state boot_share status=0
	local -A kernel=([none]=$2 [off]=$3 [on]=$3)

	shift 3
	(($#)) || set -- "${cost_rows[@]}"
	boot_share=$(mktemp -d "$cache/share.XXXXXX")
	for state in "${cost_states[@]}"; do
		cost_boot "$state" "${kernel[$state]}" "$@" >"$out.$state" || status=$?
		((status == 0)) || break
	done
	rm -rf "$boot_share"
	if ((status)); then
		tail -n 25 "$out.$state" >&2
		say "cannot measure what ${kernel[$state]} does; all of its output is in $out.$state"
		return "$status"
	fi
	cost_table "$out".{none,off,on} >"$out"
}

# cost_table NONE OFF ON: "ROW none off on off-none on-none", with a head. A number is
# followed by "?" if less than half of the batches have it.
cost_table()
{
	awk '
		BEGIN { printf "%-14s %9s %9s %9s %9s %9s\n",
			"instructions", "none", "off", "on", "off-none", "on-none" }
		FNR == 1 { file++ }
		match($0, /^[a-z0-9_]+: [0-9.]+ instructions, /) {
			row = $1; sub(/:/, "", row)
			if (file == 1)
				rows[++n] = row
			value[row, file] = $2
			if ($5 * 2 < $7)
				unsure[row] = "?"
		}
		END {
			for (i = 1; i <= n; i++) {
				row = rows[i]
				none = value[row, 1]; off = value[row, 2]; on = value[row, 3]
				printf "%-14s %9.1f %9.1f %9.1f %+9.1f %+9.1f%s\n", row, none,
					off, on, off - none, on - none, unsure[row]
			}
		}' "$@"
}

# cost_within TABLE off|on ROW:LIMIT...: is that much more at most, in each ROW?
cost_within()
{
	local table=$1 column=5 limit bad=0

	[[ $2 = off ]] || column=6
	shift 2
	for limit; do
		awk -v row="${limit%:*}" -v limit="${limit#*:}" -v column="$column" '
			$1 == row {
				found = 1
				good = $column <= limit && !/[?]$/
				printf "%s: %s, at most +%s%s\n", row, $column, limit,
					good ? "" : ": NOT OK"
			}
			END { exit !(found && good) }' "$table" || bad=1
	done
	return "$bad"
}

# The limits: what a row may cost more than without khealthd. Off, that is one for each
# hook that it passes.
cost_off_is_a_nop()
{
	cost_within "$1" off udp4:4 udp6:4 udp4_full:4 veth:4 tcp:8 raw:5 netlink:4 packet:4 \
		ring:4 ring_full:4
}

cost_on_is_cheap() { cost_within "$1" on udp4:10 udp6:10 veth:10 tcp:20; }
cost_full_is_cheap() { cost_within "$1" on udp4_full:60; }

# cost_trace ROW NONE WITH
cost_trace()
{
	local row=$1 state boot_share monitor vmlinux mark log=$cache/log/cost-trace
	local -A kernel=([none]=$2 [off]=$3 [on]=$3)

	for state in "${cost_states[@]}"; do
		vmlinux=${kernel[$state]%/arch/x86/boot/bzImage}/vmlinux
		[[ -f $vmlinux ]] || die "there is no $vmlinux, which --trace takes functions' names from"
		say "Tracing $row in ${kernel[$state]}, $state ..."
		# A socket's path must be short.
		monitor=$(mktemp -d /tmp/khealthd.XXXXXX)
		boot_share=$(mktemp -d "$cache/share.XXXXXX")
		rm -f "$log"
		"$top/scripts/lib/cost-trace.py" record "$monitor/socket" "$boot_share/ready" "$log" &
		boot_qemu_options="-monitor unix:$monitor/socket,server,nowait" \
			cost_boot "$state" "${kernel[$state]}" --forever "$row" \
			>"$log.boot" 2>&1 || true
		wait $! || { tail -n 25 "$log.boot" >&2; die "cannot trace; see $log.boot"; }
		mark=$(nm "$boot_share/cost" | awk '$3 == "mark" { print $1 }')
		"$top/scripts/lib/cost-trace.py" show "$mark" "$vmlinux" "$log" \
			"$log-$row.$state" >"$log-$row.$state.functions"
		rm -rf "$monitor" "$boot_share" "$log" "$log.boot"
		say "    $(head -n 1 "$log-$row.$state.functions"); all of them are in $log-$row.$state"
	done
	cost_functions "$log-$row"
}

# cost_functions OUT: the functions in which not all three spend the same.
cost_functions()
{
	awk '
		BEGIN { printf "%6s %6s %6s  %s\n", "none", "off", "on", "function" }
		FNR == 1 { file++; next }
		{ count[$2, file] = $1; names[$2] }
		END {
			for (name in names) {
				none = count[name, 1] + 0; off = count[name, 2] + 0
				on = count[name, 3] + 0
				if (none != off || none != on)
					printf "%6d %6d %6d  %s\n", none, off, on, name | "sort -k4"
			}
		}' "$1".{none,off,on}.functions
}

cost_main()
{
	local rows='' trace=''

	while [[ ${1:-} = --* ]]; do
		case $1 in
		--help)	usage; exit ;;
		--rows)	rows=${2:-}; shift ;;
		--trace) trace=${2:-}; shift ;;
		*)	usage_error "unknown option '$1'" ;;
		esac
		shift || usage_error "an argument is missing"
	done
	(($# == 2)) || usage_error "two kernels are wanted, without khealthd and with it"
	packages build guest qemu
	mkdir -p "$cache/log"
	if [[ $trace ]]; then
		cost_trace "$trace" "$@"
		return
	fi
	# shellcheck disable=SC2086 # rows are words
	cost_measure "$cache/log/cost" "$@" $rows
	cat "$cache/log/cost"
}

if [[ ${BASH_SOURCE[0]} = "$0" ]]; then
	cost_main "$@"
fi
