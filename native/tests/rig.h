/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot in anonymous memory with the fast path as its worker and the test as its driver: it delivers frames, gives spare
 * buffers, collects what comes back, and keeps the owner table. With AddressSanitizer the pool is poisoned but for what the
 * worker owns, so that a read past the end of a frame is an error.
 */
#ifndef HALO_TEST_RIG_H
#define HALO_TEST_RIG_H

#include <stdbool.h>
#include <string.h>

#include <halo/fastpath.h>
#include <halo/ring.h>

#include "check.h"
#include "frames.h"

enum {
	RIG_BUFFERS = 936, /* one chunk */
	RIG_STRIDE = 2240,
	RIG_RING = 512,
	RIG_TX = 1024,
	RIG_SPARE = 64,
	RIG_SLOT_NUMBER = 3,
	RIG_MAX_RETURNED = RIG_TX,
};

/* What came back on the tx ring, its octets copied. */
struct returned {
	struct halo_descriptor descriptor;
	uint32_t buffer;
	uint8_t octets[FRAME_ROOM];
};

struct rig {
	uint8_t *pool;
	uint64_t pool_octets;
	struct halo_slot *slot;
	struct halo_tables *tables;
	struct halo_worker_setup setup;
	struct halo_worker *worker;
	struct halo_producer rx;
	struct halo_producer spare;
	struct halo_consumer tx;
	bool worker_owns[RIG_BUFFERS];
	uint32_t next_buffer;
	uint32_t lost; /* buffers that a row loses on purpose */
	bool exposed;  /* nothing is poisoned */
	struct halo_poll_result result;
	struct returned *returned;
	uint32_t returned_count;
};

extern struct rig rig;
extern const struct halo_interface rig_interface; /* OWN_ADDRESS/24 on port 0, untagged */
extern bool reason_seen[HALO_DROP_LIMIT];         /* in any row */

/* A worker attached and enabled, with these interfaces. rig_close checks the books. */
void rig_open(const struct halo_interface *interfaces, uint32_t count);
void rig_open_idle(const struct halo_interface *interfaces, uint32_t count, uint32_t idle_policy);
void rig_close(void);

/* The supervisor's switch of the tables. */
void rig_set_interfaces(const struct halo_interface *interfaces, uint32_t count);

/* The driver's side. */
void rig_set_state(uint32_t state);
void rig_reset_rings(void);
struct halo_descriptor rig_fill(const struct frame *frame, uint8_t port, uint8_t flags);
uint32_t rig_deliver(const struct frame *frame, uint8_t port, uint8_t flags);
void rig_deliver_raw(struct halo_descriptor descriptor);
void rig_give_spares(uint32_t count);
void rig_collect(void);

uint32_t rig_buffer_offset(uint32_t buffer); /* of the frame */
void rig_expose(uint32_t offset, uint32_t octets);
void rig_expose_all(void);

uint32_t rig_poll(void);
int64_t rig_drops(void);
void rig_check_books(void);

/* Deliver one frame to a port, poll, and check that it ended as that drop, as a punt (which is then ended), as a reply. */
void rig_check_drop(const struct frame *frame, uint8_t port, enum halo_drop reason);
void rig_check_punt(const struct frame *frame, uint8_t port);
void rig_check_reply(const struct frame *frame, uint8_t port);

#endif
