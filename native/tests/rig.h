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
	RIG_MAX_ROUTES = 4096,
};

/* What came back on the tx ring, its octets copied. */
struct returned {
	struct halo_descriptor descriptor;
	uint32_t buffer;
	uint8_t octets[FRAME_ROOM];
};

/* An interface with one address, or none (0). */
struct link {
	uint8_t port;
	uint8_t home_slot;
	uint16_t vlan;
	uint8_t mac[6];
	uint16_t mtu;
	uint32_t flags;
	uint32_t address;
	uint8_t prefix_length;
};

struct rig_route {
	uint32_t prefix;
	uint32_t target;
	uint8_t length;
};

struct rig {
	uint8_t *pool;
	uint64_t pool_octets;
	struct halo_slot *slot;
	struct halo_tables *tables;
	struct halo_fib *fib;
	uint32_t fib_nodes;   /* used */
	uint32_t fib_targets; /* used */
	struct rig_route routes[RIG_MAX_ROUTES];
	uint32_t route_count;
	struct halo_worker_setup setup;
	struct halo_worker *worker;
	struct halo_producer rx;
	struct halo_producer spare;
	struct halo_consumer tx;
	bool worker_owns[RIG_BUFFERS];
	uint32_t next_buffer;
	uint32_t lost;        /* buffers that a row loses on purpose */
	bool exposed;         /* nothing is poisoned */
	uint32_t room_behind; /* octets behind a frame that are not poisoned either */
	struct halo_poll_result result;
	struct returned *returned;
	uint32_t returned_count;
};

extern struct rig rig;
extern const struct link rig_interface;   /* OWN_ADDRESS/24 on port 0, untagged; forwards nothing */
extern bool reason_seen[HALO_DROP_LIMIT]; /* in any row */

/* A worker attached and enabled, with these interfaces. rig_close checks the books. */
void rig_open(const struct link *interfaces, uint32_t count);
void rig_open_idle(const struct link *interfaces, uint32_t count, uint32_t idle_policy);
void rig_close(void);

/* The supervisor's switch of the tables. */
void rig_set_interfaces(const struct link *interfaces, uint32_t count);

/*
 * The FIB, filled by brute force: rig_set_interfaces starts it anew with what follows from the addresses; every change is built
 * at once. Targets are made with rig_target, groups with rig_group, whose buckets are a power of two.
 */
uint32_t rig_target(enum halo_target_kind kind, uint32_t interface, uint32_t address);
uint32_t rig_group(const uint32_t *targets, uint32_t count);
void rig_route(uint32_t prefix, uint8_t length, uint32_t target);
void rig_build_fib(void);

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
/* Deliver one frame, and check that it came back as exactly this one, for that port; or handed to a slot as it came. */
void rig_check_sent(const struct frame *frame, uint8_t port, const struct frame *expected, uint8_t out);
void rig_check_handed(const struct frame *frame, uint8_t port, uint8_t slot);

#endif
