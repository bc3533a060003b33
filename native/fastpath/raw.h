/* SPDX-License-Identifier: Apache-2.0 */
/* Raw frames: a queue for each port that the application has claimed. */
#ifndef HALO_RAW_H
#define HALO_RAW_H

#include <stdbool.h>

#include <halo/fastpath.h>

/*
 * A ring: packets from `head - waiting` to `head` wait, and the `taken` ones before them are the application's. What it does to
 * a record is its own affair: `kept` says which buffer there is to be given back.
 */
struct halo_raw_port {
	struct halo_packet *packet; /* the caller's */
	struct halo_descriptor *kept;
	uint32_t size; /* a power of two */
	uint32_t head;
	uint32_t waiting;
	uint32_t taken;
	uint32_t wanted; /* the poll is to come back when so many wait, or when there are no more; 0: not at all */
};

struct halo_raw {
	struct halo_raw_port *port[HALO_MAX_PORTS];
	uint32_t claims; /* ports that are claimed */
	uint32_t ready;  /* ports where frames wait that are wanted */
	bool full;       /* of one of them as many as are wanted */
	uint64_t ready_since_ns;
};

struct halo_worker;

/* Claimed ports: what is not decided is for the application. */
void halo_stage_raw(struct halo_worker *worker, uint32_t count);
/* Queue a packet with verdict raw. False: there is no room. */
bool halo_raw_keep(struct halo_worker *worker, const struct halo_packet *packet);
/* Whether the poll is to go back to Python for them, now that its turn had `burst` frames. */
bool halo_raw_is_due(const struct halo_worker *worker, uint32_t burst);
/* Python has been told of what is ready. */
void halo_raw_told(struct halo_worker *worker);
/* All of them are gone: the rings were made anew. */
void halo_raw_forget(struct halo_worker *worker);
/* Give every frame back, and the memory. */
void halo_raw_close(struct halo_worker *worker);

#endif
