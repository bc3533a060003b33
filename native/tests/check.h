/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the C tests share: numbered rows, a check that ends the row it fails in, and seeded random numbers.
 *
 *   ring_test                  all rows; exit status 1 when one failed
 *   ring_test name [name...]   these rows only
 */
#ifndef HALO_CHECK_H
#define HALO_CHECK_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct row {
	const char *name;
	void (*run)(void);
};

extern jmp_buf row_end;

int run_rows(const struct row *rows, unsigned int count, int argc, char **argv);

#define CHECK(condition, ...)                                                             \
	do {                                                                              \
		if (!(condition)) {                                                       \
			printf("    %s:%d: %s is false", __FILE__, __LINE__, #condition); \
			printf("; " __VA_ARGS__);                                         \
			printf("\n");                                                     \
			longjmp(row_end, 1);                                              \
		}                                                                         \
	} while (0)

#define CHECK_EQUAL(left, right)                                                                                 \
	do {                                                                                                     \
		int64_t left_value = (int64_t)(left), right_value = (int64_t)(right);                            \
		CHECK(left_value == right_value, "%s is %" PRId64 ", %s is %" PRId64, #left, left_value, #right, \
		      right_value);                                                                              \
	} while (0)

/* splitmix64 */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);

	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
	return (uint32_t)(random_next(state) % limit);
}

#endif
