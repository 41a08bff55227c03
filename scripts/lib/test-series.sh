# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# scripts/test series: from patches/ to a tree and back, and an export, given to
# every program that a maintainer or a carrier uses.

# strict_check NAME COMMAND...: as check(), but the first thing in COMMAND that
# fails ends it. bash does without that in a condition.
strict_check()
{
	local log=$logs/strict-$BASHPID.log status

	set +e
	( set -e; "${@:2}" ) >"$log" 2>&1
	status=$?
	set -e
	check "$1" said "$log" "$status"
	rm "$log"
}

said() { cat "$1"; return "$2"; } # FILE STATUS

# A mere ! would not end it.
none() { ! "$@"; }

# What we have now, as a repository of its own to try things in.
copy_of_project() # DIR
{
	mkdir -p "$1"
	tar -C "$top" --exclude=./.git -cf - . | tar -C "$1" -xf -
	git -C "$1" init -q
	identify "$1"
	git -C "$1" add -A
	git -C "$1" commit -qm copy
}

round_trip() # BASE DIR
{
	git -C "$(base_repo "$1")" worktree prune
	git -C "$(base_repo "$1")" worktree add -q --detach --no-checkout "$2/tree" base
	git -C "$2/tree" read-tree HEAD
	git -C "$2/tree" sparse-checkout set --no-cone /Kbuild /MAINTAINERS /kernel/Makefile /kernel/khealthd/ \
		"/$selftests_dir/" "/$tools_dir/" /tools/Makefile /Documentation/admin-guide/ "/$netlink_spec" \
		/Documentation/ABI/testing/sysfs-kernel-k* "/$fragment"
	git -C "$2/tree" reset -q --hard
	"$2/project/scripts/apply" "$1" "$2/tree"
	"$2/project/scripts/refresh" "$1" "$2/tree"
	[[ -z $(git -C "$2/project" status --porcelain) ]]
	# Without the second series, which stays as it is.
	git -C "$2/tree" reset -q --hard base
	"$2/project/scripts/apply" --first-only "$1" "$2/tree"
	"$2/project/scripts/refresh" "$1" "$2/tree"
	[[ -z $(git -C "$2/project" status --porcelain) ]]
}

# half_applied BASE DIR: where a late patch does not apply, the message takes back the rest.
half_applied()
{
	local tree=$2/tree before undo am

	git -C "$tree" reset -q --hard base
	echo "# another one" >"$tree/tools/Makefile"
	git -C "$tree" -c user.name=test -c user.email=test@localhost \
		commit -qam "another Makefile"
	before=$(git -C "$tree" rev-parse HEAD)
	mkdir -p "$tree/$selftests_dir"
	echo mine >"$tree/$selftests_dir/mine"
	none "$2/project/scripts/apply" "$1" "$tree" 2>"$2/refused"
	grep "$selftests_dir/mine is not of git" "$2/refused"
	rm -r "${tree:?}/$selftests_dir"
	am=$(git -C "$tree" rev-parse --absolute-git-dir)/rebase-apply
	mkdir "$am"
	none "$2/project/scripts/apply" "$1" "$tree" 2>"$2/refused"
	grep "a git am or rebase goes on" "$2/refused"
	rmdir "$am"
	none "$2/project/scripts/apply" "$1" "$tree" 2>"$2/refused"
	[[ $(git -C "$tree" rev-list --count "$before..HEAD") -gt 10 ]]
	undo=$(sed -n 's/^This takes back what was applied: //p' "$2/refused")
	# Once more does no harm.
	none "$2/project/scripts/apply" "$1" "$tree" 2>"$2/refused"
	grep "has khealthd already" "$2/refused"
	bash -c "$undo"
	[[ $(git -C "$tree" rev-parse HEAD) = "$before" ]]
}

# touched_files BASE DIR DIFF: from the base, only the files that the diff touches.
touched_files()
{
	local -a files

	mkdir -p "$2"
	mapfile -t files < <(sed -n 's#^--- a/##p' "$3")
	git -C "$(base_repo "$1")" archive base "${files[@]}" | tar -C "$2" -xf -
}

# export_is_whole BASE DIR: the files there have to be, each as SHA256SUMS says.
export_is_whole()
{
	local dir=$2/export

	"$top/scripts/export" "$1" "$dir"
	(cd "$dir" && sha256sum --quiet -c SHA256SUMS)
	diff <(cd "$dir" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort) \
		<(cut -c67- "$dir/SHA256SUMS" | sort)
	ls "$dir/khealthd.config" "$dir/khealthd-$(version)-linux-$1.diff"
	touched_files "$1" "$2/touched" "$dir"/khealthd-*.diff
	git -C "$2/touched" init -q
	identify "$2/touched"
	git -C "$2/touched" add -Af .
	git -C "$2/touched" commit -qm base
	# What all the others have to come to.
	copy_of_touched "$2" diff
	git -C "$2/diff" apply --index "$dir"/khealthd-*.diff
}

# The second series comes after the first one.
mails_of() # DIR
{
	ls "$1"/export/series/*.patch
	[[ ! -d $1/export/second ]] || ls "$1"/export/second/*.patch
}

copy_of_touched() # DIR NAME
{
	git clone -q "$1/touched" "$1/$2"
	identify "$1/$2"
	git -C "$1/$2" branch base
}

# Who commits there is not the machine's business.
identify() # REPOSITORY
{
	git -C "$1" config user.name test
	git -C "$1" config user.email test@localhost
}

same_tree() # DIR NAME
{
	[[ $(git -C "$1/$2" rev-parse 'HEAD^{tree}') = "$(git -C "$1/diff" write-tree)" ]]
}

mails_are_threaded() # BASE DIR
{
	local mail cover folder letter

	for folder in series second; do
		cover=''
		for mail in "$2/export/$folder"/0*; do
			grep -qi '^Message-ID: <.*@.*>$' "$mail"
			grep -q "^Subject: \[$(prefix "$1" "$folder") [0-9]*/[0-9]*\] " "$mail"
			sed -n '/^index /p' "$mail" |
				none grep -vE '^index [0-9a-f]{12}\.\.[0-9a-f]{12}( |$)'
			[[ ! $cover ]] || grep -qxF "In-Reply-To: $cover" "$mail"
			cover=${cover:-$(sed -n 's/^Message-I[Dd]: //p;T;q' "$mail")}
		done
		letter=$top/patches/$([[ $folder = second ]] && echo 0100 || echo 0000)-cover-letter
		grep -F "$(head -n 1 "$letter")" "$2/export/$folder/0000-cover-letter"
		none grep -F '*** ' "$2/export/$folder/0000-cover-letter"
	done
	# What is to be run stays so.
	grep -q '^new file mode 100755$' "$2"/export/series/*.patch
}

git_am() # BASE DIR
{
	local -a mails

	copy_of_touched "$2" am
	mapfile -t mails < <(mails_of "$2")
	git -C "$2/am" am -q -s "${mails[@]}"
	same_tree "$2" am
	check_hooks "$2/am"
	[[ $(git -C "$2/am" log --format=%B base.. | grep -c '^Signed-off-by: test') = \
	   "$(patch_names | wc -l)" ]]
}

send_email() # BASE DIR
{
	local -a mails=("$2"/export/s*/0*)
	local log=$2/send-email.log

	git -C "$2/touched" -c sendemail.smtpserver=/bin/true send-email --dry-run \
		--confirm=never --suppress-cc=self --to=test@example.org "${mails[@]}" >"$log" 2>&1
	cat "$log"
	[[ $(grep -c '^Result: OK' "$log") = "${#mails[@]}" ]]
}

b4_am() # BASE DIR
{
	local folder

	copy_of_touched "$2" b4
	for folder in series second; do
		[[ -d $2/export/$folder ]] || continue
		cat "$2/export/$folder"/0* >"$2/$folder.mbox"
		mkdir "$2/$folder.b4"
		(cd "$2/b4" && XDG_DATA_HOME=$2 XDG_CACHE_HOME=$2 \
			b4 --no-stdin --offline-mode am -m "$2/$folder.mbox" -o "$2/$folder.b4")
		git -C "$2/b4" am -q "$2/$folder.b4"/*.mbx
	done
	same_tree "$2" b4
}

quiltimport() # BASE DIR
{
	copy_of_touched "$2" quiltimport
	git -C "$2/quiltimport" quiltimport --patches "$2/export/quilt"
	# quilt knows no modes.
	git -C "$2/quiltimport" diff --exit-code --quiet HEAD
	diff -r -x .git "$2/diff" "$2/quiltimport"
	git -C "$2/quiltimport" log --format='%an <%ae> %aI %s' base.. |
		diff - <(git -C "$2/b4" log --format='%an <%ae> %aI %s' base..)
}

quilt_refresh() # BASE DIR
{
	local -a quilt=(quilt --quiltrc patches/quiltrc)

	copy_of_touched "$2" quilt
	cp -a "$2/export/quilt" "$2/quilt/patches"
	cd "$2/quilt"
	while "${quilt[@]}" push --fuzz=0; do
		"${quilt[@]}" refresh
	done
	none "${quilt[@]}" unapplied
	diff -r patches "$2/export/quilt"
	diff -r -x .git -x .pc -x patches "$2/diff" "$2/quilt"
}

patch_p1() # BASE DIR
{
	cp -a "$2/touched" "$2/patch"
	patch -d "$2/patch" -p1 -F0 <"$(echo "$2"/export/khealthd-*.diff)"
	git -C "$2/patch" add -Af .
	[[ $(git -C "$2/patch" write-tree) = "$(git -C "$2/diff" write-tree)" ]]
}

# By the base's own checkpatch. A header of trace events is one that it cannot read, and
# until 7.x it wants a version of whoever assisted. One that still has net/'s own style of
# comments does not know either that mount(8) says proc twice, what may follow a function,
# and that a member's name stands alone.
checkpatch_export() # BASE DIR
{
	local mail bad=0 ignored old=NETWORKING_BLOCK_COMMENT_STYLE

	files_of base "$2/checkpatch" scripts/checkpatch.pl scripts/spelling.txt \
		scripts/const_structs.checkpatch COPYING CREDITS Kbuild MAINTAINERS Makefile README
	while read -r mail; do
		# shellcheck disable=SC2154 # set by scripts/test
		ignored=$checkpatch_ignored
		[[ $1 = "$newest_base" ]] || ignored+=,BAD_SIGN_OFF
		! grep -q "$old" "$2/checkpatch/scripts/checkpatch.pl" ||
			ignored+=,$old,REPEATED_WORD,LINE_SPACING,MACRO_ARG_PRECEDENCE
		! grep -q '^+++ b/include/trace/' "$mail" ||
			ignored+=,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT
		! grep -q '^+++ b/tools/khealthd/' "$mail" || ignored+=,$checkpatch_tools
		PATH=/usr/bin:$PATH "$2/checkpatch/scripts/checkpatch.pl" --strict --quiet \
			--root="$2/checkpatch" --no-summary --ignore "$ignored" "$mail" || bad=1
	done < <(mails_of "$2")
	return $bad
}

# The files say nothing of who exported them, or when.
same_again() # BASE DIR
{
	git config -f "$2/gitconfig" user.name 'Somebody Else'
	git config -f "$2/gitconfig" user.email else@example.org
	git config -f "$2/gitconfig" format.signOff true
	git config -f "$2/gitconfig" diff.noprefix true
	GIT_CONFIG_GLOBAL=$2/gitconfig GIT_COMMITTER_DATE='2001-01-01T00:00:00+0000' \
		"$2/project/scripts/export" "$1" "$2/again"
	diff "$2"/{export,again}/SHA256SUMS
}

# The second series can be left out of all of it.
without_second() # BASE DIR
{
	"$2/project/scripts/export" --first-only "$1" "$2/first"
	diff <(cd "$2/first/quilt" && ls ./*.patch) <(cd "$2/export/quilt" && ls ./00*.patch)
	diff -r "$2"/{export,first}/series
	[[ ! -e $2/first/second ]]
	none grep -F khealthd_conntrack "$2"/first/khealthd-*.diff
}

# Who carries version 1.0 is told what differs in the next one.
since_says() # BASE DIR
{
	local project=$2/project

	sed -i '0,/^## /s//## 99.1\n\n- Another line of help.\n\n## /' "$project/CHANGES"
	# In a file that no later patch changes.
	sed -i 's/^+ \* khealthd: what is remembered/+ * khealthd: what is known/' \
		"$project"/patches/0001-*.patch
	git -C "$project" commit -qam 'another version'
	"$project/scripts/export" --from 'Jördis Test <test@example.org>' \
		--since "$(version)" "$1" "$2/export99"
	# Only the author knows about the sign-off; who posts, is said.
	grep -x 'From: =?UTF-8?q?J=C3=B6rdis=20Test?= <test@example.org>' \
		"$2/export99/series/0001-"*
	ls "$2/export99/khealthd-99.1-linux-$1.diff"
	grep -F '[PATCH net-next v99 01/' "$2/export99/series/0001-"*
	grep -x -- '- Another line of help.' "$2/export99/since-$(version).txt"
	grep -E '^ *1: .* ! ' "$2/export99/since-$(version).txt"
	grep -E '^ *2: .* = ' "$2/export99/since-$(version).txt"
	none grep -x "## $(version)" "$2/export99/since-$(version).txt"
}

# neighbours FILE: the titles before and after our entry.
neighbours()
{
	awk -v ours="$(head -n 1 "$top/MAINTAINERS-entry")" '
		/^[A-Z]:\t/ && last ~ /^[^ \t].*/ && !(last ~ /^[A-Z]:\t/) { print last }
		{ last = $0 }' "$1" | grep -xF -C 1 "$(head -n 1 "$top/MAINTAINERS-entry")"
}

# The entry is where parse-maintainers.pl sorts it, and get_maintainer.pl finds
# nothing wrong with it.
maintainers_entry() # BASE DIR
{
	local tree=$2/maintainers what

	copy_of_touched "$2" maintainers
	git -C "$tree" apply "$2"/export/khealthd-*.diff
	git -C "$tree" add -Af .
	files_of base "$tree" COPYING CREDITS Kbuild Makefile README \
		scripts/{parse-maintainers,get_maintainer}.pl
	cd "$tree"
	scripts/parse-maintainers.pl --input=MAINTAINERS --output="$2/sorted"
	diff <(neighbours MAINTAINERS) <(neighbours "$2/sorted")
	diff "$top/MAINTAINERS-entry" <(sed -n '/^KHEALTHD/,/^$/p' "$2/sorted" | sed '$d')
	for what in sections patterns; do
		scripts/get_maintainer.pl --self-test="$what" >"$2/self-test" 2>&1
		none grep -i khealthd "$2/self-test"
	done
}

# Each patch of the second series may be left out.
each_alone() # BASE
{
	local commit n=0

	for commit in $(alone "$1"); do
		check_hooks "$(base_repo "$1")" "$commit"
		git -C "$(base_repo "$1")" log -1 --format=%s "$commit"
		n=$((n + 1))
	done
	[[ $n = "$(patch_names | grep -c '^01')" ]]
}

series_on() # BASE
{
	local base=$1 dir repo

	repo=$(base_repo "$base")
	dir=$(mktemp -d "$cache/series.XXXXXX")
	copy_of_project "$dir/project"
	strict_check "round trip on $base" round_trip "$base" "$dir"
	[[ $base != "$newest_base" ]] ||
		strict_check "half a series is taken back on $base" half_applied "$base" "$dir"
	strict_check "each patch of the second series applies alone on $base" each_alone "$base"
	strict_check "export for $base, each file as it should be" export_is_whole "$base" "$dir"
	if [[ -d $dir/diff ]]; then
		strict_check "the mails for $base are a thread" mails_are_threaded "$base" "$dir"
		strict_check "git am -s on $base, every hook where it belongs" git_am "$base" "$dir"
		strict_check "git send-email takes the mails for $base" send_email "$base" "$dir"
		strict_check "b4 am takes the mails for $base" b4_am "$base" "$dir"
		strict_check "git quiltimport on $base" quiltimport "$base" "$dir"
		strict_check "quilt push and refresh on $base change nothing" quilt_refresh "$base" "$dir"
		strict_check "patch -p1 -F0 on $base" patch_p1 "$base" "$dir"
		strict_check "checkpatch --strict of $base takes the mails" checkpatch_export "$base" "$dir"
		strict_check "MAINTAINERS of $base has the entry in its place" maintainers_entry "$base" "$dir"
	fi
	[[ $base != "$newest_base" ]] ||
		strict_check "another export of $base has the same files" same_again "$base" "$dir"
	[[ $base != "$newest_base" ]] ||
		strict_check "an export of $base without the second series" without_second "$base" "$dir"
	[[ $base != "$newest_base" ]] ||
		strict_check "an export says what changed since a version" since_says "$base" "$dir"
	rm -rf "$dir"
	git -C "$(base_repo "$base")" worktree prune
}

group_series()
{
	packages lint export
	at_once series_on "${bases[@]}"
}
