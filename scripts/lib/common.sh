# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Sourced by every script: words to the user, the cache, packages, progress.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cache=$(realpath -m "${KHEALTHD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/khealthd}")
jobs=$(nproc)
default_base=6.12
# A kernel takes the patches of the next newer one where it has none of its own. The
# bases are built and booted here; the others are kernels that distributions have, one
# with three numbers is all releases of its kernel up to that one.
kernels=(6.1.170 6.1.176 6.1 6.12.95 6.12.113 6.12 7.2 7.3)
bases=(6.1 6.12 7.3)
# Compiled and booted each time. The others have the same hooks, and are with --full.
main_bases=(6.12 7.3)
export top cache jobs default_base kernels bases main_bases

say() { printf '%s\n' "$*" >&2; }

die()
{
	say "${0##*/}: $*"
	exit 1
}

# The comment block under a script's #! and SPDX lines is its --help.
usage() { awk 'NR > 2 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

usage_error()
{
	say "${0##*/}: $*"
	say "Try '${0##*/} --help'."
	exit 2
}

elapsed() { printf '%dm%02ds' $((SECONDS / 60)) $((SECONDS % 60)); }

# What the groups of scripts/packages name.
packages_of() # GROUP...
{
	awk -v groups=" $* " '
		/^#/ || NF < 2 { next }
		index(groups, " " $1 " ") { for (i = 2; i <= NF; i++) print $i }
		' "$top/scripts/packages" | sort -u
}

# packages GROUP...: install what the groups name and the machine lacks. A package
# that the machine has is left as it is.
packages()
{
	local -a wanted missing=()
	local p

	mapfile -t wanted < <(packages_of "$@")
	for p in "${wanted[@]}"; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) = installed ]] ||
			missing+=("$p")
	done
	((${#missing[@]})) || return 0

	((EUID == 0)) || die "as root, install these packages first: apt-get install ${missing[*]}"
	say "Installing Debian packages: ${missing[*]}"
	if ! { apt-get -qq update &&
	       DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
			--no-install-recommends install "${missing[@]}"; } \
			>"$cache/apt.log" 2>&1; then
		tail -n 20 "$cache/apt.log" >&2
		die "apt-get could not install them; all of its output is in $cache/apt.log"
	fi
}

download_packages() { apt-get -q -o APT::Sandbox::User=root download "$@"; }

# unpacked GROUP [COMMAND...]: download what the group names, with COMMAND if given,
# unpack it, and print the folder. Nothing is installed: the machine keeps the mail
# system that it has, and no daemon is started on it.
unpacked()
{
	local group=$1 dir=$cache/unpacked/$1 deb
	local -a names

	shift
	mapfile -t names < <(packages_of "$group")
	if [[ ${names[*]} != "$(cat "$dir/packages" 2>/dev/null)" ]]; then
		say "Downloading, but not installing: ${names[*]}"
		rm -rf "$dir"
		mkdir -p "$dir/deb"
		(cd "$dir/deb" && "${@:-download_packages}" "${names[@]}") >"$cache/apt.log" 2>&1 ||
			die "cannot get ${names[*]}; all of apt-get's output is in $cache/apt.log"
		for deb in "$dir"/deb/*.deb; do
			dpkg-deb -x "$deb" "$dir"
		done
		rm -rf "$dir/deb"
		echo "${names[*]}" >"$dir/packages"
	fi
	echo "$dir"
}

# with_progress LABEL TOTAL UNIT PATTERN LOG COMMAND...: run COMMAND with its
# output in LOG, and tell every few seconds how many of TOTAL lines matching
# PATTERN it has printed. TOTAL may be 0 for unknown.
with_progress()
{
	local label=$1 total=$2 unit=$3 pattern=$4 log=$5
	local start=$SECONDS step=10 n pid

	shift 5
	[[ -t 2 ]] && step=1
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# A job of ours must not outlive us when the user presses Ctrl-C.
	trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		((SECONDS - start >= step)) || continue
		n=$(grep -cE "$pattern" "$log" || true)
		progress_line "$label" "$n" "$total" "$unit" $((SECONDS - start))
		[[ -t 2 ]] && step=$((SECONDS - start + 1)) ||
			step=$((SECONDS - start + 20))
	done
	[[ -t 2 ]] && printf '\r\033[K' >&2
	trap - INT TERM
	if ! wait "$pid"; then
		say "$label failed after $((SECONDS - start)) s; the end of $log:"
		tail -n 25 "$log" >&2
		return 1
	fi
	n=$(grep -cE "$pattern" "$log" || true)
	say "$label: done, $n $unit, $((SECONDS - start)) s"
}

progress_line()
{
	local of=''

	(($3)) && of=" of about $3"
	if [[ -t 2 ]]; then
		printf '\r\033[K%s: %d%s %s, %d s' "$1" "$2" "$of" "$4" "$5" >&2
	else
		say "$1: $2$of $4, $5 s"
	fi
}

mkdir -p "$cache"
