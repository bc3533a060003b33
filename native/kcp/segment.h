/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, and the free lists they come from: one pool for a session alone, one for all sessions of a group. */
#ifndef HALO_KCP_SEGMENT_H
#define HALO_KCP_SEGMENT_H

#include <stdint.h>

enum {
	HEADER_ROOM = 32, /* the longest header: 28 octets and a check */
	POOL_CLASSES = 11,
	POOL_MOST_OCTETS = 8 << 20, /* that lie in free lists */
};

/* The header is written in front of the payload, so that a full segment is a datagram where it lies. */
struct segment {
	struct segment *next; /* in its free list */
	uint32_t length;      /* of the payload */
	uint8_t frg;          /* fragments of the message that follow */
	uint8_t class;
	uint16_t reserved;
	uint8_t header[HEADER_ROOM]; /* its end */
	uint8_t payload[];
};

struct pool {
	struct segment *spare[POOL_CLASSES];
	uint32_t octets; /* of spare ones */
};

/* NULL: no memory. `length` is not set. */
struct segment *halo_pool_take(struct pool *pool, uint32_t capacity);
void halo_pool_give(struct pool *pool, struct segment *segment);
void halo_pool_clear(struct pool *pool);
uint32_t halo_segment_capacity(const struct segment *segment);
/* With all that belongs to it. */
uint32_t halo_segment_octets(const struct segment *segment);

#endif
