/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a slot's tx ring to the ports, to other slots, or back to the free list. The worker is not trusted: each descriptor
 * is copied once, and offset, length, owner, action and target of the copy are checked. What is wrong is a named drop; a
 * buffer that the slot did own is taken back all the same, so nothing leaks and the rest of the burst goes on.
 */
#include <string.h>

#include "driver.h"

/* Sums of one burst, written to shared memory once. */
struct tally {
	uint64_t sent;
	uint64_t octets;
	uint64_t passed;
	uint64_t released;
};

static void drop_owned(struct halo_slot_home *slot, struct rte_mbuf *frame, enum halo_drop reason)
{
	rte_pktmbuf_free(frame);
	halo_count(&slot->count->drops[reason], 1);
}

static uint64_t tx_offloads(const struct halo_metadata *shared, struct rte_mbuf *frame)
{
	struct halo_metadata metadata = *shared; /* read once */
	uint64_t flags = 0;

	frame->l2_len = metadata.l2_length;
	frame->l3_len = metadata.l3_length;
	if (metadata.flags & HALO_METADATA_TX_IP_CHECKSUM)
		flags |= RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_IPV4;
	if (metadata.flags & HALO_METADATA_TX_UDP_CHECKSUM)
		flags |= RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4;
	else if (metadata.flags & HALO_METADATA_TX_TCP_CHECKSUM)
		flags |= RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
	return flags;
}

/* Send what is buffered for a port on this lcore's queue; the rest is dropped, never waited for. */
static void flush_port(struct halo_lcore *lcore, struct halo_slot_home *slot, uint32_t number, struct tally *tally)
{
	struct halo_tx_buffer *buffer = &lcore->tx[number];
	struct halo_port *port = &lcore->driver->port[number];
	uint16_t sent = 0;

	if (buffer->count == 0)
		return;
	if (port->started)
		sent = rte_eth_tx_burst(port->device, lcore->tx_queue[number], buffer->frame, buffer->count);
	tally->sent += sent;
	if (unlikely(sent < buffer->count)) {
		uint32_t left = buffer->count - sent;
		enum halo_drop reason = port->started ? HALO_DROP_tx_port_full : HALO_DROP_tx_port_down;

		rte_pktmbuf_free_bulk(buffer->frame + sent, left);
		if (slot)
			halo_count(&slot->count->drops[reason], left);
		else
			halo_count(&lcore->status->passed_dropped, left);
	}
	buffer->count = 0;
}

static_assert(HALO_MAX_PORTS <= 64, "tx_touched has a bit for each port");

static void buffer_frame(struct halo_lcore *lcore, struct halo_slot_home *slot, uint32_t number, struct rte_mbuf *frame,
			 struct tally *tally)
{
	struct halo_tx_buffer *buffer = &lcore->tx[number];

	buffer->frame[buffer->count++] = frame;
	lcore->tx_touched |= UINT64_C(1) << number;
	if (buffer->count == HALO_BURST)
		flush_port(lcore, slot, number, tally);
}

/* To the lcore that has a queue on the port, or that is home of the slot. */
static bool pass(struct halo_lcore *to, struct rte_mbuf *frame, struct halo_note note)
{
	*halo_note_of(to->driver, frame) = note;
	if (rte_ring_mp_enqueue(to->inbox, frame) != 0)
		return false;
	halo_lcore_wake(to);
	return true;
}

static void transmit(struct halo_lcore *lcore, struct halo_slot_home *slot, struct halo_descriptor descriptor,
		     struct rte_mbuf *frame, struct tally *tally)
{
	struct halo_driver *driver = lcore->driver;
	struct halo_port *port = &driver->port[descriptor.port];

	if (unlikely(descriptor.length > port->max_frame))
		return drop_owned(slot, frame, HALO_DROP_tx_too_long);
	frame->ol_flags &= RTE_MBUF_F_EXTERNAL;
	if (unlikely(descriptor.flags & HALO_DESCRIPTOR_METADATA) && driver->tx_checksum)
		frame->ol_flags |= tx_offloads((void *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS), frame);
	tally->octets += descriptor.length;
	if (likely(lcore->tx_queue[descriptor.port] != HALO_NO_PORT))
		return buffer_frame(lcore, slot, descriptor.port, frame, tally);
	if (pass(lcore->tx_lcore[descriptor.port], frame,
		 (struct halo_note){.target = descriptor.port, .kind = HALO_NOTE_TRANSMIT}))
		tally->passed++;
	else
		drop_owned(slot, frame, HALO_DROP_tx_lcore_full);
}

static void hand(struct halo_lcore *lcore, struct halo_slot_home *slot, struct halo_descriptor descriptor,
		 struct rte_mbuf *frame, struct tally *tally)
{
	struct halo_slot_home *target = lcore->driver->by_number[descriptor.port];
	struct halo_metadata *metadata = (void *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS);
	struct halo_note note = {.target = descriptor.port, .kind = HALO_NOTE_HAND, .flags = descriptor.flags};
	enum halo_drop why_less;

	metadata->source_slot = slot->number;
	note.source_port = frame->port < HALO_MAX_PORTS ? frame->port : 0;
	if (target->home != lcore) {
		if (pass(target->home, frame, note))
			tally->passed++;
		else
			drop_owned(slot, frame, HALO_DROP_tx_lcore_full);
		return;
	}
	if (!target->enabled)
		return drop_owned(slot, frame, HALO_DROP_tx_bad_slot);
	if (halo_slot_room(target, 1, &why_less) == 0)
		return drop_owned(slot, frame, HALO_DROP_tx_hand_full);
	halo_deliver_handed(lcore, target, frame, descriptor.flags, (uint8_t)note.source_port);
	halo_count(&slot->count->hand_sent, 1);
}

/* A descriptor's private copy, and where it points. buffer UINT32_MAX: nowhere. */
struct checked {
	struct halo_descriptor descriptor;
	uint32_t buffer;
	uint32_t within;
};

/*
 * Copy a descriptor, find its buffer, and start bringing in what the next step touches: the mbuf, and for writing, the
 * frame's first line, which the worker's core has and the port will want back for the next frame it receives there.
 */
static void look_up(const struct halo_driver *driver, struct halo_descriptor descriptor, struct checked *checked)
{
	checked->descriptor = descriptor;
	if (unlikely(!halo_locate(driver, descriptor.offset, &checked->buffer, &checked->within))) {
		checked->buffer = UINT32_MAX;
		return;
	}
	rte_prefetch0(driver->mbuf[checked->buffer]);
	halo_prefetch_write(driver->pool + descriptor.offset);
}

/* Check a frame that is to go on. The buffer is the slot's; the copy of the descriptor is ours. */
static enum halo_drop check_frame(const struct halo_driver *driver, struct halo_descriptor descriptor, uint32_t within)
{
	uint32_t action = descriptor.flags & HALO_ACTION_MASK;

	if (unlikely(action == HALO_ACTION_MASK || (descriptor.flags & ~(HALO_ACTION_MASK | HALO_DESCRIPTOR_METADATA))))
		return HALO_DROP_tx_bad_action;
	if (unlikely(descriptor.length < HALO_MIN_FRAME_OCTETS ||
		     within + descriptor.length > driver->geometry.stride_octets))
		return HALO_DROP_tx_bad_length;
	if (action == HALO_ACTION_TRANSMIT) {
		if (unlikely(descriptor.port >= HALO_MAX_PORTS || !driver->port[descriptor.port].present))
			return HALO_DROP_tx_bad_port;
	} else if (descriptor.port >= HALO_MAX_SLOTS || !driver->by_number[descriptor.port]) {
		return HALO_DROP_tx_bad_slot;
	}
	return HALO_DROP_COUNT;
}

static void serve_one(struct halo_lcore *lcore, struct halo_slot_home *slot, const struct checked *checked,
		      struct tally *tally)
{
	struct halo_driver *driver = lcore->driver;
	struct halo_descriptor descriptor = checked->descriptor;
	uint32_t buffer = checked->buffer, within = checked->within;
	enum halo_drop reason = HALO_DROP_COUNT;
	struct rte_mbuf *frame;

	if (unlikely(buffer == UINT32_MAX || driver->owner[buffer] != slot->tag)) {
		reason = buffer == UINT32_MAX ? HALO_DROP_tx_bad_offset : HALO_DROP_tx_bad_owner;
		halo_count(&slot->count->drops[reason], 1);
		return;
	}
	/* From here on the buffer is the driver's, whatever is wrong with the descriptor. */
	frame = driver->mbuf[buffer];
	__atomic_store_n(&driver->owner[buffer], HALO_OWNER_DRIVER, __ATOMIC_RELAXED);
	slot->outstanding--;
	if (unlikely(within < HALO_METADATA_OCTETS))
		return drop_owned(slot, frame, HALO_DROP_tx_bad_offset);
	if ((descriptor.flags & HALO_ACTION_MASK) == HALO_ACTION_RELEASE) {
		rte_pktmbuf_free(frame);
		tally->released++;
		return;
	}
	reason = check_frame(driver, descriptor, within);
	if (unlikely(reason != HALO_DROP_COUNT))
		return drop_owned(slot, frame, reason);
	frame->data_off = (uint16_t)(within - HALO_METADATA_OCTETS);
	frame->data_len = descriptor.length;
	frame->pkt_len = descriptor.length;
	if (likely((descriptor.flags & HALO_ACTION_MASK) == HALO_ACTION_TRANSMIT))
		transmit(lcore, slot, descriptor, frame, tally);
	else
		hand(lcore, slot, descriptor, frame, tally);
}

static void flush_all(struct halo_lcore *lcore, struct halo_slot_home *slot, struct tally *tally)
{
	uint64_t touched = lcore->tx_touched;

	for (; touched; touched &= touched - 1)
		flush_port(lcore, slot, (uint32_t)__builtin_ctzll(touched), tally);
	lcore->tx_touched = 0;
}

uint32_t halo_tx_serve(struct halo_lcore *lcore, struct halo_slot_home *slot)
{
	uint32_t count = halo_ring_peek(&slot->tx, HALO_BURST);
	struct checked checked[HALO_BURST];
	struct tally tally = {0};
	uint32_t i;

	if (count == 0)
		return 0;
	if (unlikely(count == HALO_RING_BROKEN)) {
		halo_slot_broken(slot);
		return 0;
	}
	for (i = 0; i < count; i++)
		look_up(lcore->driver, halo_ring_get(&slot->tx, i), &checked[i]);
	for (i = 0; i < count; i++)
		serve_one(lcore, slot, &checked[i], &tally);
	halo_ring_release(&slot->tx, count);
	flush_all(lcore, slot, &tally);
	halo_count(&slot->count->tx_descriptors, count);
	halo_count(&slot->count->tx_sent, tally.sent);
	halo_count(&slot->count->tx_octets, tally.octets);
	halo_count(&slot->count->tx_passed, tally.passed);
	halo_count(&slot->count->released, tally.released);
	halo_count(&slot->count->outstanding, slot->outstanding - slot->count->outstanding);
	return count;
}

static void serve_passed(struct halo_lcore *lcore, struct rte_mbuf *frame, struct tally *tally)
{
	struct halo_note note = *halo_note_of(lcore->driver, frame);
	struct halo_slot_home *target;
	enum halo_drop why_less;

	if (note.kind == HALO_NOTE_TRANSMIT)
		return buffer_frame(lcore, NULL, note.target, frame, tally);
	target = lcore->driver->by_number[note.target];
	if (!target->enabled || halo_slot_room(target, 1, &why_less) == 0) {
		rte_pktmbuf_free(frame);
		halo_count(&lcore->status->passed_dropped, 1);
		return;
	}
	halo_deliver_handed(lcore, target, frame, note.flags, (uint8_t)note.source_port);
	tally->sent++;
}

uint32_t halo_inbox_serve(struct halo_lcore *lcore)
{
	void *frame[HALO_BURST];
	struct tally tally = {0};
	uint32_t count = rte_ring_sc_dequeue_burst(lcore->inbox, frame, HALO_BURST, NULL);
	uint32_t i;

	if (count == 0)
		return 0;
	for (i = 0; i < count; i++)
		serve_passed(lcore, frame[i], &tally);
	flush_all(lcore, NULL, &tally);
	halo_count(&lcore->status->passed_in, count);
	halo_count(&lcore->status->passed_sent, tally.sent);
	return count;
}
