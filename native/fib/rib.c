/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes by prefix: an array in shared memory, so that the next supervisor has them, and a private hash over it. In the
 * array a route is there when `used` is; it is written before, and given up last of all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

enum { FIRST_INDEX = 1024 };

static uint32_t slot_of(const struct halo_fib_table *table, uint32_t prefix, uint32_t length)
{
	uint64_t key = (uint64_t)prefix << 8 | length;

	key *= UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(key >> 32) & table->index_mask;
}

static uint32_t slot_of_place(const struct halo_fib_table *table, uint32_t place)
{
	return slot_of(table, table->route[place].prefix, table->route[place].length);
}

static void index_put(struct halo_fib_table *table, uint32_t place)
{
	uint32_t slot = slot_of_place(table, place);

	while (table->index[slot] != NO_ROUTE)
		slot = (slot + 1) & table->index_mask;
	table->index[slot] = place;
}

static int index_grow(struct halo_fib_table *table, uint32_t size)
{
	uint32_t *old = table->index;
	uint32_t old_size = old ? table->index_mask + 1 : 0;
	uint32_t *index = malloc(size * sizeof(*index));
	uint32_t i;

	if (!index)
		return -ENOMEM;
	memset(index, 0xff, size * sizeof(*index));
	table->index = index;
	table->index_mask = size - 1;
	for (i = 0; i < old_size; i++)
		if (old[i] != NO_ROUTE)
			index_put(table, old[i]);
	free(old);
	return 0;
}

/* Close the gap: who stands behind it only because it was taken moves up (Knuth 6.4, algorithm R). */
static void index_remove(struct halo_fib_table *table, uint32_t place)
{
	uint32_t gap = slot_of_place(table, place);
	uint32_t slot;

	while (table->index[gap] != place)
		gap = (gap + 1) & table->index_mask;
	table->index[gap] = NO_ROUTE;
	for (slot = (gap + 1) & table->index_mask; table->index[slot] != NO_ROUTE;
	     slot = (slot + 1) & table->index_mask) {
		uint32_t home = slot_of_place(table, table->index[slot]);

		if (((slot - home) & table->index_mask) < ((slot - gap) & table->index_mask))
			continue;
		table->index[gap] = table->index[slot];
		table->index[slot] = NO_ROUTE;
		gap = slot;
	}
}

static int vacate(struct halo_fib_table *table, uint32_t place)
{
	if (table->vacant_count == table->vacant_room) {
		uint32_t room = table->vacant_room ? table->vacant_room * 2 : 64;
		uint32_t *vacant = realloc(table->vacant, room * sizeof(*vacant));

		if (!vacant)
			return -ENOMEM;
		table->vacant = vacant;
		table->vacant_room = room;
	}
	table->vacant[table->vacant_count++] = place;
	return 0;
}

static bool is_sound(const struct halo_route *route)
{
	return route->length <= MAX_LENGTH && !(route->prefix & ~halo_prefix_mask(route->length)) &&
	       route->target < HALO_MAX_TARGETS;
}

static int take_over(struct halo_fib_table *table)
{
	uint32_t i;
	int error = 0;

	table->routes_reserved =
		((uint32_t)table->routes->count + ROUTES_PER_STEP - 1) / ROUTES_PER_STEP * ROUTES_PER_STEP;
	for (i = 0; i < table->routes->count && !error; i++) {
		const struct halo_route *route = &table->route[i];

		if (!route->used) {
			error = vacate(table, i);
			continue;
		}
		if (!is_sound(route))
			return -EPROTO;
		table->route_count++;
		table->count_of_length[route->length]++;
		table->references[route->target]++;
	}
	return error;
}

int halo_rib_open(struct halo_fib_table *table)
{
	uint32_t size = FIRST_INDEX;
	uint32_t i;
	int error;

	if (table->routes->count > HALO_MAX_ROUTES)
		return -EPROTO;
	error = take_over(table);
	if (error)
		return error;
	while (size < table->route_count * 2)
		size *= 2;
	error = index_grow(table, size);
	for (i = 0; i < table->routes->count && !error; i++)
		if (table->route[i].used)
			index_put(table, i);
	return error;
}

void halo_rib_close(struct halo_fib_table *table)
{
	free(table->index);
	free(table->vacant);
}

uint32_t halo_rib_find(const struct halo_fib_table *table, uint32_t prefix, uint32_t length)
{
	uint32_t slot = slot_of(table, prefix, length);
	uint32_t place;

	while ((place = table->index[slot]) != NO_ROUTE) {
		if (table->route[place].prefix == prefix && table->route[place].length == length)
			return place;
		slot = (slot + 1) & table->index_mask;
	}
	return NO_ROUTE;
}

static int reserve(struct halo_fib_table *table)
{
	uint32_t first = table->routes_reserved;
	size_t at = sizeof(struct halo_routes) + (size_t)first * sizeof(struct halo_route);
	int error;

	if (first + ROUTES_PER_STEP > HALO_MAX_ROUTES)
		return -ENOSPC;
	error = posix_fallocate(table->routes_fd, (off_t)at, (off_t)ROUTES_PER_STEP * sizeof(struct halo_route));
	if (error)
		return -error;
	table->routes_reserved = first + ROUTES_PER_STEP;
	return 0;
}

/* A place for a route, which is not there yet as long as `used` is 0. */
static int take_place(struct halo_fib_table *table, uint32_t *place)
{
	int error;

	if (table->vacant_count) {
		*place = table->vacant[--table->vacant_count];
		return 0;
	}
	if (table->routes->count == table->routes_reserved) {
		error = reserve(table);
		if (error)
			return error;
	}
	*place = (uint32_t)table->routes->count++;
	return 0;
}

int halo_rib_add(struct halo_fib_table *table, const struct halo_route_change *change)
{
	struct halo_route *route;
	uint32_t place;
	int error;

	if ((table->route_count + 1) * 3 > (table->index_mask + 1) * 2) {
		error = index_grow(table, (table->index_mask + 1) * 2);
		if (error)
			return error;
	}
	error = take_place(table, &place);
	if (error)
		return error;
	route = &table->route[place];
	route->prefix = change->prefix;
	route->length = change->length;
	route->target = change->target;
	route->origin = change->origin;
	__atomic_store_n(&route->used, 1, __ATOMIC_RELEASE);
	index_put(table, place);
	table->route_count++;
	table->count_of_length[change->length]++;
	table->references[change->target]++;
	return 0;
}

void halo_rib_remove(struct halo_fib_table *table, uint32_t place)
{
	struct halo_route *route = &table->route[place];

	index_remove(table, place);
	table->route_count--;
	table->count_of_length[route->length]--;
	table->references[route->target]--;
	__atomic_store_n(&route->used, 0, __ATOMIC_RELEASE);
	vacate(table, place); /* should memory lack for that, the place is lost, not more */
}

/* The longest route of at most `length` bits that covers a prefix. */
uint32_t halo_rib_covering(const struct halo_fib_table *table, uint32_t prefix, int length)
{
	for (; length >= 0; length--) {
		uint32_t place;

		if (table->count_of_length[length] == 0)
			continue;
		place = halo_rib_find(table, prefix & halo_prefix_mask((uint32_t)length), (uint32_t)length);
		if (place != NO_ROUTE)
			return place;
	}
	return NO_ROUTE;
}
