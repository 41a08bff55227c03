// SPDX-License-Identifier: GPL-2.0
/* What khealth makes of cgroups' paths, as JSON: for test_units. */
#include <stdio.h>

#include "khealth.h"

int main(int argc, char **argv)
{
	char unit[128], container[128];
	int i;

	printf("{");
	for (i = 1; i < argc; i++) {
		cgroup_unit(argv[i], unit, sizeof(unit));
		cgroup_container(argv[i], container, sizeof(container));
		printf("%s\"%s\": {\"unit\": \"%s\", \"container\": \"%s\"}",
		       i > 1 ? ", " : "", argv[i], unit, container);
	}
	puts("}");
	return 0;
}
