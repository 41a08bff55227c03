# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The parts of scripts/bench. Each boots a guest, in which an instruction is a
# nanosecond, and makes tables and pictures of what programs in scripts/lib/bench print
# there. What they print is kept in $raw, and the tables and pictures go to $out.

bench=$top/scripts/lib/bench

# bench_programs SHARE PROGRAM...: build them for the guest.
bench_programs()
{
	local share=$1 program uapi

	shift
	uapi=$tree/include/uapi
	for program; do
		gcc -static -O2 -Wall -pthread -I "$top/selftests" -idirafter "$uapi" \
			-o "$share/$program" "$bench/$program.c" || return
	done
}

# The tree that the kernels were built from. Asked once: guests run at the same time.
bench_tree()
{
	if [[ $built ]]; then
		echo "$cache/trees/$base"
	else
		build_tree "$base"
	fi
}

# The kernel that has the alternatives, too; with --built, if it is there.
bench_kernel()
{
	local kernel

	kernel=$(x86_out "$base" bench)/arch/x86/boot/bzImage
	[[ -e $kernel ]] || kernel=$(x86_out "$base")/arch/x86/boot/bzImage
	[[ -e $kernel ]] || die "there is no $kernel; without --built it is built"
	echo "$kernel"
}

# bench_boot NAME KERNEL MEMORY SECONDS COMMAND: the guest's /run/share/out becomes
# $raw/NAME, what it prints is in $raw/NAME.log.
bench_boot()
{
	local name=$1 kernel=$2 memory=$3 seconds=$4 status=0

	shift 4
	say "$name: in a guest ..."
	boot_qemu_options="-icount shift=0,sleep=off" \
	boot_append="norandmaps nokaslr" \
		boot qemu "$kernel" "$memory" 1 "$seconds" \
		"echo 1 >/proc/sys/kernel/printk; uname -r; $*" >"$raw/$name.log" || status=$?
	if ((status)); then
		tail -n 15 "$raw/$name.log" >&2
		cp "$boot_share/out" "$raw/$name.failed" 2>/dev/null || true
		say "$name failed; all of the guest's output is in $raw/$name.log and $name.failed"
		return "$status"
	fi
	cp "$boot_share/out" "$raw/$name"
}

# with_share COMMAND...: with a folder that is shared with the guest.
with_share()
{
	local boot_share status=0

	boot_share=$(mktemp -d "$cache/share.XXXXXX")
	"$@" || status=$?
	rm -rf "$boot_share"
	return "$status"
}

khealthd_on='echo 1 >/proc/sys/kernel/khealthd/enabled'

# === cost ====================================================================

# What is compared: the kernel, whether khealthd is on, and below what it runs.
cost_columns=(none n off on bench kprobe fentry)

# cost_column COLUMN: what the guest prints is then in $raw/cost.COLUMN.
cost_column()
{
	local column=$1 state=off kernel cost_below='' cost_seconds=3000

	case $column in
	none)	state=none kernel=$(x86_out "$base" base) ;;
	n)	state=none kernel=$(x86_out "$base" off) ;;
	off | on)
		state=$column kernel=$(x86_out "$base") ;;
	bench)	kernel=$(x86_out "$base" bench) ;;
	kprobe | fentry)
		kernel=$(x86_out "$base" bench)
		watch_programs || return
		cost_below="/run/share/watch $column /run/share/watch.bpf.o" ;;
	esac
	kernel=$kernel/arch/x86/boot/bzImage
	if [[ $built && ! -e $kernel ]]; then
		say "cost: no kernel for '$column': not measured"
		return
	fi
	say "cost: $column, in a guest ..."
	cost_boot "$state" "$kernel" "${cost_rows[@]}" >"$raw/cost.$column.new" || {
		tail -n 15 "$raw/cost.$column.new" >&2
		return 1
	}
	mv "$raw/cost.$column.new" "$raw/cost.$column"
}

# An eBPF program, and what attaches it.
watch_programs()
{
	clang -O2 -g -target bpf -D__TARGET_ARCH_x86 -I/usr/include/x86_64-linux-gnu \
		-c "$bench/watch.bpf.c" -o "$boot_share/watch.bpf.o" &&
		gcc -O2 -Wall -o "$boot_share/watch" "$bench/watch.c" -lbpf
}

part_cost()
{
	local column

	for column in "${cost_columns[@]}"; do
		rm -f "$raw/cost.$column"
		with_share cost_column "$column" || return
	done
	python3 "$bench/cost.py" "$raw" "$out"
}

# bench_quick: the cost table against its limits, as scripts/test qemu has it.
bench_quick()
{
	local status=0

	packages build guest qemu
	if [[ ! $built ]]; then
		off_kernel "$base" || return
		x86_kernel "$base" || return
	fi
	cost_measure "$raw/quick" "$(x86_out "$base" off)/arch/x86/boot/bzImage" \
		"$(x86_out "$base")/arch/x86/boot/bzImage" || return
	cat "$raw/quick"
	cost_off_is_a_nop "$raw/quick" || status=1
	cost_on_is_cheap "$raw/quick" || status=1
	cost_full_is_cheap "$raw/quick" || status=1
	return "$status"
}

# === latency =================================================================

# Without shared libraries: to open one takes as long as the host takes.
latency_in_guest()
{
	local program

	for program in latency guard; do
		gcc -static -O2 -Wall -idirafter "$tree/include/uapi" \
			-o "$boot_share/khealthd_$program" \
			"$tree/tools/testing/selftests/khealthd/khealthd_$program.c" ||
			return
	done
	bench_boot latency "$(x86_out "$base")/arch/x86/boot/bzImage" 512M 3000 \
		"/run/share/khealthd_latency >/run/share/out"
}

part_latency()
{
	with_share latency_in_guest || return
	{
		echo ",\"median, us\",\"p99, us\",floors"
		sed -nE 's/^(\w+) +median ([0-9]+) ns, p99 ([0-9]+) ns, ratio (.*)/\1 \2 \3 \4/p' \
			"$raw/latency" | awk '
			BEGIN {
				name["eventfd"] = "floor: an eventfd wakes another process"
				name["netlink"] = "from a crossing to recv() of the notification"
				name["spawn"] = "floor: posix_spawn() of the same program"
				name["helper"] = "from a crossing to the helper in main()"
			}
			{ printf "%s,%.1f,%.1f,%s\n", name[$1], $2 / 1000, $3 / 1000, $4 }'
	} >"$out/latency.csv"
	say "$out/latency.csv"
}

# === scale ===================================================================

# Sockets, namespaces, and how many sockets are short at once.
scales=("1 1 0" "100 1 0" "10000 1 0" "100000 1 0" "100 10 0" "100 100 0"
	"1000 1 1" "1000 1 10" "1000 1 100" "1000 1 1000")

scale_in_guest()
{
	local scale command="$khealthd_on; cd /proc/sys/kernel/khealthd; echo 86400000 >quiet_ms; echo 0 >holdoff_ms"
	local tracing=/sys/kernel/tracing

	command+="; mount -t tracefs tracefs $tracing; echo mono >$tracing/trace_clock"
	command+="; echo 1 >$tracing/events/khealthd/khealthd_alert/enable"

	bench_programs "$boot_share" scale &&
	gcc -static -O2 -Wall -o "$boot_share/cost" "$top/scripts/lib/cost.c" || return
	for scale in "${scales[@]}"; do
		# Off and on again: nothing is left of the one before.
		command+="; echo 0 >enabled; sleep 1; echo 1 >enabled"
		command+="; /run/share/scale $scale /run/share/cost udp4 udp4_short udp4_full || exit"
	done
	bench_boot scale "$(x86_out "$base")/arch/x86/boot/bzImage" 1G 6000 \
		"{ $command; } >/run/share/out"
}

part_scale()
{
	with_share scale_in_guest || return
	awk '
		function row() {
			if (scale)
				printf "%s,%s,%s,%s,%s,%s,%s\n", scale, udp4, udp4_short, full, traced, received, ss
		}
		BEGIN { print "sockets,namespaces,short at once,a packet,\"a packet, low\",\"a packet, dropped\",\"to the trace event, us\",\"to recv(), us\",\"``ss -uanm``, us\"" }
		/^scale / { row(); gsub(/[a-z]+=/, ""); scale = $2 "," $3 "," $4 }
		/^traced:/ { traced = sprintf("%.0f", $2 / 1000) }
		/^received:/ { received = sprintf("%.1f", $2 / 1000) }
		/^ss:/ { ss = sprintf("%.0f", $2 / 1000) }
		/^udp4:/ { udp4 = $2 }
		/^udp4_short:/ { udp4_short = $2 }
		/^udp4_full:/ { full = $2 }
		END { row() }' "$raw/scale" >"$out/scale.csv"
	say "$out/scale.csv"
}

# === footprint ===============================================================

# Structures that hooks are near to.
footprint_structures=(sock sk_buff softnet_data net_device)

# grown t|d BASE: bytes of text or data that the objects with hooks and ours have more
# than with the option off.
grown()
{
	local out grown

	out=$(objects_out "$2")
	grown=$("$tree/scripts/bloat-o-meter" "-$1" "$out/off.o" "$out/on.o") || return
	awk 'NF == 4 && $4 ~ /^[+-]/ { sum += $4 } END { print sum + 0 }' <<<"$grown"
}

# section_size FILE PATTERN: bytes of the sections of that name that are loaded.
section_size()
{
	local sections

	sections=$(size -A "$1") || return
	awk -v name="$2" '
		NF == 3 && $1 ~ name && $1 !~ /debug|comment|note|^Total/ { n += $2 }
		END { print n + 0 }' <<<"$sections"
}

# section_grown PATTERN BASE
section_grown()
{
	local out on off

	out=$(objects_out "$2")
	on=$(section_size "$out/on.o" "$1") && off=$(section_size "$out/off.o" "$1") &&
		echo $((on - off))
}

# same_structure NAME BASE: "0", or "changed".
same_structure()
{
	local out on off

	out=$(objects_out "$2")
	on=$(pahole -C "$1" "$out/on/dev.o") && off=$(pahole -C "$1" "$out/off/dev.o") || return
	[[ $on && $off ]] || return
	if [[ $on = "$off" ]]; then
		echo 0
	else
		echo changed
	fi
}

# footprint_objects BASE: with the option in on.o, without it in off.o. Not all of a
# kernel: that is built for one base only.
footprint_objects()
{
	local out

	out=$(objects_out "$1")
	[[ $built ]] || objects "$1" || return
	ld -r -o "$out/off.o" "$out"/off/*.o &&
		ld -r -o "$out/on.o" "$out"/on/*.o "$out"/kernel/khealthd/*.o \
			"$out"/net/core/khealthd*.o
}

# footprint_row WORDS COMMAND...: a cell for each base.
footprint_row()
{
	local each cell row="\"$1\""

	for each in "${bases[@]}"; do
		cell=$("${@:2}" "$each") || { say "footprint: no '$1' of $each"; return 1; }
		row+=,$cell
	done
	echo "$row"
}

idle_in_guest()
{
	# shellcheck disable=SC2016 # the guest expands it
	bench_boot idle "$(x86_out "$base")/arch/x86/boot/bzImage" 512M 600 \
		"$khealthd_on"'; sleep 10; pid=$(pgrep -x khealthd)
		switches() { awk "/_switches/ { n += \$2 } END { print n }" /proc/$pid/status; }
		before=$(switches); sleep 3600; echo $(($(switches) - before)) >/run/share/out'
}

idle_of() { [[ $1 != "$base" ]] || cat "$raw/idle"; }

footprint_table()
{
	local name

	printf '"CONFIG_KHEALTHD=y in place of n, bytes more"'
	printf ',%s' "${bases[@]}"
	echo
	footprint_row "functions" grown t || return
	footprint_row "variables, constants" grown d || return
	footprint_row "all sections, by size: strings, tables for tracing and jump labels, init, too" \
		section_grown . || return
	footprint_row "per-CPU data" section_grown percpu || return
	for name in "${footprint_structures[@]}"; do
		footprint_row "struct $name" same_structure "$name" || return
	done
	footprint_row "on: wake-ups of the thread in an idle hour" idle_of
}

part_footprint()
{
	local each

	with_share idle_in_guest || return
	for each in "${bases[@]}"; do
		footprint_objects "$each" || return
	done
	footprint_table >"$raw/footprint" || return
	cp "$raw/footprint" "$out/footprint.csv"
	say "$out/footprint.csv"
}

# === caught, picture =========================================================

# caught_in_guest N: a part of the bursts, with a seed of its own.
caught_in_guest()
{
	bench_programs "$boot_share" caught &&
	bench_boot "caught.$1" "$(bench_kernel)" 512M 18000 \
		"$khealthd_on; /run/share/caught $(((bursts + caught_guests - 1) / caught_guests)) $1 >/run/share/out"
}

# So many guests at once: each is a process with one CPU.
caught_guests=4

part_caught()
{
	local n status=0
	local -a guests=()

	rm -f "$raw"/caught.[0-9]
	for ((n = 1; n <= caught_guests; n++)); do
		with_share caught_in_guest "$n" &
		guests+=($!)
	done
	for n in "${guests[@]}"; do
		wait "$n" || status=1
	done
	((status == 0)) || return
	python3 "$bench/caught.py" "$out" "$raw" "$raw"/caught.[0-9] || return
	plot caught
}

picture_in_guest()
{
	bench_programs "$boot_share" picture &&
	bench_boot picture "$(bench_kernel)" 512M 600 \
		"$khealthd_on; /run/share/picture >/run/share/out"
}

part_picture()
{
	with_share picture_in_guest || return
	python3 "$bench/picture.py" "$raw/picture" "$raw" || return
	plot picture
}

# plot NAME: scripts/lib/bench/NAME.gp draws what is in $raw. Nothing in a picture is
# of the day on which it was drawn, and mails have no long lines.
plot()
{
	(cd "$raw" && gnuplot -c "$bench/$1.gp" "$raw/$1.svg") || return
	sed 's/[[:space:]]*$//; /^$/d' "$raw/$1.svg" >"$out/$1.svg"
	say "$out/$1.svg"
}

# === All of it ===============================================================

bench_kernels()
{
	[[ ! $built ]] || return 0
	base_kernel "$base" && off_kernel "$base" && x86_kernel "$base" && x86_kernel "$base" bench
}

# What the numbers are of.
write_versions()
{
	local emulator

	emulator=$(unpacked emulator download_backports)/usr/bin/qemu-system-x86_64
	{
		echo "what,version"
		echo "kernel,$(sed -n '/^[0-9]\+[.][0-9]\+[.]/{p;q}' "$raw/picture.log" 2>/dev/null || echo "$base")"
		echo "khealthd,$(awk '/^## / { print $2; exit }' "$top/CHANGES")"
		echo "compiler,$(gcc --version | head -n 1 | sed 's/,/ /g')"
		echo "QEMU,$("$emulator" --version | sed -n '1s/.*version \([^ ]*\).*/\1/p')"
		echo "date,$(date -u +%F)"
	} >"$out/versions.csv"
}
