/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "addresses.h"

const struct halo_own_address *halo_own_find(const struct halo_own_addresses *own, uint32_t address)
{
	uint32_t place = halo_own_hash(address) >> (32 - OWN_PLACE_BITS);

	for (; own->place[place].kind; place = (place + 1) % OWN_PLACES)
		if (own->place[place].address == address)
			return &own->place[place];
	return NULL;
}

/* The first one that says what an address is, is right. */
static void add(struct halo_own_addresses *own, uint32_t address, uint16_t interface, uint16_t kind)
{
	uint32_t bit = halo_own_hash(address) >> (32 - OWN_MAP_BITS);
	uint32_t place = halo_own_hash(address) >> (32 - OWN_PLACE_BITS);

	if (address == 0 || halo_own_find(own, address))
		return;
	while (own->place[place].kind)
		place = (place + 1) % OWN_PLACES;
	own->place[place] = (struct halo_own_address){.address = address, .interface = interface, .kind = kind};
	own->map[bit / 64] |= UINT64_C(1) << bit % 64;
}

/*
 * All ones in the host part, and all zeros, the obsolete form (RFC 1122 3.3.6), on links that have a broadcast address (not
 * /31 and /32: RFC 3021).
 */
static void add_broadcasts(struct halo_own_addresses *own, const struct halo_address *address, uint16_t interface)
{
	uint32_t host = address->prefix_length < 32 ? UINT32_MAX >> address->prefix_length : 0;

	if (host <= 1 || address->address == 0)
		return;
	add(own, address->address | host, interface, HALO_TARGET_BROADCAST);
	add(own, address->address & ~host, interface, HALO_TARGET_BROADCAST);
}

static void add_interface(struct halo_own_addresses *own, const struct halo_interface_block *block, uint16_t number,
			  enum halo_target_kind kind)
{
	const struct halo_interface *interface = &block->entry[number];
	uint32_t i;

	if (!(interface->flags & HALO_INTERFACE_UP))
		return;
	for (i = interface->first_address; i < (uint32_t)interface->first_address + interface->address_count; i++) {
		if (kind == HALO_TARGET_LOCAL)
			add(own, block->address[i].address, number, HALO_TARGET_LOCAL);
		else
			add_broadcasts(own, &block->address[i], number);
	}
}

void halo_own_compile(struct halo_own_addresses *own, const struct halo_interface_block *block)
{
	uint16_t i;

	memset(own, 0, sizeof(*own));
	for (i = 0; i < block->count; i++)
		add_interface(own, block, i, HALO_TARGET_LOCAL);
	for (i = 0; i < block->count; i++)
		add_interface(own, block, i, HALO_TARGET_BROADCAST);
}
