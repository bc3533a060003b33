/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <string.h>

jmp_buf row_end;

static int row_fails(const struct row *row, unsigned int number)
{
	if (setjmp(row_end)) {
		printf("%3u %s: FAILED\n", number, row->name);
		return 1;
	}
	row->run();
	printf("%3u %s: ok\n", number, row->name);
	return 0;
}

static int row_wanted(const struct row *row, int count, char **names)
{
	int i;

	for (i = 0; i < count; i++)
		if (strcmp(names[i], row->name) == 0)
			return 1;
	return count == 0;
}

int run_rows(const struct row *rows, unsigned int count, int argc, char **argv)
{
	unsigned int i, ran = 0, failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < count; i++) {
		if (!row_wanted(&rows[i], argc - 1, argv + 1))
			continue;
		ran++;
		failed += (unsigned int)row_fails(&rows[i], i + 1);
	}
	printf("%u rows, %u failed\n", ran, failed);
	return failed || ran == 0;
}
