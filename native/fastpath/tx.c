/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of the line: verdicts become descriptors on the tx ring. The ring has room for every buffer that a slot may
 * have outstanding, so putting fails only when somebody scribbled over its indices.
 */
#include <errno.h>
#include <unistd.h>

#include "octets.h"
#include "worker.h"

enum { ETHERTYPE_VLAN = 0x8100, ETHERTYPE_ARP = 0x0806 };

bool halo_tx_find_room(struct halo_worker *worker)
{
	uint32_t room = halo_ring_reserve(&worker->tx, worker->tx_pending + HALO_BURST);

	if (room == HALO_RING_BROKEN || room <= worker->tx_pending)
		return false;
	worker->tx_room = room;
	return true;
}

void halo_tx_submit(struct halo_worker *worker)
{
	if (worker->tx_pending == 0)
		return;
	if (unlikely(__atomic_load_n(&worker->slot->life.generation, __ATOMIC_ACQUIRE) != worker->generation)) {
		worker->tx_pending = 0; /* for rings that are no more: the driver has taken all buffers back */
		worker->tx_room = 0;
		return;
	}
	HALO_HOOK("worker.put");
	halo_ring_submit(&worker->tx, worker->tx_pending);
	HALO_HOOK("worker.submitted");
	worker->tx_pending = 0;
	worker->tx_room = 0;
	worker->dirty = true;
}

void halo_ring_doorbell(struct halo_worker *worker)
{
	static const uint64_t one = 1;

	if (!worker->dirty)
		return;
	worker->dirty = false;
	if (!halo_must_ring(&worker->slot->life.driver_sleeping))
		return;
	HALO_HOOK("worker.ringing");
	/* EAGAIN means that the counter is at its limit: then it is readable, which is all that we want. */
	if (write(worker->driver_doorbell_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return;
	halo_count(&worker->slot->worker.doorbells, 1);
}

static inline struct halo_descriptor descriptor_of(const struct halo_packet *packet, uint8_t port, uint8_t action)
{
	return halo_descriptor_make(packet->offset, packet->length, port, action);
}

static void punt(struct halo_worker *worker, const struct halo_packet *packet)
{
	worker->punts[worker->punt_count] = *packet;
	worker->punt_open[worker->punt_count] = true;
	halo_trace_punted(worker, packet, worker->punt_count);
	worker->punt_count++;
	worker->punts_open++;
}

/* Local sums of one burst, written to shared memory once. */
struct tally {
	uint64_t rx_octets;
	uint64_t rx_handed;
	uint64_t tx_frames;
	uint64_t tx_octets;
	uint64_t tx_handed;
	uint64_t consumed;
	uint64_t punted;
	uint64_t delivered;
	/* Frames of one interface mostly come in a row: what they add up to is the difference to where the row started. */
	uint16_t rx_interface;
	uint16_t tx_interface;
	uint64_t rx_frames;
	uint64_t rx_frames_before;
	uint64_t rx_octets_before;
	uint64_t tx_frames_before;
	uint64_t tx_octets_before;
};

/* The row of received frames ends: the next one came in by another interface. */
static void end_rx_row(struct halo_worker *worker, struct tally *tally, uint16_t next)
{
	if (tally->rx_interface < HALO_MAX_INTERFACES && worker->chain.source == HALO_SOURCE_RX) {
		struct halo_interface_counters *count = &worker->slot->interface[tally->rx_interface];

		halo_count(&count->rx_packets, tally->rx_frames - tally->rx_frames_before);
		halo_count(&count->rx_octets, tally->rx_octets - tally->rx_octets_before);
	}
	tally->rx_interface = next;
	tally->rx_frames_before = tally->rx_frames;
	tally->rx_octets_before = tally->rx_octets;
}

static void end_tx_row(struct halo_worker *worker, struct tally *tally, uint16_t next)
{
	if (tally->tx_interface < HALO_MAX_INTERFACES) {
		struct halo_interface_counters *count = &worker->slot->interface[tally->tx_interface];

		halo_count(&count->tx_packets, tally->tx_frames - tally->tx_frames_before);
		halo_count(&count->tx_octets, tally->tx_octets - tally->tx_octets_before);
	}
	tally->tx_interface = next;
	tally->tx_frames_before = tally->tx_frames;
	tally->tx_octets_before = tally->tx_octets;
}

/* Put a frame that goes on, or count it as lost here; its buffer comes back when the life cycle is walked. */
static inline bool put_or_lose(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	bool put = halo_tx_put(worker, descriptor);

	if (unlikely(!put))
		halo_count(&worker->slot->worker.drops[HALO_DROP_tx_ring_full], 1);
	return put;
}

/* A packet that was to go on, and for which there is no room where it should go. */
static void lose(struct halo_worker *worker, const struct halo_packet *packet, enum halo_drop reason)
{
	halo_count(&worker->slot->worker.drops[reason], 1);
	if (unlikely(worker->captures.points))
		halo_capture_dropped(worker, packet, reason);
}

/* Whatever is not transmitted. */
static void finish_other(struct halo_worker *worker, struct halo_packet *packet, struct tally *tally)
{
	switch (packet->verdict) {
	case HALO_VERDICT_PUNT:
		if (likely(halo_share_allows(&worker->share, worker->now_ns, packet->ethertype == ETHERTYPE_ARP))) {
			punt(worker, packet);
			tally->punted++;
			return;
		}
		lose(worker, packet, HALO_DROP_python_busy);
		break;
	case HALO_VERDICT_HAND:
		tally->tx_handed +=
			put_or_lose(worker, descriptor_of(packet, (uint8_t)packet->tx_port, HALO_ACTION_HAND));
		return;
	case HALO_VERDICT_DELIVER:
		if (likely(halo_park_datagram(worker, packet))) {
			tally->delivered++;
			return;
		}
		lose(worker, packet, HALO_DROP_socket_closed);
		break;
	case HALO_VERDICT_CONSUME:
		tally->consumed++;
		break;
	case HALO_VERDICT_RAW:
		if (likely(halo_raw_keep(worker, packet)))
			return;
		lose(worker, packet, HALO_DROP_raw_queue_full);
		break;
	default:
		halo_count(&worker->slot->worker.drops[packet->reason], 1);
		break;
	}
	halo_tx_put(worker, descriptor_of(packet, 0, HALO_ACTION_RELEASE));
}

static inline void finish_one(struct halo_worker *worker, struct halo_packet *packet, struct tally *tally)
{
	if (unlikely(packet->interface != tally->rx_interface))
		end_rx_row(worker, tally, packet->interface);
	tally->rx_frames++;
	tally->rx_octets += packet->length;
	tally->rx_handed += (packet->flags & HALO_DESCRIPTOR_HANDED) != 0;
	if (unlikely(packet->verdict != HALO_VERDICT_TRANSMIT))
		return finish_other(worker, packet, tally);
	if (unlikely(packet->tx_interface != tally->tx_interface))
		end_tx_row(worker, tally, packet->tx_interface);
	if (put_or_lose(worker, descriptor_of(packet, (uint8_t)packet->tx_port, HALO_ACTION_TRANSMIT))) {
		tally->tx_frames++;
		tally->tx_octets += packet->length;
	}
}

/* Write a burst's sums to shared memory. */
static void publish(struct halo_worker *worker, const struct tally *tally)
{
	struct halo_worker_counters *counters = &worker->slot->worker;

	if (likely(worker->chain.source == HALO_SOURCE_RX)) {
		halo_count(&counters->rx_frames, tally->rx_frames);
		halo_count(&counters->rx_octets, tally->rx_octets + worker->trimmed_octets);
		halo_count(&counters->rx_bursts, 1);
	} else {
		halo_count(&counters->held, -tally->rx_frames); /* since they were put in */
	}
	halo_count(&counters->forwarded, worker->forwarded_count);
	halo_count(&counters->tx_frames, tally->tx_frames);
	halo_count(&counters->tx_octets, tally->tx_octets);
	halo_count(&counters->rx_handed, tally->rx_handed);
	halo_count(&counters->tx_handed, tally->tx_handed);
	halo_count(&counters->consumed, tally->consumed);
	halo_count(&counters->punted, tally->punted);
	halo_count(&counters->datagrams_in, tally->delivered);
	halo_count(&counters->held, tally->punted + tally->delivered);
}

void halo_stage_finish(struct halo_worker *worker, uint32_t count)
{
	struct tally tally = {.rx_interface = HALO_NO_INTERFACE, .tx_interface = HALO_NO_INTERFACE};
	uint32_t i;

	if (unlikely(worker->captures.points))
		halo_capture_leaving(worker, count);
	for (i = 0; i < count; i++)
		finish_one(worker, &worker->burst[i], &tally);
	halo_tx_submit(worker);
	end_rx_row(worker, &tally, HALO_NO_INTERFACE);
	end_tx_row(worker, &tally, HALO_NO_INTERFACE);
	publish(worker, &tally);
	halo_trace_conclude(worker);
}

/* ---- what Python does with punts ------------------------------------------------------------------------------ */

static int take_punt(struct halo_worker *worker, uint32_t i)
{
	if (i >= worker->punt_count || !worker->punt_open[i])
		return -EINVAL;
	worker->punt_open[i] = false;
	worker->punts_open--;
	halo_count(&worker->slot->worker.held, UINT64_MAX); /* - 1 */
	return 0;
}

/* By which interface a frame of Python's leaves, its octets say. */
void halo_tx_count_interface(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	const uint8_t *frame = worker->pool + descriptor.offset;
	uint16_t vlan = 0, number;

	if (__atomic_load_n(&worker->slot->life.generation, __ATOMIC_ACQUIRE) != worker->generation)
		return; /* the driver has taken all buffers back, this one too */
	if (descriptor.length < 16 || (uint64_t)descriptor.offset + descriptor.length > worker->geometry.size_octets)
		return;
	if (load16(frame + 12) == ETHERTYPE_VLAN)
		vlan = load16(frame + 14) & 0xfff;
	number = halo_vlan_find(worker, descriptor.port, vlan);
	if (number == HALO_NO_INTERFACE)
		return;
	halo_count(&worker->slot->interface[number].tx_packets, 1);
	halo_count(&worker->slot->interface[number].tx_octets, descriptor.length);
}

void halo_send_past_hooks(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	if (unlikely(worker->captures.points)) /* before it is the driver's */
		halo_capture_sent(worker, descriptor);
	if (!put_or_lose(worker, descriptor))
		return;
	halo_tx_count_interface(worker, descriptor);
	halo_count(&worker->slot->worker.tx_frames, 1);
	halo_count(&worker->slot->worker.tx_octets, descriptor.length);
}

void halo_release(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	descriptor.flags = HALO_ACTION_RELEASE;
	descriptor.port = 0;
	halo_tx_put(worker, descriptor);
}

void halo_send_frame(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	if (likely(worker->chain.count[HALO_STAGE_EGRESS] == 0))
		return halo_send_past_hooks(worker, descriptor);
	if (halo_chain_wait(worker, HALO_STAGE_EGRESS, descriptor)) {
		halo_count(&worker->slot->worker.held, 1);
		return;
	}
	halo_count(&worker->slot->worker.drops[HALO_DROP_inject_full], 1);
	if (unlikely(worker->captures.points))
		halo_capture_lost(worker, descriptor, true, HALO_DROP_inject_full);
	halo_release(worker, descriptor);
}

int halo_worker_finish_punt(struct halo_worker *worker, uint32_t i, int reason)
{
	int error = reason >= HALO_DROP_COUNT ? -EINVAL : take_punt(worker, i);

	if (error)
		return error;
	if (reason >= 0 && unlikely(worker->captures.points))
		halo_capture_dropped(worker, &worker->punts[i], (uint32_t)reason);
	halo_trace_punt_ended(worker, i, reason < 0 ? HALO_VERDICT_CONSUME : HALO_VERDICT_DROP,
			      reason < 0 ? 0 : (uint32_t)reason, HALO_NO_PORT);
	halo_tx_put(worker, descriptor_of(&worker->punts[i], 0, HALO_ACTION_RELEASE));
	HALO_HOOK("worker.punt_released");
	if (reason < 0)
		halo_count(&worker->slot->worker.consumed, 1);
	else
		halo_count(&worker->slot->worker.drops[reason], 1);
	return 0;
}

int halo_worker_transmit_punt(struct halo_worker *worker, uint32_t i, uint32_t offset, uint32_t length, uint32_t port)
{
	struct halo_packet *packet;
	int error = i >= worker->punt_count || length > UINT16_MAX || port >= HALO_MAX_PORTS ? -EINVAL
											     : take_punt(worker, i);

	if (error)
		return error;
	packet = &worker->punts[i];
	packet->offset = offset;
	packet->length = (uint16_t)length;
	halo_trace_punt_ended(worker, i, HALO_VERDICT_TRANSMIT, 0, port);
	halo_send_frame(worker, descriptor_of(packet, (uint8_t)port, HALO_ACTION_TRANSMIT));
	return 0;
}

int halo_worker_hand_punt(struct halo_worker *worker, uint32_t i, uint32_t slot)
{
	int error = slot >= HALO_MAX_SLOTS ? -EINVAL : take_punt(worker, i);

	if (error)
		return error;
	halo_trace_punt_ended(worker, i, HALO_VERDICT_HAND, 0, slot);
	if (put_or_lose(worker, descriptor_of(&worker->punts[i], (uint8_t)slot, HALO_ACTION_HAND)))
		halo_count(&worker->slot->worker.tx_handed, 1);
	return 0;
}

/* A frame of ours that ended before it had a buffer: it counts as made and as dropped. */
void halo_worker_count_drop(struct halo_worker *worker, uint32_t reason)
{
	if (reason >= HALO_DROP_COUNT)
		return;
	halo_count(&worker->slot->worker.originated, 1);
	halo_count(&worker->slot->worker.drops[reason], 1);
}

/* Errors that Python did not send because too many were, as those that it was not even asked for. */
void halo_worker_count_suppressed(struct halo_worker *worker, uint32_t count)
{
	halo_count(&worker->slot->worker.icmp_suppressed, count);
}

bool halo_take_spare(struct halo_worker *worker, struct halo_descriptor *descriptor)
{
	uint32_t ready = worker->enabled ? halo_ring_peek(&worker->spare, 1) : 0;

	if (ready == 0 || ready == HALO_RING_BROKEN)
		return false;
	*descriptor = halo_ring_get(&worker->spare, 0);
	HALO_HOOK("worker.spare_seen");
	halo_ring_release(&worker->spare, 1);
	HALO_HOOK("worker.spare_taken");
	return (uint64_t)descriptor->offset + worker->geometry.data_octets <= worker->geometry.size_octets;
}

int halo_make_frame(struct halo_worker *worker, uint32_t port, const uint8_t *frame, uint32_t length,
		    struct halo_descriptor *descriptor)
{
	if (length > worker->geometry.data_octets) {
		halo_worker_count_drop(worker, HALO_DROP_originate_too_long);
		return -EMSGSIZE;
	}
	if (!halo_take_spare(worker, descriptor)) {
		halo_worker_count_drop(worker, HALO_DROP_no_spare_buffer);
		return -ENOBUFS;
	}
	memcpy(worker->pool + descriptor->offset, frame, length);
	descriptor->length = (uint16_t)length;
	descriptor->port = (uint8_t)port;
	descriptor->flags = HALO_ACTION_TRANSMIT;
	halo_set_port_of(worker, descriptor->offset, (uint8_t)port);
	halo_count(&worker->slot->worker.originated, 1);
	return 0;
}

void halo_hand_over(struct halo_worker *worker, struct halo_descriptor descriptor, uint8_t slot)
{
	descriptor.port = slot;
	descriptor.flags = HALO_ACTION_HAND;
	if (put_or_lose(worker, descriptor))
		halo_count(&worker->slot->worker.tx_handed, 1);
}

int halo_worker_hand_frame(struct halo_worker *worker, uint32_t slot, uint32_t port, const uint8_t *frame,
			   uint32_t length)
{
	struct halo_descriptor descriptor;
	int error;

	if (slot >= HALO_MAX_SLOTS || port >= HALO_MAX_PORTS || length < HALO_MIN_FRAME_OCTETS)
		return -EINVAL;
	error = halo_make_frame(worker, port, frame, length, &descriptor);
	if (!error)
		halo_hand_over(worker, descriptor, (uint8_t)slot);
	return error;
}

int halo_worker_originate(struct halo_worker *worker, uint32_t port, const uint8_t *frame, uint32_t length)
{
	struct halo_descriptor descriptor;
	int error;

	if (port >= HALO_MAX_PORTS || length < HALO_MIN_FRAME_OCTETS)
		return -EINVAL;
	error = halo_make_frame(worker, port, frame, length, &descriptor);
	if (!error)
		halo_send_frame(worker, descriptor);
	return error;
}

/* The frame itself goes its way: what a trace tells of it has not ended. */
static void lose_copy(struct halo_worker *worker, const struct halo_packet *packet, uint16_t port)
{
	halo_count(&worker->slot->worker.drops[HALO_DROP_copy_no_buffer], 1);
	if (unlikely(worker->captures.points))
		halo_capture_lost(worker, descriptor_of(packet, (uint8_t)port, HALO_ACTION_TRANSMIT), true,
				  HALO_DROP_copy_no_buffer);
}

/* Send a frame out of a port in a spare buffer, and leave it as it is. Without a buffer the copy is made and dropped at once. */
void halo_copy(struct halo_worker *worker, const struct halo_packet *packet, uint16_t port)
{
	struct halo_descriptor descriptor;

	halo_count(&worker->slot->worker.copies, 1);
	if (packet->length > worker->geometry.data_octets || !halo_take_spare(worker, &descriptor)) {
		lose_copy(worker, packet, port);
		return;
	}
	memcpy(worker->pool + descriptor.offset, worker->pool + packet->offset, packet->length);
	descriptor.length = packet->length;
	descriptor.port = (uint8_t)port;
	descriptor.flags = HALO_ACTION_TRANSMIT;
	halo_send_frame(worker, descriptor);
}

void halo_worker_flush(struct halo_worker *worker)
{
	halo_tx_submit(worker);
	halo_ring_doorbell(worker);
}
