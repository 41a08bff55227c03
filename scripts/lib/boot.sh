# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Boots a kernel and runs a command in it. The host's file system is the
# guest's root, read-only; one folder is shared for writing.

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
		"init=$init khealthd_vm=$vm khealthd_share=$boot_share ${boot_append:-}" |
		sed -u 's/\r//g' || true

	if ! status=$(cat "$boot_share/status" 2>/dev/null); then
		say "The guest did not finish: it crashed, or took longer than $seconds s."
		return 125
	fi
	return "$status"
}

boot_uml()
{
	# UML makes a socket and a pid file in ~/.uml, and its memory in $TMPDIR.
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
