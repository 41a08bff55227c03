# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The series: from the project's folders to commits of a kernel tree, and back.
#
# A patch for a base is patches/BASE/NAME if that exists, else patches/NAME.
# selftests/ and Documentation/ join the commit of the patch that makes room for
# them in the tree; the entry for MAINTAINERS joins the latter. The netlink
# family's specification joins the commit of what is generated from it.

newest_base=${bases[-1]}
selftests_dir=tools/testing/selftests/khealthd
netlink_spec=Documentation/netlink/specs/khealthd.yaml

# Paths of a tree that have their home outside of patches/.
not_in_patches=(":!$selftests_dir" ':!Documentation/**khealthd*' ':!MAINTAINERS')

patch_of() # BASE NAME
{
	if [[ -e $top/patches/$1/$2 ]]; then
		echo "$top/patches/$1/$2"
	else
		echo "$top/patches/$2"
	fi
}

patch_names() { (cd "$top/patches" && ls -- *.patch); }

# add_maintainers TREE: put our entry where its name belongs.
add_maintainers()
{
	python3 - "$1/MAINTAINERS" "$top/MAINTAINERS-entry" <<-'EOT'
	import re, sys
	path, entry = sys.argv[1], open(sys.argv[2]).read()
	text = open(path).read()
	title = entry.split('\n')[0]
	start = text.index('\nMaintainers List\n')
	for match in re.finditer(r'\n\n([^\s].*)\n[A-Z]:\t', text[start:]):
	    if match.group(1) > title:
	        at = start + match.start() + 2
	        break
	open(path, 'w').write(text[:at] + entry + '\n' + text[at:])
	EOT
}

# join_folders TREE NAME: what is not in patches/ joins the commit of its patch.
join_folders()
{
	case $2 in
	*-selftests-*)
		mkdir -p "$1/$selftests_dir"
		cp -a "$top/selftests/." "$1/$selftests_dir/"
		git -C "$1" add -f "$selftests_dir"
		;;
	*-specify-a-netlink-family.patch)
		mkdir -p "$(dirname "$1/$netlink_spec")"
		cp -a "$top/$netlink_spec" "$1/$netlink_spec"
		git -C "$1" add -f "$netlink_spec"
		;;
	*-Documentation-*)
		mkdir -p "$1/Documentation"
		(cd "$top/Documentation" && find . -type f -print0) |
			while IFS= read -r -d '' f; do
				mkdir -p "$(dirname "$1/Documentation/$f")"
				cp -a "$top/Documentation/$f" "$1/Documentation/$f"
				git -C "$1" add -f "Documentation/$f"
			done
		git -C "$1" checkout -q HEAD MAINTAINERS
		add_maintainers "$1"
		git -C "$1" add -f MAINTAINERS
		;;
	*)	return 0 ;;
	esac
	# The commit's date stays the author's: the same series on the same base
	# is the same commit, and nothing needs to be built again.
	GIT_COMMITTER_DATE=$(git -C "$1" log -1 --format=%aI) \
		git -C "$1" commit -q --amend --no-edit
}

# apply_series BASE TREE: commit the series on top of TREE's HEAD. TREE may be
# an empty work tree; files come into being as patches touch them.
apply_series()
{
	local base=$1 tree=$2 name

	# A machine on which git does not know who commits is no reason to stop.
	git var GIT_COMMITTER_IDENT >/dev/null 2>&1 ||
		export GIT_COMMITTER_NAME=khealthd GIT_COMMITTER_EMAIL=khealthd@localhost
	git -C "$tree" update-ref refs/worktree/khealthd-base HEAD
	while read -r name; do
		if ! git -C "$tree" am -q --committer-date-is-author-date \
			"$(patch_of "$base" "$name")"; then
			git -C "$tree" am --abort
			die "$(patch_of "$base" "$name") does not apply to $tree"
		fi
		join_folders "$tree" "$name"
	done < <(patch_names)
}

# series_commit BASE: print the commit of the series on the cached base. Made in
# an empty work tree, so that it takes a second.
series_commit()
{
	local base=$1 scratch repo

	repo=$(base_repo "$base")
	git -C "$repo" worktree prune
	scratch=$(mktemp -d "$cache/scratch.XXXXXX")
	git -C "$repo" worktree add -q --detach --no-checkout "$scratch/tree" base
	git -C "$scratch/tree" read-tree HEAD
	apply_series "$base" "$scratch/tree" >&2
	git -C "$scratch/tree" rev-parse HEAD
	rm -rf "$scratch"
	git -C "$repo" worktree prune
}

# build_tree BASE: print the path of the cached tree for builds, at the series.
# Only files that differ are written, so that a build goes on from the last one.
build_tree()
{
	local base=$1 tree=$cache/trees/$1$variant commit

	fetch_source "$base" >&2
	# Its work trees are not bare: checkpatch's spdxcheck.py wants to know. A
	# repository that does not say what it is is bare by its looks.
	git -C "$(base_repo "$base")" config --unset core.bare || true
	commit=$(series_commit "$base")
	if [[ ! -d $tree ]]; then
		say "Checking out linux-source-$base ..."
		mkdir -p "$cache/trees"
		git -C "$(base_repo "$base")" worktree prune
		git -C "$(base_repo "$base")" worktree add -q --detach "$tree" "$commit" >&2
	fi
	git -C "$tree" checkout -q --force --detach "$commit"
	echo "$tree"
}

# A commit as a patch, without what has its home elsewhere.
format_commit() # TREE COMMIT
{
	git -C "$1" format-patch -1 --stdout --zero-commit --no-signature \
		--abbrev=12 -U3 "$2" -- . "${not_in_patches[@]}"
}

patch_words() { sed '/^---$/,$d; /^Date: /d' "$1"; }

# Do two patches say and do the same, whenever and at whatever lines?
same_patch() # FILE FILE
{
	[[ $(patch_words "$1") = "$(patch_words "$2")" &&
	   $(git patch-id --verbatim <"$1") = "$(git patch-id --verbatim <"$2")" ]]
}

# take_patch BASE NAME FILE: store FILE as the patch of that name and base,
# unless what is there is as good.
take_patch()
{
	local base=$1 name=$2 new=$3 common=$top/patches/$2 own=$top/patches/$1/$2

	if [[ $base = "$newest_base" ]]; then
		own=$common
	elif [[ -e $common ]] && same_patch "$common" "$new"; then
		rm -f "$own"
		return
	fi
	[[ -e $own ]] && same_patch "$own" "$new" && return
	mkdir -p "$(dirname "$own")"
	cp "$new" "$own"
}

# take_folder TREE PATH FOLDER: make FOLDER what the series put under PATH.
take_folder()
{
	local tree=$1 path=$2 folder=$3 f
	local -a files

	mapfile -t files < <(git -C "$tree" diff --name-only --diff-filter=A \
		refs/worktree/khealthd-base HEAD -- "$path")
	((${#files[@]})) || return 0
	find "$folder" -type f -delete
	for f in "${files[@]}"; do
		mkdir -p "$(dirname "$folder/${f#"$path"/}")"
		cp -a "$tree/$f" "$folder/${f#"$path"/}"
	done
	find "$folder" -type d -empty -delete
}

# refresh_series BASE TREE: the way back.
refresh_series()
{
	local base=$1 tree=$2 tmp commit name n=0
	local -a names=()

	tmp=$(mktemp -d)
	while read -r commit; do
		n=$((n + 1))
		format_commit "$tree" "$commit" >"$tmp/patch"
		name=$(git -C "$tree" log -1 --format=%f "$commit")
		name=$(printf '%04d-%.52s.patch' "$n" "$name")
		names+=("$name")
		take_patch "$base" "$name" "$tmp/patch"
	done < <(git -C "$tree" rev-list --reverse refs/worktree/khealthd-base..HEAD)
	rm -rf "$tmp"

	# What is not a commit any more is not a patch any more.
	local dir=$top/patches/$base
	[[ $base != "$newest_base" ]] || dir=$top/patches
	for name in "$dir"/*.patch; do
		[[ " ${names[*]} " = *" ${name##*/} "* ]] || rm -f "$name"
	done
	take_folder "$tree" "$selftests_dir" "$top/selftests"
	take_folder "$tree" Documentation "$top/Documentation"
}

# Which function of which file each hook must be in, on every base; or on those
# that have the function, if it says so.
hooks="
net/core/skbuff.c __finalize_skb_around khealthd_skb_alloc
net/core/skbuff.c __alloc_skb khealthd_skb_alloc_failed
net/core/skbuff.c __netdev_alloc_skb khealthd_skb_alloc_failed
net/core/skbuff.c napi_alloc_skb khealthd_skb_alloc_failed
net/core/skbuff.c __build_skb khealthd_skb_alloc_failed
net/core/skbuff.c __napi_build_skb khealthd_skb_alloc_failed
net/core/skbuff.c slab_build_skb khealthd_skb_alloc_failed
net/core/skbuff.c napi_skb_cache_get_bulk khealthd_skb_alloc_failed if-any
net/core/dev.c enqueue_to_backlog khealthd_backlog
net/core/sock.c __sk_mem_raise_allocated khealthd_proto_mem
net/core/sock.c __sock_queue_rcv_skb khealthd_sock
net/ipv4/tcp_input.c tcp_data_queue_ofo khealthd_tcp_rcvbuf
net/ipv4/tcp_input.c tcp_queue_rcv khealthd_tcp_rcvbuf
net/ipv4/tcp_input.c tcp_prune_queue khealthd_tcp_pruned
net/ipv4/udp.c __udp_enqueue_schedule_skb khealthd_sock
net/netlink/af_netlink.c netlink_attachskb khealthd_sock
net/netlink/af_netlink.c netlink_broadcast_deliver khealthd_sock
net/packet/af_packet.c packet_rcv khealthd_sock
net/vmw_vsock/virtio_transport_common.c virtio_transport_recv_enqueue khealthd_sock
"

# hooks_in TREE: print "file function hook" for every hook in the tree's HEAD. A
# patch can apply without a complaint and land in the wrong function.
hooks_in()
{
	local file

	while read -r file; do
		git -C "$1" show "HEAD:$file" | awk -v file="$file" '
			/^[a-z_].*[a-z_0-9]\(/ && !/;$/ {
				name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
			}
			match($0, /^\t+khealthd_[a-z_]+\(/) {
				hook = substr($0, RSTART, RLENGTH - 1); sub(/^\t+/, "", hook)
				sub(/^khealthd_sock_.*/, "khealthd_sock", hook)
				print file, name, hook
			}'
	done < <(awk 'NF { print $1 }' <<<"$hooks" | sort -u) | sort
}

hooks_wanted() # TREE
{
	local file function hook condition

	while read -r file function hook condition; do
		[[ ! $condition ]] || git -C "$1" grep -q "\<$function(" HEAD -- "$file" || continue
		echo "$file" "$function" "$hook"
	done < <(awk NF <<<"$hooks") | sort
}

check_hooks() # TREE
{
	diff <(hooks_wanted "$1") <(hooks_in "$1") >&2 ||
		die "hooks landed elsewhere than they were meant to (< wanted, > found)"
}
