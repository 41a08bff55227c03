# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Debian's own source package with the series in it, as PACKAGING.md describes it: up
# to where its build rules have patched and configured the kernel.

debian_suite=bookworm-security
debian_flavour=amd64_none_amd64

# debian_source DIR: unpack there Debian 12's package "linux-6.12", with its own patches:
# the newest version whose files the mirror has, which is not always the index's newest.
debian_source()
{
	local dir=$cache/releases/debian keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	local release_apt_dir=$dir/apt version

	mkdir -p "$release_apt_dir"/{lists,archives}/partial
	echo "deb-src [signed-by=$keyring] $(debian_mirror Debian-Security) $debian_suite main" \
		>"$release_apt_dir/sources.list"
	release_apt get update || return
	for version in $(release_apt cache showsrc linux-6.12 | awk '$1 == "Version:" { print $2 }' |
		sort -rVu); do
		# Of another version; the archives may be the same.
		rm -f "$dir"/*.dsc
		(cd "$dir" && release_apt get source --download-only "linux-6.12=$version") &&
			break
	done
	rm -rf "$1"
	dpkg-source --skip-patches -x "$dir"/linux-6.12_*.dsc "$1" || return
	echo "This is linux-6.12 $version."
	(cd "$1" && QUILT_PATCHES=debian/patches quilt push -a -q)
}

# kernel_in PACKAGE TREE: the kernel that a package builds, as a repository.
kernel_in()
{
	mkdir "$2"
	tar -C "$1" --exclude=./debian --exclude=./.pc -cf - . | tar -C "$2" -xf -
	git -C "$2" init -q
	git -C "$2" add -Af .
	git -C "$2" -c user.name=khealthd -c user.email=khealthd@localhost \
		commit -q -m "The kernel of Debian's package"
}

# put_series EXPORT TREE: what a packager does by hand.
put_series()
{
	mkdir -p "$2/debian/patches/features/all/khealthd"
	cp "$1"/quilt/*.patch "$2/debian/patches/features/all/khealthd/"
	sed 's#^#features/all/khealthd/#' "$1/quilt/series" >>"$2/debian/patches/series"
	printf '\n##\n## file: kernel/khealthd/Kconfig\n##\n' >>"$2/debian/config/config"
	grep CONFIG "$1/khealthd.config" >>"$2/debian/config/config"
}

# The rules of the package patch, generate the rules of a flavour, and configure it.
debian_package()
{
	local dir tree

	packages debian export
	dir=$(mktemp -d "$cache/debian.XXXXXX")
	# shellcheck disable=SC2064 # it is this folder
	trap "rm -rf '$dir'" EXIT
	tree=$dir/linux
	debian_source "$tree" && kernel_in "$tree" "$dir/kernel" &&
		"$top/scripts/export" --tree "$dir/kernel" "$default_base" "$dir/export" &&
		put_series "$dir/export" "$tree" || return
	rm -rf "$dir/kernel"
	cd "$tree" || return
	QUILT_PATCHES=debian/patches quilt push -a -q --fuzz=0 || return
	debian/bin/gencontrol.py || return
	make -f debian/rules.gen "setup_$debian_flavour" || return
	# As it is in the fragment, each symbol that is asked for.
	grep CONFIG "$dir/export/khealthd.config" | sed '/_KUNIT_TEST/d' >"$dir/wanted"
	grep -Fxh -f "$dir/wanted" debian/build/build_*/.config | sort -u |
		diff <(sort -u "$dir/wanted") -
}
