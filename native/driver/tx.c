/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a slot's tx ring to the ports, to other slots, or back to the free list. The worker is not trusted: each descriptor
 * is copied once, and offset, length, owner, action and target of the copy are checked. What is wrong is a named drop; a
 * buffer that the slot did own is taken back all the same, so nothing leaks and the rest of the burst goes on.
 */
#include <string.h>

#include "driver.h"

enum {
	MIN_IPV4_OCTETS = 20,
	L4_CHECKSUM_END = 18, /* of TCP, the later of the two */
	TX_CHECKSUMS = HALO_METADATA_TX_IP_CHECKSUM | HALO_METADATA_TX_UDP_CHECKSUM | HALO_METADATA_TX_TCP_CHECKSUM,
};

static_assert(HALO_MAX_PORTS <= 64, "tx_touched has a bit for each port");

/* Sums of one burst, written to shared memory once. */
struct tally {
	uint64_t sent;
	uint64_t octets;
	uint64_t passed;
	uint64_t released;
};

/* A descriptor's private copy, and where it points. frame NULL: nowhere. */
struct checked {
	struct halo_descriptor descriptor;
	uint32_t within; /* the buffer, from its start */
	struct rte_mbuf *frame;
};

static void drop_owned(struct halo_slot_home *slot, struct rte_mbuf *frame, enum halo_drop reason)
{
	rte_pktmbuf_free(frame);
	halo_count(&slot->count->drops[reason], 1);
}

/* What a port did not take, or can not: dropped, never waited for. slot NULL: passed on by another lcore. */
static void drop_unsent(struct halo_lcore *lcore, struct halo_slot_home *slot, const struct halo_port *port,
			struct rte_mbuf **frame, uint32_t count, struct tally *tally)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		tally->octets -= rte_pktmbuf_pkt_len(frame[i]);
	rte_pktmbuf_free_bulk(frame, count);
	if (slot)
		halo_count(&slot->count->drops[halo_port_is_started(port) ? HALO_DROP_tx_port_full
									  : HALO_DROP_tx_port_down],
			   count);
	else
		halo_count(&lcore->status->passed_dropped, count);
}

/* Send what is buffered for a port on this lcore's queue. */
static void flush_port(struct halo_lcore *lcore, struct halo_slot_home *slot, uint32_t number, struct tally *tally)
{
	struct halo_tx_buffer *buffer = &lcore->tx[number];
	struct halo_port *port = &lcore->driver->port[number];
	uint16_t sent = 0;

	if (buffer->count == 0)
		return;
	if (likely(halo_port_is_started(port)))
		sent = rte_eth_tx_burst(port->device, slot ? slot->tx_queue[number] : lcore->tx_queue[number],
					buffer->frame, buffer->count);
	tally->sent += sent;
	if (unlikely(sent < buffer->count))
		drop_unsent(lcore, slot, port, buffer->frame + sent, buffer->count - sent, tally);
	buffer->count = 0;
}

static void flush_all(struct halo_lcore *lcore, struct halo_slot_home *slot, struct tally *tally)
{
	uint64_t touched = lcore->tx_touched;

	for (; touched; touched &= touched - 1)
		flush_port(lcore, slot, (uint32_t)__builtin_ctzll(touched), tally);
	lcore->tx_touched = 0;
}

static void buffer_frame(struct halo_lcore *lcore, struct halo_slot_home *slot, uint32_t number, struct rte_mbuf *frame,
			 struct tally *tally)
{
	struct halo_tx_buffer *buffer = &lcore->tx[number];

	buffer->frame[buffer->count++] = frame;
	lcore->tx_touched |= UINT64_C(1) << number;
	tally->octets += rte_pktmbuf_pkt_len(frame);
	if (buffer->count == HALO_BURST)
		flush_port(lcore, slot, number, tally);
}

/* To the lcore that has a queue on the port, or that is home of the slot. */
static bool pass(struct halo_lcore *to, struct rte_mbuf *frame, enum halo_note_kind kind,
		 struct halo_descriptor descriptor)
{
	struct halo_note *note = halo_note_of(to->driver, frame);

	note->kind = (uint8_t)kind;
	note->target = descriptor.port;
	note->flags = descriptor.flags;
	if (rte_ring_mp_enqueue(to->inbox, frame) != 0)
		return false;
	halo_lcore_wake(to);
	return true;
}

/* What the worker asks the port to fill in. False: the headers that it names are not inside the frame. */
static bool request_checksums(struct rte_mbuf *frame)
{
	/* Copied once: the worker may still write to it. */
	struct halo_metadata metadata = *(struct halo_metadata *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS);

	if (!(metadata.flags & TX_CHECKSUMS))
		return true;
	if (metadata.l2_length < HALO_MIN_FRAME_OCTETS || metadata.l3_length < MIN_IPV4_OCTETS ||
	    metadata.l2_length + metadata.l3_length + L4_CHECKSUM_END > frame->data_len)
		return false;
	frame->l2_len = metadata.l2_length;
	frame->l3_len = metadata.l3_length;
	frame->ol_flags = RTE_MBUF_F_TX_IPV4;
	if (metadata.flags & HALO_METADATA_TX_IP_CHECKSUM)
		frame->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
	if (metadata.flags & HALO_METADATA_TX_UDP_CHECKSUM)
		frame->ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM;
	else if (metadata.flags & HALO_METADATA_TX_TCP_CHECKSUM)
		frame->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
	return true;
}

static void transmit(struct halo_lcore *lcore, struct halo_slot_home *slot, struct halo_descriptor descriptor,
		     struct rte_mbuf *frame, struct tally *tally)
{
	struct halo_driver *driver = lcore->driver;

	if (descriptor.port >= HALO_MAX_PORTS || !driver->port[descriptor.port].present)
		return drop_owned(slot, frame, HALO_DROP_tx_bad_port);
	if (descriptor.length > driver->port[descriptor.port].max_frame)
		return drop_owned(slot, frame, HALO_DROP_tx_too_long);
	frame->ol_flags = 0;
	if ((descriptor.flags & HALO_DESCRIPTOR_METADATA) && driver->tx_checksum && !request_checksums(frame))
		return drop_owned(slot, frame, HALO_DROP_tx_bad_length);
	if (slot->tx_queue[descriptor.port] != HALO_NO_PORT)
		return buffer_frame(lcore, slot, descriptor.port, frame, tally);
	if (pass(lcore->tx_lcore[descriptor.port], frame, HALO_NOTE_TRANSMIT, descriptor))
		tally->passed++;
	else
		drop_owned(slot, frame, HALO_DROP_tx_lcore_full);
}

static void hand(struct halo_lcore *lcore, struct halo_slot_home *slot, struct halo_descriptor descriptor,
		 struct rte_mbuf *frame, struct tally *tally)
{
	struct halo_metadata *metadata = (void *)((uint8_t *)frame->buf_addr - HALO_METADATA_OCTETS);
	struct halo_slot_home *target;
	enum halo_drop why_less;

	target = descriptor.port < HALO_MAX_SLOTS ? lcore->driver->by_number[descriptor.port] : NULL;
	if (!target)
		return drop_owned(slot, frame, HALO_DROP_tx_bad_slot);
	metadata->source_slot = slot->number;
	if (target->home != lcore) {
		if (pass(target->home, frame, HALO_NOTE_HAND, descriptor))
			tally->passed++;
		else
			drop_owned(slot, frame, HALO_DROP_tx_lcore_full);
		return;
	}
	if (!target->enabled)
		return drop_owned(slot, frame, HALO_DROP_tx_bad_slot);
	if (halo_slot_room(target, 1, &why_less) == 0)
		return drop_owned(slot, frame, HALO_DROP_tx_hand_full);
	halo_deliver_handed(lcore, target, frame, descriptor.flags);
	halo_count(&slot->count->hand_sent, 1);
}

/* The rest of the checks of a descriptor whose buffer is the slot's. HALO_DROP_COUNT: it is fine. */
static enum halo_drop check_frame(const struct halo_driver *driver, struct halo_descriptor descriptor, uint32_t within)
{
	uint32_t action = descriptor.flags & HALO_ACTION_MASK;

	if (within < HALO_METADATA_OCTETS)
		return HALO_DROP_tx_bad_offset;
	if (action == HALO_ACTION_MASK || (descriptor.flags & ~(HALO_ACTION_MASK | HALO_DESCRIPTOR_METADATA)))
		return HALO_DROP_tx_bad_action;
	if (action == HALO_ACTION_RELEASE) /* has no frame */
		return HALO_DROP_COUNT;
	if (descriptor.length < HALO_MIN_FRAME_OCTETS || within + descriptor.length > driver->locator.stride_octets)
		return HALO_DROP_tx_bad_length;
	return HALO_DROP_COUNT;
}

static void set_frame(struct rte_mbuf *frame, uint32_t within, uint16_t length)
{
	frame->data_off = (uint16_t)(within - HALO_METADATA_OCTETS);
	frame->data_len = length;
	frame->pkt_len = length;
}

static void serve_one(struct halo_lcore *lcore, struct halo_slot_home *slot, const struct checked *checked,
		      struct tally *tally)
{
	struct halo_descriptor descriptor = checked->descriptor;
	struct rte_mbuf *frame = checked->frame;
	enum halo_drop reason;

	if (!frame || halo_note_of(lcore->driver, frame)->owner != slot->tag) {
		reason = frame ? HALO_DROP_tx_bad_owner : HALO_DROP_tx_bad_offset;
		halo_count(&slot->count->drops[reason], 1);
		return;
	}
	/* From here on the buffer is the driver's, whatever is wrong with the descriptor. */
	halo_set_owner(lcore->driver, halo_note_of(lcore->driver, frame), HALO_OWNER_DRIVER);
	slot->outstanding--;
	reason = check_frame(lcore->driver, descriptor, checked->within);
	if (reason != HALO_DROP_COUNT)
		return drop_owned(slot, frame, reason);
	if ((descriptor.flags & HALO_ACTION_MASK) == HALO_ACTION_RELEASE) {
		rte_pktmbuf_free(frame);
		tally->released++;
		return;
	}
	set_frame(frame, checked->within, descriptor.length);
	if ((descriptor.flags & HALO_ACTION_MASK) == HALO_ACTION_TRANSMIT)
		transmit(lcore, slot, descriptor, frame, tally);
	else
		hand(lcore, slot, descriptor, frame, tally);
}

/*
 * The way of nearly all frames: a plain transmit of a buffer that the slot owns, to a port where this lcore has a queue. Every
 * check of serve_one() and transmit() is here; false says that one of them is not plainly met, and nothing was done.
 */
static inline bool serve_plain(struct halo_lcore *lcore, struct halo_slot_home *slot, const struct checked *checked,
			       struct tally *tally)
{
	struct halo_driver *driver = lcore->driver;
	struct halo_descriptor descriptor = checked->descriptor;
	struct rte_mbuf *frame = checked->frame;
	uint32_t within = checked->within;
	const struct halo_port *port;
	struct halo_tx_buffer *out;
	struct halo_note *note;

	if (!frame || descriptor.flags != HALO_ACTION_TRANSMIT || descriptor.port >= HALO_MAX_PORTS)
		return false;
	port = &driver->port[descriptor.port];
	out = &lcore->tx[descriptor.port];
	note = halo_note_of(driver, frame);
	if (note->owner != slot->tag || !port->present || out->count == HALO_BURST ||
	    slot->tx_queue[descriptor.port] == HALO_NO_PORT)
		return false;
	if (within < HALO_METADATA_OCTETS || descriptor.length < HALO_MIN_FRAME_OCTETS ||
	    within + descriptor.length > driver->locator.stride_octets || descriptor.length > port->max_frame)
		return false;
	halo_set_owner(driver, note, HALO_OWNER_DRIVER);
	slot->outstanding--;
	set_frame(frame, within, descriptor.length);
	frame->ol_flags = 0;
	tally->octets += descriptor.length;
	out->frame[out->count++] = frame;
	lcore->tx_touched |= UINT64_C(1) << descriptor.port;
	return true;
}

/*
 * Copy each descriptor, find its buffer, and start bringing in what the next step touches: the mbuf, and for writing, the
 * frame's first line, which the worker's core has and the port will want back for the next frame it receives there.
 */
static void look_up(const struct halo_driver *driver, const struct halo_consumer *ring, struct checked *checked,
		    uint32_t count)
{
	struct halo_locator locator = driver->locator;
	uint8_t *headers = driver->headers + driver->header_offset;
	uint64_t header_octets = driver->header_octets;
	uint8_t *pool = driver->pool;
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_descriptor descriptor = halo_ring_get(ring, i);
		uint32_t buffer, within;

		checked[i].descriptor = descriptor;
		if (unlikely(!halo_locate(&locator, descriptor.offset, &buffer, &within))) {
			checked[i].frame = NULL;
			continue;
		}
		checked[i].frame = (void *)(headers + buffer * header_octets);
		checked[i].within = within;
		rte_prefetch0(checked[i].frame);
		rte_prefetch0((uint8_t *)checked[i].frame + HALO_LINE);
		halo_prefetch_write(pool + descriptor.offset);
	}
}

static void publish(struct halo_slot_home *slot, const struct tally *tally, uint32_t count)
{
	struct halo_driver_counters *counters = slot->count;

	halo_count(&counters->tx_descriptors, count);
	halo_count(&counters->tx_sent, tally->sent);
	halo_count(&counters->tx_octets, tally->octets);
	halo_count(&counters->tx_passed, tally->passed);
	halo_count(&counters->released, tally->released);
	halo_count(&counters->outstanding, slot->outstanding - counters->outstanding);
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
	look_up(lcore->driver, &slot->tx, checked, count);
	HALO_HOOK("tx.looked_up");
	for (i = 0; i < count; i++) {
		if (unlikely(!serve_plain(lcore, slot, &checked[i], &tally)))
			serve_one(lcore, slot, &checked[i], &tally);
		HALO_HOOK("tx.served_one");
	}
	HALO_HOOK("tx.served");
	halo_ring_release(&slot->tx, count);
	HALO_HOOK("tx.released");
	flush_all(lcore, slot, &tally);
	HALO_HOOK("tx.sent");
	publish(slot, &tally, count);
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
	halo_deliver_handed(lcore, target, frame, note.flags);
	tally->sent++;
}

uint32_t halo_inbox_serve(struct halo_lcore *lcore)
{
	struct rte_mbuf *frame[HALO_BURST];
	struct tally tally = {0};
	uint32_t count = rte_ring_sc_dequeue_burst(lcore->inbox, (void **)frame, HALO_BURST, NULL);
	uint32_t passed = 0;
	uint32_t i = 0;

	if (count == 0)
		return 0;
	while (i < count) {
		uint32_t taken = halo_spread_take(lcore, frame + i, count - i);

		if (taken == 0) {
			serve_passed(lcore, frame[i], &tally);
			taken = 1;
			passed++;
		}
		i += taken;
	}
	flush_all(lcore, NULL, &tally);
	halo_count(&lcore->status->passed_in, passed);
	halo_count(&lcore->status->passed_sent, tally.sent);
	return count;
}
