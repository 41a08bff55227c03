# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The series as files: mails to post, quilt's own patches, one diff, and what
# changed since a version that somebody carries.

# The version has its place in the first heading of CHANGES.
version() { version_in <"$top/CHANGES"; }
version_in() { awk '/^## / && !seen++ { print $2 }'; }

# first_series COMMIT: the last commit of the series proper; what comes after it
# on the way to COMMIT is the second series.
first_series()
{
	local n

	n=$(patch_names | grep -c '^01' || true)
	git -C "$repo" rev-parse "$1~$n"
}

# files_of COMMIT DIR PATH...: write these files of the commit, and the folders
# by whose looks the kernel's scripts know a tree.
files_of()
{
	mkdir -p "$2"/{Documentation,arch,include,drivers,fs,init,ipc,kernel,lib,scripts}
	git -C "$repo" archive "$1" "${@:3}" | tar -C "$2" -xf -
}

# prefix BASE FOLDER: the newest kernel's is for posting, the others' for carrying. The
# second series is not all for the network's maintainers.
prefix()
{
	local version

	version=$(version)
	if [[ $1 = "$newest_base" ]]; then
		echo "PATCH$([[ $2 = second ]] || echo " net-next") v${version%%.*}"
	else
		echo "PATCH $1 v${version%%.*}"
	fi
}

# mails BASE FROM TO DIR COVER: the commits FROM..TO as a thread of mails; COVER is
# a file with the subject of its cover letter and the letter, if there is one.
mails()
{
	local base=$1 from=$2 to=$3 dir=$4 cover=$5 ident
	local -a options=(--zero-commit --no-signature --abbrev=12 --thread=shallow
		--subject-prefix="$(prefix "$base" "${dir##*/}")")

	# The cover letter is of whoever posts it, and as old as the last patch: the
	# same series is the same mails.
	ident=${post_from:-$(git -C "$repo" log -1 --format='%an <%ae>' "$to")}
	local -x GIT_COMMITTER_NAME=${ident% <*} GIT_COMMITTER_EMAIL GIT_COMMITTER_DATE
	GIT_COMMITTER_EMAIL=${ident##*<}
	GIT_COMMITTER_EMAIL=${GIT_COMMITTER_EMAIL%>}
	GIT_COMMITTER_DATE=$(git -C "$repo" log -1 --format=%aI "$to")

	[[ ! ${post_from:-} ]] || options+=(--from="$post_from")
	[[ ! $variant ]] || options+=(--base="$(git -C "$repo" rev-parse base)")
	if [[ -e $cover ]]; then options+=(--cover-letter); else cover=''; fi
	git -C "$repo" format-patch -q "${options[@]}" -o "$dir" "$from..$to"
	# 'git am *.patch' is not to take the letter for a patch.
	[[ ! $cover ]] || mv "$dir/0000-cover-letter.patch" "$dir/0000-cover-letter"
	python3 "$top/scripts/lib/mails.py" --cover "$cover" \
		--id "$(version).$(git -C "$repo" rev-parse "$to^{tree}" | cut -c-12)" \
		${maintainers_tree:+--maintainers "$maintainers_tree"} "$dir"
}

# quilt_patches FROM TO DIR: the commits as quilt writes them itself, so that a
# refresh changes nothing; quilt knows no modes of files.
quilt_patches()
{
	local tree commit name log=$scratch/quilt.log
	local -a files quilt=(quilt --quiltrc "$3/quiltrc")
	local -x QUILT_PATCHES=$3 QUILT_SERIES=series

	mkdir -p "$3"
	cp "$top/scripts/lib/quiltrc" "$3"
	tree=$(mktemp -d "$scratch/quilt.XXXXXX")
	mapfile -t files < <(git -C "$repo" diff --name-only --diff-filter=M "$1" "$2")
	files_of "$1" "$tree" "${files[@]}"
	while read -r commit; do
		name=$(patch_name "$commit")
		git -C "$repo" log -1 \
			--format='From: %an <%ae>%nDate: %aD%nSubject: %s%n%n%b' \
			"$commit" >"$3/$name"
		git -C "$repo" diff "$commit~" "$commit" >>"$3/$name"
		echo "$name" >>"$3/series"
		(cd "$tree" && "${quilt[@]}" push && "${quilt[@]}" refresh) \
			>"$log" 2>&1 </dev/null ||
			{ cat "$log" >&2; die "quilt does not take $name"; }
	done < <(git -C "$repo" rev-list --reverse "$1..$2")
}

# patch_name COMMIT: as its file in patches/ is called.
patch_name()
{
	patch_names | sed -n "$(git -C "$repo" rev-list --count "base..$1")p"
}

# old_series BASE REVISION: the commit of the series as it was in a version of this
# project, made by the scripts of that version.
old_series()
{
	local old

	old=$(mktemp -d "$scratch/old.XXXXXX")
	git -C "$top" archive "$2" | tar -C "$old" -xf -
	# shellcheck disable=SC2016 # the other shell expands it
	KHEALTHD_CACHE=$cache "$BASH" -c '
		. "$1/scripts/lib/common.sh"
		. "$1/scripts/lib/source.sh"
		. "$1/scripts/lib/series.sh"
		variant=$3
		check_base "$2"
		series_commit "$2"' old "$old" "$1" "$variant" 2>"$scratch/old.log" || {
		tail -n 5 "$scratch/old.log" >&2
		die "the series of $2 cannot be had for $1"
	}
}

# revision_of VERSION: the project's last commit of that version: tagged, or the
# last one whose CHANGES begins with it, or what git makes of the name.
revision_of()
{
	local commit newer=HEAD

	git -C "$top" rev-parse -q --verify "v$1^{commit}" && return
	while read -r commit; do
		if [[ $(git -C "$top" show "$commit:CHANGES" | version_in) = "$1" ]]; then
			git -C "$top" rev-parse "$newer"
			return
		fi
		newer=$commit~
	done < <(git -C "$top" log --format=%H --first-parent --diff-filter=AM -- CHANGES)
	git -C "$top" rev-parse -q --verify "$1^{commit}" ||
		die "no version or revision '$1' in this repository; if it is a shallow clone: git fetch --unshallow"
}

# since REVISION COMMIT: what CHANGES says of later versions than the revision's,
# and how the commits differ from what they were then.
since()
{
	local old version

	old=$(old_series "$base" "$1")
	version=$(git -C "$top" show "$1:CHANGES" 2>/dev/null | version_in || true)
	awk -v old="$version" '/^## / && $2 == old { exit } 1' "$top/CHANGES"
	git -C "$repo" range-diff --no-color "base..$old" "base..$2"
}
