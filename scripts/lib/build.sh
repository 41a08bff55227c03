# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Builds kernels in the cache: UML for KUnit, selftests and the demo, x86-64 for
# QEMU, with debugging options if wanted. Builds go on from the last one, so that
# little is done twice.

fragments=$top/kernel-config-fragments

# Set for make in addition.
make_variables=()

# configure ARCH TREE OUT FRAGMENT...: merge the fragments into a configuration
# made of them alone, if they or the tree's Kconfig changed since last time.
configure()
{
	local arch=$1 tree=$2 out=$3 new

	shift 3
	mkdir -p "$out"
	new=$({ cat "$@"; git -C "$tree" log -1 --format=%H -- '*Kconfig*'; } | sha256sum)
	[[ -e $out/.config && $new = $(cat "$out/configured" 2>/dev/null) ]] && return
	(cd "$tree" && ARCH=$arch SUBARCH=x86_64 \
		scripts/kconfig/merge_config.sh -n -O "$out" "$@") \
		>"$out.config.log" 2>&1 ||
		die "cannot configure the kernel; see $out.config.log"
	if grep -qx CONFIG_KHEALTHD=y "$@" && ! grep -qx CONFIG_KHEALTHD=n "$@" && ! grep -qx CONFIG_KHEALTHD=y "$out/.config"; then
		die "the kernel's configuration lacks CONFIG_KHEALTHD; see $out.config.log"
	fi
	echo "$new" >"$out/configured"
}

# make_kernel LABEL ARCH TREE OUT TARGET...: with progress; the number of steps
# of the last full build is kept, the first one's is an estimate.
make_kernel()
{
	local label=$1 arch=$2 tree=$3 out=$4 n total steps='^ +(CC|AS|LD|AR|HOSTCC|LINK|BUILD) '

	shift 4
	total=$(cat "$out/steps" 2>/dev/null || echo 1500)
	with_progress "$label" "$total" objects "$steps" "$out.log" \
		make -C "$tree" ARCH="$arch" O="$out" -j"$jobs" "${make_variables[@]}" "$@" || return
	n=$(grep -cE "$steps" "$out.log" || true)
	((n < 500)) || echo "$n" >"$out/steps"
}

# build_kernel LABEL ARCH BASE OUT TARGET FRAGMENT...: FRAGMENTs go in addition
# to those that every kernel has.
build_kernel()
{
	local label=$1 arch=$2 base=$3 out=$4 target=$5 tree

	shift 5
	packages build
	tree=$(build_tree "$base")
	configure "$arch" "$tree" "$out" \
		"$fragments"/{guest,owners,khealthd,kunit}.config "${@/#/$fragments/}"
	make_kernel "$label $base" "$arch" "$tree" "$out" "$target"
}

# install_modules ARCH BASE OUT: in OUT/modules, if the kernel in OUT has modules.
install_modules()
{
	grep -qx CONFIG_MODULES=y "$3/.config" || return 0
	make -s -C "$(build_tree "$2")" ARCH="$1" O="$3" INSTALL_MOD_PATH="$3/modules" \
		modules_install >"$3.log" 2>&1
}

# The kernel is then in $(uml_out BASE LANE)/linux, its modules are in
# $(uml_out BASE LANE)/modules. LANE names one more fragment, if any.
uml_out() { echo "$cache/build/uml-$1${2:+-$2}$variant"; }
uml_kernel()
{
	local out

	out=$(uml_out "$@")
	build_kernel "UML kernel${2:+ ($2)}" um "$1" "$out" all uml.config ${2:+"$2.config"} &&
		install_modules um "$1" "$out"
}

# The kernel is then in $(x86_out BASE LANE)/arch/x86/boot/bzImage, its modules
# are in $(x86_out BASE LANE)/modules. LANE names one more fragment, if any.
x86_out() { echo "$cache/build/x86-$1${2:+-$2}$variant"; }

x86_kernel()
{
	local out
	local -a make_variables=()

	# Few files, so that there is time to watch these closely: khealthd's own,
	# and those that most of its hooks are in.
	# shellcheck disable=SC2016 # make expands it, not the shell
	[[ ${2:-} != kcsan ]] ||
		make_variables=('KCSAN_SANITIZE=$(if $(filter kernel/khealthd% net/core,$(obj)),y,n)')
	out=$(x86_out "$@")
	build_kernel "x86-64 kernel${2:+ ($2)}" x86_64 "$1" "$out" all \
		x86.config ${2:+"$2.config"} &&
		install_modules x86_64 "$1" "$out"
}

# off_kernel BASE: the series with the option off, to compare with. It is built where
# x86_kernel builds, which comes after it: so little is built twice.
# The kernel is then in $(x86_out BASE off)/arch/x86/boot/bzImage.
off_kernel()
{
	local out off file

	out=$(x86_out "$1") off=$(x86_out "$1" off)
	build_kernel "x86-64 kernel, khealthd off," x86_64 "$1" "$out" all \
		x86.config khealthd-off.config || return
	mkdir -p "$off/arch/x86/boot"
	for file in vmlinux arch/x86/boot/bzImage; do
		cp "$out/$file" "$off/$file" || return
	done
}

# base_kernel BASE: without the series, to compare with; built once, as the series
# does not change it.
# The kernel is then in $(x86_out BASE base)/arch/x86/boot/bzImage.
base_kernel()
{
	local out tree

	out=$(x86_out "$1" base)
	packages build
	tree=$(base_tree "$1")
	configure x86_64 "$tree" "$out" "$fragments"/{guest,owners,kunit,x86}.config
	make_kernel "x86-64 kernel without the series $1" x86_64 "$tree" "$out" bzImage
}

# selftests BASE: build and install them; then in $(selftests_out BASE).
selftests_out() { echo "$cache/build/selftests-$1$variant/install"; }

selftests()
{
	local tree out

	out=$(selftests_out "$1")
	packages build
	tree=$(build_tree "$1")
	mkdir -p "${out%/install}"
	make -s -C "$tree/tools/testing/selftests" TARGETS=khealthd \
		O="${out%/install}" INSTALL_PATH="$out" install \
		>"${out%/install}.log" 2>&1 || {
		tail -n 20 "${out%/install}.log" >&2
		die "cannot build the selftests; see ${out%/install}.log"
	}
	! grep -n 'warning:' "${out%/install}.log" >&2 ||
		die "the selftests build with warnings"
	# Those that run_kselftest.sh spares a machine that is needed.
	sed -n 's/^TEST_PROGS_EXTENDED := //p' "$top/selftests/Makefile" | tr ' ' '\n' |
		sed 's/^/khealthd:/' >>"$out/kselftest-list.txt"
}

# objects BASE: the objects that hooks are in, for x86-64, with the option in
# $(objects_out BASE)/on/ and without it in off/; ours are checked by sparse and
# built with W=1, which all goes to check.log.
objects_out() { echo "$cache/build/objects-$1$variant"; }

objects_ours=(kernel/khealthd/ net/core/khealthd{,_skb}.o)
objects_hooked=(net/core/{skbuff,sock,dev,neighbour}.o
	net/ipv4/{udp,raw,tcp_input,tcp_ipv4,inet_connection_sock,inet_fragment}.o
	net/ipv6/tcp_ipv6.o net/netfilter/nf_conntrack_{core,standalone}.o
	net/netlink/af_netlink.o net/packet/af_packet.o fs/file_table.o kernel/{fork,pid}.o)

objects()
{
	local out tree which

	out=$(objects_out "$1")
	packages build lint
	tree=$(build_tree "$1")
	local -A option=([off]=khealthd-off [on]=khealthd)
	for which in off on; do
		configure x86_64 "$tree" "$out" \
			"$fragments"/{x86,guest,owners,debug-info}.config \
			"$fragments/${option[$which]}.config" "$fragments/kunit.config"
		make_kernel "Objects $1, khealthd $which" x86_64 "$tree" "$out" \
			"${objects_hooked[@]}" || return
		mkdir -p "$out/$which"
		(cd "$out" && cp "${objects_hooked[@]}" "$out/$which")
	done
	(cd "$out" && find kernel net -path '*khealthd*.o' -delete)
	make -C "$tree" ARCH=x86_64 O="$out" W=1 C=2 -j"$jobs" \
		"${objects_ours[@]}" >"$out/check.log" 2>&1
}
