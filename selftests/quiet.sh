#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# khealthd raises no alert in normal life: not when the page cache fills up and
# memory is as full as it gets, not from healthy connections, and not from other
# programs' work with sockets.
#
# KHEALTHD_TEST_DIR is a folder for a file larger than memory, khealthd.fill; its
# file system must use the page cache. Without it that part is skipped.

# Functions are called by quiet():
# shellcheck disable=SC2317

ksft_skip=4
sysctl=/proc/sys/kernel/khealthd
sysfs=/sys/kernel/khealthd

[[ -e $sysctl/enabled ]] || { echo "1..0 # SKIP this kernel has no khealthd"; exit $ksft_skip; }
((EUID == 0)) || { echo "1..0 # SKIP must be root"; exit $ksft_skip; }

failed=0
test=0
echo "TAP version 13"
echo "1..5"

ok() { test=$((test + 1)); echo "ok $test $*"; }
not_ok() { test=$((test + 1)); failed=1; echo "not ok $test $*"; }

counts() { grep -H . "$sysfs"/*/{alerts,crossings}; }

# quiet NAME COMMAND...: run COMMAND; there must be no alert and no crossing.
quiet()
{
	local name=$1 before after

	shift
	before=$(counts)
	"$@" || { not_ok "$name: $* failed"; return; }
	after=$(counts)
	if [[ $before = "$after" ]]; then
		ok "$name"
	else
		diff <(echo "$before") <(echo "$after") | sed 's/^/# /'
		not_ok "$name"
	fi
}

# While a file of twice the size of memory is written and read, packets flow, so
# that khealthd looks at memory. Packets of a page's size: larger ones need pages
# in a row, and to fail for want of these is a loss of packets worth telling.
fill_page_cache()
{
	local file=$KHEALTHD_TEST_DIR/khealthd.fill pings size reclaimed

	size=$(awk '/^MemTotal:/ { print int($2 / 1024) * 2 }' /proc/meminfo)
	reclaimed=$(awk '/^pgsteal_kswapd / { print $2 }' /proc/vmstat)
	ping -q -f -s 1400 127.0.0.1 >/dev/null &
	pings=$!
	dd if=/dev/zero of="$file" bs=1M count="$size" status=none &&
		dd if="$file" of=/dev/null bs=1M status=none
	local result=$?
	rm -f "$file"
	kill -INT "$pings" || { echo "# no packets flowed"; return 1; }
	wait "$pings"
	# Was memory full at all? Then the kernel had to make room.
	awk -v before="$reclaimed" '/^pgsteal_kswapd / { exit $2 <= before }' /proc/vmstat ||
		{ echo "# kswapd had nothing to do"; return 1; }
	return "$result"
}

silent() { "$@" >/dev/null 2>&1; }

# iperf ARGUMENT...: run a client for some seconds, and a server for it.
iperf()
{
	local server result

	iperf3 -s -1 -p 5299 >/dev/null &
	server=$!
	for _ in {1..100}; do
		ss -Hltn 'sport = 5299' | grep -q . && break
		sleep 0.1
	done
	iperf3 -c 127.0.0.1 -p 5299 -t 5 "$@" >/dev/null
	result=$?
	wait "$server"
	return "$result"
}

was=$(cat $sysctl/enabled)
echo 1 >$sysctl/enabled
trap 'echo "$was" >$sysctl/enabled' EXIT

if [[ -d ${KHEALTHD_TEST_DIR:-} ]] && command -v ping >/dev/null; then
	quiet "filling the page cache" fill_page_cache
elif ! command -v ping >/dev/null; then
	ok "filling the page cache # SKIP no ping"
else
	ok "filling the page cache # SKIP KHEALTHD_TEST_DIR is not set"
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

# At a rate that a slow machine keeps up with; --udp of stress-ng does not, and
# with two CPUs loses packets, which is worth an alert.
quiet_with iperf3 "healthy TCP" iperf
quiet_with iperf3 "healthy UDP" iperf -u -b 2M
quiet_with hackbench "hackbench" silent hackbench -g 2 -l 50
quiet_with stress-ng "stress-ng" silent stress-ng --temp-path /tmp --timeout 20 \
	--sock 1 --sock-ops 200 --epoll 1 --epoll-ops 200 \
	--netdev 1 --netdev-ops 200 --sockpair 1 --sockpair-ops 200
exit $failed
