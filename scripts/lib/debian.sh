# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Debian's own source package with the series in it, as PACKAGING.md describes it: up
# to where its build rules have patched and configured the kernel.

debian_suite=bookworm-security
debian_flavour=amd64_none_amd64

# debian_source DIR: unpack Debian 12's package "linux-6.12", which our source of that
# base is from, there, without its patches yet.
debian_source()
{
	local dir=$cache/releases/debian keyring=/usr/share/keyrings/debian-archive-keyring.gpg

	mkdir -p "$dir" "$cache/releases/apt"/{lists,archives}/partial
	echo "deb-src [signed-by=$keyring] $(debian_mirror Debian-Security) $debian_suite main" \
		>"$cache/releases/apt/sources.list"
	release_apt get update || return
	# Of an older version; the archives of a newer one may be the same.
	rm -f "$dir"/*.dsc
	(cd "$dir" && release_apt get source --download-only linux-6.12) || return
	rm -rf "$1"
	dpkg-source --skip-patches -x "$dir"/linux-6.12_*.dsc "$1"
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
	"$top/scripts/export" "$default_base" "$dir/export" &&
		debian_source "$tree" &&
		put_series "$dir/export" "$tree" || return
	cd "$tree" || return
	QUILT_PATCHES=debian/patches quilt push -a -q --fuzz=0 || return
	debian/bin/gencontrol.py || return
	make -f debian/rules.gen "setup_$debian_flavour" || return
	# As it is in the fragment, each symbol that is asked for.
	grep CONFIG "$dir/export/khealthd.config" | sed '/_KUNIT_TEST/d' >"$dir/wanted"
	grep -Fxh -f "$dir/wanted" debian/build/build_*/.config | sort -u |
		diff <(sort -u "$dir/wanted") -
}
