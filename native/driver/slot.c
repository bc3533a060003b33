/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot's rings, from the driver's side, and their life cycle:
 *
 *   state      event                           next        prohibited
 *   disabled   enable (main thread asks)       enabled     filling rx or spare, reading tx
 *   enabled    the worker's indices are no     broken      touching what the slot owns
 *              possible ones
 *   enabled    reset (main thread asks)        disabled    -
 *   broken     reset                           disabled    everything but reset
 *
 * Reset reclaims by owner, sets all indices to 0 and raises the generation. All of it runs on the slot's home lcore.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

static struct halo_descriptor *descriptors(struct halo_slot *slot, uint32_t offset)
{
	return (struct halo_descriptor *)(void *)((uint8_t *)slot + offset);
}

static void attach(struct halo_slot_home *home)
{
	struct halo_slot *slot = home->shared;
	struct halo_slot_geometry geometry = slot->geometry;

	halo_producer_attach(&home->rx, &slot->rx, descriptors(slot, geometry.rx_offset), geometry.ring_size);
	halo_producer_attach(&home->spare, &slot->spare, descriptors(slot, geometry.spare_offset), geometry.spare_size);
	halo_consumer_attach(&home->tx, &slot->tx, descriptors(slot, geometry.tx_offset), geometry.tx_size);
}

/*
 * A predecessor may have died between setting owners and publishing: what it had claimed but not published, nobody has
 * seen. Those buffers are the driver's again. (Consuming sets the owner before the index, so it leaves nothing behind.)
 */
static void take_back_claims(struct halo_driver *driver, struct halo_slot_home *home, struct halo_producer *ring)
{
	uint32_t claimed = __atomic_load_n(&ring->index->claim, __ATOMIC_ACQUIRE) - ring->head;
	uint32_t i, buffer, within;

	if (claimed > HALO_BURST)
		return;
	for (i = 0; i < claimed; i++) {
		uint32_t offset = ring->entry[(ring->head + i) & ring->mask].offset;

		if (halo_locate(driver, offset, &buffer, &within) && driver->owner[buffer] == home->tag)
			driver->owner[buffer] = HALO_OWNER_DRIVER;
	}
}

static uint32_t count_owned(const struct halo_driver *driver, uint8_t tag)
{
	uint32_t i, owned = 0;

	for (i = 0; i < driver->geometry.buffer_count; i++)
		owned += driver->owner[i] == tag;
	return owned;
}

int halo_slot_home_set_up(struct halo_driver *driver, struct halo_slot_home *home, struct halo_slot *shared,
			  uint32_t number, int doorbell_fd)
{
	struct halo_slot_geometry geometry = shared->geometry;

	if (shared->header.magic != HALO_MAGIC || shared->header.layout_version != HALO_LAYOUT_VERSION ||
	    shared->header.kind != HALO_REGION_SLOT || geometry.slot != number)
		return -EPROTO;
	home->shared = shared;
	home->count = &shared->driver;
	home->number = number;
	home->tag = (uint8_t)(number + 1);
	home->doorbell_fd = doorbell_fd;
	home->bound = geometry.buffer_bound;
	attach(home);
	take_back_claims(driver, home, &home->rx);
	take_back_claims(driver, home, &home->spare);
	home->outstanding = count_owned(driver, home->tag);
	home->enabled = __atomic_load_n(&shared->life.state, __ATOMIC_ACQUIRE) == HALO_SLOT_ENABLED;
	__atomic_store_n(&shared->life.driver_sleeping, 0, __ATOMIC_RELAXED);
	return 0;
}

int64_t halo_slot_enable(struct halo_lcore *lcore, void *argument)
{
	struct halo_slot_home *slot = argument;

	(void)lcore;
	if (__atomic_load_n(&slot->shared->life.state, __ATOMIC_ACQUIRE) == HALO_SLOT_BROKEN)
		return -EPROTO;
	slot->enabled = true;
	__atomic_store_n(&slot->shared->life.state, HALO_SLOT_ENABLED, __ATOMIC_RELEASE);
	halo_slot_refill(lcore, slot);
	halo_slot_wake(slot);
	return 0;
}

static int64_t reclaim(struct halo_driver *driver, struct halo_slot_home *slot)
{
	int64_t reclaimed = 0;
	uint32_t i;

	for (i = 0; i < driver->geometry.buffer_count; i++) {
		if (driver->owner[i] != slot->tag)
			continue;
		driver->owner[i] = HALO_OWNER_DRIVER;
		rte_pktmbuf_free(driver->mbuf[i]);
		reclaimed++;
	}
	return reclaimed;
}

static void clear_ring(struct halo_ring_index *index)
{
	__atomic_store_n(&index->producer, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&index->claim, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&index->consumer, 0, __ATOMIC_RELAXED);
}

int64_t halo_slot_reset(struct halo_lcore *lcore, void *argument)
{
	struct halo_slot_home *slot = argument;
	struct halo_slot *shared = slot->shared;
	int64_t reclaimed;

	slot->enabled = false;
	__atomic_store_n(&shared->life.state, HALO_SLOT_DISABLED, __ATOMIC_SEQ_CST);
	reclaimed = reclaim(lcore->driver, slot);
	clear_ring(&shared->rx);
	clear_ring(&shared->tx);
	clear_ring(&shared->spare);
	attach(slot);
	slot->outstanding = 0;
	halo_count(&slot->count->outstanding, -slot->count->outstanding);
	halo_count(&slot->count->reclaimed, (uint64_t)reclaimed);
	halo_count(&slot->count->resets, 1);
	__atomic_store_n(&shared->life.generation, shared->life.generation + 1, __ATOMIC_RELEASE);
	return reclaimed;
}

void halo_slot_broken(struct halo_slot_home *slot)
{
	slot->enabled = false;
	halo_count(&slot->count->rings_broken, 1);
	__atomic_store_n(&slot->shared->life.state, HALO_SLOT_BROKEN, __ATOMIC_RELEASE);
}

void halo_slot_wake(struct halo_slot_home *slot)
{
	static const uint64_t one = 1;

	/* halo_must_ring's fence pairs with halo_fall_asleep in the worker. EAGAIN: the counter is full, so it is readable. */
	if (!halo_must_ring(&slot->shared->doorbell.worker_sleeping))
		return;
	if (write(slot->doorbell_fd, &one, sizeof(one)) == sizeof(one))
		halo_count(&slot->count->doorbells, 1);
}

uint32_t halo_slot_room(struct halo_slot_home *slot, uint32_t want, enum halo_drop *why_less)
{
	uint32_t room = halo_ring_reserve(&slot->rx, want);
	uint32_t left = slot->bound - slot->outstanding;

	*why_less = HALO_DROP_rx_ring_full;
	if (room == HALO_RING_BROKEN) {
		halo_slot_broken(slot);
		*why_less = HALO_DROP_rx_slot_disabled;
		return 0;
	}
	if (left < room) {
		*why_less = HALO_DROP_rx_slot_bound;
		return left;
	}
	return room;
}

/* Keep the spare ring full, a burst at a time. */
void halo_slot_refill(struct halo_lcore *lcore, struct halo_slot_home *slot)
{
	struct halo_driver *driver = lcore->driver;
	struct rte_mbuf *frame[HALO_BURST];
	uint32_t buffer, within, i;

	while (slot->enabled && slot->bound - slot->outstanding >= HALO_BURST) {
		uint32_t room = halo_ring_reserve(&slot->spare, HALO_BURST);

		if (room == HALO_RING_BROKEN)
			return halo_slot_broken(slot);
		if (room < HALO_BURST || rte_pktmbuf_alloc_bulk(driver->mempool, frame, HALO_BURST) != 0)
			return;
		for (i = 0; i < HALO_BURST; i++) {
			struct halo_descriptor descriptor = {
				.offset =
					(uint32_t)((uint8_t *)frame[i]->buf_addr - driver->pool) + HALO_HEADROOM_OCTETS,
			};

			halo_ring_put(&slot->spare, i, descriptor);
		}
		__atomic_store_n(&slot->spare.index->claim, slot->spare.head + HALO_BURST, __ATOMIC_RELEASE);
		for (i = 0; i < HALO_BURST; i++)
			if (halo_locate(driver, (uint32_t)((uint8_t *)frame[i]->buf_addr - driver->pool), &buffer,
					&within))
				__atomic_store_n(&driver->owner[buffer], slot->tag, __ATOMIC_RELAXED);
		slot->outstanding += HALO_BURST;
		halo_ring_submit(&slot->spare, HALO_BURST);
		halo_count(&slot->count->spare_given, HALO_BURST);
		halo_count(&slot->count->outstanding, slot->outstanding - slot->count->outstanding);
	}
}
