# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# A base's kernel source, from Debian's own package to a git repository in the
# cache. The working tree stays empty: trees are checked out where needed.

# Appended to the names of what is made of another tree than Debian's.
variant=

base_repo() { printf '%s/source/%s%s.git' "$cache" "$1" "$variant"; }

# use_tree BASE DIR: take the kernel in DIR for BASE from now on.
use_tree()
{
	local dir

	dir=$(git -C "$2" rev-parse --show-toplevel 2>/dev/null) ||
		die "$2 is no git repository"
	[[ -f $dir/Kbuild && -d $dir/kernel ]] || die "$dir is no kernel tree"
	check_new "$dir"
	variant=-$(cksum <<<"$dir" | cut -d' ' -f1)
	rm -rf "$(base_repo "$1")"
	git clone -q --bare --shared "$dir" "$(base_repo "$1")"
	git -C "$(base_repo "$1")" update-ref refs/heads/base "$(git -C "$dir" rev-parse HEAD)"
}

check_base()
{
	local b known=''

	for b in "${kernels[@]}"; do
		[[ $b != *.*.* ]] || continue
		[[ $1 = "$b" ]] && return
		known+=" $b"
	done
	usage_error "unknown base '$1'; known are:$known"
}

# debian_mirror LABEL: Debian's main mirror, or that of its Debian-Security, as this
# machine's own apt configuration names it.
debian_mirror()
{
	# shellcheck disable=SC2016 # apt-get expands these, not the shell
	apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' \
		'Created-By: Packages' |
		awk -F'|' -v label="$1" \
			'$1 == "Debian" && $2 == label && !seen++ { print $3 }'
}

# private_apt COMMAND...: apt-get with lists of our own in the cache, for the
# backports; the machine's own apt configuration stays untouched.
private_apt()
{
	apt-get -q -o Dir::State::lists="$cache/apt/lists" \
		-o Dir::Cache="$cache/apt" \
		-o Dir::Etc::sourcelist="$cache/apt/sources.list" \
		-o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root "$@"
}

private_apt_update()
{
	local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg

	mirror=$(debian_mirror Debian)
	[[ $mirror ]] || die "the machine's apt configuration names no Debian mirror; run apt-get update first"
	mkdir -p "$cache"/apt/{lists,archives}/partial
	printf "deb [signed-by=$keyring] $mirror %s main\n" \
		{bookworm,trixie}-backports >"$cache/apt/sources.list"
	private_apt update
}

# download_backports PACKAGE...: those of Debian 12.
download_backports()
{
	private_apt_update && private_apt -t bookworm-backports download "$@"
}

download_source()
{
	case $1 in
	6.1 | 6.12)
		apt-get -q update && apt-get -q -o APT::Sandbox::User=root \
			download "linux-source-$1" ;;
	*)	private_apt_update && private_apt download "linux-source-$1" ;;
	esac
}

# fetch_source BASE: make the base's git repository unless the cache has it.
fetch_source()
{
	local base=$1 repo tmp deb version

	repo=$(base_repo "$base")
	[[ -d $repo ]] && return
	packages source
	mkdir -p "$cache/source"
	tmp=$(mktemp -d "$cache/source/tmp.XXXXXX")

	cd "$tmp" || exit
	with_progress "Downloading linux-source-$base" 0 "requests" '^Get:' \
		"$cache/source/$base.log" download_source "$base" ||
		die "no linux-source-$base from the mirror; scripts/demo --tree and scripts/apply take any other tree"
	deb=$(echo linux-source-*.deb)
	version=$(dpkg-deb -f "$deb" Version)
	dpkg-deb -x "$deb" .
	mkdir tree
	with_progress "Unpacking linux-source $version" 0 "files" / \
		"$cache/source/$base.log" \
		tar -xvf "usr/src/linux-source-$base.tar.xz" -C tree --strip-components=1

	git init -q --bare repo.git
	# Nothing in a base ever becomes garbage: no time for gc, no deltas.
	git -C repo.git config gc.auto 0
	git -C repo.git config core.looseCompression 1
	git -C repo.git config pack.window 0
	local -a git=(git -C tree --git-dir="$tmp/repo.git" --work-tree="$tmp/tree"
		-c core.bare=false -c user.name=khealthd -c user.email=khealthd@localhost)
	with_progress "Committing linux-source $version" 0 "files" '^add' \
		"$cache/source/$base.log" "${git[@]}" add -Afv .
	"${git[@]}" commit -q -m "linux-source-$base $version"
	git -C repo.git update-ref refs/heads/base HEAD
	git -C repo.git update-ref --no-deref HEAD HEAD
	cd "$cache" || exit
	mv "$tmp/repo.git" "$repo"
	rm -rf "$tmp"
}
