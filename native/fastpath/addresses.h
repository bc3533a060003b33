/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Own addresses, and the broadcast addresses of own subnets, compiled from the interface table. Nearly every packet has a
 * source that is none of them: a bitmap says so with one load. What it can not rule out is looked up.
 */
#ifndef HALO_ADDRESSES_H
#define HALO_ADDRESSES_H

#include <stdbool.h>

#include <halo/fastpath.h>

enum {
	OWN_PLACE_BITS = 13, /* three for each of HALO_MAX_ADDRESSES fill less than half */
	OWN_PLACES = 1 << OWN_PLACE_BITS,
	OWN_MAP_BITS = 15,
};

struct halo_own_address {
	uint32_t address; /* host order */
	uint16_t interface;
	uint16_t kind; /* HALO_TARGET_LOCAL or HALO_TARGET_BROADCAST; 0: the place is empty */
};

struct halo_own_addresses {
	uint64_t map[(1 << OWN_MAP_BITS) / 64];
	struct halo_own_address place[OWN_PLACES];
};

static inline uint32_t halo_own_hash(uint32_t address)
{
	return address * UINT32_C(0x9e3779b1);
}

/* False: it is none of them. */
static inline bool halo_own_suspected(const struct halo_own_addresses *own, uint32_t address)
{
	uint32_t bit = halo_own_hash(address) >> (32 - OWN_MAP_BITS);

	return own->map[bit / 64] >> bit % 64 & 1;
}

/* Return what it is, or NULL. */
const struct halo_own_address *halo_own_find(const struct halo_own_addresses *own, uint32_t address);

/* Compile from the interfaces that are up. */
void halo_own_compile(struct halo_own_addresses *own, const struct halo_interface_block *block);

#endif
