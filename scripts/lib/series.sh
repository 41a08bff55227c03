# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The series: from the project's folders to commits of a kernel tree, and back.
#
# The newest base has patches/NAME.patch. Any other one has what the next newer one has,
# unless patches/BASE/NAME.patch is there; and if patches/BASE/NAME.diff is, it changes
# the result.
# selftests/, tools/ and Documentation/ join the commit of the patch that makes room for
# them in the tree; the entry for MAINTAINERS and the fragment for configurations join
# the latter. The netlink family's specification joins the first commit, whose uAPI
# header is generated from it.
#
# 01xx is the second series: each of its patches stands on the first one alone.

newest_base=${kernels[-1]}
selftests_dir=tools/testing/selftests/khealthd
tools_dir=tools/khealthd
netlink_spec=Documentation/netlink/specs/khealthd.yaml
fragment=kernel/configs/khealthd.config

# Paths of a tree that have their home outside of patches/.
not_in_patches=(":!$selftests_dir" ":!$tools_dir" ':!Documentation/**khealthd*'
	':!MAINTAINERS' ":!$fragment")

# newer_base BASE: the next newer one, if there is one.
newer_base() { printf '%s\n' "${kernels[@]}" | grep -xF -A 1 -e "$1" | sed -n 2p; }

is_older() { [[ $1 != "$2" && $(printf '%s\n' "$@" | sort -V | head -n 1) = "$1" ]]; } # RELEASE THAN

# kernel_of BASE RELEASE: whose patches a release of that base takes.
kernel_of()
{
	local kernel

	for kernel in "${kernels[@]}"; do
		[[ $kernel = "$1".* ]] && ! is_older "$kernel" "$2" && break
		[[ $kernel = "$1" ]] && break
	done
	echo "$kernel"
}

# release_in TREE COMMIT: as its Makefile says.
release_in()
{
	git -C "$1" show "$2:Makefile" | awk '
		/^(VERSION|PATCHLEVEL|SUBLEVEL) = / { n[$1] = $3 }
		END { print n["VERSION"] "." n["PATCHLEVEL"] "." n["SUBLEVEL"] }'
}

# diff_of BASE NAME: what the base has otherwise than the next newer one.
diff_of() { echo "$top/patches/$1/${2%.patch}.diff"; }

# parts_of BASE NAME: the base's patch of that name, and the diffs on top of it.
parts_of()
{
	local newer own=$top/patches/$1/$2 diff

	newer=$(newer_base "$1")
	diff=$(diff_of "$1" "$2")
	if [[ ! $newer ]]; then
		echo "$top/patches/$2"
	elif [[ -e $own ]]; then
		echo "$own"
	else
		parts_of "$newer" "$2"
	fi
	[[ ! -e $diff ]] || echo "$diff"
}

patch_of() { parts_of "$@" | sed -n 1p; } # BASE NAME

# Set: the first series alone.
first_only=

patch_names() { (cd "$top/patches" && ls -- ${first_only:+00}*.patch); }

# add_maintainers TREE: put our entry where the tree's own script sorts it.
add_maintainers()
{
	local script

	script=$(mktemp)
	if ! git -C "$1" show HEAD:scripts/parse-maintainers.pl >"$script" ||
	   ! python3 "$top/scripts/lib/maintainers.py" "$1/MAINTAINERS" \
		"$top/MAINTAINERS-entry" "$script"
	then
		rm "$script"
		die "no place in $1/MAINTAINERS"
	fi
	rm "$script"
}

# join_folder TREE FROM TO: without what somebody built or ran there.
join_folder()
{
	mkdir -p "$1/$3" &&
	tar -C "$2" --exclude-vcs-ignores --exclude=__pycache__ --exclude='*.o' -cf - . |
		tar -C "$1/$3" -xf - &&
	git -C "$1" add -f "$3"
}

# join_folders TREE NAME: what is not in patches/ joins the commit of its patch. False
# if any of it does not: errexit is no help below a condition.
join_folders()
{
	case $2 in
	*-selftests-*)
		join_folder "$1" "$top/selftests" "$selftests_dir"
		;;
	*-tools-*)
		join_folder "$1" "$top/$tools_dir" "$tools_dir"
		;;
	0001-*)
		mkdir -p "$(dirname "$1/$netlink_spec")" &&
		cp -a "$top/$netlink_spec" "$1/$netlink_spec" &&
		git -C "$1" add -f "$netlink_spec"
		;;
	*-Documentation-*)
		mkdir -p "$1/Documentation"
		(cd "$top/Documentation" && find . -type f -print0) |
			while IFS= read -r -d '' f; do
				mkdir -p "$(dirname "$1/Documentation/$f")" &&
				cp -a "$top/Documentation/$f" "$1/Documentation/$f" &&
				git -C "$1" add -f "Documentation/$f" || exit
			done &&
		git -C "$1" checkout -q HEAD MAINTAINERS &&
		add_maintainers "$1" &&
		mkdir -p "$1/${fragment%/*}" &&
		cp "$top/kernel-config-fragments/${fragment##*/}" "$1/$fragment" &&
		git -C "$1" add -f MAINTAINERS "$fragment"
		;;
	esac
}

# check_new TREE: the series must not be there already.
check_new()
{
	! git -C "$1" cat-file -e HEAD:kernel/khealthd 2>/dev/null ||
		die "$1 has khealthd already; check out a commit without it"
}

# check_target TREE: what would be lost, or lead astray, if the series were applied.
check_target()
{
	local state file

	check_new "$1"
	for state in rebase-apply rebase-merge; do
		[[ ! -e $(git -C "$1" rev-parse --absolute-git-dir)/$state ]] ||
			die "a git am or rebase goes on in $1: end it first"
	done
	file=$(git -C "$1" ls-files --others -- "$selftests_dir" "$tools_dir" | sed -n 1p)
	[[ ! $file ]] ||
		die "$1/$file is not of git: move it away, for the series has files in that folder"
}

# apply_series BASE TREE: commit the series on top of TREE's HEAD. TREE may be
# an empty work tree; files come into being as patches touch them.
apply_series()
{
	local base=$1 tree=$2 name diff
	local -a parts

	# A machine on which git does not know who commits is no reason to stop.
	git -C "$tree" var GIT_COMMITTER_IDENT >/dev/null 2>&1 ||
		export GIT_COMMITTER_NAME=khealthd GIT_COMMITTER_EMAIL=khealthd@localhost
	git -C "$tree" update-ref refs/worktree/khealthd-base HEAD
	git -C "$tree" update-ref -d refs/worktree/khealthd-first-only
	[[ ! $first_only ]] || git -C "$tree" update-ref refs/worktree/khealthd-first-only HEAD
	while read -r name; do
		mapfile -t parts < <(parts_of "$base" "$name")
		# Without its advice, which is of no use: it is aborted.
		if ! git -C "$tree" am -q --committer-date-is-author-date "${parts[0]}" >/dev/null; then
			git -C "$tree" am --abort
			die "${parts[0]} does not apply to $tree"
		fi
		for diff in "${parts[@]:1}"; do
			git -C "$tree" apply --index "$diff" ||
				die "$diff does not apply to $tree"
		done
		join_folders "$tree" "$name" || die "what belongs to $name is not added to $tree"
		# The commit's date stays the author's: the same series on the same
		# base is the same commit, and nothing needs to be built again.
		git -C "$tree" diff --cached --quiet ||
			GIT_COMMITTER_DATE=$(git -C "$tree" log -1 --format=%aI) \
			git -C "$tree" commit -q --amend --no-edit ||
			die "$name is not committed in $tree"
	done < <(patch_names)
}

# series_ref BASE: print the name of a ref, which changes with what the commit of
# the series depends on.
series_ref()
{
	{
		git -C "$(base_repo "$1")" rev-parse base
		cd "$top"
		find patches selftests tools Documentation MAINTAINERS-entry \
			kernel-config-fragments/khealthd.config scripts/lib/{series.sh,maintainers.py} \
			-type f -printf '%p %m ' -exec sha256sum {} \; | sort
	} | sha256sum | sed 's#^\([0-9a-f]*\).*#refs/khealthd/\1#'
}

# series_commit BASE: print the commit of the series on the cached base. Made in
# an empty work tree, so that it takes seconds, and kept. Called in a subshell.
series_commit()
{
	local base=$1 scratch repo ref kernel

	repo=$(base_repo "$base")
	ref=$(series_ref "$base")
	git -C "$repo" rev-parse -q --verify "$ref" && return
	git -C "$repo" worktree prune
	scratch=$(mktemp -d "$cache/scratch.XXXXXX")
	# shellcheck disable=SC2064 # the folder is known now
	trap "rm -rf '$scratch'" EXIT
	git -C "$repo" worktree add -q --detach --no-checkout "$scratch/tree" base
	git -C "$scratch/tree" read-tree HEAD
	kernel=$(kernel_of "$base" "$(release_in "$scratch/tree" HEAD)") || return
	apply_series "$kernel" "$scratch/tree" >&2 || return
	git -C "$repo" update-ref "$ref" "$(git -C "$scratch/tree" rev-parse HEAD)"
	git -C "$repo" rev-parse "$ref"
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
	commit=$(series_commit "$base") || return
	tree_at "$base" "$tree" "$commit" "linux-source-$base"
}

# base_tree BASE: print the path of a tree without the series, for builds.
base_tree()
{
	fetch_source "$1" >&2
	tree_at "$1" "$cache/trees/$1-base$variant" base "linux-source-$1, without the series"
}

# tree_at BASE TREE COMMIT NAME: have the work tree at that commit; print its path.
tree_at()
{
	if [[ ! -d $2 ]]; then
		say "Checking out $4 ..."
		mkdir -p "$cache/trees"
		git -C "$(base_repo "$1")" worktree prune
		git -C "$(base_repo "$1")" worktree add -q --detach "$2" "$3" >&2
	fi
	git -C "$2" checkout -q --force --detach "$3" && echo "$2"
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

# difference TREE COMMIT PATCH [DIFF...]: print how the commit's files differ from what
# these make of the ones before it; fail if one does not apply, or the words differ.
difference()
{
	local index part
	local -x GIT_INDEX_FILE

	index=$(mktemp -d)
	GIT_INDEX_FILE=$index/index
	# shellcheck disable=SC2064 # it is this folder
	trap "rm -rf '$index'; trap - RETURN" RETURN
	git -C "$1" read-tree "$2~"
	[[ $(patch_words "$3") = "$(format_commit "$1" "$2" | patch_words -)" ]] || return
	for part in "${@:3}"; do
		git -C "$1" apply --cached "$part" 2>/dev/null || return
	done
	git -C "$1" diff-index -p --cached -R "$2" -- . "${not_in_patches[@]}" |
		sed '/^index /d'
}

# take_patch TREE COMMIT BASE NAME: store the commit as the patch of that name and
# base, or how it differs from the next newer base's, unless what is there is as good.
take_patch()
{
	local tree=$1 commit=$2 base=$3 name=$4
	local common=$top/patches/$4 own=$top/patches/$3/$4 diff
	local -a parts

	mapfile -t parts < <(parts_of "$(newer_base "$base")" "$name")
	if [[ $base = "$newest_base" ]]; then
		own=$common
	elif [[ -e $common ]] && diff=$(difference "$tree" "$commit" "${parts[@]}"); then
		rm -f "$own" "$(diff_of "$base" "$name")"
		if [[ $diff ]]; then
			mkdir -p "${own%/*}"
			printf '%s\n' "$diff" >"$(diff_of "$base" "$name")"
		fi
		return
	fi
	mkdir -p "${own%/*}"
	format_commit "$tree" "$commit" >"$own.new"
	if [[ -e $own ]] && same_patch "$own" "$own.new"; then
		rm "$own.new"
	else
		mv "$own.new" "$own"
	fi
	[[ $own = "$common" ]] || rm -f "$(diff_of "$base" "$name")"
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

# refresh_series BASE TREE: the way back. What comes after the tools is the
# second series, from 0101 on.
refresh_series()
{
	local base=$1 tree=$2 commit name n=0 kept=none
	local -a names=()

	! git -C "$tree" rev-parse -q --verify refs/worktree/khealthd-first-only >/dev/null ||
		kept='01*'
	while read -r commit; do
		n=$((n + 1))
		name=$(git -C "$tree" log -1 --format=%f "$commit")
		names+=("$(printf '%04d-%.52s.patch' "$n" "$name")")
		take_patch "$tree" "$commit" "$base" "${names[-1]}"
		[[ $name != tools-* ]] || n=100
	done < <(git -C "$tree" rev-list --reverse refs/worktree/khealthd-base..HEAD)

	# What is not a commit any more is not a patch any more.
	local dir=$top/patches/$base file
	[[ $base != "$newest_base" ]] || dir=$top/patches
	for file in "$dir"/*.{patch,diff}; do
		name=${file##*/}
		# shellcheck disable=SC2053 # a pattern
		[[ " ${names[*]} " = *" ${name%.*}.patch "* || $name = $kept ]] || rm -f "$file"
	done
	take_folder "$tree" "$selftests_dir" "$top/selftests"
	take_folder "$tree" "$tools_dir" "$top/$tools_dir"
	take_folder "$tree" Documentation "$top/Documentation"
	[[ ! -e $tree/$fragment ]] ||
		cp "$tree/$fragment" "$top/kernel-config-fragments/${fragment##*/}"
}

# Which function of which file each hook must be in, on every base; or on those whose
# file has a string, or lacks it.
hooks="
fs/file_table.c alloc_empty_file khealthd_report_files if khealthd_files
fs/file_table.c alloc_empty_file khealthd_report_refusal if khealthd_files
fs/file_table.c khealthd_report_files khealthd_report_level if khealthd_files
kernel/fork.c copy_process khealthd_report_threads if khealthd_threads
kernel/fork.c copy_process khealthd_report_threads if khealthd_threads
kernel/fork.c khealthd_report_threads khealthd_report_level if khealthd_threads
kernel/fork.c khealthd_report_threads khealthd_report_refusal if khealthd_threads
kernel/pid.c alloc_pid khealthd_report_threads if khealthd_threads
kernel/pid.c alloc_pid khealthd_report_threads if khealthd_threads
net/core/neighbour.c khealthd_report_neighbours khealthd_report_level if khealthd_neighbour
net/core/neighbour.c neigh_alloc khealthd_report_neighbours if khealthd_neighbour
net/core/neighbour.c neigh_alloc khealthd_report_refusal if khealthd_neighbour
net/ipv4/inet_connection_sock.c inet_csk_reqsk_queue_add khealthd_report_accept_queue if khealthd_accept_queue
net/ipv4/inet_fragment.c inet_frag_find khealthd_report_fqdir if khealthd_reassembly
net/ipv4/inet_fragment.c inet_frag_find khealthd_report_refusal if khealthd_reassembly
net/ipv4/inet_fragment.c khealthd_report_fqdir khealthd_report_level if khealthd_reassembly
net/ipv4/tcp_input.c tcp_conn_request khealthd_accept_queue_refused if khealthd_accept_queue_refused
net/ipv4/tcp_input.c tcp_get_syncookie_mss khealthd_accept_queue_refused if khealthd_accept_queue_refused
net/ipv4/tcp_ipv4.c tcp_v4_syn_recv_sock khealthd_accept_queue_refused if khealthd_accept_queue_refused
net/ipv6/tcp_ipv6.c tcp_v6_syn_recv_sock khealthd_accept_queue_refused if khealthd_accept_queue_refused
net/netfilter/nf_conntrack_core.c __nf_conntrack_alloc khealthd_report_level if khealthd_conntrack
net/netfilter/nf_conntrack_core.c __nf_conntrack_alloc khealthd_report_refusal if khealthd_conntrack
include/net/proto_memory.h sk_memory_allocated_add khealthd_proto_level if sk_memory_allocated_add(
include/net/sock.h sk_memory_allocated_add khealthd_proto_level if sk_memory_allocated_add(
net/core/dev.c enqueue_to_backlog khealthd_backlog_refused
net/core/dev.c skb_flow_limit khealthd_backlog_level
net/core/dev.c skb_flow_limit khealthd_backlog_level
net/core/gro_cells.c gro_cells_receive khealthd_backlog_level
net/core/gro_cells.c gro_cells_receive khealthd_backlog_refused
net/core/skbuff.c __alloc_skb khealthd_skb_refused
net/core/skbuff.c build_skb khealthd_skb_refused
net/core/skbuff.c __build_skb_around khealthd_skb_level unless __finalize_skb_around(
net/core/skbuff.c __finalize_skb_around khealthd_skb_level if __finalize_skb_around(
net/core/skbuff.c __napi_alloc_frag_align khealthd_skb_refused
net/core/skbuff.c __napi_alloc_skb khealthd_skb_refused if *__napi_alloc_skb(
net/core/skbuff.c __napi_build_skb khealthd_skb_refused
net/core/skbuff.c __netdev_alloc_frag_align khealthd_skb_refused
net/core/skbuff.c __netdev_alloc_skb khealthd_skb_refused
net/core/skbuff.c __netdev_alloc_skb khealthd_skb_refused
net/core/skbuff.c kmalloc_reserve khealthd_skb_refused
net/core/skbuff.c napi_alloc_skb khealthd_skb_refused unless *__napi_alloc_skb(
net/core/skbuff.c napi_skb_cache_get_bulk khealthd_skb_refused if napi_skb_cache_get_bulk(
net/core/skbuff.c skb_clone khealthd_skb_refused
net/core/skbuff.c slab_build_skb khealthd_skb_refused if *slab_build_skb(
net/core/skbuff.c sock_queue_err_skb khealthd_sock_queue_level
net/core/skbuff.c sock_queue_err_skb khealthd_sock_refused
net/core/sock.c __sk_mem_raise_allocated khealthd_proto_refused
net/core/sock.c __sk_mem_raise_allocated khealthd_proto_refused
net/core/sock.c __sk_receive_skb khealthd_sock_refused
net/core/sock.c __sk_receive_skb khealthd_sock_refused
net/core/sock.c __sock_queue_rcv_skb khealthd_sock_queue_level
net/core/sock.c __sock_queue_rcv_skb khealthd_sock_refused
net/ipv4/raw.c raw_v4_input khealthd_sock_refused if >sk_rmem_alloc)
net/ipv4/tcp_input.c tcp_data_queue khealthd_tcp_refused
net/ipv4/tcp_input.c tcp_data_queue_ofo khealthd_tcp_rcvbuf_level
net/ipv4/tcp_input.c tcp_data_queue_ofo khealthd_tcp_refused
net/ipv4/tcp_input.c tcp_prune_queue khealthd_tcp_rcvbuf_refused
net/ipv4/tcp_input.c tcp_queue_rcv khealthd_tcp_rcvbuf_level
net/ipv4/tcp_input.c tcp_send_rcvq khealthd_tcp_refused
net/ipv4/tcp_input.c tcp_try_rmem_schedule khealthd_tcp_refused
net/ipv4/tcp_ipv4.c tcp_add_backlog khealthd_tcp_backlog_level
net/ipv4/tcp_ipv4.c tcp_add_backlog khealthd_tcp_backlog_refused
net/ipv4/udp.c __udp_enqueue_schedule_skb khealthd_sock_level
net/ipv4/udp.c __udp_enqueue_schedule_skb khealthd_sock_refused
net/ipv6/raw.c ipv6_raw_deliver khealthd_sock_refused if >sk_rmem_alloc)
net/key/af_key.c pfkey_broadcast_one khealthd_sock_queue_level
net/key/af_key.c pfkey_broadcast_one khealthd_sock_refused
net/mptcp/options.c mptcp_over_limit khealthd_tcp_rcvbuf_refused if mptcp_over_limit(
net/mptcp/protocol.c __mptcp_add_backlog khealthd_tcp_level if mptcp_try_rmem_schedule(
net/mptcp/protocol.c __mptcp_add_backlog khealthd_tcp_limit_refused if mptcp_try_rmem_schedule(
net/mptcp/protocol.c __mptcp_move_skb khealthd_tcp_rcvbuf_level if mptcp_borrow_fwdmem(
net/mptcp/protocol.c __mptcp_move_skb khealthd_tcp_rcvbuf_refused if mptcp_try_rmem_schedule(
net/mptcp/protocol.c __mptcp_move_skb khealthd_tcp_refused if mptcp_rmem_schedule(
net/mptcp/protocol.c mptcp_data_queue_ofo khealthd_tcp_rcvbuf_level if mptcp_borrow_fwdmem(
net/mptcp/protocol.c mptcp_data_queue_ofo khealthd_tcp_rcvbuf_refused if mptcp_try_rmem_schedule(
net/mptcp/protocol.c mptcp_prune_ofo_queue khealthd_tcp_rcvbuf_refused if mptcp_try_rmem_schedule(
net/netlink/af_netlink.c netlink_attachskb khealthd_sock_level
net/netlink/af_netlink.c netlink_attachskb khealthd_sock_refused
net/netlink/af_netlink.c netlink_broadcast_deliver khealthd_sock_level
net/netlink/af_netlink.c netlink_broadcast_deliver khealthd_sock_refused
net/packet/af_packet.c __packet_ring_refused khealthd_ring_refused
net/packet/af_packet.c packet_rcv khealthd_sock_queue_level
net/packet/af_packet.c packet_rcv khealthd_sock_refused
net/packet/af_packet.c packet_ring_level khealthd_ring_level
net/packet/af_packet.c packet_ring_level khealthd_ring_level
net/tipc/socket.c tipc_sk_enqueue khealthd_sock_overrun
net/tipc/socket.c tipc_sk_filter_rcv khealthd_sock_limit_level
net/tipc/socket.c tipc_sk_filter_rcv khealthd_sock_overrun
net/vmw_vsock/virtio_transport_common.c virtio_transport_recv_enqueue khealthd_sock_overrun
net/xfrm/espintcp.c handle_nonesp khealthd_sock_refused
"

# alone BASE: print a commit for each patch of the second series, which is the first
# series and that patch alone.
alone()
{
	local repo first name file tree
	local -x GIT_INDEX_FILE

	repo=$(base_repo "$1")
	first=$(series_commit "$1")~$(patch_names | grep -c '^01' || true)
	GIT_INDEX_FILE=$(mktemp -d)/index
	while read -r name; do
		git -C "$repo" read-tree "$first" || return
		while read -r file; do
			git -C "$repo" apply --cached "$file" || return
		done < <(parts_of "$1" "$name")
		tree=$(git -C "$repo" write-tree)
		GIT_AUTHOR_NAME=alone GIT_AUTHOR_EMAIL=alone@localhost \
		GIT_COMMITTER_NAME=alone GIT_COMMITTER_EMAIL=alone@localhost \
		GIT_AUTHOR_DATE='@0 +0000' GIT_COMMITTER_DATE='@0 +0000' \
			git -C "$repo" commit-tree -p "$first" -m "alone: $name" "$tree"
	done < <(patch_names | grep '^01')
	rm -rf "${GIT_INDEX_FILE%/*}"
}

# hooks_in TREE [COMMIT]: print "file function hook" for every hook in the commit, HEAD
# if it is not named. A patch can apply without a complaint and land in the wrong function.
hooks_in()
{
	local file

	while read -r file; do
		git -C "$1" show "${2:-HEAD}:$file" 2>/dev/null | awk -v file="$file" '
			/^[a-z_].*[a-z_0-9]\(/ && !/;$/ {
				name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
			}
			match($0, /^\t+khealthd_[a-z_]+\(/) {
				hook = substr($0, RSTART, RLENGTH - 1); sub(/^\t+/, "", hook)
				if (hook !~ /identify|register/) print file, name, hook
			}'
	done < <(awk 'NF { print $1 }' <<<"$hooks" | sort -u) | sort
}

hooks_wanted() # TREE [COMMIT]
{
	local file function hook condition string

	while read -r file function hook condition string; do
		if [[ $condition ]]; then
			git -C "$1" grep -qF -e "$string" "${2:-HEAD}" -- "$file" || condition+=-not
			[[ $condition = if || $condition = unless-not ]] || continue
		fi
		echo "$file" "$function" "$hook"
	done < <(awk NF <<<"$hooks") | sort
}

check_hooks() # TREE [COMMIT]
{
	diff <(hooks_wanted "$@") <(hooks_in "$@") >&2 ||
		die "hooks landed elsewhere than they were meant to (< wanted, > found)"
}
