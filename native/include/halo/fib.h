/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking up a destination: the longest prefix that covers it names a target. Three loads at most, of 16, 8 and 8 bits of the
 * address. Any word that a reader finds may be replaced the next moment, and each leads to something whole: a writer fills a
 * node before it names it, and fills it anew only when every reader has moved on.
 *
 * Barriers: the relaxed loads here are ordered by their data dependency; the writer's release stores pair with them.
 */
#ifndef HALO_FIB_H
#define HALO_FIB_H

#include <halo/layout.h>

/*
 * The node that an entry names. Whatever an entry says, there is memory behind it: what the writer has reserved is looked at
 * behind the entry, and the writer raises it before it names a node.
 */
static inline const uint32_t *halo_fib_node(const struct halo_fib *fib, uint32_t entry)
{
	uint32_t node = entry & (HALO_FIB_MAX_NODES - 1);

	if (__builtin_expect(node >= __atomic_load_n(&fib->nodes_reserved, __ATOMIC_ACQUIRE), 0))
		node = 0;
	return (const uint32_t *)(const void *)(fib + 1) + (size_t)node * HALO_FIB_NODE;
}

/* The root that readers start from; once a burst. */
static inline const uint32_t *halo_fib_root(const struct halo_fib *fib)
{
	return fib->root[__atomic_load_n(&fib->active, __ATOMIC_ACQUIRE) & 1];
}

static inline uint32_t halo_fib_load(const uint32_t *entry)
{
	return __atomic_load_n(entry, __ATOMIC_RELAXED);
}

/* Return the leaf: a target's number, with the length of its prefix above it. */
static inline uint32_t halo_fib_leaf(const struct halo_fib *fib, const uint32_t *root, uint32_t dst)
{
	uint32_t entry = halo_fib_load(&root[dst >> 16]);

	if (entry & HALO_FIB_CHILD) {
		entry = halo_fib_load(&halo_fib_node(fib, entry)[dst >> 8 & 255]);
		if (entry & HALO_FIB_CHILD)
			entry = halo_fib_load(&halo_fib_node(fib, entry)[dst & 255]);
	}
	return entry;
}

static inline uint32_t halo_fib_depth(uint32_t leaf)
{
	return leaf >> HALO_FIB_DEPTH_SHIFT & 63;
}

/* A target's kind and interface, which may change while we look: read once, together. */
static inline uint32_t halo_target_what(const struct halo_target *target)
{
	return __atomic_load_n(&target->what, __ATOMIC_RELAXED);
}

static inline uint32_t halo_target_kind(uint32_t what)
{
	return what & 0xffff;
}

static inline uint32_t halo_target_interface(uint32_t what)
{
	return what >> 16;
}

/* Return the target behind a leaf: for a group, the one that a flow with this hash goes to. */
static inline uint32_t halo_fib_choose(const struct halo_fib *fib, uint32_t leaf, uint32_t hash)
{
	uint32_t number = leaf & (HALO_MAX_TARGETS - 1);
	const struct halo_target *target = &fib->target[number];

	if (halo_target_kind(halo_target_what(target)) != HALO_TARGET_GROUP)
		return number;
	number = target->first + (hash & (target->count - 1u));
	return __atomic_load_n(&fib->bucket[number & (HALO_MAX_BUCKETS - 1)], __ATOMIC_RELAXED) &
	       (HALO_MAX_TARGETS - 1);
}

#endif
