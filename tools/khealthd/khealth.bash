# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Completion of khealth(8).

_khealth()
{
	local cur=${COMP_WORDS[COMP_CWORD]} words=''

	case $COMP_CWORD:${COMP_WORDS[1]} in
	1:*)	words='status watch top who explain check test notify metrics --help' ;;
	2:status | 2:watch) words=--json ;;
	2:check) words=--settings ;;
	2:metrics) words=--file ;;
	3:who)	words=--json ;;
	2:explain | 2:test)
		words=$(cd /sys/kernel/khealthd 2>/dev/null &&
			for f in */code; do echo "${f%/code}"; done) ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _khealth khealth
