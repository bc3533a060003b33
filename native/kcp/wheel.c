/* SPDX-License-Identifier: Apache-2.0 */
#include "wheel.h"

enum {
	MILLISECOND = 0, /* levels */
	BLOCK = 1,
	BLOCK_BITS = 10,
	FURTHEST_MS = (WHEEL_SLOTS - 2) << BLOCK_BITS,
};

static int32_t after(uint32_t later, uint32_t earlier)
{
	return (int32_t)(later - earlier);
}

static uint32_t block_of(uint32_t ms)
{
	return ms >> BLOCK_BITS & (WHEEL_SLOTS - 1);
}

static void link_timer(struct wheel *wheel, struct timer *timer, uint32_t number)
{
	struct timer *own = &timer[number];
	uint32_t level = own->due_ms >> BLOCK_BITS == wheel->tick_ms >> BLOCK_BITS ? MILLISECOND : BLOCK;
	uint32_t slot = level == MILLISECOND ? own->due_ms & (WHEEL_SLOTS - 1) : block_of(own->due_ms);
	uint32_t list = level * WHEEL_SLOTS + slot;
	uint64_t bit = UINT64_C(1) << (slot & 63);

	wheel->count++;
	own->place = list + 1;
	own->previous = (uint32_t)WHEEL_NOBODY;
	own->next = (uint32_t)WHEEL_NOBODY;
	if (wheel->used[level][slot / 64] & bit) {
		own->next = wheel->head[list];
		timer[own->next].previous = number;
	}
	wheel->used[level][slot / 64] |= bit;
	wheel->head[list] = number;
}

void halo_wheel_cancel(struct wheel *wheel, struct timer *timer, uint32_t number)
{
	struct timer *own = &timer[number];
	uint32_t list = own->place - 1, slot = list % WHEEL_SLOTS;

	if (own->place == 0)
		return;
	wheel->count--;
	own->place = 0;
	if (own->next != (uint32_t)WHEEL_NOBODY)
		timer[own->next].previous = own->previous;
	if (own->previous != (uint32_t)WHEEL_NOBODY)
		timer[own->previous].next = own->next;
	else if (own->next != (uint32_t)WHEEL_NOBODY)
		wheel->head[list] = own->next;
	else
		wheel->used[list / WHEEL_SLOTS][slot / 64] &= ~(UINT64_C(1) << (slot & 63));
}

void halo_wheel_set(struct wheel *wheel, struct timer *timer, uint32_t number, uint32_t due_ms, uint32_t now_ms)
{
	/* Nobody has looked at an empty wheel, maybe for so long that its time is in the future. */
	if (wheel->count == 0)
		wheel->tick_ms = now_ms;
	if (after(due_ms, wheel->tick_ms) < 0)
		due_ms = wheel->tick_ms;
	else if (due_ms - wheel->tick_ms > FURTHEST_MS)
		due_ms = wheel->tick_ms + FURTHEST_MS;
	if (timer[number].place && timer[number].due_ms == due_ms)
		return;
	halo_wheel_cancel(wheel, timer, number);
	timer[number].due_ms = due_ms;
	link_timer(wheel, timer, number);
}

/* The first used slot from `from` on, WHEEL_SLOTS: none. */
static uint32_t first_used(const uint64_t *used, uint32_t from)
{
	uint32_t word = from / 64;
	uint64_t bits;

	if (from >= WHEEL_SLOTS)
		return WHEEL_SLOTS;
	bits = used[word] & UINT64_MAX << (from & 63);
	while (!bits) {
		if (++word == WHEEL_WORDS)
			return WHEEL_SLOTS;
		bits = used[word];
	}
	return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* When something is to be done: a slot's time, or the beginning of a block. False: never. */
static int next_event(const struct wheel *wheel, uint32_t *at_ms, uint32_t *level)
{
	uint32_t tick = wheel->tick_ms, start = tick & ~(uint32_t)(WHEEL_SLOTS - 1), block = block_of(tick);
	uint32_t slot = first_used(wheel->used[MILLISECOND], tick & (WHEEL_SLOTS - 1));

	*level = MILLISECOND;
	*at_ms = start + slot;
	if (slot < WHEEL_SLOTS)
		return 1;
	*level = BLOCK;
	slot = first_used(wheel->used[BLOCK], block + 1);
	if (slot == WHEEL_SLOTS)
		slot = first_used(wheel->used[BLOCK], 0) + WHEEL_SLOTS;
	*at_ms = start + ((slot - block) << BLOCK_BITS);
	return slot - block < WHEEL_SLOTS;
}

/* A block has begun: its entries go to their slots. */
static void open_block(struct wheel *wheel, struct timer *timer)
{
	uint32_t slot = block_of(wheel->tick_ms), list = BLOCK * WHEEL_SLOTS + slot;

	while (wheel->used[BLOCK][slot / 64] & UINT64_C(1) << (slot & 63)) {
		uint32_t number = wheel->head[list];

		halo_wheel_cancel(wheel, timer, number);
		link_timer(wheel, timer, number);
	}
}

uint32_t halo_wheel_take(struct wheel *wheel, struct timer *timer, uint32_t now_ms)
{
	uint32_t at_ms, level;

	while (next_event(wheel, &at_ms, &level) && after(at_ms, now_ms) <= 0) {
		wheel->tick_ms = at_ms;
		if (level == MILLISECOND) {
			uint32_t number = wheel->head[at_ms & (WHEEL_SLOTS - 1)];

			halo_wheel_cancel(wheel, timer, number);
			return number;
		}
		open_block(wheel, timer);
	}
	if (after(now_ms, wheel->tick_ms) > 0)
		wheel->tick_ms = now_ms;
	return (uint32_t)WHEEL_NOBODY;
}

uint32_t halo_wheel_next(const struct wheel *wheel, uint32_t now_ms)
{
	uint32_t at_ms, level;

	if (!next_event(wheel, &at_ms, &level))
		return UINT32_MAX;
	return after(at_ms, now_ms) > 0 ? at_ms - now_ms : 0;
}
