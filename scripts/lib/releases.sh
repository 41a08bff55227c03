# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# scripts/test apply: the series on each release of its kernels that Debian's archive
# has. Of each only the files that the series touches are unpacked and kept. With
# --full those that want patches of their own are compiled, as far as the series goes.

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

# unpack_release KERNEL VERSION TREE [FILE...]: make a repository of a release, or of
# those of its files.
unpack_release()
{
	local base=$1 version=$2 tree=$3 deb status=0

	shift 3
	rm -rf "$tree" "$tree.deb"
	mkdir -p "$tree" "$tree.deb"
	(cd "$tree.deb" && release_apt get download "linux-source-$base=$version") >&2 || return
	deb=$(echo "$tree.deb"/*.deb)
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xOf - "./usr/src/linux-source-$base.tar.xz" |
		tar -xJf - -C "$tree" --strip-components=1 "${@/#/linux-source-$base/}" >&2 ||
		status=1
	rm -rf "$tree.deb"
	# A file that a release lacks is for git am to complain about.
	((status == 0 || $#)) || return
	git -C "$tree" init -q
	git -C "$tree" config gc.auto 0
	git -C "$tree" add -Af .
	git -C "$tree" -c user.name=khealthd -c user.email=khealthd@localhost \
		commit -q -m "linux-source-$base $version" || return
	git -C "$tree" branch base
}

# release_tree KERNEL RELEASE VERSION: the files of a release that the series touches,
# unless the cache has them; print where.
release_tree()
{
	local tree=$cache/releases/$2
	local -a new

	mapfile -t new < <(files_touched "$1" | sort -u)
	if [[ "$(printf '%s\n' "${new[@]}")" != "$(cat "$tree.files" 2>/dev/null)" ]]; then
		rm -f "$tree.files"
		unpack_release "$1" "$3" "$tree" "${new[@]}" || return
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

# compiles KERNEL RELEASE VERSION: all that the series touches, with everything that can
# be a module as one, and no warning in a file of ours.
compiles()
{
	local tree=$cache/releases/whole out=$cache/releases/objects log=$logs/release-$2.log
	local option status=0
	local -a objects

	unpack_release "$1" "$3" "$tree" || return
	apply_series "$(kernel_of "$1" "$2")" "$tree" || return
	rm -rf "$out"
	mkdir -p "$out"
	for option in KHEALTHD=y DEBUG_INFO_NONE=y DEBUG_INFO_BTF=n GCC_PLUGINS=n WERROR=n KASAN=n KCOV=n; do
		echo "CONFIG_$option"
	done >"$out/options"
	mapfile -t objects < <(git -C "$tree" diff --name-only --diff-filter=d base HEAD -- \
		fs kernel net | sed -n 's/\.c$/.o/p')
	{
		KCONFIG_ALLCONFIG=$out/options make -C "$tree" ARCH=x86_64 O="$out" allmodconfig &&
			make -C "$tree" ARCH=x86_64 O="$out" -j"$jobs" "${objects[@]}"
	} >"$log" 2>&1 || status=1
	((status == 0)) || tail -n 30 "$log"
	! grep -E 'khealthd[^ ]*: warning:' "$log" || status=1
	rm -rf "$tree" "$out"
	return $status
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
	local -A newest

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
			newest[$(kernel_of "$kernel" "$release")]="$kernel $release $version"
		done < <(releases_of "$kernel")
		words=$(own_patches "$kernel")
		for older in "${kernels[@]}"; do
			[[ $older != "$kernel".* ]] ||
				words+="; up to $older$(older_patches "$kernel" "$older")"
		done
		printf '| %s | %s | %s |\n' "$kernel" "${good[*]:-none}" "$words" >>"$table"
	done
	sed 's/^/        /' "$table" >&2
	[[ ! $full ]] || packages build
	for older in ${full:+"${!newest[@]}"}; do
		[[ $older = *.*.* ]] || continue
		read -r kernel release version <<<"${newest[$older]}"
		say "Compiling the series on $release ..."
		check "the series on $release compiles" compiles "$kernel" "$release" "$version"
	done
	check "no release in README's table is wrong" readme_is_true "$table".{seen,good}
	diff <(readme_table) "$table" >/dev/null ||
		skip "README's table is older than the one above"
}
