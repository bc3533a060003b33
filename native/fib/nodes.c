/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trie's nodes: which are free, and which are unlinked but perhaps still looked at.
 *
 *   reserved → free → taken (an entry names it) → waiting (no entry names it any more) → sealed with an epoch → free
 *
 * A node goes back from waiting to free only when every reader has passed its epoch. Memory for further nodes is reserved before
 * the first of them is taken, so that a full /dev/shm refuses a route and is no SIGBUS in a worker.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

static void append(struct halo_fib_table *table, struct node_list *list, uint32_t node)
{
	table->next[node] = NO_NODE;
	if (list->tail == NO_NODE)
		list->head = node;
	else
		table->next[list->tail] = node;
	list->tail = node;
	list->count++;
}

static uint32_t take_first(struct halo_fib_table *table, struct node_list *list)
{
	uint32_t node = list->head;

	list->head = table->next[node];
	if (list->head == NO_NODE)
		list->tail = NO_NODE;
	list->count--;
	return node;
}

/* Mark the nodes that the active root leads to; false when an entry names a node that is not there. */
static bool mark(const struct halo_fib_table *table, uint8_t *used, const uint32_t *entries, uint32_t count, int levels)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		uint32_t node = entries[i] & HALO_FIB_INDEX_MASK;

		if (!(entries[i] & HALO_FIB_CHILD))
			continue;
		if (levels == 0 || node >= table->fib->nodes_reserved || used[node])
			return false;
		used[node] = 1;
		if (!mark(table, used, halo_node_entries(table, node), HALO_FIB_NODE, levels - 1))
			return false;
	}
	return true;
}

/* What a predecessor has unlinked may still be looked at: it waits. */
static int take_over(struct halo_fib_table *table)
{
	uint32_t reserved = table->fib->nodes_reserved;
	uint8_t *used = calloc(reserved + 1u, 1);
	bool sound;
	uint32_t i;

	if (!used)
		return -ENOMEM;
	sound = mark(table, used, halo_fib_root(table->fib), HALO_FIB_ROOT, 2);
	for (i = 0; i < reserved && sound; i++) {
		if (used[i])
			table->nodes_used++;
		else
			append(table, &table->waiting, i);
	}
	free(used);
	table->unsealed = table->waiting.head;
	return sound ? 0 : -EPROTO;
}

int halo_nodes_open(struct halo_fib_table *table)
{
	table->free = table->waiting = (struct node_list){NO_NODE, NO_NODE, 0};
	table->unsealed = NO_NODE;
	table->next = calloc(HALO_FIB_MAX_NODES, sizeof(*table->next)); /* untouched pages cost nothing */
	table->unlinked_at = calloc(HALO_FIB_MAX_NODES, sizeof(*table->unlinked_at));
	if (!table->next || !table->unlinked_at)
		return -ENOMEM;
	if (table->fib->nodes_reserved > HALO_FIB_MAX_NODES)
		return -EPROTO;
	return take_over(table);
}

void halo_nodes_close(struct halo_fib_table *table)
{
	free(table->next);
	free(table->unlinked_at);
}

static int reserve_more(struct halo_fib_table *table)
{
	uint32_t first = table->fib->nodes_reserved;
	size_t at = sizeof(struct halo_fib) + (size_t)first * HALO_FIB_NODE * sizeof(uint32_t);
	uint32_t i;
	int error;

	if (first + NODES_PER_STEP > HALO_FIB_MAX_NODES)
		return -ENOSPC;
	error = posix_fallocate(table->fib_fd, (off_t)at, (off_t)NODES_PER_STEP * HALO_FIB_NODE * sizeof(uint32_t));
	if (error)
		return -error;
	for (i = 0; i < NODES_PER_STEP; i++)
		append(table, &table->free, first + i);
	__atomic_store_n(&table->fib->nodes_reserved, first + NODES_PER_STEP, __ATOMIC_RELEASE);
	return 0;
}

/* Whether `count` nodes can be taken now. */
bool halo_nodes_have(struct halo_fib_table *table, uint32_t count)
{
	while (table->free.count < count)
		if (reserve_more(table) != 0)
			return false;
	return true;
}

/* Only behind halo_nodes_have(). */
uint32_t halo_node_take(struct halo_fib_table *table)
{
	table->nodes_used++;
	return take_first(table, &table->free);
}

/* No entry names the node any more. */
void halo_node_retire(struct halo_fib_table *table, uint32_t node)
{
	append(table, &table->waiting, node);
	if (table->unsealed == NO_NODE)
		table->unsealed = node;
	table->nodes_used--;
}

uint32_t halo_fib_table_seal(struct halo_fib_table *table, uint64_t epoch)
{
	uint32_t sealed = 0;
	uint32_t node;

	for (node = table->unsealed; node != NO_NODE; node = table->next[node]) {
		table->unlinked_at[node] = epoch;
		sealed++;
	}
	table->unsealed = NO_NODE;
	/* The epoch is raised before the readers' are looked at; pairs with the store of theirs in a worker that wakes up. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return sealed;
}

void halo_fib_table_reclaim(struct halo_fib_table *table, uint64_t epoch)
{
	while (table->waiting.head != table->unsealed && table->unlinked_at[table->waiting.head] <= epoch)
		append(table, &table->free, take_first(table, &table->waiting));
}
