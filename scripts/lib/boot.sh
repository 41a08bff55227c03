# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Boots a kernel and runs a command in it. The host's file system is the
# guest's root, read-only; one folder is shared for writing. The checkout and the
# cache are in the guest where they are on the host, see guest-init.

# check_place NAME DIR: say at once where they cannot be.
check_place()
{
	[[ ! $2 =~ [^a-zA-Z0-9/._+@~-] ]] ||
		die "the $1 cannot be in '$2': kernels are built and booted only where the path has letters, digits and /._+@~- alone"
	((${#2} <= 200)) ||
		die "the $1 cannot be in $2: the path is too long for a kernel's command line"
	case $2/ in
	/ | /dev/ | /dev/shm/ | /etc/ | /run/ | /tmp/ | /var/lib/ | /var/mail/ | /var/spool/ | \
	/run/host/* | /run/new/* | /run/share/*)
		die "the $1 cannot be in $2: the guest has something of its own there; a folder elsewhere, or below /tmp, will do" ;;
	esac
	[[ ,$(findmnt -nro OPTIONS -T "$2"), != *,noexec,* ]] ||
		die "the $1 cannot be in $2: no program can be run there (it is mounted noexec)"
}

check_place checkout "$top"
check_place cache "$cache"

# boot VM KERNEL MEMORY CPUS SECONDS COMMAND...: returns COMMAND's exit status.
# What the guest prints on its console comes out here. $boot_share is the shared
# folder, /run/share in the guest; $boot_append has more kernel parameters,
# $boot_qemu_options more options for QEMU.
boot()
{
	local vm=$1 kernel=$2 memory=$3 cpus=$4 seconds=$5 status init

	shift 5
	boot_share=${boot_share:-$(mktemp -d "$cache/share.XXXXXX")}
	rm -f "$boot_share/status"
	printf '%s\n' "$*" >"$boot_share/command"
	init=$top/scripts/lib/guest-init

	"boot_$vm" "$kernel" "$memory" "$cpus" "$seconds" \
		"init=$init devtmpfs.mount=0 khealthd_vm=$vm khealthd_top=$top khealthd_cache=$cache khealthd_share=$boot_share ${boot_append:-}" |
		sed -u 's/\r//g' || true

	if ! status=$(cat "$boot_share/status" 2>/dev/null); then
		say "The guest did not finish: it crashed, or took longer than $seconds s."
		return 125
	fi
	return "$status"
}

boot_uml()
{
	# UML makes a pid file in ~/.uml, and its memory in $TMPDIR.
	# shellcheck disable=SC2086 # parameters are words
	TMPDIR=/tmp timeout --foreground -k 5 "$4" "$1" mem="$2" \
		root=/dev/root rootfstype=hostfs rootflags=/ ro \
		con0=null,fd:1 con=null console=tty0 loglevel=5 panic=-1 \
		umid="khealthd.$BASHPID" uml_dir="$cache/uml" \
		$5 </dev/null 2>&1 |
		grep --line-buffered -vE '^(Core dump limits|.(soft|hard) - |Checking |Warning: tempdir|epollctl|reboot:)'
}

# Debian 12's own QEMU, 7.2, may let a CPU go on with code that another one has
# just changed, as static keys do it: "Oops: int3". Since 8.1 it does not.
boot_qemu()
{
	local qemu

	qemu=$(unpacked emulator download_backports)
	# shellcheck disable=SC2086 # options are words
	timeout --foreground -k 5 "$4" "$qemu"/usr/bin/qemu-system-x86_64 \
		-L "$qemu"/usr/share/qemu -L "$qemu"/usr/share/seabios -accel tcg \
		-machine q35 ${boot_qemu_options:-} -cpu max -m "$2" -smp "$3" -nodefaults -no-reboot \
		-display none -serial stdio -kernel "$1" \
		-virtfs local,path=/,mount_tag=rootfs,security_model=none,readonly=on,multidevs=remap \
		-virtfs local,path="$boot_share",mount_tag=share,security_model=none \
		-append "console=ttyS0 loglevel=5 panic=-1 root=rootfs rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=131072,cache=loose ro $5" \
		</dev/null 2>&1
}
