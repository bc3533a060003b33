/* SPDX-License-Identifier: Apache-2.0 */
/* Filters as machine code: see filter_code.c. */
#ifndef HALO_FILTER_CODE_H
#define HALO_FILTER_CODE_H

#include <halo/fastpath.h>

struct halo_filter_code {
	uint32_t (*run)(const uint8_t *frame, uint32_t length); /* NULL: there is none, or not here */
	uint32_t least; /* octets that a frame must have: shorter ones are the interpreter's */
	void *memory;
	uint64_t octets;
};

/* Of a filter that was checked. */
void halo_filter_translate(const struct halo_filter_step *step, uint32_t count, struct halo_filter_code *code);
void halo_filter_discard(struct halo_filter_code *code);

#endif
