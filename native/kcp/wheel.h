/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A timer wheel of two levels: 1,024 slots of one millisecond, those of the block that `tick` is in, and 1,024 blocks. An
 * entry moves from its block to its slot when its block begins. Setting and cancelling cost the same whatever there is.
 */
#ifndef HALO_KCP_WHEEL_H
#define HALO_KCP_WHEEL_H

#include <stdint.h>

enum {
	WHEEL_SLOTS = 1024,
	WHEEL_WORDS = WHEEL_SLOTS / 64,
	WHEEL_NOBODY = -1,
};

/* One for each number; zeros: it has no timer. */
struct timer {
	uint32_t due_ms;
	uint32_t next;
	uint32_t previous;
	uint32_t place; /* 1 + its list; 0: it is in none */
};

struct wheel {
	uint32_t tick_ms; /* all that was due before has been taken */
	uint32_t count;   /* timers */
	uint64_t used[2][WHEEL_WORDS];
	uint32_t head[2 * WHEEL_SLOTS];
};

/* A wheel of zeros has no timers. */
void halo_wheel_set(struct wheel *wheel, struct timer *timer, uint32_t number, uint32_t due_ms, uint32_t now_ms);
void halo_wheel_cancel(struct wheel *wheel, struct timer *timer, uint32_t number);
/* Take a number that is due, and its timer with it; WHEEL_NOBODY: none is. */
uint32_t halo_wheel_take(struct wheel *wheel, struct timer *timer, uint32_t now_ms);
/* Milliseconds until halo_wheel_take() has something to do; UINT32_MAX: there is no timer. */
uint32_t halo_wheel_next(const struct wheel *wheel, uint32_t now_ms);

#endif
