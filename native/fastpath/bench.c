/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a bare descriptor ring, for bench and for the two-process stress test. */
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
