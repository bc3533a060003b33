/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes in, trie out. The order of the two lets a successor mend what a writer left that died between them: a route is written
 * to the routes first, and to the trie behind; it leaves the trie first. So every leaf has its route, and setting every route
 * anew completes the trie.
 */
#include <errno.h>
#include <stdlib.h>

#include "table.h"

int halo_fib_table_open(struct halo_fib *fib, int fib_fd, struct halo_routes *routes, int routes_fd,
			struct halo_fib_table **out)
{
	struct halo_fib_table *table = calloc(1, sizeof(*table));
	uint32_t i;
	int error;

	if (!table)
		return -ENOMEM;
	table->fib = fib;
	table->fib_fd = fib_fd;
	table->routes = routes;
	table->routes_fd = routes_fd;
	table->route = (struct halo_route *)(void *)(routes + 1);
	error = halo_nodes_open(table);
	if (!error)
		error = halo_rib_open(table);
	for (i = 0; i < routes->count && !error; i++) {
		const struct halo_route *route = &table->route[i];

		if (!route->used)
			continue;
		if (halo_trie_has_room(table, route->length))
			halo_trie_set(table, route->prefix, route->length, route->target);
		else
			error = -ENOSPC;
	}
	if (error) {
		halo_fib_table_close(table);
		return error;
	}
	*out = table;
	return 0;
}

void halo_fib_table_close(struct halo_fib_table *table)
{
	halo_nodes_close(table);
	halo_rib_close(table);
	free(table);
}

static int set(struct halo_fib_table *table, struct halo_route_change *change)
{
	uint32_t place = halo_rib_find(table, change->prefix, change->length);
	int error;

	if (change->target >= HALO_MAX_TARGETS || change->target == 0)
		return -EINVAL;
	if (place != NO_ROUTE) {
		change->previous = table->route[place].target;
		if (change->kind == HALO_FIB_ADD)
			return -EEXIST;
		table->references[change->previous]--;
		table->references[change->target]++;
		table->route[place].origin = change->origin;
		__atomic_store_n(&table->route[place].target, change->target, __ATOMIC_RELAXED);
		halo_trie_set(table, change->prefix, change->length, change->target);
		return 0;
	}
	if (!halo_trie_has_room(table, change->length))
		return -ENOSPC;
	error = halo_rib_add(table, change);
	if (error)
		return error;
	halo_trie_set(table, change->prefix, change->length, change->target);
	return 0;
}

static int delete (struct halo_fib_table *table, struct halo_route_change *change)
{
	uint32_t place = halo_rib_find(table, change->prefix, change->length);
	uint32_t cover, leaf = 0;

	if (place == NO_ROUTE)
		return -ENOENT;
	change->previous = table->route[place].target;
	cover = halo_rib_covering(table, change->prefix, (int)change->length - 1);
	if (cover != NO_ROUTE)
		leaf = table->route[cover].target | (uint32_t)table->route[cover].length << HALO_FIB_DEPTH_SHIFT;
	halo_trie_clear(table, change->prefix, change->length, leaf);
	halo_rib_remove(table, place);
	return 0;
}

static int apply(struct halo_fib_table *table, struct halo_route_change *change)
{
	change->previous = 0;
	if (change->length > MAX_LENGTH || (change->prefix & ~halo_prefix_mask(change->length)))
		return -EINVAL;
	switch (change->kind) {
	case HALO_FIB_ADD:
	case HALO_FIB_REPLACE:
		return set(table, change);
	case HALO_FIB_DELETE:
		return delete (table, change);
	default:
		return -EINVAL;
	}
}

int64_t halo_fib_table_apply(struct halo_fib_table *table, struct halo_route_change *changes, uint32_t count)
{
	int64_t refused = 0;
	uint32_t i;

	for (i = 0; i < count; i++) {
		changes[i].result = apply(table, &changes[i]);
		refused += changes[i].result != 0;
	}
	return refused;
}

static int load_one(struct halo_fib_table *table, const struct halo_route_load *load, uint32_t i)
{
	struct halo_route_change change = {
		.prefix = load->prefix[i],
		.length = load->length[i],
		.origin = HALO_ROUTE_STATIC,
		.kind = HALO_FIB_REPLACE,
	};
	uint32_t place;

	if (load->which[i] >= load->target_count)
		return -EINVAL;
	change.target = load->target[load->which[i]];
	place = halo_rib_find(table, change.prefix, change.length);
	if (place != NO_ROUTE && table->route[place].origin == HALO_ROUTE_CONNECTED)
		return -EADDRINUSE;
	return apply(table, &change);
}

uint32_t halo_fib_table_load(struct halo_fib_table *table, const struct halo_route_load *load,
			     struct halo_route_refusal *refused, uint32_t room)
{
	uint32_t count = 0;
	uint32_t i;

	for (i = 0; i < load->count; i++) {
		int error = load_one(table, load, i);

		if (error && count < room)
			refused[count] = (struct halo_route_refusal){.position = i, .error = error};
		count += error != 0;
	}
	return count;
}

int64_t halo_fib_table_find(const struct halo_fib_table *table, uint32_t prefix, uint32_t length)
{
	uint32_t place = length > MAX_LENGTH ? NO_ROUTE : halo_rib_find(table, prefix, length);

	return place == NO_ROUTE ? -ENOENT : (int64_t)place;
}

int64_t halo_fib_table_covering(const struct halo_fib_table *table, uint32_t address)
{
	uint32_t place = halo_rib_covering(table, address, MAX_LENGTH);

	return place == NO_ROUTE ? -ENOENT : (int64_t)place;
}

int64_t halo_fib_table_next(const struct halo_fib_table *table, uint32_t place, uint32_t origin)
{
	for (; place < table->routes->count; place++)
		if (table->route[place].used && (origin == 0 || table->route[place].origin == origin))
			return place;
	return -ENOENT;
}

void halo_fib_table_usage(const struct halo_fib_table *table, struct halo_fib_usage *usage)
{
	usage->routes = table->route_count;
	usage->nodes = table->nodes_used;
	usage->nodes_waiting = table->waiting.count;
	usage->nodes_reserved = table->fib->nodes_reserved;
}

uint32_t halo_fib_table_references(const struct halo_fib_table *table, uint32_t target)
{
	return target < HALO_MAX_TARGETS ? table->references[target] : 0;
}

uint32_t halo_fib_lookup(const struct halo_fib *fib, uint32_t dst)
{
	return halo_fib_leaf(fib, halo_fib_root(fib), dst) & HALO_FIB_INDEX_MASK;
}

uint32_t halo_fib_lookup_flow(const struct halo_fib *fib, uint32_t dst, uint32_t hash)
{
	return halo_fib_choose(fib, halo_fib_leaf(fib, halo_fib_root(fib), dst), hash);
}
