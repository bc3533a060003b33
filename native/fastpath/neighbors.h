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
	uint64_t key;            /* see halo_neighbor_key; 0: the place is empty */
	uint64_t quiet_until_ns; /* up to then its frames just go; 0: each wants a closer look */
	uint16_t redirect;       /* its interface's number if that one sends redirects, else HALO_NO_INTERFACE */
	uint16_t mtu;
	uint16_t plain_mtu; /* the same where frames leave untagged, else 0 */
	uint8_t port;
	uint8_t header_octets; /* ETHERNET_OCTETS or TAGGED_OCTETS */
	uint8_t header[20];
	uint8_t state; /* enum halo_neighbor_state */
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

/* Interface and address in one word, which is not 0. */
static inline uint64_t halo_neighbor_key(uint16_t interface, uint32_t address)
{
	return (uint64_t)(interface + 1u) << 32 | address;
}

static inline uint16_t halo_neighbor_interface(uint64_t key)
{
	return (uint16_t)((key >> 32) - 1);
}

/* Where to look for a key first. */
static inline struct halo_neighbor *halo_neighbor_home(const struct halo_neighbors *neighbors, uint64_t key)
{
	return &neighbors->place[key * neighbors->multiplier >> neighbors->shift];
}

struct halo_neighbor *halo_neighbor_search(const struct halo_neighbors *neighbors, uint64_t key);

/* Return the entry, or NULL. */
static inline struct halo_neighbor *halo_neighbor_find(const struct halo_neighbors *neighbors, uint64_t key)
{
	struct halo_neighbor *home = halo_neighbor_home(neighbors, key);

	if (__builtin_expect(home->key == key, 1))
		return home;
	return halo_neighbor_search(neighbors, key);
}

int halo_neighbors_create(struct halo_neighbors *neighbors);
void halo_neighbors_free(struct halo_neighbors *neighbors);
/* After a change of interfaces: headers are made anew, and what belonged to an interface that is gone goes too. */
void halo_neighbors_follow(struct halo_neighbors *neighbors, const struct halo_interface_block *block);

#endif
