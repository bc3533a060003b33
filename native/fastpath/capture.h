/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker keeps of its captures, and of the packets that it traces. Private, but for the rings. */
#ifndef HALO_CAPTURE_H
#define HALO_CAPTURE_H

#include <stdbool.h>

#include <halo/fastpath.h>

#include "filter_code.h"

struct halo_capture {
	bool used;
	uint32_t points;
	uint64_t ports; /* never 0: all bits for all */
	uint32_t snap_octets;
	uint32_t count; /* of steps */
	struct halo_filter_step *step;
	struct halo_filter_code code; /* of them, where there can be some */
	struct halo_capture_ring *ring;
	uint8_t *records;
	uint64_t size_octets; /* of the records; read once, nobody looks at the ring's own again */
	uint64_t producer;
};

/* A packet whose way is written down. */
struct halo_traced {
	struct halo_capture *capture;     /* NULL: this place is free */
	const struct halo_packet *packet; /* in the burst; NULL: it is with Python, as punt `punt` */
	uint32_t punt;
	struct halo_capture_record record;
	struct halo_trace_event event[HALO_MAX_TRACE_EVENTS];
	uint8_t octets[HALO_TRACE_SNAP_OCTETS]; /* as they came in */
};

struct halo_captures {
	uint32_t points; /* of all captures together: 0 is all that a burst without captures looks at */
	uint32_t traced_count;
	struct halo_capture capture[HALO_MAX_CAPTURES];
	struct halo_traced traced[HALO_MAX_TRACED];
};

struct halo_worker;

/* capture.c */
void halo_capture_received(struct halo_worker *worker, uint32_t count);
void halo_capture_leaving(struct halo_worker *worker, uint32_t count);
/* A packet that none of the stages has dropped, but its end. */
void halo_capture_dropped(struct halo_worker *worker, const struct halo_packet *packet, uint32_t reason);
/* A frame that was in no burst leaves. */
void halo_capture_sent(struct halo_worker *worker, struct halo_descriptor descriptor);
/* A frame that is in no burst any more, or was in none, is dropped; `injected`: it was made here, to leave by its port. */
void halo_capture_lost(struct halo_worker *worker, struct halo_descriptor descriptor, bool injected, uint32_t reason);
void halo_captures_free(struct halo_worker *worker);
/* Write a record: `record` without its size, then its events, then octets. */
void halo_capture_write(struct halo_capture *capture, struct halo_capture_record *record,
			const struct halo_trace_event *events, const uint8_t *octets);
struct halo_capture_record halo_capture_describe(const struct halo_worker *worker, const struct halo_packet *packet);

/* trace.c */
void halo_trace_begin(struct halo_worker *worker, struct halo_capture *capture, const struct halo_packet *packet);
/* A stage is done with the burst: packets that were not decided before it are now what it made of them. */
void halo_trace_stage(struct halo_worker *worker, enum halo_trace_stage stage);
void halo_trace_hook(struct halo_worker *worker, uint32_t number);
void halo_trace_punted(struct halo_worker *worker, const struct halo_packet *packet, uint32_t punt);
void halo_trace_punt_ended(struct halo_worker *worker, uint32_t punt, enum halo_verdict verdict, uint32_t reason,
			   uint32_t port);
void halo_trace_dropped(struct halo_worker *worker, const struct halo_packet *packet, uint32_t reason);
/* The burst is through: what is not with Python is told. */
void halo_trace_conclude(struct halo_worker *worker);
/* The burst will not go on, for that reason: its packets are told of as far as they came. */
void halo_trace_lost(struct halo_worker *worker, uint32_t reason);
/* Of one capture, or of all (NULL): nobody will tell of these. */
void halo_trace_forget(struct halo_worker *worker, const struct halo_capture *capture);

#endif
