/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot's rings, from the driver's side, and their life cycle:
 *
 *   state      event                           next        prohibited
 *   disabled   enable (main thread asks)       enabled     filling rx or spare, reading tx
 *   enabled    the worker's indices are no     broken      touching what the slot owns
 *              possible ones
 *   enabled    reset (main thread asks)        disabled    -
 *   enabled    state or generation in shared   broken      touching what the slot owns
 *              memory are not what we wrote
 *   broken     reset                           disabled    everything but reset
 *
 * Reset reclaims by owner, sets all indices to 0 and raises the generation. All of it runs on the slot's home lcore, and
 * decides by the private copies of state and generation.
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

/* Who sees the new state sees the generation that it belongs to. */
static void write_life(struct halo_slot_home *slot)
{
	__atomic_store_n(&slot->shared->life.generation, slot->generation, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->shared->life.state, slot->state, __ATOMIC_SEQ_CST);
}

/* What a predecessor left: a word that is no state is none of its. */
static void read_life(struct halo_slot_home *slot)
{
	uint32_t state = __atomic_load_n(&slot->shared->life.state, __ATOMIC_ACQUIRE);

	slot->state = state == HALO_SLOT_ENABLED || state == HALO_SLOT_BROKEN ? state : HALO_SLOT_DISABLED;
	slot->generation = __atomic_load_n(&slot->shared->life.generation, __ATOMIC_RELAXED);
	slot->enabled = slot->state == HALO_SLOT_ENABLED;
	write_life(slot);
}

static void attach(struct halo_slot_home *home)
{
	struct halo_slot *slot = home->shared;
	struct halo_slot_geometry geometry = home->geometry;

	halo_producer_attach(&home->rx, &slot->rx, descriptors(slot, geometry.rx_offset), geometry.ring_size);
	halo_producer_attach(&home->spare, &slot->spare, descriptors(slot, geometry.spare_offset), geometry.spare_size);
	halo_consumer_attach(&home->tx, &slot->tx, descriptors(slot, geometry.tx_offset), geometry.tx_size);
}

static uint32_t aligned(uint64_t offset)
{
	return (uint32_t)((offset + 127) / 128 * 128);
}

static bool power_of_two(uint32_t value)
{
	return value >= 2 && value <= 1u << 24 && !(value & (value - 1));
}

/*
 * The region is writable for the worker, so what it says is checked against what any slot region must look like, and against
 * the size that the kernel knows; afterwards only the private copy counts.
 */
static int check_geometry(const struct halo_slot_geometry *geometry, uint64_t region_octets, uint32_t number)
{
	uint32_t rx_offset = aligned(sizeof(struct halo_slot));
	uint32_t tx_offset, spare_offset;

	if (geometry->slot != number || !power_of_two(geometry->ring_size) || !power_of_two(geometry->tx_size) ||
	    geometry->spare_size != HALO_SPARE_SIZE)
		return -EPROTO;
	tx_offset = aligned(rx_offset + (uint64_t)geometry->ring_size * sizeof(struct halo_descriptor));
	spare_offset = aligned(tx_offset + (uint64_t)geometry->tx_size * sizeof(struct halo_descriptor));
	if (geometry->rx_offset != rx_offset || geometry->tx_offset != tx_offset ||
	    geometry->spare_offset != spare_offset)
		return -EPROTO;
	if (geometry->buffer_bound > geometry->tx_size || geometry->buffer_bound < geometry->spare_size)
		return -EPROTO;
	return spare_offset + HALO_SPARE_SIZE * sizeof(struct halo_descriptor) > region_octets ? -EPROTO : 0;
}

/*
 * A predecessor may have died between setting owners and publishing: what it had claimed but not published, nobody has
 * seen. Those buffers are the driver's again. (Consuming sets the owner before the index, so it leaves nothing behind.)
 */
static void take_back_claims(struct halo_driver *driver, struct halo_slot_home *home, struct halo_producer *ring)
{
	uint32_t claimed = __atomic_load_n(&ring->index->claim, __ATOMIC_ACQUIRE) - ring->head;
	uint32_t i, buffer, within;

	for (i = 0; claimed <= HALO_BURST && i < claimed; i++) {
		uint32_t offset = ring->entry[(ring->head + i) & ring->mask].offset;

		if (halo_locate(&driver->locator, offset, &buffer, &within) && driver->owner[buffer] == home->tag)
			driver->owner[buffer] = HALO_OWNER_DRIVER;
	}
	HALO_HOOK("attach.taken_back");
	/* Once: the next driver shall not find it again, with the buffers rightly in the worker's hands by then. */
	__atomic_store_n(&ring->index->claim, ring->head, __ATOMIC_RELEASE);
}

static uint32_t count_owned(const struct halo_driver *driver, uint8_t tag)
{
	uint32_t i, owned = 0;

	for (i = 0; i < driver->geometry.buffer_count; i++)
		owned += driver->owner[i] == tag;
	return owned;
}

int halo_slot_home_set_up(struct halo_driver *driver, struct halo_slot_home *home, struct halo_slot *shared,
			  uint64_t shared_octets, uint32_t number, int doorbell_fd)
{
	struct halo_slot_geometry geometry = shared->geometry;
	int error = check_geometry(&geometry, shared_octets, number);

	if (error)
		return error;
	home->shared = shared;
	home->geometry = geometry;
	home->count = &shared->driver;
	home->number = number;
	home->tag = (uint8_t)(number + 1);
	home->doorbell_fd = doorbell_fd;
	home->bound = geometry.buffer_bound;
	attach(home);
	take_back_claims(driver, home, &home->rx);
	take_back_claims(driver, home, &home->spare);
	home->outstanding = count_owned(driver, home->tag);
	if (home->outstanding > home->bound)
		return -EPROTO;
	read_life(home);
	__atomic_store_n(&shared->life.driver_sleeping, 0, __ATOMIC_RELAXED);
	return 0;
}

int64_t halo_slot_enable(struct halo_lcore *lcore, void *argument)
{
	struct halo_slot_home *slot = argument;

	if (slot->state == HALO_SLOT_BROKEN)
		return -EPROTO;
	if (slot->enabled) { /* as a predecessor left it: before tx is served once, spares could be what it names */
		halo_slot_wake(slot);
		return 0;
	}
	slot->enabled = true;
	slot->state = HALO_SLOT_ENABLED;
	HALO_HOOK("enable.private");
	write_life(slot);
	HALO_HOOK("enable.state");
	halo_slot_refill(lcore, slot);
	HALO_HOOK("enable.filled");
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
		halo_set_owner(driver, halo_note_of(driver, halo_mbuf_of(driver, i)), HALO_OWNER_DRIVER);
		HALO_HOOK("reset.owner");
		rte_pktmbuf_free(halo_mbuf_of(driver, i));
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
	slot->state = HALO_SLOT_DISABLED;
	write_life(slot);
	HALO_HOOK("reset.state");
	reclaimed = reclaim(lcore->driver, slot);
	HALO_HOOK("reset.reclaimed");
	clear_ring(&shared->rx);
	HALO_HOOK("reset.ring");
	clear_ring(&shared->tx);
	clear_ring(&shared->spare);
	HALO_HOOK("reset.indices");
	attach(slot);
	slot->outstanding = 0;
	halo_count(&slot->count->outstanding, -slot->count->outstanding);
	halo_count(&slot->count->reclaimed, (uint64_t)reclaimed);
	halo_count(&slot->count->resets, 1);
	slot->generation++;
	write_life(slot);
	HALO_HOOK("reset.generation");
	return reclaimed;
}

void halo_slot_broken(struct halo_slot_home *slot)
{
	slot->enabled = false;
	slot->state = HALO_SLOT_BROKEN;
	halo_count(&slot->count->rings_broken, 1);
	write_life(slot);
}

/*
 * Somebody wrote where only we may. A worker that believes another state or generation than ours would go on with rings of
 * which we know nothing: the slot is broken, which has its worker ended. When it is not enabled, putting the words right is all.
 */
void halo_slot_life_scribbled(struct halo_slot_home *slot)
{
	if (slot->enabled)
		halo_slot_broken(slot);
	else
		write_life(slot);
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

/* Put a burst of empty buffers on the spare ring; entries, claim, owners, index, as in rx.c. */
static void give_spares(struct halo_driver *driver, struct halo_slot_home *slot, struct rte_mbuf **frame)
{
	uint32_t i;

	for (i = 0; i < HALO_BURST; i++) {
		uint32_t room = (uint32_t)((uint8_t *)frame[i]->buf_addr - driver->pool);

		halo_ring_put(&slot->spare, i, halo_descriptor_make(room + HALO_HEADROOM_OCTETS, 0, 0, 0));
	}
	HALO_HOOK("spare.entries");
	__atomic_store_n(&slot->spare.index->claim, slot->spare.head + HALO_BURST, __ATOMIC_RELEASE);
	HALO_HOOK("spare.claimed");
	for (i = 0; i < HALO_BURST; i++)
		halo_set_owner(driver, halo_note_of(driver, frame[i]), slot->tag);
	HALO_HOOK("spare.owned");
	slot->outstanding += HALO_BURST;
	halo_ring_submit(&slot->spare, HALO_BURST);
	HALO_HOOK("spare.published");
	halo_count(&slot->count->spare_given, HALO_BURST);
	halo_count(&slot->count->outstanding, slot->outstanding - slot->count->outstanding);
}

/*
 * Keep the spare ring full, a burst at a time, of what room there is now: a worker that takes them as fast as they are given
 * would have us go on for ever, and what it sends would wait until it is cold.
 */
void halo_slot_refill(struct halo_lcore *lcore, struct halo_slot_home *slot)
{
	struct rte_mbuf *frame[HALO_BURST];
	uint32_t room;

	if (unlikely(!slot->enabled))
		return;
	room = halo_ring_reserve(&slot->spare, HALO_SPARE_SIZE);
	if (unlikely(room == HALO_RING_BROKEN))
		return halo_slot_broken(slot);
	for (; room >= HALO_BURST && slot->bound - slot->outstanding >= HALO_BURST; room -= HALO_BURST) {
		if (rte_pktmbuf_alloc_bulk(lcore->driver->mempool, frame, HALO_BURST) != 0)
			return;
		give_spares(lcore->driver, slot, frame);
	}
}
