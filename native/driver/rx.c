/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a port's queue to a slot's rx ring. Rules: whole bursts; no logging, no allocation but of buffers; a frame that does
 * not go on has a name.
 */
#include <string.h>

#include "driver.h"

/* Drops of a slot are its home lcore's to count; another one leaves word with it. */
void halo_rx_drop(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame, uint32_t count,
		  enum halo_drop reason)
{
	if (count == 0)
		return;
	rte_pktmbuf_free_bulk(frame, count);
	if (likely(slot->home == lcore)) {
		halo_count(&slot->count->drops[reason], count);
		return;
	}
	__atomic_fetch_add(&slot->missed[reason], count, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->missed_any, 1, __ATOMIC_RELEASE); /* pairs with halo_spread_count_missed */
}

/* The metadata line of a frame, where the port has something to say that a descriptor can not hold. */
static uint8_t write_metadata(struct rte_mbuf *frame)
{
	struct halo_metadata *metadata = (void *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS);
	uint64_t flags = frame->ol_flags;

	metadata->flags = 0;
	metadata->hash = 0;
	if (flags & RTE_MBUF_F_RX_RSS_HASH) {
		metadata->flags |= HALO_METADATA_RSS_HASH;
		metadata->hash = frame->hash.rss;
	}
	if ((flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		metadata->flags |= HALO_METADATA_IP_CHECKSUM_GOOD;
	if ((flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD)
		metadata->flags |= HALO_METADATA_IP_CHECKSUM_BAD;
	if ((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
		metadata->flags |= HALO_METADATA_L4_CHECKSUM_GOOD;
	if ((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_BAD)
		metadata->flags |= HALO_METADATA_L4_CHECKSUM_BAD;
	return HALO_DESCRIPTOR_METADATA;
}

/*
 * `copy` mode: the port's own buffers stay its own, the octets move into the pool. The frames that could not be copied are
 * counted; the others take their place in frame[]. Returns how many those are.
 */
uint32_t halo_rx_copy(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame, uint32_t count)
{
	struct rte_mbuf *own[HALO_BURST];
	uint32_t kept = 0;
	uint32_t i;

	if (rte_pktmbuf_alloc_bulk(lcore->driver->mempool, own, count) != 0) {
		halo_rx_drop(lcore, slot, frame, count, HALO_DROP_rx_no_buffer);
		return 0;
	}
	for (i = 0; i < count; i++) {
		uint32_t length = rte_pktmbuf_pkt_len(frame[i]);
		const void *octets;

		if (length > lcore->driver->geometry.data_octets) {
			halo_rx_drop(lcore, slot, &own[i], 1, HALO_DROP_rx_too_long);
			continue;
		}
		octets = rte_pktmbuf_read(frame[i], 0, length, rte_pktmbuf_mtod(own[i], void *));
		if (octets != rte_pktmbuf_mtod(own[i], void *))
			memcpy(rte_pktmbuf_mtod(own[i], void *), octets, length);
		own[i]->pkt_len = length;
		own[i]->data_len = (uint16_t)length;
		own[kept++] = own[i];
	}
	rte_pktmbuf_free_bulk(frame, count);
	memcpy(frame, own, kept * sizeof(frame[0]));
	return kept;
}

/* A frame is one buffer: several segments become one, or a named drop. */
static bool one_segment(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf *frame)
{
	if (likely(frame->nb_segs == 1))
		return true;
	if (rte_pktmbuf_linearize(frame) == 0)
		return true;
	halo_rx_drop(lcore, slot, &frame, 1, HALO_DROP_rx_multi_segment);
	return false;
}

static uint32_t keep_single(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame,
			    uint32_t count)
{
	uint32_t kept = 0;
	uint32_t i;

	for (i = 0; i < count; i++)
		if (one_segment(lcore, slot, frame[i]))
			frame[kept++] = frame[i];
	return kept;
}

/* Put frames on the ring, in the order that makes a death at any point harmless: entries, claim, owners, index. */
static void deliver(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf **frame, uint32_t count,
		    uint8_t port)
{
	struct halo_driver *driver = lcore->driver;
	uint8_t *pool = driver->pool;
	bool metadata = driver->rx_checksum;
	uint64_t octets = 0;
	uint32_t i;

	for (i = 0; i < count; i++) {
		uint32_t offset = (uint32_t)((uint8_t *)frame[i]->buf_addr - pool) + frame[i]->data_off;
		uint16_t length = frame[i]->data_len;
		uint8_t flags = unlikely(metadata) ? write_metadata(frame[i]) : 0;

		frame[i]->port = port; /* ours, not DPDK's: a frame that is handed over says where it came in */
		octets += length;
		halo_ring_put(&slot->rx, i, halo_descriptor_make(offset, length, port, flags));
	}
	HALO_HOOK("rx.entries");
	__atomic_store_n(&slot->rx.index->claim, slot->rx.head + count, __ATOMIC_RELEASE);
	HALO_HOOK("rx.claimed");
	for (i = 0; i < count; i++)
		halo_set_owner(driver, halo_note_of(driver, frame[i]), slot->tag);
	HALO_HOOK("rx.owned");
	slot->outstanding += count;
	halo_ring_submit(&slot->rx, count);
	HALO_HOOK("rx.published");
	halo_slot_wake(slot);
	HALO_HOOK("rx.woken");
	halo_count(&slot->count->rx_frames, count);
	halo_count(&slot->count->rx_octets, octets);
	halo_count(&slot->count->outstanding, slot->outstanding - slot->count->outstanding);
}

/* Frames for a slot whose home is this lcore, in buffers of the pool. */
void halo_rx_give(struct halo_lcore *lcore, struct halo_slot_home *slot, uint8_t port, struct rte_mbuf **frame,
		  uint32_t count)
{
	enum halo_drop why_less;
	uint32_t room;

	if (!slot->enabled)
		return halo_rx_drop(lcore, slot, frame, count, HALO_DROP_rx_slot_disabled);
	count = keep_single(lcore, slot, frame, count);
	room = halo_slot_room(slot, count, &why_less);
	if (room < count)
		halo_rx_drop(lcore, slot, frame + room, count - room, why_less);
	if (room)
		deliver(lcore, slot, frame, RTE_MIN(room, count), port);
}

uint32_t halo_rx_serve(struct halo_lcore *lcore, struct halo_feed *feed)
{
	struct rte_mbuf *frame[HALO_BURST];
	struct halo_slot_home *slot = feed->slot;
	uint32_t received = rte_eth_rx_burst(feed->port->device, feed->queue, frame, HALO_BURST);
	uint32_t count = received;

	if (received == 0)
		return 0;
	if (unlikely(feed->port->software)) {
		halo_spread_serve(lcore, feed, frame, received);
		return received;
	}
	if (unlikely(!slot)) {
		rte_pktmbuf_free_bulk(frame, received);
		halo_count(&lcore->status->unclaimed_frames, received);
		return received;
	}
	if (feed->port->copy && slot->enabled)
		count = halo_rx_copy(lcore, slot, frame, received);
	halo_rx_give(lcore, slot, feed->port_number, frame, count);
	return received;
}

/* Where a frame came in. One that a worker made in a spare buffer says it itself, and is believed as its octets are. */
static uint8_t port_of(const struct rte_mbuf *frame)
{
	const struct halo_metadata *metadata = (void *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS);

	if (frame->port < HALO_MAX_PORTS)
		return (uint8_t)frame->port;
	return metadata->port < HALO_MAX_PORTS ? metadata->port : 0;
}

/* A frame that another worker handed over. Runs on the home lcore of the slot that gets it. */
void halo_deliver_handed(struct halo_lcore *lcore, struct halo_slot_home *slot, struct rte_mbuf *frame, uint8_t flags)
{
	struct halo_driver *driver = lcore->driver;
	uint32_t offset = (uint32_t)((uint8_t *)frame->buf_addr - driver->pool) + frame->data_off;
	uint16_t length = frame->data_len;
	uint8_t port = port_of(frame);

	flags = (uint8_t)((flags & HALO_DESCRIPTOR_METADATA) | HALO_DESCRIPTOR_HANDED);
	halo_ring_put(&slot->rx, 0, halo_descriptor_make(offset, length, port, flags));
	HALO_HOOK("hand.entry");
	__atomic_store_n(&slot->rx.index->claim, slot->rx.head + 1, __ATOMIC_RELEASE);
	HALO_HOOK("hand.claimed");
	halo_set_owner(driver, halo_note_of(driver, frame), slot->tag);
	HALO_HOOK("hand.owned");
	slot->outstanding++;
	halo_ring_submit(&slot->rx, 1);
	HALO_HOOK("hand.published");
	halo_slot_wake(slot);
	halo_count(&slot->count->rx_frames, 1);
	halo_count(&slot->count->rx_octets, length);
	halo_count(&slot->count->rx_handed, 1);
	halo_count(&slot->count->outstanding, 1);
}
