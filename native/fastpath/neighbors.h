/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fast path knows of neighbors: an open-addressed hash from (interface, address) to a line with the Ethernet header
 * that their frames get. It is this worker's alone. Python sets and removes entries between polls, and then the hash grows; a
 * burst changes nothing but marks in an entry.
 */
#ifndef HALO_NEIGHBORS_H
#define HALO_NEIGHBORS_H

#include <stdbool.h>

#include <halo/fastpath.h>

enum {
	ETHERNET_OCTETS = 14,
	TAGGED_OCTETS = 18,
};

struct halo_neighbor {
	uint64_t quiet_until_ns; /* up to then its frames just go; 0: each wants a closer look */
	uint32_t address;        /* host order */
	uint16_t interface;
	uint16_t redirect; /* the interface again if that one sends redirects, else HALO_NO_INTERFACE */
	uint16_t mtu;
	uint8_t port;
	uint8_t header_octets; /* ETHERNET_OCTETS or TAGGED_OCTETS */
	uint8_t header[20];
	uint8_t state; /* enum halo_neighbor_state; 0: the place is empty */
	uint8_t up;    /* its interface is */
	uint8_t touched;
	uint8_t held; /* packets punted since it is looked for */
	uint16_t vlan;
	uint8_t mac[6];
	uint64_t reported_ns; /* when its use was last told of */
};

struct halo_neighbors {
	struct halo_neighbor *place;
	uint64_t multiplier; /* random: nobody on a link can choose addresses that meet in one place */
	uint32_t places;     /* a power of two, more than twice `count` */
	uint32_t shift;
	uint32_t count;
};

static_assert(sizeof(struct halo_neighbor) == HALO_LINE, "a neighbor is one line");

static inline struct halo_neighbor *halo_neighbor_place(const struct halo_neighbors *neighbors, uint16_t interface,
							uint32_t address)
{
	uint64_t key = (uint64_t)interface << 32 | address;

	return &neighbors->place[key * neighbors->multiplier >> neighbors->shift];
}

static inline bool halo_neighbor_is(const struct halo_neighbor *neighbor, uint16_t interface, uint32_t address)
{
	return neighbor->address == address && neighbor->interface == interface && neighbor->state;
}

struct halo_neighbor *halo_neighbor_search(const struct halo_neighbors *neighbors, uint16_t interface,
					   uint32_t address);

/* Return the entry, or NULL. */
static inline struct halo_neighbor *halo_neighbor_find(const struct halo_neighbors *neighbors, uint16_t interface,
						       uint32_t address)
{
	struct halo_neighbor *first = halo_neighbor_place(neighbors, interface, address);

	if (__builtin_expect(halo_neighbor_is(first, interface, address), 1))
		return first;
	return halo_neighbor_search(neighbors, interface, address);
}

int halo_neighbors_create(struct halo_neighbors *neighbors);
void halo_neighbors_free(struct halo_neighbors *neighbors);
/* After a change of interfaces: headers are made anew, and what belonged to an interface that is gone goes too. */
void halo_neighbors_follow(struct halo_neighbors *neighbors, const struct halo_interface_block *block);

#endif
