/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks, and frames that are put in, as the worker's Python sees them. A hook is shown the packets of its stage with verdict NONE;
 * what it leaves so goes on. A native one is called in line; for one of Python's the poll comes back with HALO_POLL_HOOK and the
 * burst parked, and the next poll goes on from there. After each hook the packets are settled:
 *
 *   src, dst, ttl, tos, src_port, dst_port   what the hook changed is written into the frame, checksums mended (RFC 1624)
 *   offset, length                           may change within the buffer; the frame is parsed again
 *   rewritten, or other header octets        the frame is parsed again: what stands there is what is routed
 *   verdict, reason, tx_port, mark           are the hook's
 *   anything else                            is as it was
 *
 * Functions return 0, a number or a count, or a negative errno: -EINVAL for what can not be, -ENOENT where there is no such hook.
 */

typedef int64_t (*halo_hook_function)(struct halo_packet *packets, int64_t count, uint8_t *pool); /* < 0: it failed */

enum halo_hook_constant {
	/* A verdict of hooks only: it failed on this packet. Counted, then on_error says what becomes of it. */
	HALO_VERDICT_ERROR = 255,
	/* on_error, and the policy of a quarantine */
	HALO_HOOK_PASS = 0,
	HALO_HOOK_DROP = 1,         /* as hook_error, or hook_quarantined */
	HALO_EGRESS_WAITING = 4096, /* frames that can wait for the egress hooks; HALO_WIDE_BURST at the other stages */
	HALO_SHADOW_OCTETS = 128,
};

struct halo_hook_setup {
	char name[HALO_HOOK_NAME_OCTETS];
	uint32_t stage;   /* enum halo_stage, but TX */
	int32_t priority; /* hooks run from the lowest to the highest, equal ones in the order in which they were added */
	uint64_t ports;   /* bit n: packets that came in by port n; at egress: that leave by it. 0: of all ports */
	uint32_t interface;          /* the same of an interface; HALO_NO_INTERFACE: of all */
	uint32_t on_error;           /* HALO_HOOK_PASS or HALO_HOOK_DROP */
	halo_hook_function function; /* NULL: Python's */
};

/* What settling compares with: a packet and its headers as they were. Its inside is settle.c's. */
struct halo_shadow {
	uint8_t octets[HALO_SHADOW_OCTETS];
};

/* What a settled burst was, added to what stands there. */
struct halo_settled {
	uint64_t dropped;
	uint64_t rewritten;
	uint64_t errors;
	uint64_t decided; /* dropped or not */
	uint64_t trimmed; /* octets by which frames have become shorter; may be "negative" */
};

/* The number of the hook, from its place in slot->hook[]. -ENOSPC: HALO_MAX_HOOKS are there. */
int halo_worker_add_hook(struct halo_worker *worker, const struct halo_hook_setup *setup);
/* Its counters stay, as removed. Of a burst that is parked it is not called any more. */
int halo_worker_remove_hook(struct halo_worker *worker, uint32_t number);
/* From the next burst on; NULL: Python's. */
int halo_worker_set_hook_function(struct halo_worker *worker, uint32_t number, halo_hook_function function);
int halo_worker_set_hook_interface(struct halo_worker *worker, uint32_t number, uint32_t interface);
/* It is called no more: its packets pass, or are dropped as hook_quarantined. set_hook_function ends that. */
int halo_worker_quarantine_hook(struct halo_worker *worker, uint32_t number, uint32_t policy);
/* Exceptions of a hook that no packet's verdict tells of. */
int halo_worker_count_hook_errors(struct halo_worker *worker, uint32_t number, uint32_t errors);
/* How many packets are parked; 0: the last poll did not come back for a hook. */
int halo_worker_parked(const struct halo_worker *worker);

/*
 * Put a frame in at a stage (enum halo_stage), by a copy in a spare buffer; it goes on with the next poll. Ingress: as if it
 * had come in by `port`. Forward: an IPv4 packet of ours, or one that `port` would have received; it is routed, and its TTL lowered.
 * Egress: out of `port`, past the hooks there; TX: out of `port` at once. -ENOBUFS, -EMSGSIZE are counted drops.
 */
int halo_worker_inject(struct halo_worker *worker, uint32_t stage, uint32_t port, const uint8_t *frame,
		       uint32_t length);

/*
 * The same without a worker, for tests of hooks. Of each packet offset, length and port are set; the rest is parsed, and what
 * is wrong with it is its verdict.
 */
void halo_packets_parse(const uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			uint32_t count, uint64_t timestamp_ns);
/* Before the hook ... */
void halo_packets_remember(const uint8_t *pool, const struct halo_packet *packets, uint32_t count,
			   struct halo_shadow *shadows);
/* ... and after it: each packet's verdict is one that the stages know, and shadows are for the next hook. */
void halo_packets_settle(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			 uint32_t count, struct halo_shadow *shadows, uint32_t on_error, struct halo_settled *settled);
/*
 * For who rewrote octets: the checksums of the IPv4 header and of UDP, TCP or ICMP behind it are made anew (of fragments only
 * the header's; a UDP checksum of 0 stays), and `rewritten` is set. What is no IPv4 stays as it is.
 */
void halo_packets_update_checksums(uint8_t *pool, const struct halo_pool_geometry *geometry,
				   struct halo_packet *packets, uint32_t count);

/* bench hooks, native: pass everything; drop UDP to port 9 from 10.0.0.0/8. */
int64_t halo_bench_hook_nothing(struct halo_packet *packets, int64_t count, uint8_t *pool);
int64_t halo_bench_hook_filter(struct halo_packet *packets, int64_t count, uint8_t *pool);
