/* SPDX-License-Identifier: Apache-2.0 */
/* Filters over a whole burst: see sift.c. */
#ifndef HALO_SIFT_H
#define HALO_SIFT_H

#include <stdbool.h>

#include <halo/fastpath.h>

/*
 * Appends to `found` each packet from `packet` up to `end` that the filter may let through, and returns where that ends. There is at
 * least one packet. `last` is the last octet of the pool at which `least` octets can begin.
 */
typedef const struct halo_packet **(*halo_sift_function)(const struct halo_packet *packet,
							 const struct halo_packet *end, const uint8_t *pool,
							 const struct halo_packet **found, uint32_t last);

struct halo_sift {
	halo_sift_function
		fresh; /* for packets behind parse, nothing touched since; NULL: there is none, or not here */
	halo_sift_function any;
	uint32_t least; /* octets that it looks at, of a frame that has as many */
	void *memory;
	uint64_t octets;
};

/* Of a filter that was checked. */
void halo_sift_translate(const struct halo_filter_step *step, uint32_t count, struct halo_sift *sift);
void halo_sift_discard(struct halo_sift *sift);

#endif
