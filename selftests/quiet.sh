#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# khealthd raises no alert in normal life: not when the page cache fills up and
# memory is as full as it gets, not from netlink dumps then, not from healthy
# connections, and not from other programs' work with sockets.
#
# What does lose packets by the kernel's own counters, on a machine that is too slow
# for it, is no such case: it is skipped if khealthd told of it, and fails if not.
#
# KHEALTHD_TEST_DIR is a folder for a file larger than memory, khealthd.fill; its
# file system must use the page cache. Without it that part is skipped. With
# KHEALTHD_FULL set, all of stress-ng's network stressors are run, for 5 s each.

# Functions are called by quiet():
# shellcheck disable=SC2317

ksft_skip=4
sysctl=/proc/sys/kernel/khealthd
sysfs=/sys/kernel/khealthd

[[ -e $sysctl/enabled ]] || { echo "1..0 # SKIP this kernel has no khealthd"; exit $ksft_skip; }
((EUID == 0)) || { echo "1..0 # SKIP must be root"; exit $ksft_skip; }
[[ ${KHEALTHD_DIR:-} ]] || exec "${0%/*}/khealthd_guard" "$0" "$@"

failed=0
test=0
echo "TAP version 13"

ok() { test=$((test + 1)); echo "ok $test $*"; }
not_ok() { test=$((test + 1)); failed=1; echo "not ok $test $*"; }

counts() { grep -H . "$sysfs"/*/{alerts,crossings}; }

# The kernel's counters of what was refused for want of space, but for TCP's: its
# buffers are not watched here.
refused()
{
	awk '/^Udp: [0-9]/ { print "Udp", $6, $10 }' /proc/net/snmp
	awk '$1 ~ /^Udp.*(RcvbufErrors|MemErrors)$/' /proc/net/snmp6
	cut -d' ' -f2 /proc/net/softnet_stat
}

# Those of the sockets that are open now, added up.
sockets_losses()
{
	{
		ss -Hnamwu 2>/dev/null | sed -n 's/.*,d\([0-9]*\)).*/\1/p'
		ss -Hnam0 2>/dev/null | sed -n 's/.*,d\([0-9]*\)).*/\1/p'
		awk 'NR > 1 { print $9 }' /proc/net/netlink
	} | awk '{ sum += $1 } END { print sum + 0 }'
}

# Sockets take their counters with them: note while they are there how much was lost.
watch_sockets()
{
	local before now

	before=$(sockets_losses)
	while now=$(sockets_losses); do
		((now <= before)) || echo "$now" >"$KHEALTHD_DIR/lost"
		sleep 1
	done
}

# quiet NAME COMMAND...: run COMMAND; there must be no alert and no crossing. Set
# $blind if it is not known what COMMAND loses.
blind=''
quiet()
{
	local name=$1 before after lost_before lost watcher result

	shift
	rm -f "$KHEALTHD_DIR/lost"
	# What still waits to be notified of the command before is dropped.
	echo 0 >$sysctl/enabled
	echo 1 >$sysctl/enabled
	before=$(counts)
	lost_before=$(refused)
	watch_sockets &
	watcher=$!
	"$@"
	result=$?
	kill "$watcher"
	wait "$watcher" 2>/dev/null
	lost=$(refused)
	after=$(counts)
	if ((result)); then
		not_ok "$name: $* failed"
		return
	elif [[ $lost_before = "$lost" && ! -e $KHEALTHD_DIR/lost ]]; then
		[[ $before = "$after" ]] && { ok "$name"; return; }
		[[ ! $blind ]] || { ok "$name # SKIP $blind"; return; }
	elif [[ $before != "$after" ]]; then
		ok "$name # SKIP it lost packets, and khealthd told of it"
		return
	else
		echo "# packets were lost"
	fi
	diff <(echo "$before$lost_before") <(echo "$after$lost") | sed 's/^/# /'
	not_ok "$name"
}

# dumps: whole netlink dumps, as long as the file is there; each has all there is.
# Not one after the other, so that the CPU has time for the page cache.
dumps()
{
	local n=0

	while [[ -e $KHEALTHD_DIR/full ]]; do
		(($(ip -n "$space" route show table all | wc -l) >= routes)) || return 1
		(($(ip netns exec "$space" ss -Htuna | wc -l) >= 500)) || return 1
		n=$((n + 1))
		sleep 3
	done
	((n >= 2)) || { echo "# only $n dumps"; return 1; }
}

# Many routes and sockets, in a namespace.
routes=4000
many_routes()
{
	space=${KHEALTHD_DIR##*/}
	ip netns add "$space"
	ip -n "$space" link add d0 up type dummy
	for ((i = 0; i < routes; i++)); do
		echo "route add 10.$((i / 256)).$((i % 256)).0/24 dev d0"
	done | ip -n "$space" -batch -
	ip netns exec "$space" python3 -c '
import signal, socket
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(500)]
for sock in sockets:
    sock.bind(("", 0))
print(flush=True)
signal.pause()' >"$KHEALTHD_DIR/sockets" &
	sockets=$!
	until [[ -s $KHEALTHD_DIR/sockets ]]; do
		kill -0 "$sockets" || return
		sleep 0.1
	done
}

# While a file of twice the size of memory is written and read, packets flow, so
# that khealthd looks at memory. Packets of a page's size: larger ones need pages
# in a row, and to fail for want of these is a loss of packets worth telling.
fill_page_cache()
{
	local file=$KHEALTHD_TEST_DIR/khealthd.fill pings size reclaimed dumps

	size=$(awk '/^MemTotal:/ { print int($2 / 1024) * 2 }' /proc/meminfo)
	reclaimed=$(awk '/^pgsteal_kswapd / { print $2 }' /proc/vmstat)
	ping -q -f -s 1400 127.0.0.1 >/dev/null &
	pings=$!
	touch "$KHEALTHD_DIR/full"
	dumps &
	dumps=$!
	exec 3>"$file"
	exec 4<"$file"
	rm "$file"	# it is gone when nobody has it open any more
	dd if=/dev/zero bs=1M count="$size" status=none >&3 &&
		dd bs=1M status=none <&4 >/dev/null
	local result=$?
	exec 3>&- 4<&-
	rm "$KHEALTHD_DIR/full"
	wait "$dumps" || { echo "# a dump has not all"; return 1; }
	kill -INT "$pings" || { echo "# no packets flowed"; return 1; }
	wait "$pings"
	# Was memory full at all? Then the kernel had to make room.
	awk -v before="$reclaimed" '/^pgsteal_kswapd / { exit $2 <= before }' /proc/vmstat ||
		{ echo "# kswapd had nothing to do"; return 1; }
	return "$result"
}

silent() { "$@" >/dev/null 2>&1; }

# iperf ARGUMENT...: run a client for some seconds, and a server for it that nobody
# keeps from reading; its report comes out.
iperf()
{
	local server result

	chrt --rr 1 iperf3 -s -1 -p 5299 >/dev/null &
	server=$!
	for _ in {1..100}; do
		ss -Hltn 'sport = 5299' | grep -q . && break
		sleep 0.1
	done
	iperf3 -c 127.0.0.1 -p 5299 "$@"
	result=$?
	wait "$server"
	return "$result"
}

# of_report NAME: a number at the end of iperf's report, as a whole one.
of_report() { python3 -c "import json, sys; print(int(json.load(sys.stdin)['end']['sum']['$1']))"; }

# A hundredth of a speed, in bits a second, at which nothing is lost: the receive
# buffer then takes what comes in some tenths of a second.
hundredth_of_speed()
{
	local rate report

	echo 0 >$sysctl/enabled
	rate=$(iperf -u -b 0 -t 1 -J | of_report bits_per_second)
	until report=$(iperf -u -b "$rate" -t 1 -J) &&
		(($(of_report lost_packets <<<"$report") == 0)); do
		((rate /= 2)) || break
	done
	echo 1 >$sysctl/enabled
	echo $((rate / 100))
}

echo 1 >$sysctl/enabled

if ! [[ -d ${KHEALTHD_TEST_DIR:-} ]]; then
	ok "filling the page cache # SKIP KHEALTHD_TEST_DIR is not set"
elif ! command -v ping >/dev/null; then
	ok "filling the page cache # SKIP no ping"
elif ! many_routes; then
	not_ok "filling the page cache: no sockets"
else
	quiet "filling the page cache, with dumps" fill_page_cache
	kill "$sockets"
	ip netns del "$space"
fi

# quiet_with PROGRAM NAME COMMAND...: the same, if there is that program.
quiet_with()
{
	local program=$1 name=$2

	shift
	if command -v "$program" >/dev/null; then
		quiet "$@"
	else
		ok "$name # SKIP no $program"
	fi
}

# stress NAME [OPTION...]: one of stress-ng's stressors.
stress() { silent stress-ng --temp-path "$KHEALTHD_DIR" "--$1" 1 "${@:2}"; }

quiet_with iperf3 "healthy TCP" silent iperf -t 5
# At a rate that a slow machine keeps up with.
quiet_with iperf3 "healthy UDP" silent iperf -u -t 5 -b "$(hundredth_of_speed)"
quiet_with hackbench "hackbench" silent hackbench -g 2 -l 50
if [[ ${KHEALTHD_FULL:-} ]]; then
	for name in $(stress-ng --class 'network?' | sed 's/.*: //'); do
		blind=''
		# These are sent more than they can take when they end.
		[[ $name != raw* ]] || blind="it had an alert, but its sockets are gone"
		quiet "stress-ng $name" stress "$name" --timeout 5
	done
else
	for name in sock epoll netdev sockpair sockdiag sockfd; do
		quiet_with stress-ng "stress-ng $name" stress "$name" --timeout 20 \
			"--$name-ops" 200
	done
fi
echo "1..$test"
exit $failed
