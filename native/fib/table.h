/* SPDX-License-Identifier: Apache-2.0 */
/* The private state of the FIB's writer. */
#ifndef HALO_FIB_TABLE_H
#define HALO_FIB_TABLE_H

#include <stdbool.h>

#include <halo/fib.h>
#include <halo/fib_def.h>

enum {
	NO_NODE = UINT32_MAX,
	NO_ROUTE = UINT32_MAX,
	MAX_LENGTH = 32,
	NODES_PER_STEP = 1024, /* memory is reserved a megabyte at a time */
	ROUTES_PER_STEP = 65536,
};

/* Nodes that nobody uses: free ones, and those that a reader may still look at, oldest first. Links lie in `next`. */
struct node_list {
	uint32_t head;
	uint32_t tail;
	uint32_t count;
};

struct halo_fib_table {
	struct halo_fib *fib;
	struct halo_routes *routes;
	struct halo_route *route; /* behind the header of `routes` */
	int fib_fd;
	int routes_fd;

	/* nodes.c */
	uint32_t *next;        /* of each node that is in a list */
	uint64_t *unlinked_at; /* the epoch that readers must have passed, once it is sealed */
	struct node_list free;
	struct node_list waiting;
	uint32_t unsealed; /* the first of `waiting` that has no epoch yet */
	uint32_t nodes_used;

	/* rib.c */
	uint32_t *index; /* hash of prefix and length to a place in `route`, NO_ROUTE where empty */
	uint32_t index_mask;
	uint32_t *vacant; /* places in `route` below routes->count that are free */
	uint32_t vacant_count;
	uint32_t vacant_room;
	uint32_t route_count;
	uint32_t routes_reserved;
	uint32_t count_of_length[MAX_LENGTH + 1];
	uint32_t references[HALO_MAX_TARGETS]; /* routes that name a target */
};

static inline uint32_t halo_prefix_mask(uint32_t length)
{
	return length ? UINT32_MAX << (32 - length) : 0;
}

static inline uint32_t *halo_node_entries(const struct halo_fib_table *table, uint32_t node)
{
	return (uint32_t *)(void *)(table->fib + 1) + (size_t)node * HALO_FIB_NODE;
}

/* nodes.c */
int halo_nodes_open(struct halo_fib_table *table);
void halo_nodes_close(struct halo_fib_table *table);
bool halo_nodes_have(struct halo_fib_table *table, uint32_t count);
uint32_t halo_node_take(struct halo_fib_table *table);
void halo_node_retire(struct halo_fib_table *table, uint32_t node);

/* trie.c */
bool halo_trie_has_room(struct halo_fib_table *table, uint32_t length);
void halo_trie_set(struct halo_fib_table *table, uint32_t prefix, uint32_t length, uint32_t target);
void halo_trie_clear(struct halo_fib_table *table, uint32_t prefix, uint32_t length, uint32_t cover);

/* rib.c */
int halo_rib_open(struct halo_fib_table *table);
void halo_rib_close(struct halo_fib_table *table);
uint32_t halo_rib_find(const struct halo_fib_table *table, uint32_t prefix, uint32_t length);
int halo_rib_add(struct halo_fib_table *table, const struct halo_route_change *change);
void halo_rib_remove(struct halo_fib_table *table, uint32_t place);
uint32_t halo_rib_covering(const struct halo_fib_table *table, uint32_t prefix, int length);

#endif
