#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# khealthd's netlink family as the kernel tree's own command-line client sees it,
# by the specification alone.
#
# KHEALTHD_TREE is the kernel tree. Without it, or without Python's yaml module,
# this test is skipped.

ksft_skip=4
sysfs=/sys/kernel/khealthd
spec=${KHEALTHD_TREE:-}/Documentation/netlink/specs/khealthd.yaml

skip_all() { echo "1..0 # SKIP $*"; exit $ksft_skip; }

[[ -e $sysfs ]] || skip_all "this kernel has no khealthd"
((EUID == 0)) || skip_all "must be root"
[[ -e $spec ]] || skip_all "KHEALTHD_TREE is not set"
python3 -c 'import yaml' 2>/dev/null || skip_all "no yaml module"
for cli in "$KHEALTHD_TREE"/tools/net/ynl/{pyynl/,}cli.py; do
	[[ -e $cli ]] && break
done
[[ -e $cli ]] || skip_all "the kernel tree has no YNL"
[[ ${KHEALTHD_DIR:-} ]] || exec "${0%/*}/khealthd_guard" "$0" "$@"

ynl() { PYTHONDONTWRITEBYTECODE=1 python3 "$cli" --no-schema --spec "$spec" "$@" 2>&1; }

failed=0
test=0
echo "TAP version 13"
echo "1..4"

# check NAME TEXT PATTERN...: each PATTERN has to be in TEXT.
check()
{
	local name=$1 text=$2 pattern result=ok

	shift 2
	for pattern in "$@"; do
		grep -q -- "$pattern" <<<"$text" || result='not ok'
	done
	test=$((test + 1))
	echo "$result $test $name"
	[[ $result = ok ]] && return
	failed=1
	while IFS= read -r line; do
		echo "# $line"
	done <<<"$text"
}

check "dump" "$(ynl --dump monitor-get)" "'name': 'skb_alloc'" "'name': 'sock_rcvbuf'"
check "do" "$(ynl --do monitor-get --json '{"code": 4}')" "'code': 4" \
	"'name': 'sock_rcvbuf'" "'unit': 'bytes'" "'alerts': $(cat $sysfs/sock_rcvbuf/alerts)"
check "extended ack" "$(ynl --do monitor-get --json '{"code": 99}')" 'bad-attr.*code'

# It listens for some seconds from when it is ready on, whenever that is.
out=$KHEALTHD_DIR/alerts
ynl --subscribe all-alerts --sleep 3 >"$out" &
while kill -0 $! 2>/dev/null; do
	echo 1 >$sysfs/sock_rcvbuf/test
	sleep 0.2
done
check "subscribe" "$(cat "$out")" "'name': 'alert'" "'event': 'test'" "'monitor': 'sock_rcvbuf'"
exit $failed
