/* SPDX-License-Identifier: GPL-2.0 */
/* What no header has: of libFuzzer, the linker's --wrap, and what YNL generates. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <ynl.h>

#include "khealthd-user.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
void __wrap_complain(const char *format, ...);

extern const struct ynl_policy_nest khealthd_monitor_nest;
int khealthd_monitor_get_rsp_parse(const struct nlmsghdr *nlh,
				   struct ynl_parse_arg *yarg);

#endif
