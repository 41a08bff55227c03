# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# scripts/test matrix: khealthd's own objects and those with its hooks, by other
# compilers, for other machines and in other configurations; the unit tests on a
# booted arm64 and a booted i386; Debian's own package with the series in it.

# A row is "NAME|ARCH|what goes into the environment of make|options of Kconfig",
# on top of what the guests have.
matrix_rows=(
	"gcc|x86_64||SMP=y MPTCP=y"
	"clang|x86_64|LLVM=-19|SMP=y"
	"arm64|arm64|CROSS_COMPILE=aarch64-linux-gnu-|"
	"32 bits|i386||64BIT=n SMP=y"
	"one CPU|x86_64||SMP=n"
	"real time|x86_64||SMP=y PREEMPT_VOLUNTARY=n PREEMPT_RT=y"
	"without network|x86_64||NET=n"
	"without TCP/IP|x86_64||INET=n"
	"without sysctl|x86_64||SYSCTL=n PROC_SYSCTL=n KHEALTHD=n"
	"without modules|x86_64||MODULES=n"
	"protocols as modules|x86_64||MODULES=y PACKET=m VSOCKETS=m VSOCKETS_LOOPBACK=m IP_SCTP=m NETFILTER=y NETFILTER_ADVANCED=y NF_CONNTRACK=m"
	"KUnit as a module|x86_64||MODULES=y KUNIT=m"
)

matrix_out() { echo "$cache/build/matrix-$1-${2//[^a-zA-Z0-9]/-}$variant"; } # BASE NAME

is_set() { grep -qE "^CONFIG_$2=[ym]$" "$1/.config"; } # OUT OPTION

# What is to be built of the series, as far as the configuration in OUT has it.
matrix_targets() # OUT
{
	! is_set "$1" KHEALTHD || echo "${objects_ours[0]}"
	printf '%s\n' fs/file_table.o kernel/{fork,pid}.o
	is_set "$1" NET || return 0
	! is_set "$1" KHEALTHD || printf '%s\n' "${objects_ours[@]:1}"
	printf '%s\n' net/core/{skbuff,sock,dev}.o net/netlink/af_netlink.o
	! is_set "$1" INET || printf '%s\n' net/core/neighbour.o net/ipv4/{udp,raw,tcp_input,tcp_ipv4,inet_connection_sock,inet_fragment}.o
	! is_set "$1" MPTCP || printf '%s\n' net/mptcp/{options,protocol}.o
	! is_set "$1" NF_CONNTRACK || printf '%s\n' net/netfilter/nf_conntrack_{core,standalone}.o
	! is_set "$1" PACKET || echo net/packet/af_packet.o
	! is_set "$1" VSOCKETS_LOOPBACK || echo net/vmw_vsock/virtio_transport_common.o
}

# matrix_builds TREE OUT ARCH FRAGMENT...: with all warnings there are, of which none
# may be in a file of ours.
matrix_builds()
{
	local tree=$1 out=$2 arch=$3
	local -a targets

	shift 3
	configure "$arch" "$tree" "$out" "$@"
	mapfile -t targets < <(matrix_targets "$out")
	((${#targets[@]})) || { echo "nothing to build"; return 0; }
	# What is built already says nothing.
	find "$out" -path '*khealthd*' -name '*.o' -delete
	make -C "$tree" ARCH="$arch" O="$out" -j"$jobs" W=1 "${targets[@]}" >"$out.log" 2>&1 || {
		tail -n 30 "$out.log"
		return 1
	}
	! grep -E '(khealthd|(fs|kernel|net/(core|ipv4|netlink|netfilter|packet|vmw_vsock)))[^ ]*: warning:' "$out.log" |
		grep -E khealthd
}

# What modules want of khealthd has to be exported.
modules_have_all() # OUT
{
	local lacking

	lacking=$(comm -23 \
		<(nm -u "$1"/net/{packet,vmw_vsock,netfilter}/*.o | awk '/khealthd/ { print $2 }' | sort -u) \
		<({
			nm "$1"/{kernel/khealthd,net/core}/*.o |
				sed -nE 's/.* (__ksymtab_|__export_symbol_)(.*khealthd.*)/\2/p'
			# The monitor is conntrack's own.
			nm "$1"/net/netfilter/nf_conntrack_core.o |
				awk '$2 == "D" && /khealthd/ { print $3 }'
		} | sort -u))
	[[ ! $lacking ]] || { echo "not exported: $lacking"; return 1; }
}

matrix_row() # BASE NAME ARCH ENVIRONMENT OPTIONS
{
	local base=$1 out tree more_options option variable
	local -a more=()

	out=$(matrix_out "$base" "$2")
	more_options=$out.fragment
	mkdir -p "$out"
	: >"$more_options"
	for option in $5; do
		echo "CONFIG_$option" >>"$more_options"
	done
	for variable in $4; do
		local -x "${variable?}"
	done
	[[ $3 != x86_64 ]] || more=("$fragments/x86.config")
	tree=$(build_tree "$base")
	# Where a row takes away what khealthd needs, there is no khealthd.
	matrix_builds "$tree" "$out" "$3" "$fragments/guest.config" "${more[@]}" \
		"$fragments"/{khealthd,kunit}.config "$more_options" || return
	! grep -qx CONFIG_PACKET=m "$out/.config" || modules_have_all "$out"
}

# Without the option, the objects with hooks are the same as without the series.
off_is_identical() # BASE
{
	local out tree which o bad=0
	local -A trees=([without]=$(base_tree "$1") [off]=$(build_tree "$1"))

	for which in "${!trees[@]}"; do
		out=$(matrix_out "$1" "$which")
		tree=${trees[$which]}
		configure x86_64 "$tree" "$out" "$fragments"/{x86,guest,owners,khealthd-off}.config
		make -C "$tree" ARCH=x86_64 O="$out" -j"$jobs" "${objects_hooked[@]}" \
			>"$out.log" 2>&1 || { tail -n 30 "$out.log"; return 1; }
	done
	for o in "${objects_hooked[@]}"; do
		"$top/scripts/lib/same-code.py" "$(matrix_out "$1" without)/$o" \
			"$(matrix_out "$1" off)/$o" || bad=1
	done
	return $bad
}

# The unit tests, by the tree's own kunit.py in QEMU, which builds that kernel, too.
booted_unit_tests() # BASE ARCH CROSS_COMPILE
{
	local tree log=$logs/kunit-$2-$1.log

	tree=$(build_tree "$1")
	say "Building $1 for $2, and running the unit tests in it ..."
	(cd "$tree" && tools/testing/kunit/kunit.py run --arch="$2" \
		${3:+--cross_compile="$3"} --jobs="$jobs" \
		--build_dir="$cache/build/kunit-$2-$1" \
		--kunitconfig="$fragments/kunit.config" --kconfig_add CONFIG_KHEALTHD=y \
		--kconfig_add CONFIG_NET=y --kconfig_add CONFIG_INET=y \
		--kernel_args kunit.enable=1 'khealthd*') >"$log" 2>&1 </dev/null || true
	count_kunit "unit tests on $1 for $2" "$log"
}

group_matrix()
{
	local base row
	local -a field

	packages build lint matrix
	for base in $(bases_of_run); do
		for row in "${matrix_rows[@]}"; do
			IFS='|' read -ra field <<<"$row"
			check "$base: ${field[0]}" matrix_row "$base" "${field[@]:0:3}" "${field[3]:-}"
		done
		check "$base: without the option, objects are as without the series" \
			off_is_identical "$base"
	done
	[[ $full ]] || return 0
	booted_unit_tests "$default_base" arm64 aarch64-linux-gnu-
	booted_unit_tests "$default_base" i386 ''
	check "Debian's own package takes the series, and is configured with it" debian_package
}
