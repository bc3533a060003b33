/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Python's share of the worker's time. Whoever can send us frames that Python has to look at could otherwise have it do nothing
 * else, and forwarding would wait. Credit grows with the clock, by a part of it, and what Python spends on punts is taken off: its
 * thread's processor time from the return of a poll with punts to the next poll. Without credit punts are dropped by
 * name. ARP has some left when the others have not: neighbors are not to be lost by a flood of something else.
 */
#ifndef HALO_SHARE_H
#define HALO_SHARE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
	HALO_SHARE_LIMIT_NS = 200000000,
	HALO_SHARE_ARP_NS = 50000000, /* that ARP may overdraw */
};

struct halo_share {
	uint32_t percent; /* 0: without a bound */
	int64_t credit_ns;
	uint64_t seen_ns;    /* up to when credit has grown */
	uint64_t started_ns; /* processor time at the last return with punts; 0: it had none */
};

static inline uint64_t halo_thread_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline void halo_share_grow(struct halo_share *share, uint64_t now_ns)
{
	int64_t earned = (int64_t)((now_ns - share->seen_ns) / 100 * share->percent);

	share->seen_ns = now_ns;
	share->credit_ns =
		earned > HALO_SHARE_LIMIT_NS - share->credit_ns ? HALO_SHARE_LIMIT_NS : share->credit_ns + earned;
}

/* A poll begins: what Python has done since the last one was for its punts. */
static inline void halo_share_settle(struct halo_share *share, uint64_t now_ns)
{
	if (share->started_ns == 0)
		return;
	halo_share_grow(share, now_ns);
	share->credit_ns -= (int64_t)(halo_thread_ns() - share->started_ns);
	share->started_ns = 0;
}

/* A poll returns with punts. */
static inline void halo_share_start(struct halo_share *share)
{
	if (share->percent)
		share->started_ns = halo_thread_ns();
}

static inline bool halo_share_allows(struct halo_share *share, uint64_t now_ns, bool arp)
{
	int64_t least = arp ? -(int64_t)HALO_SHARE_ARP_NS : 0;

	if (share->percent == 0 || share->credit_ns > least)
		return true;
	halo_share_grow(share, now_ns);
	return share->credit_ns > least;
}

#endif
