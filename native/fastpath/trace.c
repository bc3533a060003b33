/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: for each packet that a filter chose when it came in, what it was behind each stage. While there is a trace, bursts go by way
 * of chain.c, which asks here behind each stage; no stage knows of it. A packet's record is written when its way has ended, which
 * for a punt is when Python has decided.
 */
#include "worker.h"

enum { WITH_NOBODY = UINT32_MAX };

static struct halo_traced *find(struct halo_worker *worker, const struct halo_packet *packet, uint32_t punt)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i;

	for (i = 0; i < HALO_MAX_TRACED; i++)
		if (traced[i].capture && traced[i].packet == packet && traced[i].punt == punt)
			return &traced[i];
	return NULL;
}

static struct halo_trace_event *add_event(struct halo_traced *traced, enum halo_trace_stage stage)
{
	struct halo_capture_record *record = &traced->record;
	/* The last one is kept for the end. */
	uint32_t place = record->events < HALO_MAX_TRACE_EVENTS ? record->events++ : HALO_MAX_TRACE_EVENTS - 1u;
	struct halo_trace_event *event = &traced->event[place];

	memset(event, 0, sizeof(*event));
	event->stage = (uint8_t)stage;
	return event;
}

/* The way to the next hop, once a route was found. */
static void note_hop(const struct halo_worker *worker, const struct halo_packet *packet, struct halo_trace_event *event)
{
	uint32_t i;

	for (i = 0; i < worker->hop_count; i++) {
		const struct halo_hop *hop = &worker->hop[i];
		const struct halo_neighbor *neighbor;

		if (hop->packet != packet)
			continue;
		neighbor = halo_neighbor_find(&worker->neighbors, hop->key);
		event->tx_interface = halo_neighbor_interface(hop->key);
		event->next_hop = (uint32_t)hop->key;
		event->detail = neighbor ? neighbor->state : 0;
		return;
	}
}

static struct halo_trace_event *note(const struct halo_worker *worker, struct halo_traced *traced,
				     enum halo_trace_stage stage)
{
	const struct halo_packet *packet = traced->packet;
	struct halo_trace_event *event = add_event(traced, stage);

	event->verdict = packet->verdict;
	event->reason = packet->reason;
	event->interface = packet->interface;
	event->tx_interface = packet->tx_interface;
	event->tx_port = packet->tx_port;
	event->length = packet->length;
	event->src = packet->src[0];
	event->dst = packet->dst[0];
	event->socket = packet->socket;
	event->ttl = packet->ttl;
	event->rewritten = packet->rewritten;
	if (stage == HALO_TRACE_ROUTE)
		note_hop(worker, packet, event);
	return event;
}

void halo_trace_begin(struct halo_worker *worker, struct halo_capture *capture, const struct halo_packet *packet)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i = 0;

	while (i < HALO_MAX_TRACED && traced[i].capture)
		i++;
	if (i == HALO_MAX_TRACED) {
		halo_count(&capture->ring->lost, 1);
		return;
	}
	traced += i;
	traced->capture = capture;
	traced->packet = packet;
	traced->punt = WITH_NOBODY;
	traced->record = halo_capture_describe(worker, packet);
	traced->record.point = HALO_POINT_TRACE;
	traced->record.captured = packet->length < HALO_TRACE_SNAP_OCTETS ? packet->length : HALO_TRACE_SNAP_OCTETS;
	if (packet->reason == HALO_DROP_bad_descriptor && packet->verdict == HALO_VERDICT_DROP)
		traced->record.captured = 0;
	memcpy(traced->octets, worker->pool + packet->offset, traced->record.captured);
	worker->captures.traced_count++;
	note(worker, traced, HALO_TRACE_PARSE);
}

void halo_trace_stage(struct halo_worker *worker, enum halo_trace_stage stage)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i;

	for (i = 0; worker->captures.traced_count && i < HALO_MAX_TRACED; i++)
		if (traced[i].capture && traced[i].packet &&
		    traced[i].event[traced[i].record.events - 1].verdict == HALO_VERDICT_NONE)
			note(worker, &traced[i], stage);
}

void halo_trace_hook(struct halo_worker *worker, uint32_t number)
{
	const struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; worker->captures.traced_count && i < chain->selected; i++) {
		struct halo_traced *traced = find(worker, chain->selection[i], WITH_NOBODY);

		if (traced)
			note(worker, traced, HALO_TRACE_HOOK)->detail = (uint8_t)number;
	}
}

static void tell(struct halo_worker *worker, struct halo_traced *traced)
{
	const struct halo_trace_event *last = &traced->event[traced->record.events - 1];

	traced->record.verdict = last->verdict;
	traced->record.reason = last->reason;
	traced->record.interface = last->interface;
	traced->record.tx_interface = last->tx_interface;
	traced->record.tx_port = last->verdict == HALO_VERDICT_TRANSMIT ? last->tx_port : HALO_NO_PORT;
	halo_capture_write(traced->capture, &traced->record, traced->event, traced->octets);
	traced->capture = NULL;
	worker->captures.traced_count--;
}

static void end(struct halo_worker *worker, struct halo_traced *traced, uint32_t reason)
{
	struct halo_trace_event *event = note(worker, traced, HALO_TRACE_FINISH);

	event->verdict = HALO_VERDICT_DROP;
	event->reason = (uint8_t)reason;
	tell(worker, traced);
}

void halo_trace_dropped(struct halo_worker *worker, const struct halo_packet *packet, uint32_t reason)
{
	struct halo_traced *traced = worker->captures.traced_count ? find(worker, packet, WITH_NOBODY) : NULL;

	if (traced)
		end(worker, traced, reason);
}

void halo_trace_lost(struct halo_worker *worker, uint32_t reason)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i;

	for (i = 0; worker->captures.traced_count && i < HALO_MAX_TRACED; i++)
		if (traced[i].capture && traced[i].packet)
			end(worker, &traced[i], reason);
}

void halo_trace_punted(struct halo_worker *worker, const struct halo_packet *packet, uint32_t punt)
{
	struct halo_traced *traced = worker->captures.traced_count ? find(worker, packet, WITH_NOBODY) : NULL;

	if (!traced)
		return;
	note(worker, traced, HALO_TRACE_FINISH);
	traced->packet = NULL;
	traced->punt = punt;
}

void halo_trace_conclude(struct halo_worker *worker)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i;

	for (i = 0; worker->captures.traced_count && i < HALO_MAX_TRACED; i++) {
		if (!traced[i].capture || !traced[i].packet)
			continue;
		note(worker, &traced[i], HALO_TRACE_FINISH);
		tell(worker, &traced[i]);
	}
}

void halo_trace_punt_ended(struct halo_worker *worker, uint32_t punt, enum halo_verdict verdict, uint32_t reason,
			   uint32_t port)
{
	struct halo_traced *traced = worker->captures.traced_count ? find(worker, NULL, punt) : NULL;
	struct halo_trace_event *event;

	if (!traced)
		return;
	event = add_event(traced, HALO_TRACE_PYTHON);
	event->verdict = (uint8_t)verdict;
	event->reason = (uint8_t)reason;
	event->interface = traced->record.interface;
	event->tx_interface = HALO_NO_INTERFACE;
	event->tx_port = (uint16_t)port;
	tell(worker, traced);
}

int halo_worker_trace_note(struct halo_worker *worker, uint32_t punt, const char *text)
{
	struct halo_traced *traced = worker->captures.traced_count ? find(worker, NULL, punt) : NULL;
	struct halo_trace_event *event;

	if (!traced)
		return 0;
	event = add_event(traced, HALO_TRACE_PYTHON);
	event->verdict = HALO_VERDICT_PUNT;
	event->interface = event->tx_interface = HALO_NO_INTERFACE;
	event->tx_port = HALO_NO_PORT;
	strncpy(event->note, text, sizeof(event->note) - 1);
	return 1;
}

void halo_trace_forget(struct halo_worker *worker, const struct halo_capture *capture)
{
	struct halo_traced *traced = worker->captures.traced;
	uint32_t i;

	for (i = 0; i < HALO_MAX_TRACED; i++) {
		if (!traced[i].capture || (capture && traced[i].capture != capture))
			continue;
		traced[i].capture = NULL;
		worker->captures.traced_count--;
	}
}
