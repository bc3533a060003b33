/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From routes to the trie. Each leaf holds the target of the longest prefix that covers it, and that prefix's length: a route
 * of length L may overwrite what came from prefixes no longer than L, and when it goes, what it leaves behind is exactly
 * the leaves of length L within its range.
 *
 * Each store is one word. A reader meanwhile finds the old leaf or the new one, for each destination one of them.
 */
#include "table.h"

enum {
	ROOT_BITS = 16,
	NODE_BITS = 8,
};

static void store(uint32_t *entry, uint32_t value)
{
	__atomic_store_n(entry, value, __ATOMIC_RELEASE); /* what it names is filled: pairs with halo_fib_load */
}

static uint32_t leaf_of(uint32_t target, uint32_t length)
{
	return target | length << HALO_FIB_DEPTH_SHIFT;
}

/* A route longer than 16 bits may need a node on each level below the root. */
bool halo_trie_has_room(struct halo_fib_table *table, uint32_t length)
{
	if (length <= ROOT_BITS)
		return true;
	return halo_nodes_have(table, length <= ROOT_BITS + NODE_BITS ? 1 : 2);
}

/* Return the entries of the node that an entry names; it gets one, that says the same as the entry did, if it has none. */
static uint32_t *descend(struct halo_fib_table *table, uint32_t *entry)
{
	uint32_t *below;
	uint32_t node, i;

	if (*entry & HALO_FIB_CHILD)
		return halo_node_entries(table, *entry & HALO_FIB_INDEX_MASK);
	node = halo_node_take(table);
	below = halo_node_entries(table, node);
	for (i = 0; i < HALO_FIB_NODE; i++)
		below[i] = *entry;
	store(entry, HALO_FIB_CHILD | node);
	return below;
}

static void fill(struct halo_fib_table *table, uint32_t *entry, uint32_t count, uint32_t length, uint32_t leaf)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		if (entry[i] & HALO_FIB_CHILD)
			fill(table, halo_node_entries(table, entry[i] & HALO_FIB_INDEX_MASK), HALO_FIB_NODE, length,
			     leaf);
		else if (halo_fib_depth(entry[i]) <= length)
			store(&entry[i], leaf);
	}
}

/* The leaf that all of a node's entries are, if it can stand one level up, where prefixes have at most `bits` bits; else CHILD. */
static uint32_t uniform(const uint32_t *entry, uint32_t bits)
{
	uint32_t i;

	if ((entry[0] & HALO_FIB_CHILD) || halo_fib_depth(entry[0]) > bits)
		return HALO_FIB_CHILD;
	for (i = 1; i < HALO_FIB_NODE; i++)
		if (entry[i] != entry[0])
			return HALO_FIB_CHILD;
	return entry[0];
}

static void collapse(struct halo_fib_table *table, uint32_t *entry, uint32_t bits)
{
	uint32_t node = *entry & HALO_FIB_INDEX_MASK;
	uint32_t leaf = uniform(halo_node_entries(table, node), bits);

	if (leaf == HALO_FIB_CHILD)
		return;
	store(entry, leaf);
	halo_node_retire(table, node);
}

/* `bits` is how many bits lead to these entries. */
static void empty(struct halo_fib_table *table, uint32_t *entry, uint32_t count, uint32_t bits, uint32_t length,
		  uint32_t cover)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		if (entry[i] & HALO_FIB_CHILD) {
			empty(table, halo_node_entries(table, entry[i] & HALO_FIB_INDEX_MASK), HALO_FIB_NODE,
			      bits + NODE_BITS, length, cover);
			collapse(table, &entry[i], bits);
		} else if (halo_fib_depth(entry[i]) == length) {
			store(&entry[i], cover);
		}
	}
}

void halo_trie_set(struct halo_fib_table *table, uint32_t prefix, uint32_t length, uint32_t target)
{
	uint32_t *entry = &table->fib->root[table->fib->active & 1][prefix >> 16];
	uint32_t bits = ROOT_BITS;

	while (length > bits) {
		entry = descend(table, entry);
		bits += NODE_BITS;
		entry += prefix >> (32 - bits) & (HALO_FIB_NODE - 1);
	}
	fill(table, entry, UINT32_C(1) << (bits - length), length, leaf_of(target, length));
}

/* `cover`: the leaf of the next shorter route, or 0. */
void halo_trie_clear(struct halo_fib_table *table, uint32_t prefix, uint32_t length, uint32_t cover)
{
	uint32_t *path[3] = {&table->fib->root[table->fib->active & 1][prefix >> 16]};
	uint32_t bits = ROOT_BITS;
	int level = 0;

	while (length > bits) {
		if (!(*path[level] & HALO_FIB_CHILD))
			return; /* the trie never had it: nothing of it to clear */
		bits += NODE_BITS;
		path[level + 1] = halo_node_entries(table, *path[level] & HALO_FIB_INDEX_MASK) +
				  (prefix >> (32 - bits) & (HALO_FIB_NODE - 1));
		level++;
	}
	empty(table, path[level], UINT32_C(1) << (bits - length), bits, length, cover);
	while (level-- > 0) {
		bits -= NODE_BITS;
		collapse(table, path[level], bits);
	}
}
