/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain of hooks, private to a worker. A burst that meets one of Python's is parked: everything that is needed to go on
 * with it is in here and in the worker's burst, and stays there until the next poll.
 */
#ifndef HALO_CHAIN_H
#define HALO_CHAIN_H

#include <stdbool.h>

#include <halo/fastpath.h>

/* Bits of a packet's `hooked`. */
enum {
	HALO_HOOKED_DECIDED = 1,   /* by a hook */
	HALO_HOOKED_CHANGED = 2,   /* in a way that may matter to its route */
	HALO_HOOKED_FORWARDED = 4, /* counted as sent on */
};

/* Where a burst is from: the rx ring, or frames that were put in at a stage. */
enum halo_source {
	HALO_SOURCE_RX = 0,
	HALO_SOURCE_INGRESS = 1 + HALO_STAGE_INGRESS,
	HALO_SOURCE_FORWARD = 1 + HALO_STAGE_FORWARD,
	HALO_SOURCE_EGRESS = 1 + HALO_STAGE_EGRESS,
	HALO_SOURCE_COUNT,
};

struct halo_hook {
	uint32_t state; /* enum halo_hook_state */
	uint32_t stage;
	int32_t priority;
	uint32_t age; /* number of the addition */
	uint64_t ports;
	uint32_t interface;
	uint32_t on_error;
	uint32_t policy; /* in quarantine */
	halo_hook_function function;
};

/* Frames that wait for a stage, a ring. */
struct halo_waiting {
	uint32_t first;
	uint32_t count;
	uint32_t size; /* a power of two */
	struct halo_descriptor *entry;
};

struct halo_chain {
	bool busy; /* there are hooks, waiting frames, or a parked burst: bursts take the long way */
	bool parked;
	bool stale; /* hooks have changed since they were arranged */
	uint32_t ages;
	struct halo_hook hook[HALO_MAX_HOOKS];
	uint8_t order[HALO_STAGE_COUNT][HALO_MAX_HOOKS];
	uint32_t count[HALO_STAGE_COUNT];

	struct halo_waiting waiting[HALO_STAGE_COUNT];
	struct halo_descriptor at_ingress[HALO_WIDE_BURST];
	struct halo_descriptor at_forward[HALO_WIDE_BURST];
	struct halo_descriptor at_egress[HALO_EGRESS_WAITING];

	/* the burst under way */
	uint32_t source;      /* enum halo_source */
	uint32_t next_source; /* of the next burst: each has its turn */
	uint32_t frames;
	uint32_t stage;
	uint32_t position; /* of the hook in order[stage] */
	uint64_t called_ns;
	uint32_t members; /* packets that are at the stage */
	uint32_t late;    /* of them, the last ones: Python will send them on */
	bool whole;       /* the members lie in a row, and none has been decided */
	bool changed;     /* by a hook at this stage: some packet, or what becomes of it */
	uint32_t selected;
	bool gathered; /* the selection is in scratch */
	struct halo_packet *member[HALO_WIDE_BURST];
	struct halo_packet **selection; /* the members, or `some` */
	struct halo_packet *some[HALO_WIDE_BURST];
	struct halo_packet scratch[HALO_WIDE_BURST];
	struct halo_shadow shadow[HALO_WIDE_BURST];
};

struct halo_worker;

/* inject.c, for the chain */
void halo_chain_note(struct halo_chain *chain); /* whether there is anything for us to do */
uint32_t halo_chain_receive(struct halo_worker *worker, uint32_t source);
void halo_chain_admit(struct halo_worker *worker);
void halo_chain_forget(struct halo_chain *chain);
void halo_chain_release(struct halo_worker *worker);

/* settle.c, for the chain: packets of a burst that begins at `first`, and so do their shadows */
void halo_remember_all(const uint8_t *pool, struct halo_packet *const *packets, uint32_t count,
		       const struct halo_packet *first, struct halo_shadow *shadows);
void halo_settle_all(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *const *packets,
		     uint32_t count, const struct halo_packet *first, struct halo_shadow *shadows, uint32_t on_error,
		     struct halo_settled *settled);

#endif
