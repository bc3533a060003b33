/* SPDX-License-Identifier: Apache-2.0 */
/* For bench: both ends of a bare descriptor ring (also for the two-process stress test), and the stages one by one. */
#include <errno.h>

#include "worker.h"

enum { CLOCK_EVERY = 4096 };

static bool expired(uint32_t turn, int64_t deadline_ns)
{
	return turn % CLOCK_EVERY == 0 && (int64_t)halo_now_ns() > deadline_ns;
}

int64_t halo_bench_produce(struct halo_ring_index *index, struct halo_descriptor *entry, uint32_t size, uint32_t burst,
			   uint64_t count, int64_t timeout_ns)
{
	int64_t start = (int64_t)halo_now_ns();
	struct halo_producer ring;
	uint64_t sent = 0;
	uint32_t turn = 0;

	halo_producer_attach(&ring, index, entry, size);
	while (sent < count) {
		uint32_t want = count - sent < burst ? (uint32_t)(count - sent) : burst;
		uint32_t room = halo_ring_reserve(&ring, want);
		uint32_t i;

		if (room == HALO_RING_BROKEN)
			return -EPROTO;
		if (expired(++turn, start + timeout_ns))
			return -ETIMEDOUT;
		if (room < want) {
			halo_pause();
			continue;
		}
		for (i = 0; i < room; i++) {
			struct halo_descriptor descriptor = {.offset = (uint32_t)(sent + i), .length = 60};

			halo_ring_put(&ring, i, descriptor);
		}
		halo_ring_submit(&ring, room);
		sent += room;
	}
	return (int64_t)halo_now_ns() - start;
}

int64_t halo_bench_consume(struct halo_ring_index *index, struct halo_descriptor *entry, uint32_t size, uint32_t burst,
			   uint64_t count, int64_t timeout_ns, uint64_t *sum)
{
	int64_t start = (int64_t)halo_now_ns();
	struct halo_consumer ring;
	uint64_t received = 0;
	uint64_t total = 0;
	uint32_t turn = 0;

	halo_consumer_attach(&ring, index, entry, size);
	while (received < count) {
		uint32_t ready = halo_ring_peek(&ring, burst);
		uint32_t i;

		if (ready == HALO_RING_BROKEN)
			return -EPROTO;
		if (expired(++turn, start + timeout_ns))
			return -ETIMEDOUT;
		if (ready == 0) {
			halo_pause();
			continue;
		}
		for (i = 0; i < ready; i++)
			total += halo_ring_get(&ring, i).offset;
		halo_ring_release(&ring, ready);
		received += ready;
	}
	*sum = total;
	return (int64_t)halo_now_ns() - start;
}

static uint64_t cycles_now(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return halo_now_ns();
#endif
}

/* Adds what has passed since the last call. */
static void note(uint64_t *sum, uint64_t *last)
{
	uint64_t now = cycles_now();

	*sum += now - *last;
	*last = now;
}

int64_t halo_bench_stages(struct halo_worker *worker, uint32_t bursts, uint64_t *cycles)
{
	int64_t frames = 0;
	uint64_t last;
	uint32_t count;

	worker->now_ns = halo_now_ns();
	for (; bursts; bursts--) {
		last = cycles_now();
		count = halo_stage_receive(worker);
		if (count == 0 || count == HALO_RING_BROKEN)
			break;
		note(&cycles[0], &last);
		halo_stage_parse(worker, count);
		note(&cycles[1], &last);
		halo_stage_input(worker, count);
		note(&cycles[2], &last);
		halo_stage_route(worker);
		note(&cycles[3], &last);
		halo_stage_forward(worker);
		note(&cycles[4], &last);
		halo_stage_finish(worker, count);
		note(&cycles[5], &last);
		frames += count;
	}
	return frames;
}
