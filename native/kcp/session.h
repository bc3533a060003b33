/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a session, for the files of native/kcp. session.c has the theory of operation. */
#ifndef HALO_KCP_SESSION_H
#define HALO_KCP_SESSION_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <halo/kcp.h>

#include "segment.h"

enum {
	RTO_NODELAY_MS = 30,
	RTO_MIN_MS = 100,
	RTO_DEFAULT_MS = 200,
	RTO_MAX_MS = 60000,
	PROBE_FIRST_MS = 7000,
	PROBE_MOST_MS = 120000,
	CLOCK_JUMP_MS = 10000, /* a clock that is so far from the next flush was set, or not asked for long */
	IDLE_MS = 1000,        /* after which queues give their memory back */
	REMOTE_WINDOW = 128,   /* before the peer has told its own */
	FIRST_SLOTS = 8,
	LINE = 64,   /* octets of a cache's */
	PAGE = 4096, /* further the processor sees itself */
};

/* Why a flush does not wait for the next interval. */
enum {
	URGENT_ACKS = 1,
	URGENT_ALL = 2,
};

/* Segments of control that the next flush sends. */
enum {
	PROBE_ASK = 1,
	PROBE_TELL = 2,
};

/* A segment that was sent, or that waits: the slot of its sn. */
struct out_slot {
	struct segment *segment; /* NULL: acknowledged */
	uint32_t ts;
	uint32_t resend_ms; /* when it times out */
	uint32_t rto_ms;
	uint32_t skipped; /* acknowledgements of later ones */
	uint32_t sends;   /* 0: never sent */
	uint32_t check;   /* of its payload, once it was sent */
};

struct ack {
	uint32_t sn;
	uint32_t ts;
};

struct congestion;

struct halo_kcp {
	uint64_t conv;
	struct halo_kcp_settings settings;
	const struct congestion *congestion;
	struct pool *pool; /* its own, or its group's */
	struct pool own_pool;
	uint32_t header; /* octets */
	uint32_t mss;
	uint32_t end;     /* enum halo_kcp_end */
	uint32_t grouped; /* != 0: a group has it */

	/* Sending: [send_una, send_next) are in flight, [send_next, send_end) wait; slots by sn. */
	struct out_slot *out;
	uint32_t out_slots; /* a power of two, or 0 */
	uint32_t send_una;
	uint32_t send_next;
	uint32_t send_end;
	uint32_t in_flight; /* of those that are not acknowledged */
	uint32_t resend_ms; /* no segment in flight times out before */
	uint32_t remote_window;
	bool look; /* one of those in flight may be due before that: `skipped` is enough */

	/* Receiving: [read_next, receive_next) wait for the application, [receive_next, receive_end) have gaps; slots by sn. */
	struct segment **in;
	uint32_t in_slots;
	uint32_t read_next;
	uint32_t receive_next;
	uint32_t receive_end;
	uint32_t held;        /* in the part with gaps */
	uint32_t read_offset; /* octets of the first segment that were read, in stream mode */
	uint64_t unread_octets;
	uint32_t allowance; /* segments that may wait for the application and do not count in the window */
	bool borrows;       /* payloads stay where they came, until the session is settled */
	uint32_t lent_from; /* [lent_from, lent_end): those that may lie there */
	uint32_t lent_end;
	uint32_t pushed; /* != 0: the peer has written, and newest_ts is the latest time that it said */
	uint32_t newest_ts;

	struct ack *acks;
	uint32_t ack_count;
	uint32_t ack_room;

	int32_t srtt_ms;
	int32_t rttvar_ms;
	uint32_t rto_ms;
	uint32_t min_rto_ms;
	uint32_t window; /* of congestion, segments */
	uint32_t window_octets;
	uint32_t threshold;
	uint32_t timed;  /* != 0: was polled once, flush_ms says something */
	uint32_t urgent; /* URGENT_ */
	uint32_t probe;  /* PROBE_ */

	uint32_t flush_ms;      /* when the next interval begins */
	uint32_t probe_ms;      /* when the peer's window is asked for */
	uint32_t probe_wait_ms; /* 0: it is not */
	uint32_t idle_ms;       /* since when queues are empty */
	bool idle;              /* and nothing has gone in since */

	uint64_t octets; /* of its queues */
	struct halo_kcp_counters counters;
};

/* Congestion control: what a session asks, and what it tells. */
struct congestion {
	const char *name;
	uint32_t (*window)(const struct halo_kcp *kcp);      /* segments that may be in flight */
	void (*acknowledged)(struct halo_kcp *kcp);          /* una has moved on */
	void (*resent)(struct halo_kcp *kcp);                /* segments were sent again before their time-out */
	void (*lost)(struct halo_kcp *kcp, uint32_t window); /* segments have timed out */
	void (*flushed)(struct halo_kcp *kcp);
};

const struct congestion *halo_congestion_find(uint32_t number);

/* later - earlier, right across a wrap. */
static inline int32_t after(uint32_t later, uint32_t earlier)
{
	return (int32_t)(later - earlier);
}

static inline uint32_t least(uint32_t left, uint32_t right)
{
	return left < right ? left : right;
}

static inline uint32_t most(uint32_t left, uint32_t right)
{
	return left > right ? left : right;
}

static inline struct out_slot *out_slot(const struct halo_kcp *kcp, uint32_t sn)
{
	return &kcp->out[sn & (kcp->out_slots - 1)];
}

static inline struct segment **in_slot(const struct halo_kcp *kcp, uint32_t sn)
{
	return &kcp->in[sn & (kcp->in_slots - 1)];
}

/* Of the unread segments, how many do not count; fewer of a peer whose segments are longer than ours may be. */
static inline uint32_t uncounted(const struct halo_kcp *kcp, uint32_t unread)
{
	uint64_t full = (uint64_t)unread * kcp->mss;

	if (kcp->unread_octets <= full)
		return kcp->allowance;
	return (uint32_t)(kcp->allowance * full / kcp->unread_octets);
}

/* Segments that the application may still get before it reads. */
static inline uint32_t free_window(const struct halo_kcp *kcp)
{
	uint32_t unread = kcp->receive_next - kcp->read_next;

	if (kcp->allowance)
		unread -= least(unread, uncounted(kcp, unread));
	return unread < kcp->settings.receive_window ? kcp->settings.receive_window - unread : 0;
}

static inline uint32_t send_window(const struct halo_kcp *kcp)
{
	return least(least(kcp->settings.send_window, kcp->remote_window), kcp->congestion->window(kcp));
}

static inline struct segment *take_segment(struct halo_kcp *kcp, uint32_t capacity)
{
	struct segment *segment = pool_take(kcp->pool, capacity);

	if (segment)
		kcp->octets += segment_octets(segment);
	return segment;
}

static inline void release_segment(struct halo_kcp *kcp, struct segment *segment)
{
	kcp->octets -= segment_octets(segment);
	pool_give(kcp->pool, segment);
}

/*
 * Move segments without a gap to what the application can read. In stream mode a segment without octets is read by nobody
 * when nothing stands before it: it goes at once, or a window full of them would never open again.
 */
static inline void advance(struct halo_kcp *kcp)
{
	while (kcp->held && free_window(kcp) > 0) {
		struct segment **slot = in_slot(kcp, kcp->receive_next), *segment = *slot;

		if (!segment)
			return;
		kcp->unread_octets += segment->length;
		kcp->receive_next++;
		kcp->held--;
		if (segment->length == 0 && kcp->settings.stream && kcp->receive_next - kcp->read_next == 1) {
			kcp->read_next++;
			*slot = NULL;
			release_segment(kcp, segment);
		}
	}
}

/* Room for sn up to `end`, the end not included. -ENOMEM. */
int halo_session_grow_out(struct halo_kcp *kcp, uint32_t end);
int halo_session_grow_in(struct halo_kcp *kcp, uint32_t end);
/* Leave payloads where they come, until it is settled: what is read before was copied once. */
void halo_session_borrow(struct halo_kcp *kcp);
/* Have everything in memory of its own; those who lent it may have theirs. */
void halo_session_settle(struct halo_kcp *kcp);
/* From now on segments come from that pool; NULL: its own. */
void halo_session_use_pool(struct halo_kcp *kcp, struct pool *pool);
void halo_session_apply(struct halo_kcp *kcp, const struct halo_kcp_settings *settings);
/* Whether a datagram shows that who sent it has part in the session: it is right as a whole, and says what is new to us. */
bool halo_session_proves(const struct halo_kcp *kcp, const uint8_t *octets, uint64_t length);

/* Send what is due; without `all` acknowledgements alone. */
void halo_session_flush(struct halo_kcp *kcp, uint32_t now_ms, bool all, struct halo_kcp_output *output);

/* Room for so many octets behind what is used; NULL: no memory. */
uint8_t *halo_output_reserve(struct halo_kcp_output *output, uint32_t octets);
/* -ENOMEM. */
int halo_output_add(struct halo_kcp_output *output, const uint8_t *octets, uint32_t length);

#endif
