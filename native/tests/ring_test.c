/* SPDX-License-Identifier: Apache-2.0 */
/* Functional test of the rings: one process, both ends, and a peer that writes what it likes. */
#include <errno.h>
#include <string.h>

#include <halo/fastpath.h>
#include <halo/ring.h>

#include "check.h"

enum {
	SIZE = 1024,
	SMALLEST = 2,
	GUARD = 64, /* entries on either side that nobody may touch */
	POISON = 0xa5,
};

/* The rings' memory, as it lies in a region, with poison around it. */
static struct {
	uint8_t before[256];
	struct halo_ring_index index;
	uint8_t between[256];
	struct halo_descriptor entry[GUARD + SIZE + GUARD];
} memory;

static struct halo_producer producer;
static struct halo_consumer consumer;
static uint32_t ring_size;

static void open_at(uint32_t size, uint32_t start)
{
	memset(&memory, POISON, sizeof(memory));
	memset(&memory.index, 0, sizeof(memory.index));
	memory.index.producer = start;
	memory.index.consumer = start;
	ring_size = size;
	halo_producer_attach(&producer, &memory.index, memory.entry + GUARD, size);
	halo_consumer_attach(&consumer, &memory.index, memory.entry + GUARD, size);
}

static bool poisoned(const void *start, size_t octets)
{
	const uint8_t *octet = start;
	size_t i;

	for (i = 0; i < octets; i++)
		if (octet[i] != POISON)
			return false;
	return true;
}

static bool nothing_outside_touched(void)
{
	return poisoned(memory.before, sizeof(memory.before)) && poisoned(memory.between, sizeof(memory.between)) &&
	       poisoned(memory.entry, GUARD * sizeof(memory.entry[0])) &&
	       poisoned(memory.entry + GUARD + ring_size, (GUARD + SIZE - ring_size) * sizeof(memory.entry[0]));
}

/* Each field says the number, so that a descriptor made of two halves shows. */
static struct halo_descriptor numbered(uint32_t number)
{
	struct halo_descriptor descriptor = {
		.offset = number,
		.length = (uint16_t)(number * 3),
		.port = (uint8_t)(number >> 16),
		.flags = (uint8_t)~number,
	};

	return descriptor;
}

static bool same(struct halo_descriptor left, struct halo_descriptor right)
{
	return memcmp(&left, &right, sizeof(left)) == 0;
}

static void put(uint32_t first, uint32_t count)
{
	uint32_t i;

	CHECK_EQUAL(halo_ring_reserve(&producer, count), count);
	for (i = 0; i < count; i++)
		halo_ring_put(&producer, i, numbered(first + i));
	halo_ring_submit(&producer, count);
}

static void take(uint32_t first, uint32_t count)
{
	uint32_t i;

	CHECK_EQUAL(halo_ring_peek(&consumer, count), count);
	for (i = 0; i < count; i++)
		CHECK(same(halo_ring_get(&consumer, i), numbered(first + i)), "at %u of the burst from %u", i, first);
	halo_ring_release(&consumer, count);
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

static void empty(void)
{
	open_at(SIZE, 0);
	CHECK_EQUAL(halo_ring_peek(&consumer, 1), 0);
	CHECK_EQUAL(halo_ring_peek(&consumer, UINT32_MAX - 1), 0);
	CHECK_EQUAL(halo_ring_reserve(&producer, 1), 1);
	CHECK_EQUAL(halo_ring_reserve(&producer, SIZE), SIZE);
	CHECK_EQUAL(halo_ring_reserve(&producer, SIZE + 1), SIZE);
	CHECK_EQUAL(halo_ring_reserve(&producer, 0), 0);
}

static void put_is_seen_after_submit_only(void)
{
	open_at(SIZE, 0);
	CHECK_EQUAL(halo_ring_reserve(&producer, 2), 2);
	halo_ring_put(&producer, 0, numbered(7));
	halo_ring_put(&producer, 1, numbered(8));
	CHECK_EQUAL(halo_ring_peek(&consumer, 2), 0);
	halo_ring_submit(&producer, 1);
	CHECK_EQUAL(halo_ring_peek(&consumer, 2), 1);
	CHECK(same(halo_ring_get(&consumer, 0), numbered(7)));
	halo_ring_submit(&producer, 1);
	CHECK_EQUAL(halo_ring_peek(&consumer, 2), 2);
	CHECK(same(halo_ring_get(&consumer, 1), numbered(8)));
}

static void taken_is_free_after_release_only(void)
{
	open_at(SIZE, 0);
	put(0, SIZE);
	CHECK_EQUAL(halo_ring_reserve(&producer, 1), 0);
	CHECK_EQUAL(halo_ring_peek(&consumer, 5), 5);
	CHECK_EQUAL(halo_ring_reserve(&producer, 1), 0);
	halo_ring_release(&consumer, 5);
	CHECK_EQUAL(halo_ring_reserve(&producer, 64), 5);
	put(SIZE, 5);
	take(5, SIZE);
	CHECK_EQUAL(halo_ring_peek(&consumer, 1), 0);
}

static void less_is_ready_than_wanted(void)
{
	open_at(SIZE, 0);
	put(0, 3);
	CHECK_EQUAL(halo_ring_peek(&consumer, 2), 2);
	CHECK_EQUAL(halo_ring_peek(&consumer, 64), 3);
	put(3, SIZE - 3);
	CHECK_EQUAL(halo_ring_reserve(&producer, 64), 0);
	take(0, SIZE);
}

static const uint32_t bursts[] = {1, 31, 32, 33, 63, 64, 255, 256, 257, SIZE - 1, SIZE};

/* Three laps in bursts of each size, from a start that puts the wrap where the caller wants it. */
static void run_bursts(uint32_t start)
{
	unsigned int i;

	for (i = 0; i < sizeof(bursts) / sizeof(bursts[0]); i++) {
		uint32_t sent = 0;

		open_at(SIZE, start);
		while (sent < 3 * SIZE) {
			put(sent, bursts[i]);
			take(sent, bursts[i]);
			sent += bursts[i];
		}
		CHECK(nothing_outside_touched());
		CHECK_EQUAL(memory.index.producer, (uint32_t)(start + sent));
		CHECK_EQUAL(memory.index.consumer, (uint32_t)(start + sent));
	}
}

static void bursts_of_each_size(void)
{
	run_bursts(0);
}

static void indices_wrap(void)
{
	run_bursts(UINT32_MAX);
	run_bursts(UINT32_MAX - SIZE);
	run_bursts(UINT32_MAX - SIZE - SIZE / 2);
	run_bursts(UINT32_MAX / 2 - SIZE);
}

static void smallest_ring(void)
{
	uint32_t i;

	open_at(SMALLEST, UINT32_MAX - 3);
	for (i = 0; i < 16; i++) {
		put(i, 1);
		take(i, 1);
	}
	put(16, 2);
	CHECK_EQUAL(halo_ring_reserve(&producer, 1), 0);
	take(16, 2);
	CHECK(nothing_outside_touched());
}

/* Bursts of any size against a ring that is mostly full: no number twice, none lost, no entry outside touched. */
static void full_ring_then_drain(void)
{
	uint64_t seed = 20260522;
	uint32_t put_next = 0, take_next = 0, full = 0, round;

	printf("    seed %" PRIu64 "\n", seed);
	open_at(SIZE, UINT32_MAX - 5 * SIZE);
	for (round = 0; round < 200000; round++) {
		uint32_t want = 1 + random_below(&seed, 300);
		uint32_t room = halo_ring_reserve(&producer, want);
		uint32_t ready;

		CHECK(room <= want);
		CHECK_EQUAL(room, want < SIZE - (put_next - take_next) ? want : SIZE - (put_next - take_next));
		full += room < want;
		if (room)
			put(put_next, room);
		put_next += room;
		want = 1 + random_below(&seed, 280);
		ready = halo_ring_peek(&consumer, want);
		CHECK_EQUAL(ready, want < put_next - take_next ? want : put_next - take_next);
		if (ready)
			take(take_next, ready);
		take_next += ready;
	}
	CHECK(full > 1000, "the ring was full %u times only", full);
	take(take_next, put_next - take_next);
	CHECK_EQUAL(halo_ring_peek(&consumer, 1), 0);
	CHECK(nothing_outside_touched());
}

/* A peer's index that cannot be: what reserve says, asked for everything, so that it looks. */
static void check_reserve(uint32_t head, uint32_t index)
{
	uint32_t used = head - index;

	open_at(SIZE, head - SIZE);
	put(0, SIZE);
	CHECK_EQUAL(producer.head, head);
	memory.index.consumer = index;
	if (used > SIZE)
		CHECK(halo_ring_reserve(&producer, SIZE) == HALO_RING_BROKEN, "head %u, consumer %u", head, index);
	else
		CHECK_EQUAL(halo_ring_reserve(&producer, SIZE), SIZE - used);
	CHECK(nothing_outside_touched());
}

static void check_peek(uint32_t tail, uint32_t index)
{
	uint32_t ready = index - tail;

	open_at(SIZE, tail);
	memory.index.producer = index;
	if (ready > SIZE)
		CHECK(halo_ring_peek(&consumer, SIZE + 1) == HALO_RING_BROKEN, "tail %u, producer %u", tail, index);
	else
		CHECK_EQUAL(halo_ring_peek(&consumer, SIZE + 1), ready);
	CHECK(nothing_outside_touched());
}

static const uint32_t places[] = {SIZE, 0, 5, UINT32_MAX, UINT32_MAX - SIZE, UINT32_MAX / 2 + 1};

static void broken_consumer_index(void)
{
	unsigned int i;
	uint64_t seed = 11;
	int round;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint32_t head = places[i];

		check_reserve(head, head + 1);
		check_reserve(head, head - SIZE - 1);
		check_reserve(head, head - 2 * SIZE);
		check_reserve(head, head + SIZE);
		check_reserve(head, head + UINT32_C(0x80000000));
		check_reserve(head, head - SIZE); /* possible: all of the ring is in use */
		check_reserve(head, head);
		check_reserve(head, head - 1);
	}
	for (round = 0; round < 20000; round++)
		check_reserve((uint32_t)random_next(&seed), (uint32_t)random_next(&seed));
}

static void broken_producer_index(void)
{
	unsigned int i;
	uint64_t seed = 12;
	int round;

	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint32_t tail = places[i];

		check_peek(tail, tail - 1);
		check_peek(tail, tail + SIZE + 1);
		check_peek(tail, tail - SIZE);
		check_peek(tail, tail + 2 * SIZE);
		check_peek(tail, tail + UINT32_C(0x80000000));
		check_peek(tail, tail + SIZE);
		check_peek(tail, tail);
		check_peek(tail, tail + 1);
	}
	for (round = 0; round < 20000; round++)
		check_peek((uint32_t)random_next(&seed), (uint32_t)random_next(&seed));
}

/* What is broken stays broken: asking again must not hand out entries that the answer before has denied. */
static void broken_stays_broken(void)
{
	open_at(SIZE, 0);
	put(0, SIZE);
	memory.index.consumer = SIZE + 1;
	CHECK(halo_ring_reserve(&producer, 1) == HALO_RING_BROKEN);
	CHECK(halo_ring_reserve(&producer, 1) == HALO_RING_BROKEN);
	CHECK(halo_ring_reserve(&producer, SIZE) == HALO_RING_BROKEN);
	open_at(SIZE, 0);
	memory.index.producer = SIZE + 1;
	CHECK(halo_ring_peek(&consumer, 1) == HALO_RING_BROKEN);
	CHECK(halo_ring_peek(&consumer, 1) == HALO_RING_BROKEN);
	CHECK(halo_ring_peek(&consumer, SIZE) == HALO_RING_BROKEN);
}

/* Attaching takes over indices that a peer may have scribbled on before. */
static void attached_to_broken_indices(void)
{
	static const uint32_t wrong[] = {1, 2, SIZE, UINT32_C(0x7fffffff), UINT32_C(0x80000000)};
	unsigned int i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		open_at(SIZE, 100);
		memory.index.consumer = 100 + wrong[i];
		halo_producer_attach(&producer, &memory.index, memory.entry + GUARD, SIZE);
		CHECK(halo_ring_reserve(&producer, 1) == HALO_RING_BROKEN, "consumer %u ahead of producer", wrong[i]);
		open_at(SIZE, 100);
		memory.index.consumer = 100 + wrong[i];
		halo_consumer_attach(&consumer, &memory.index, memory.entry + GUARD, SIZE);
		CHECK(halo_ring_peek(&consumer, 1) == HALO_RING_BROKEN, "consumer %u ahead of producer", wrong[i]);
	}
}

static void attached_in_the_middle(void)
{
	open_at(SIZE, UINT32_MAX - 1);
	put(0, 10);
	take(0, 4);
	halo_producer_attach(&producer, &memory.index, memory.entry + GUARD, SIZE);
	halo_consumer_attach(&consumer, &memory.index, memory.entry + GUARD, SIZE);
	CHECK_EQUAL(halo_ring_reserve(&producer, SIZE), SIZE - 6);
	put(10, SIZE - 6);
	take(4, SIZE);
}

/* A peer writes over the index that is ours: ours is the private one, and the next step puts it right. */
static void own_index_scribbled(void)
{
	open_at(SIZE, 0);
	put(0, 10);
	memory.index.producer = UINT32_C(0xdeadbeef);
	put(10, 10);
	CHECK_EQUAL(memory.index.producer, 20);
	take(0, 5);
	memory.index.consumer = UINT32_C(0xdeadbeef);
	take(5, 5);
	CHECK_EQUAL(memory.index.consumer, 10);
	put(20, SIZE - 10);
	take(10, SIZE);
}

static void doorbell_flag(void)
{
	uint32_t sleeping = 0;

	CHECK(!halo_must_ring(&sleeping));
	halo_fall_asleep(&sleeping);
	CHECK(halo_must_ring(&sleeping));
}

static void bench_ends(void)
{
	uint64_t sum = 0;

	open_at(SIZE, UINT32_MAX - 100);
	CHECK(halo_bench_produce(&memory.index, memory.entry + GUARD, SIZE, 64, SIZE, INT64_C(1000000000)) >= 0);
	CHECK_EQUAL(halo_bench_produce(&memory.index, memory.entry + GUARD, SIZE, 64, 1, 0), -ETIMEDOUT);
	CHECK(halo_bench_consume(&memory.index, memory.entry + GUARD, SIZE, 64, SIZE, INT64_C(1000000000), &sum) >= 0);
	CHECK_EQUAL(sum, (uint64_t)SIZE * (SIZE - 1) / 2);
	CHECK_EQUAL(halo_bench_consume(&memory.index, memory.entry + GUARD, SIZE, 64, 1, 0, &sum), -ETIMEDOUT);
	memory.index.producer += SIZE + 1;
	CHECK_EQUAL(halo_bench_consume(&memory.index, memory.entry + GUARD, SIZE, 64, 1, 0, &sum), -EPROTO);
	open_at(SIZE, 0);
	memory.index.consumer = 1;
	CHECK_EQUAL(halo_bench_produce(&memory.index, memory.entry + GUARD, SIZE, SIZE, 2 * SIZE, 0), -EPROTO);
	CHECK(nothing_outside_touched());
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"empty", empty},
		{"put_is_seen_after_submit_only", put_is_seen_after_submit_only},
		{"taken_is_free_after_release_only", taken_is_free_after_release_only},
		{"less_is_ready_than_wanted", less_is_ready_than_wanted},
		{"bursts_of_each_size", bursts_of_each_size},
		{"indices_wrap", indices_wrap},
		{"smallest_ring", smallest_ring},
		{"full_ring_then_drain", full_ring_then_drain},
		{"broken_consumer_index", broken_consumer_index},
		{"broken_producer_index", broken_producer_index},
		{"broken_stays_broken", broken_stays_broken},
		{"attached_to_broken_indices", attached_to_broken_indices},
		{"attached_in_the_middle", attached_in_the_middle},
		{"own_index_scribbled", own_index_scribbled},
		{"doorbell_flag", doorbell_flag},
		{"bench_ends", bench_ends},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
