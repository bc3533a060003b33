/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, and the free lists they come from: one pool for a session alone, one for all sessions of a group. */
#ifndef HALO_KCP_SEGMENT_H
#define HALO_KCP_SEGMENT_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum {
	HEADER_ROOM = 32, /* the longest header: 28 octets and a check */
	POOL_CLASSES = 12,
	POOL_MOST_OCTETS = 8 << 20, /* that lie in free lists */
};

/* The header is written in front of the payload, so that a full segment is a datagram where it lies. */
struct segment {
	struct segment *next; /* in its free list */
	uint32_t length;      /* of the payload */
	uint32_t capacity;    /* for payload */
	uint32_t frg;         /* fragments of the message that follow */
	uint32_t class;
	const uint8_t *octets;       /* the payload, or where it lies until the session is settled */
	uint8_t header[HEADER_ROOM]; /* its end */
	uint8_t payload[];
};

struct pool {
	struct segment *spare[POOL_CLASSES];
	uint32_t octets; /* of spare ones */
};

/* When no spare one is there. NULL: no memory. */
struct segment *halo_pool_allocate(uint32_t class);
void halo_pool_clear(struct pool *pool);

/* With all that belongs to it. */
static inline uint32_t segment_octets(const struct segment *segment)
{
	return (uint32_t)sizeof(*segment) + segment->capacity;
}

/* The class of the smallest segment that holds so many octets: powers of two, and 1536, what fits into a datagram on Ethernet. */
static inline uint32_t class_of(uint32_t capacity)
{
	uint32_t bits;

	if (capacity <= 64)
		return 0;
	bits = 32 - (uint32_t)__builtin_clz(capacity - 1);
	if (capacity > 1536)
		return bits - 5;
	return capacity > 1024 ? 5 : bits - 6;
}

/* NULL: no memory. `length` is not set; the payload is its own. */
static inline struct segment *pool_take(struct pool *pool, uint32_t capacity)
{
	uint32_t class = class_of(capacity);
	struct segment *segment;

	if (class >= POOL_CLASSES)
		return NULL;
	segment = pool->spare[class];
	if (!segment)
		return halo_pool_allocate(class);
	segment->octets = segment->payload;
	pool->spare[class] = segment->next;
	/* The next one was given back long ago. */
	__builtin_prefetch(segment->next, 1);
	pool->octets -= segment_octets(segment);
	return segment;
}

static inline void pool_give(struct pool *pool, struct segment *segment)
{
	uint32_t octets = segment_octets(segment);

	if (pool->octets + octets > POOL_MOST_OCTETS) {
		free(segment);
		return;
	}
	segment->next = pool->spare[segment->class];
	pool->spare[segment->class] = segment;
	pool->octets += octets;
}

#endif
