/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the worker gets along: sizes of bursts, depth of the rx ring, time that Python keeps it, cycles of the stages. One writer,
 * this worker; per burst it is three words, and one burst of HALO_TIMED_EVERY is timed.
 */
#ifndef HALO_LOAD_H
#define HALO_LOAD_H

#include "worker.h"

/* A burst that is timed, stage by stage; `cycles` is NULL in one that is not. */
struct halo_laps {
	uint64_t *cycles;
	uint64_t last;
};

static inline uint64_t halo_cycles_now(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return halo_now_ns();
#endif
}

/* The bucket that a value belongs in: as many as it has bits, the last one for all that have more. */
static inline uint32_t halo_bucket(uint64_t value, uint32_t buckets)
{
	uint32_t bits = value ? 64 - (uint32_t)__builtin_clzll(value) : 0;

	return bits < buckets ? bits : buckets - 1;
}

static inline struct halo_laps halo_laps_start(const struct halo_worker *worker)
{
	struct halo_laps laps = {0};

	if (unlikely(worker->bursts % HALO_TIMED_EVERY == 0)) {
		laps.cycles = worker->slot->load.cycles;
		laps.last = halo_cycles_now();
	}
	return laps;
}

/* A stage has ended. */
static inline void halo_lap(struct halo_laps *laps, enum halo_timed_stage stage)
{
	uint64_t now;

	if (likely(!laps->cycles))
		return;
	now = halo_cycles_now();
	halo_count(&laps->cycles[stage], now - laps->last);
	laps->last = now;
}

/* A burst of `count` frames was received, and left the ring as it is now. */
static inline void halo_load_burst(struct halo_worker *worker, uint32_t count, const struct halo_laps *laps)
{
	struct halo_worker_load *load = &worker->slot->load;
	uint32_t depth = worker->rx.peer - worker->rx.tail + count;

	worker->bursts++;
	halo_count(&load->burst[halo_bucket(count, HALO_BURST_BUCKETS)], 1);
	if (unlikely(depth > load->rx_depth_max))
		__atomic_store_n(&load->rx_depth_max, depth, __ATOMIC_RELAXED);
	if (unlikely(laps->cycles != NULL)) {
		halo_count(&load->timed_bursts, 1);
		halo_count(&load->timed_frames, count);
	}
}

/* Python has come back to the poll, `now_ns`, after it was left to itself. */
static inline void halo_load_lag(const struct halo_worker *worker, uint64_t now_ns)
{
	struct halo_worker_load *load = &worker->slot->load;
	uint64_t lag_ns = now_ns - worker->left_ns;

	if (worker->left_ns == 0) /* the first poll of all */
		return;
	halo_count(&load->lag[halo_bucket(lag_ns >> 10, HALO_LAG_BUCKETS)], 1);
	halo_count(&load->lag_ns, lag_ns);
	if (unlikely(lag_ns > load->lag_max_ns))
		__atomic_store_n(&load->lag_max_ns, lag_ns, __ATOMIC_RELAXED);
}

#endif
