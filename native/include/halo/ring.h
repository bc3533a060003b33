/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-producer single-consumer rings of 8-octet descriptors, between two processes that do not trust each other.
 *
 * Producer: reserve, put, submit. Consumer: peek, get, release. The indices in shared memory run freely over 2^32; each
 * side keeps its own index, the size and the peer's last seen index in private memory, so that a peer that scribbles can
 * make a ring look full, empty or broken, but never make us touch anything outside of it.
 *
 * Barriers: submit's store-release of `producer` pairs with peek's load-acquire of it (the entries are visible before the
 * index). release's store-release of `consumer` pairs with reserve's load-acquire (we have finished reading the entries
 * before the producer may write them again).
 */
#ifndef HALO_RING_H
#define HALO_RING_H

#include <stdint.h>

#include <halo/layout.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halo_descriptor_make");

#ifndef likely /* DPDK has them too */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
#endif

#define HALO_RING_BROKEN UINT32_MAX /* returned by reserve and peek: the peer's index is no possible one */

struct halo_producer {
	struct halo_ring_index *index;
	struct halo_descriptor *entry;
	uint32_t head; /* our index, ahead of the shared one between reserve and submit */
	uint32_t peer; /* consumer index as last seen */
	uint32_t mask;
	uint32_t size;
};

struct halo_consumer {
	struct halo_ring_index *index;
	const struct halo_descriptor *entry;
	uint32_t tail;
	uint32_t peer;
	uint32_t mask;
	uint32_t size;
};

/* Return how many entries may be put, at most `want`. */
static inline uint32_t halo_ring_reserve(struct halo_producer *ring, uint32_t want)
{
	uint32_t used = ring->head - ring->peer;

	if (ring->size - used < want) {
		uint32_t peer = __atomic_load_n(&ring->index->consumer, __ATOMIC_ACQUIRE); /* pairs with release */

		used = ring->head - peer;
		if (unlikely(used > ring->size)) /* and is not taken over: broken it stays, until we attach anew */
			return HALO_RING_BROKEN;
		ring->peer = peer;
		if (ring->size - used < want)
			return ring->size - used;
	}
	return want;
}

/*
 * One word, put together in a register: a struct that is filled field by field and then stored as a whole waits for its own
 * stores. Octet order is the machine's, little-endian on all that DPDK 22.11 runs on.
 */
static inline struct halo_descriptor halo_descriptor_make(uint32_t offset, uint16_t length, uint8_t port, uint8_t flags)
{
	union {
		uint64_t word;
		struct halo_descriptor descriptor;
	} made;

	made.word = offset | (uint64_t)length << 32 | (uint64_t)port << 48 | (uint64_t)flags << 56;
	return made.descriptor;
}

static inline void halo_ring_put(struct halo_producer *ring, uint32_t position, struct halo_descriptor descriptor)
{
	ring->entry[(ring->head + position) & ring->mask] = descriptor;
}

static inline void halo_ring_submit(struct halo_producer *ring, uint32_t count)
{
	ring->head += count;
	__atomic_store_n(&ring->index->producer, ring->head, __ATOMIC_RELEASE); /* pairs with peek */
}

/* Return how many entries may be read, at most `want`. */
static inline uint32_t halo_ring_peek(struct halo_consumer *ring, uint32_t want)
{
	uint32_t ready = ring->peer - ring->tail;

	if (ready < want) {
		uint32_t peer = __atomic_load_n(&ring->index->producer, __ATOMIC_ACQUIRE); /* pairs with submit */

		ready = peer - ring->tail;
		if (unlikely(ready > ring->size))
			return HALO_RING_BROKEN;
		ring->peer = peer;
	}
	return ready < want ? ready : want;
}

static inline struct halo_descriptor halo_ring_get(const struct halo_consumer *ring, uint32_t position)
{
	/* One 64-bit load: a descriptor is copied once, and only the copy is looked at. */
	union {
		uint64_t word;
		struct halo_descriptor descriptor;
	} copy;

	copy.word = __atomic_load_n((const uint64_t *)(const void *)&ring->entry[(ring->tail + position) & ring->mask],
				    __ATOMIC_RELAXED);
	return copy.descriptor;
}

static inline void halo_ring_release(struct halo_consumer *ring, uint32_t count)
{
	ring->tail += count;
	__atomic_store_n(&ring->index->consumer, ring->tail, __ATOMIC_RELEASE); /* pairs with reserve */
}

/* Attach at the indices that stand in shared memory. */
static inline void halo_producer_attach(struct halo_producer *ring, struct halo_ring_index *index,
					struct halo_descriptor *entry, uint32_t size)
{
	ring->index = index;
	ring->entry = entry;
	ring->size = size;
	ring->mask = size - 1;
	ring->head = __atomic_load_n(&index->producer, __ATOMIC_ACQUIRE);
	ring->peer = ring->head - size; /* looks full, so that the first reserve looks for itself, and checks */
}

static inline void halo_consumer_attach(struct halo_consumer *ring, struct halo_ring_index *index,
					const struct halo_descriptor *entry, uint32_t size)
{
	ring->index = index;
	ring->entry = entry;
	ring->size = size;
	ring->mask = size - 1;
	ring->tail = __atomic_load_n(&index->consumer, __ATOMIC_ACQUIRE);
	ring->peer = ring->tail;
}

/* Bring a line here for writing: the next store to it would wait for the other core otherwise. */
static inline void halo_prefetch_write(const void *address)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)address));
#else
	__builtin_prefetch(address, 1, 3);
#endif
}

static inline void halo_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/*
 * Doorbells. A sleeper: set its flag, seq_cst fence, look at the ring once more, block. A producer: submit, seq_cst
 * fence, look at the flag. Both fences are needed: with release and acquire alone, both sides can read the old value.
 */
static inline int halo_must_ring(const uint32_t *sleeping)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs with halo_fall_asleep */
	return __atomic_load_n(sleeping, __ATOMIC_RELAXED) != 0;
}

static inline void halo_fall_asleep(uint32_t *sleeping)
{
	__atomic_store_n(sleeping, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs with halo_must_ring */
}

/* Counters have one writer, so a plain load will do; the store is atomic so that a reader never sees half of it. */
static inline void halo_count(uint64_t *counter, uint64_t amount)
{
	__atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

#endif
