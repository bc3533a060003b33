/* SPDX-License-Identifier: Apache-2.0 */
#include "segment.h"

#include <stdlib.h>

/* Octets of payload. 1536: what fits into a datagram on Ethernet. */
static const uint32_t capacities[POOL_CLASSES] = {64, 128, 256, 512, 1024, 1536, 2048, 4096, 9216, 16384, 65536};

static uint32_t class_of(uint32_t capacity)
{
	uint32_t class = capacity > 1024 ? 5 : 0;

	while (class < POOL_CLASSES && capacities[class] < capacity)
		class ++;
	return class;
}

uint32_t halo_segment_capacity(const struct segment *segment)
{
	return capacities[segment->class];
}

uint32_t halo_segment_octets(const struct segment *segment)
{
	return (uint32_t)sizeof(*segment) + capacities[segment->class];
}

struct segment *halo_pool_take(struct pool *pool, uint32_t capacity)
{
	uint32_t class = class_of(capacity);
	struct segment *segment;

	if (class == POOL_CLASSES)
		return NULL;
	segment = pool->spare[class];
	if (segment) {
		pool->spare[class] = segment->next;
		pool->octets -= halo_segment_octets(segment);
		return segment;
	}
	segment = malloc(sizeof(*segment) + capacities[class]);
	if (segment)
		segment->class = (uint8_t) class;
	return segment;
}

void halo_pool_give(struct pool *pool, struct segment *segment)
{
	uint32_t octets = halo_segment_octets(segment);

	if (pool->octets + octets > POOL_MOST_OCTETS) {
		free(segment);
		return;
	}
	segment->next = pool->spare[segment->class];
	pool->spare[segment->class] = segment;
	pool->octets += octets;
}

void halo_pool_clear(struct pool *pool)
{
	struct segment *segment;
	uint32_t class;

	for (class = 0; class < POOL_CLASSES; class ++) {
		while ((segment = pool->spare[class])) {
			pool->spare[class] = segment->next;
			free(segment);
		}
	}
	pool->octets = 0;
}
