/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "neighbors.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "octets.h"
#include "worker.h"

enum {
	FIRST_PLACES = 64, /* a page */
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_VLAN = 0x8100,
};

/* ---- the hash ------------------------------------------------------------------------------------------------- */

static int map_places(struct halo_neighbors *neighbors, uint32_t places)
{
	void *start = mmap(NULL, (size_t)places * sizeof(*neighbors->place), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED)
		return -ENOMEM;
	neighbors->place = start;
	neighbors->places = places;
	neighbors->shift = 64 - (uint32_t)__builtin_ctz(places);
	return 0;
}

int halo_neighbors_create(struct halo_neighbors *neighbors)
{
	/* Without an entropy source it is a constant, and that is no worse than a hash without one. */
	if (getrandom(&neighbors->multiplier, sizeof(neighbors->multiplier), GRND_NONBLOCK) < 0)
		neighbors->multiplier = UINT64_C(0x9e3779b97f4a7c15);
	neighbors->multiplier |= 1;
	neighbors->count = 0;
	return map_places(neighbors, FIRST_PLACES);
}

void halo_neighbors_free(struct halo_neighbors *neighbors)
{
	if (neighbors->place)
		munmap(neighbors->place, (size_t)neighbors->places * sizeof(*neighbors->place));
	neighbors->place = NULL;
}

static struct halo_neighbor *next_place(const struct halo_neighbors *neighbors, const struct halo_neighbor *place)
{
	return &neighbors->place[((uint32_t)(place - neighbors->place) + 1) & (neighbors->places - 1)];
}

/* Where the entry is, or the empty place where it would be: there always is one. */
static struct halo_neighbor *place_of(const struct halo_neighbors *neighbors, uint64_t key)
{
	struct halo_neighbor *place = halo_neighbor_home(neighbors, key);

	while (place->key && place->key != key)
		place = next_place(neighbors, place);
	return place;
}

struct halo_neighbor *halo_neighbor_search(const struct halo_neighbors *neighbors, uint64_t key)
{
	struct halo_neighbor *place = place_of(neighbors, key);

	return place->key ? place : NULL;
}

static int grow(struct halo_neighbors *neighbors)
{
	struct halo_neighbors old = *neighbors;
	uint32_t i;
	int error = map_places(neighbors, old.places * 2);

	if (error)
		return error;
	for (i = 0; i < old.places; i++)
		if (old.place[i].key)
			*place_of(neighbors, old.place[i].key) = old.place[i];
	halo_neighbors_free(&old);
	return 0;
}

/* Empty a place, and move up what stands behind it only because the place was taken. */
static void empty(struct halo_neighbors *neighbors, struct halo_neighbor *place)
{
	uint32_t mask = neighbors->places - 1;
	struct halo_neighbor *next = place;

	for (;;) {
		uint32_t from_home, from_hole;

		next = next_place(neighbors, next);
		if (!next->key)
			break;
		from_home = (uint32_t)(next - halo_neighbor_home(neighbors, next->key)) & mask;
		from_hole = (uint32_t)(next - place) & mask;
		if (from_home < from_hole)
			continue;
		*place = *next;
		place = next;
	}
	memset(place, 0, sizeof(*place));
	neighbors->count--;
}

/* ---- entries -------------------------------------------------------------------------------------------------- */

static bool has_mac(uint32_t state)
{
	return state == HALO_NEIGHBOR_REACHABLE || state == HALO_NEIGHBOR_STALE || state == HALO_NEIGHBOR_REPORT;
}

/* When the next frame to it has to be looked at. */
static uint64_t quiet_until(const struct halo_neighbor *neighbor)
{
	if (!neighbor->up)
		return 0;
	if (neighbor->state == HALO_NEIGHBOR_REACHABLE || (neighbor->state == HALO_NEIGHBOR_STALE && neighbor->touched))
		return UINT64_MAX;
	if (neighbor->state == HALO_NEIGHBOR_REPORT && neighbor->reported_ns)
		return neighbor->reported_ns + HALO_REPORT_S * UINT64_C(1000000000);
	return 0;
}

static void build(struct halo_neighbor *neighbor, const struct halo_interface *interface)
{
	uint8_t *type = neighbor->header + 12;

	neighbor->port = interface->port;
	neighbor->vlan = interface->vlan;
	neighbor->mtu = interface->mtu;
	neighbor->plain_mtu = interface->vlan ? 0 : interface->mtu;
	neighbor->up = (interface->flags & HALO_INTERFACE_UP) != 0;
	neighbor->redirect = interface->flags & HALO_INTERFACE_REDIRECTS ? halo_neighbor_interface(neighbor->key)
									 : HALO_NO_INTERFACE;
	neighbor->header_octets = interface->vlan ? TAGGED_OCTETS : ETHERNET_OCTETS;
	memcpy(neighbor->header, neighbor->mac, 6);
	memcpy(neighbor->header + 6, interface->mac, 6);
	if (interface->vlan) {
		store16(type, ETHERTYPE_VLAN);
		store16(type + 2, interface->vlan);
		type += 4;
	}
	store16(type, ETHERTYPE_IPV4);
	neighbor->quiet_until_ns = quiet_until(neighbor);
}

void halo_neighbors_follow(struct halo_neighbors *neighbors, const struct halo_interface_block *block)
{
	uint32_t i = 0;

	while (i < neighbors->places) {
		struct halo_neighbor *neighbor = &neighbors->place[i];
		const struct halo_interface *interface;

		if (!neighbor->key) {
			i++;
			continue;
		}
		interface = &block->entry[halo_neighbor_interface(neighbor->key)];
		if (interface->mtu == 0 || interface->port != neighbor->port || interface->vlan != neighbor->vlan) {
			empty(neighbors, neighbor); /* and look again at what has moved up to here */
			continue;
		}
		build(neighbor, interface);
		i++;
	}
}

/* ---- Python's ------------------------------------------------------------------------------------------------- */

/* Return the entry, made when it was not there. */
static struct halo_neighbor *claim(struct halo_neighbors *neighbors, uint64_t key, int *error)
{
	struct halo_neighbor *place = place_of(neighbors, key);

	*error = 0;
	if (place->key)
		return place;
	if (neighbors->count == HALO_MAX_NEIGHBORS) {
		*error = -ENOSPC;
		return NULL;
	}
	if ((neighbors->count + 1) * 2 >= neighbors->places) {
		*error = grow(neighbors);
		if (*error)
			return NULL;
		place = place_of(neighbors, key);
	}
	neighbors->count++;
	place->key = key;
	return place;
}

int halo_worker_set_neighbor(struct halo_worker *worker, uint32_t interface, uint32_t address, const uint8_t *mac,
			     uint32_t state)
{
	struct halo_neighbor *neighbor;
	int error;

	if (state < HALO_NEIGHBOR_INCOMPLETE || state > HALO_NEIGHBOR_REPORT || (has_mac(state) && !mac))
		return -EINVAL;
	if (interface >= worker->interfaces.count || worker->interfaces.entry[interface].mtu == 0)
		return -ENOENT;
	neighbor = claim(&worker->neighbors, halo_neighbor_key((uint16_t)interface, address), &error);
	if (!neighbor)
		return error;
	if (state != HALO_NEIGHBOR_REPORT)
		neighbor->reported_ns = 0;
	neighbor->state = (uint8_t)state;
	neighbor->touched = 0;
	neighbor->held = 0;
	memset(neighbor->mac, 0, 6);
	if (has_mac(state))
		memcpy(neighbor->mac, mac, 6);
	build(neighbor, &worker->interfaces.entry[interface]);
	return 0;
}

int halo_worker_remove_neighbor(struct halo_worker *worker, uint32_t interface, uint32_t address)
{
	struct halo_neighbor *neighbor =
		interface < HALO_MAX_INTERFACES
			? halo_neighbor_find(&worker->neighbors, halo_neighbor_key((uint16_t)interface, address))
			: NULL;

	if (!neighbor)
		return -ENOENT;
	empty(&worker->neighbors, neighbor);
	return 0;
}

uint32_t halo_worker_neighbor_count(const struct halo_worker *worker)
{
	return worker->neighbors.count;
}
