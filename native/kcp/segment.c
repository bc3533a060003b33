/* SPDX-License-Identifier: Apache-2.0 */
#include "segment.h"

/* Octets of payload, as class_of() has it. */
static const uint32_t capacities[POOL_CLASSES] = {64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536};

struct segment *halo_pool_allocate(uint32_t class)
{
	struct segment *segment = malloc(sizeof(*segment) + capacities[class]);

	if (!segment)
		return NULL;
	segment->class = class;
	segment->capacity = capacities[class];
	segment->octets = segment->payload;
	return segment;
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
