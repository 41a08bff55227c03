# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The Debian package on a fresh Debian 12 that is booted with systemd: in User-Mode
# Linux, whose root is a folder of the cache under a layer that is gone with the guest.

# What a machine has before the package comes: a mail system, and what the package
# depends on, since there is no network in the guest.
installed_packages=systemd-sysv,dbus,dma,libjson-c5,libncurses6

# fresh_debian: print the folder of a Debian 12 that nobody has used.
fresh_debian()
{
	local root=$cache/debian-12 mirror

	if [[ ! -e $root/etc/debian_version ]]; then
		packages installed
		mirror=$(debian_mirror Debian)
		[[ $mirror ]] || die "the machine's apt configuration names no Debian mirror; run apt-get update first"
		say "Making a Debian 12 in $root ..."
		rm -rf "$root" "$root.new"
		debootstrap --variant=minbase --include="$installed_packages" bookworm \
			"$root.new" "$mirror" >"$cache/log/debootstrap.log" 2>&1 ||
			die "debootstrap failed; see $cache/log/debootstrap.log"
		mv "$root.new" "$root"
	fi
	echo "$root"
}

# boot_installed KERNEL DEB SHARE SECONDS: what the guest says comes out here; its
# status is that of installed-guest.
boot_installed()
{
	local root scratch status

	root=$(fresh_debian) || return
	scratch=$(mktemp -d "$cache/scratch.XXXXXX")
	# shellcheck disable=SC2016 # the inner shell expands it
	unshare --mount --pid --fork --kill-child bash -c '
		set -e
		mount -t tmpfs tmpfs "$1"
		mkdir "$1"/{upper,work,root}
		mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
		install -m 755 "$3" "$1/root/usr/local/sbin/installed-guest"
		cp "$4" "$1/root/root/khealth.deb"
		echo demo.example | tee "$1/root/etc/mailname" >"$1/root/etc/hostname"
		printf "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/usr/local/sbin/installed-guest\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n[Install]\nWantedBy=multi-user.target\n" \
			>"$1/root/etc/systemd/system/installed-guest.service"
		chroot "$1/root" systemctl enable -q installed-guest.service
		timeout -k 5 "$6" "$5" mem=512M root=/dev/root rootfstype=hostfs "rootflags=$1/root" rw \
			init=/lib/systemd/systemd systemd.show_status=0 \
			con0=null,fd:1 con=null console=tty0 loglevel=4 panic=-1 </dev/null 2>&1 || true
		exit "$(cat "$1/root/root/status" 2>/dev/null || echo 125)"
	' bash "$scratch" "$root" "$top/scripts/lib/installed-guest" "$2" "$1" "$3"
	status=$?
	rmdir "$scratch"
	return "$status"
}
