/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures: frames at rx, at tx and at their drop, copied into rings that somebody else reads. Rules: a worker without captures pays
 * one branch for a burst; nobody waits for a reader; of a ring only the reader's position is read, and only as a number.
 */
#include <errno.h>
#include <stdlib.h>

#include "worker.h"

enum { RECORD_ALIGNMENT = 16 };

static_assert(sizeof(struct halo_capture_ring) == 192, "each writer has its own line");
static_assert(sizeof(struct halo_capture_record) == 32, "records are aligned");
static_assert(sizeof(struct halo_trace_event) == 80, "events are aligned");

/* ---- the ring ------------------------------------------------------------------------------------------------- */

/* Room for a record in one piece, or NULL. What is left behind it at the end of the ring becomes a record of nothing. */
static uint8_t *reserve(struct halo_capture *capture, uint64_t octets)
{
	/* Pairs with the reader's release: it has read what lies before. */
	uint64_t used = capture->producer - __atomic_load_n(&capture->ring->consumer, __ATOMIC_ACQUIRE);
	uint64_t at = capture->producer & (capture->size_octets - 1);
	uint64_t left = capture->size_octets - at;
	uint64_t skipped = octets > left ? left : 0;
	struct halo_capture_record nothing = {.size = (uint32_t)left};

	if (used > capture->size_octets || capture->size_octets - used < octets + skipped)
		return NULL;
	if (skipped) {
		memcpy(capture->records + at, &nothing, 8); /* 16 octets are there at least */
		capture->producer += skipped;
		at = 0;
	}
	return capture->records + at;
}

void halo_capture_write(struct halo_capture *capture, struct halo_capture_record *record,
			const struct halo_trace_event *events, const uint8_t *octets)
{
	uint64_t events_octets = record->events * sizeof(*events);
	uint64_t size = sizeof(*record) + events_octets + record->captured;
	uint8_t *place;

	record->size = (uint32_t)((size + RECORD_ALIGNMENT - 1) & ~(uint64_t)(RECORD_ALIGNMENT - 1));
	place = reserve(capture, record->size);
	if (!place) {
		halo_count(&capture->ring->lost, 1);
		return;
	}
	memcpy(place, record, sizeof(*record));
	if (events_octets)
		memcpy(place + sizeof(*record), events, events_octets);
	memcpy(place + sizeof(*record) + events_octets, octets, record->captured);
	capture->producer += record->size;
	halo_count(&capture->ring->records, 1);
	__atomic_store_n(&capture->ring->producer, capture->producer, __ATOMIC_RELEASE); /* pairs with the reader's */
}

uint64_t halo_capture_produced(const struct halo_capture_ring *ring)
{
	return __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE); /* pairs with the worker's release */
}

void halo_capture_consume(struct halo_capture_ring *ring, uint64_t position)
{
	__atomic_store_n(&ring->consumer, position, __ATOMIC_RELEASE); /* pairs with the worker's acquire */
}

/* ---- packets -------------------------------------------------------------------------------------------------- */

/* Whether the frame lies in the pool: what a descriptor says of one that was dropped for that may be anything. */
static bool is_readable(const struct halo_worker *worker, const struct halo_packet *packet)
{
	return (uint64_t)packet->offset + packet->length <= worker->geometry.size_octets;
}

static inline bool matches(const struct halo_worker *worker, const struct halo_capture *capture,
			   const struct halo_packet *packet)
{
	const uint8_t *frame = worker->pool + packet->offset;

	if (unlikely(!is_readable(worker, packet)))
		return capture->count == 0;
	if (likely(packet->length >= capture->code.least && capture->code.run))
		return capture->code.run(frame, packet->length) != 0;
	return halo_filter_run(capture->step, capture->count, frame, packet->length) != 0;
}

struct halo_capture_record halo_capture_describe(const struct halo_worker *worker, const struct halo_packet *packet)
{
	return (struct halo_capture_record){
		.verdict = packet->verdict,
		.reason = packet->reason,
		.time_ns = worker->now_ns,
		.length = packet->length,
		.port = packet->injected ? HALO_NO_PORT : packet->port,
		.tx_port = packet->verdict == HALO_VERDICT_TRANSMIT ? packet->tx_port : HALO_NO_PORT,
		.interface = packet->interface,
		.tx_interface = packet->tx_interface,
	};
}

static inline bool is_for(const struct halo_capture *capture, uint32_t points, uint32_t port)
{
	return (capture->points & points) && (port >= HALO_MAX_PORTS || (capture->ports >> port & 1));
}

static void keep(struct halo_worker *worker, struct halo_capture *capture, uint32_t point,
		 const struct halo_packet *packet, const struct halo_capture_record *described)
{
	struct halo_capture_record record = described ? *described : halo_capture_describe(worker, packet);

	record.point = (uint8_t)point;
	if (point ==
	    HALO_POINT_RX) { /* what parse thinks of it may not be the end: the kernel or a raw port gets it as it is */
		record.verdict = HALO_VERDICT_NONE;
		record.reason = 0;
	}
	record.captured = packet->length < capture->snap_octets ? packet->length : capture->snap_octets;
	if (!is_readable(worker, packet))
		record.captured = 0;
	halo_capture_write(capture, &record, NULL, worker->pool + packet->offset);
}

/* Nearly all packets are none that is looked for, so the filter is asked first. */
void halo_capture_received(struct halo_worker *worker, uint32_t count)
{
	struct halo_capture *capture;
	uint32_t i;

	for (capture = worker->captures.capture; capture < worker->captures.capture + HALO_MAX_CAPTURES; capture++) {
		uint32_t wanted = capture->points & (HALO_POINT_RX | HALO_POINT_TRACE);

		for (i = 0; wanted && i < count; i++) {
			const struct halo_packet *packet = &worker->burst[i];

			if (likely(!matches(worker, capture, packet)))
				continue;
			/* What another worker has handed over was received there. */
			if ((packet->flags & HALO_DESCRIPTOR_HANDED) || !is_for(capture, wanted, packet->port))
				continue;
			if (wanted & HALO_POINT_RX)
				keep(worker, capture, HALO_POINT_RX, packet, NULL);
			else
				halo_trace_begin(worker, capture, packet);
		}
	}
}

static void leave(struct halo_worker *worker, struct halo_capture *capture, const struct halo_packet *packet)
{
	if (packet->verdict == HALO_VERDICT_TRANSMIT && is_for(capture, HALO_POINT_TX, packet->tx_port))
		keep(worker, capture, HALO_POINT_TX, packet, NULL);
	if (packet->verdict == HALO_VERDICT_DROP && is_for(capture, HALO_POINT_DROP, packet->port))
		keep(worker, capture, HALO_POINT_DROP, packet, NULL);
}

void halo_capture_leaving(struct halo_worker *worker, uint32_t count)
{
	struct halo_capture *capture;
	uint32_t i;

	for (capture = worker->captures.capture; capture < worker->captures.capture + HALO_MAX_CAPTURES; capture++) {
		bool tx = capture->points & HALO_POINT_TX, drop = capture->points & HALO_POINT_DROP;

		for (i = 0; (tx | drop) && i < count; i++) {
			const struct halo_packet *packet = &worker->burst[i];

			if ((tx || packet->verdict == HALO_VERDICT_DROP) && unlikely(matches(worker, capture, packet)))
				leave(worker, capture, packet);
		}
	}
}

static void keep_one(struct halo_worker *worker, uint32_t point, uint32_t port, const struct halo_packet *packet,
		     const struct halo_capture_record *record)
{
	struct halo_capture *capture;

	for (capture = worker->captures.capture; capture < worker->captures.capture + HALO_MAX_CAPTURES; capture++)
		if (is_for(capture, point, port) && matches(worker, capture, packet))
			keep(worker, capture, point, packet, record);
}

void halo_capture_dropped(struct halo_worker *worker, const struct halo_packet *packet, uint32_t reason)
{
	struct halo_capture_record record = halo_capture_describe(worker, packet);

	record.verdict = HALO_VERDICT_DROP;
	record.reason = (uint8_t)reason;
	record.tx_port = HALO_NO_PORT;
	keep_one(worker, HALO_POINT_DROP, packet->port, packet, &record);
	halo_trace_dropped(worker, packet, reason);
}

void halo_capture_sent(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	const struct halo_packet packet = {
		.offset = descriptor.offset,
		.length = descriptor.length,
		.verdict = HALO_VERDICT_TRANSMIT,
		.injected = 1,
		.tx_port = descriptor.port,
		.interface = HALO_NO_INTERFACE,
		.tx_interface = HALO_NO_INTERFACE,
	};

	keep_one(worker, HALO_POINT_TX, descriptor.port, &packet, NULL);
}

void halo_capture_lost(struct halo_worker *worker, struct halo_descriptor descriptor, bool injected, uint32_t reason)
{
	const struct halo_packet packet = {
		.offset = descriptor.offset,
		.length = descriptor.length,
		.port = descriptor.port,
		.injected = injected,
		.interface = HALO_NO_INTERFACE,
		.tx_interface = HALO_NO_INTERFACE,
	};

	halo_capture_dropped(worker, &packet, reason);
}

/* ---- which captures there are --------------------------------------------------------------------------------- */

static void review(struct halo_worker *worker)
{
	struct halo_captures *captures = &worker->captures;
	uint32_t i;

	captures->points = 0;
	for (i = 0; i < HALO_MAX_CAPTURES; i++)
		captures->points |= captures->capture[i].points;
	worker->chain.traced = captures->points & HALO_POINT_TRACE;
	halo_chain_note(&worker->chain);
}

static bool is_sound(const struct halo_capture_ring *ring, uint64_t size_octets)
{
	uint64_t records = size_octets - HALO_CAPTURE_HEADER_OCTETS;

	return size_octets > HALO_CAPTURE_HEADER_OCTETS && ring->magic == HALO_CAPTURE_MAGIC &&
	       ring->version == HALO_CAPTURE_VERSION && ring->size_octets == records && !(records & (records - 1)) &&
	       records >= HALO_CAPTURE_MIN_OCTETS && records <= HALO_CAPTURE_MAX_OCTETS;
}

int halo_worker_add_capture(struct halo_worker *worker, struct halo_capture_ring *ring, uint64_t size_octets,
			    const struct halo_filter_step *step, uint32_t count, uint32_t points, uint64_t ports,
			    uint32_t snap_octets)
{
	uint32_t all = HALO_POINT_RX | HALO_POINT_TX | HALO_POINT_DROP;
	struct halo_capture *capture;
	uint32_t place = 0;

	if (!is_sound(ring, size_octets) || (count && halo_filter_check(step, count)) ||
	    (points != HALO_POINT_TRACE && (points == 0 || points & ~all)) || snap_octets > HALO_MAX_SNAP_OCTETS)
		return -EINVAL;
	while (place < HALO_MAX_CAPTURES && worker->captures.capture[place].used)
		place++;
	if (place == HALO_MAX_CAPTURES)
		return -ENOSPC;
	capture = &worker->captures.capture[place];
	capture->step = malloc((count ? count : 1) * sizeof(*step));
	if (!capture->step)
		return -ENOMEM;
	if (count)
		memcpy(capture->step, step, count * sizeof(*step));
	capture->count = count;
	if (count)
		halo_filter_translate(step, count, &capture->code);
	capture->ports = ports ? ports : UINT64_MAX;
	capture->snap_octets = snap_octets;
	capture->ring = ring;
	capture->records = (uint8_t *)ring + HALO_CAPTURE_HEADER_OCTETS;
	capture->size_octets = size_octets - HALO_CAPTURE_HEADER_OCTETS;
	/* A predecessor of ours may have written here; what nobody could have written has no room for anything. */
	capture->producer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE) & ~(uint64_t)(RECORD_ALIGNMENT - 1);
	capture->used = true;
	capture->points = points;
	review(worker);
	return (int)place;
}

static void remove_capture(struct halo_worker *worker, struct halo_capture *capture)
{
	halo_trace_forget(worker, capture);
	free(capture->step);
	halo_filter_discard(&capture->code);
	memset(capture, 0, sizeof(*capture));
}

int halo_worker_remove_capture(struct halo_worker *worker, uint32_t place)
{
	if (place >= HALO_MAX_CAPTURES || !worker->captures.capture[place].used)
		return -ENOENT;
	remove_capture(worker, &worker->captures.capture[place]);
	review(worker);
	return 0;
}

void halo_captures_free(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_CAPTURES; i++)
		remove_capture(worker, &worker->captures.capture[i]);
	worker->captures.points = 0;
}
