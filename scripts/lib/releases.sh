# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# scripts/test apply: the series on each release of its kernels that Debian's archive
# has. Of each only the files that the series touches are unpacked and kept.

archive_suites=({bookworm,trixie}{,-backports} forky sid experimental)
security_suites=({bookworm,trixie}-security)

# release_apt get|cache COMMAND...: apt with all of the archive's suites, and lists
# of our own in the cache, or in $release_apt_dir.
release_apt()
{
	local dir=${release_apt_dir:-$cache/releases/apt}

	"apt-$1" -q -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir" \
		-o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::Etc::preferencesparts=- -o APT::Sandbox::User=root "${@:2}"
}

release_apt_update()
{
	local dir=$cache/releases/apt mirror security suite
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg

	mirror=$(debian_mirror Debian)
	security=$(debian_mirror Debian-Security)
	[[ $mirror ]] || die "the machine's apt configuration names no Debian mirror; run apt-get update first"
	mkdir -p "$dir"/{lists,archives}/partial
	for suite in "${archive_suites[@]}"; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$dir/sources.list"
	for suite in "${security_suites[@]}"; do
		[[ ! $security ]] || echo "deb [signed-by=$keyring] $security $suite main"
	done >>"$dir/sources.list"
	release_apt get update
}

# releases_of KERNEL: "RELEASE VERSION SUITES" a line, oldest first: of the versions
# of one upstream release, the newest.
releases_of()
{
	release_apt cache madison "linux-source-$1" | awk -F ' *[|] *' '
		{ version = $2; sub(/^ */, "", version)
		  split($3, field, " "); suite = field[2]; sub("/.*", "", suite)
		  release = version; sub(/-.*/, "", release)
		  if (!(release in newest)) newest[release] = version
		  if (!index(" " suites[release] " ", " " suite " "))
			suites[release] = suites[release] " " suite }
		END { for (r in newest) print r, newest[r], suites[r] }' | sort -V
}

# What the series touches or reads in a base.
files_touched() # BASE
{
	local name

	while read -r name; do
		sed -n 's#^--- a/##p' "$(patch_of "$1" "$name")"
	done < <(patch_names)
	echo MAINTAINERS
	echo scripts/parse-maintainers.pl
}

# release_tree KERNEL RELEASE VERSION: make a repository of those files of a
# release, unless the cache has it; print its path.
release_tree()
{
	local tree=$cache/releases/$2 deb
	local -a files new

	mapfile -t new < <(files_touched "$1" | sort -u)
	if [[ "$(printf '%s\n' "${new[@]}")" != "$(cat "$tree.files" 2>/dev/null)" ]]; then
		rm -rf "$tree" "$tree.deb"
		mkdir -p "$tree" "$tree.deb"
		(cd "$tree.deb" && release_apt get download "linux-source-$1=$3") >&2 || return
		deb=$(echo "$tree.deb"/*.deb)
		# A file that a release lacks is for git am to complain about.
		files=("${new[@]/#/linux-source-$1/}")
		dpkg-deb --fsys-tarfile "$deb" |
			tar -xOf - "./usr/src/linux-source-$1.tar.xz" |
			tar -xJf - -C "$tree" --strip-components=1 "${files[@]}" >&2 || true
		rm -rf "$tree.deb"
		git -C "$tree" init -q
		git -C "$tree" config gc.auto 0
		git -C "$tree" add -Af .
		git -C "$tree" -c user.name=khealthd -c user.email=khealthd@localhost \
			commit -q -m "linux-source-$1 $3" || return
		git -C "$tree" branch base
		printf '%s\n' "${new[@]}" >"$tree.files"
	fi
	git -C "$tree" am -q --abort 2>/dev/null || true
	git -C "$tree" checkout -q --force --detach base
	echo "$tree"
}

# applies_to KERNEL RELEASE VERSION: each patch exactly, at whatever lines; and
# each hook is where it belongs.
applies_to()
{
	local tree

	tree=$(release_tree "$@") || return
	apply_series "$(kernel_of "$1" "$2")" "$tree"
	check_hooks "$tree"
}

# own_patches BASE: in words, how many patches a base takes from where.
own_patches()
{
	local name

	while read -r name; do
		name=$(parts_of "$1" "$name" | tail -n 1)
		echo "${name%/*}/"
	done < <(patch_names) | sort | uniq -c |
		awk -v top="$top/" '{ sub(top, "", $2); printf "%s%d from `%s`", (NR > 1 ? ", " : ""), $1, $2 }'
}

# older_patches BASE OLDER: in words, which of them releases up to OLDER have otherwise.
older_patches()
{
	local name own

	while read -r name; do
		own=$(parts_of "$2" "$name" | tail -n 1)
		[[ $own = "$(parts_of "$1" "$name" | tail -n 1)" ]] ||
			printf ', %s from %s' "${name%%-*}" "\`$(basename "${own%/*}")\`"
	done < <(patch_names)
}

# The table has a row a kernel; README has it as it is printed.
readme_table() { sed -n '/^| kernel | /,/^$/p' "$top/README.md" | grep '^|'; }

# Releases come and go in the archive: what README says must not be wrong.
readme_is_true() # SEEN GOOD
{
	local release wrong=0

	[[ $(readme_table) ]] || { echo "README has no table of kernels"; return 1; }
	for release in $(readme_table | grep -oE '\<[0-9]+\.[0-9]+(\.|~rc)[0-9]+\>'); do
		if grep -qxF "$release" "$1" && ! grep -qxF "$release" "$2"; then
			echo "README has $release"
			wrong=1
		fi
	done
	return $wrong
}

group_apply()
{
	local kernel release version suites before older words
	local table=$cache/releases/table
	local -a good

	mkdir -p "$cache/releases"
	check "Debian's lists of packages" release_apt_update
	printf '| %s | %s | %s |\n|---|---|---|\n' kernel \
		"releases to which it applies exactly, each hook in its place" patches >"$table"
	: >"$table.seen"
	: >"$table.good"
	for kernel in "${kernels[@]}"; do
		[[ $kernel != *.*.* ]] || continue
		good=()
		while read -r release version suites; do
			before=$failed
			echo "$release" >>"$table.seen"
			check "the series on $release ($suites)" \
				applies_to "$kernel" "$release" "$version"
			((failed == before)) || continue
			good+=("$release")
			echo "$release" >>"$table.good"
		done < <(releases_of "$kernel")
		words=$(own_patches "$kernel")
		for older in "${kernels[@]}"; do
			[[ $older != "$kernel".* ]] ||
				words+="; up to $older$(older_patches "$kernel" "$older")"
		done
		printf '| %s | %s | %s |\n' "$kernel" "${good[*]:-none}" "$words" >>"$table"
	done
	sed 's/^/        /' "$table" >&2
	check "no release in README's table is wrong" readme_is_true "$table".{seen,good}
	diff <(readme_table) "$table" >/dev/null ||
		skip "README's table is older than the one above"
}
