/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's private state and the stages that work on it. Nothing here is in shared memory. */
#ifndef HALO_WORKER_H
#define HALO_WORKER_H

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include <halo/fastpath.h>
#include <halo/hook.h>
#include <halo/ring.h>

#include "addresses.h"
#include "blast.h"
#include "capture.h"
#include "chain.h"
#include "neighbors.h"
#include "raw.h"
#include "share.h"
#include "sockets.h"
#include "tokens.h"

enum {
	PORT_ENTRIES = 256, /* one for whatever a descriptor may say, so that nobody has to ask */
};

/* What the fast path must know of a port, compiled from the tables when their epoch changes. */
struct halo_port_entry {
	uint64_t mac;        /* of its interface without a VLAN, if that one forwards; else what no frame has */
	uint16_t untagged;   /* number of that interface, whether or not it forwards; HALO_NO_INTERFACE */
	uint16_t count;      /* of its interfaces that are up */
	uint16_t macswap_to; /* HALO_NO_PORT, or measuring mode */
};

enum { VLAN_PLACE_BITS = 10 }; /* four places for each interface that there can be */

/* From (port, VLAN) to the number of an interface that is up: port << 21 | VLAN << 9 | number + 1; 0: an empty place. */
struct halo_vlan_map {
	uint32_t place[1 << VLAN_PLACE_BITS];
};

/* Packets of a burst that want a route. */
struct halo_selection {
	uint32_t count;
	struct halo_packet *packet[HALO_WIDE_BURST];
};

/* Packets that have a route and want a neighbor. */
struct halo_hop {
	uint64_t key; /* of the neighbor: interface and address, see halo_neighbor_key */
	struct halo_neighbor *home;
	struct halo_packet *packet;
};

enum halo_twin_role {
	HALO_TWIN_NONE = 0,
	HALO_TWIN_PORT,   /* shared with the kernel: `other` is its twin */
	HALO_TWIN_KERNEL, /* a twin: `other` is the port that it belongs to */
};

struct halo_twin {
	uint8_t role; /* enum halo_twin_role */
	uint8_t other;
	uint32_t only; /* of our addresses the one that is ours on this port, host order; 0: all are */
};

struct halo_worker {
	/* read once at attach */
	uint8_t *pool;
	struct halo_slot *slot;
	const struct halo_tables *tables;
	const struct halo_fib *fib;
	struct halo_pool_geometry geometry;
	struct halo_slot_geometry rings; /* as it was when it was checked; nobody looks at the shared one again */
	uint32_t slot_number;
	int doorbell_fd;
	int driver_doorbell_fd;
	int epoll_fd;
	uint32_t idle_policy;
	int64_t spin_ns;
	bool enabled;
	bool dirty;          /* something was submitted since the doorbell was last looked at */
	uint32_t generation; /* of the rings that we are attached to */

	struct halo_consumer rx;
	struct halo_consumer spare;
	struct halo_producer tx;
	uint32_t tx_pending; /* put on tx, not yet submitted */
	uint32_t tx_room;    /* reserved since the last submit */

	uint64_t now_ns;  /* of the current burst */
	uint64_t left_ns; /* when the last poll went back to Python; 0: there was none */
	uint64_t bursts;  /* that had frames */
	int64_t next_fd_look_ns;
	uint64_t epoch;
	struct halo_port_entry port[PORT_ENTRIES];
	bool measuring; /* some port is in measuring mode */
	uint32_t interface_generation;
	struct halo_interface_block interfaces; /* a copy of the active block */
	struct halo_vlan_map vlans;
	struct halo_own_addresses own;

	const uint32_t *root; /* of the FIB, for the current burst */
	bool fib_is_ours;     /* an empty one, for want of another */
	struct halo_neighbors neighbors;
	struct halo_tokens resolve_tokens;
	struct halo_tokens error_tokens;
	struct halo_share share;
	struct halo_selection routed;
	struct halo_hop hop[HALO_WIDE_BURST];
	uint32_t hop_count;
	uint32_t forwarded_count; /* sent on in this burst */
	uint64_t trimmed_octets;  /* by which received frames of this burst have become shorter; may be "negative" */

	struct halo_touched touched[HALO_MAX_TOUCHED];
	uint32_t touched_count;
	uint32_t touched_told; /* of them, with the return of the last poll */
	uint64_t touched_since_ns;

	uint32_t width;      /* of a burst: HALO_BURST, or HALO_WIDE_BURST, see halo_worker_set_width */
	uint32_t wide_users; /* who want wide ones, besides hooks */
	struct halo_packet burst[HALO_WIDE_BURST];
	struct halo_packet punts[HALO_MAX_PUNTS];
	bool punt_open[HALO_MAX_PUNTS];
	uint32_t punt_count;
	uint32_t punts_open;

	struct halo_sockets *sockets;
	struct halo_datagrams *datagrams;
	struct halo_raw raw;
	struct halo_blasts blasts;

	struct halo_worker *next_kept; /* of those whose memory outlives them */

	bool has_twins;
	struct halo_twin twin[HALO_MAX_PORTS];

	bool debug;
	uint32_t debug_count;
	uint32_t debug_missed;
	uint32_t debug_first; /* of the burst that is under way */
	struct halo_debug_frame debug_frames[HALO_MAX_DEBUG];

	struct halo_chain chain;
	struct halo_captures captures;
};

static inline uint64_t halo_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline void halo_drop(struct halo_packet *packet, enum halo_drop reason)
{
	packet->verdict = HALO_VERDICT_DROP;
	packet->reason = (uint8_t)reason;
}

static inline void halo_punt(struct halo_packet *packet)
{
	packet->verdict = HALO_VERDICT_PUNT;
}

static inline void halo_hand(struct halo_packet *packet, uint8_t slot)
{
	packet->verdict = HALO_VERDICT_HAND;
	packet->tx_port = slot;
}

static inline void halo_send(struct halo_packet *packet, uint16_t port)
{
	packet->verdict = HALO_VERDICT_TRANSMIT;
	packet->tx_port = port;
}

/* How far into its buffer that octet of the pool is: in each chunk buffers begin anew. */
static inline uint32_t halo_place_in_buffer(const struct halo_pool_geometry *geometry, uint32_t offset)
{
	return (offset & (HALO_CHUNK_OCTETS - 1)) % geometry->stride_octets;
}

/* Where a frame that this worker makes is to have come in, should it be handed over. */
static inline void halo_set_port_of(struct halo_worker *worker, uint32_t offset, uint8_t port)
{
	uint8_t *start = worker->pool + offset - halo_place_in_buffer(&worker->geometry, offset);

	((struct halo_metadata *)(void *)start)->port = port;
}

/* Octets from there to the end of its buffer. */
static inline uint32_t halo_room_in_buffer(const struct halo_pool_geometry *geometry, uint32_t offset)
{
	return geometry->stride_octets - halo_place_in_buffer(geometry, offset);
}

/* Whether a frame can lie there in the buffer that `known` is an octet of, behind the metadata. */
static inline bool halo_fits_buffer(const struct halo_pool_geometry *geometry, uint32_t known, uint32_t offset,
				    uint32_t length)
{
	uint64_t start = known - halo_place_in_buffer(geometry, known), end = (uint64_t)offset + length;

	return length >= HALO_MIN_FRAME_OCTETS && offset >= start + HALO_METADATA_OCTETS &&
	       end <= start + geometry->stride_octets && end <= geometry->size_octets;
}

/* The interface of a port and VLAN id, 0 for none; HALO_NO_INTERFACE. */
uint16_t halo_vlan_find(const struct halo_worker *worker, uint8_t port, uint16_t vlan);

static inline uint16_t halo_interface_of(const struct halo_worker *worker, uint8_t port, uint16_t vlan)
{
	return vlan ? halo_vlan_find(worker, port, vlan) : worker->port[port].untagged;
}

/* stages, each over a whole burst, or over those of it that an earlier stage selected */
uint32_t halo_stage_receive(struct halo_worker *worker);
void halo_stage_parse(struct halo_worker *worker, uint32_t count);
void halo_stage_twin(struct halo_worker *worker, uint32_t count);
void halo_stage_input(struct halo_worker *worker, uint32_t count);
void halo_stage_route(struct halo_worker *worker);
void halo_stage_forward(struct halo_worker *worker);
void halo_stage_finish(struct halo_worker *worker, uint32_t count);

/* Whether packets to this next hop go nowhere: it has failed, or its interface is down. */
bool halo_hop_is_dead(const struct halo_worker *worker, uint16_t interface, uint32_t next_hop);
/* Of a leaf that is a group, a hop for the flow that is not dead, its address filled in. False: none was found. */
bool halo_another_hop(const struct halo_worker *worker, uint32_t leaf, uint32_t hash, uint32_t dst,
		      struct halo_route_found *found);

/* Route a packet by itself, with every check: addresses that are unusual, or a frame to a group of stations. */
void halo_route_alone(struct halo_worker *worker, struct halo_packet *packet, bool group);
/* Route a packet of ours, or one that a hook has changed behind the checks of where it comes from. */
void halo_route_again(struct halo_worker *worker, struct halo_packet *packet);
/* Python sends an ICMP error for it, unless there are too many: then it is dropped, for this reason. */
void halo_punt_error(struct halo_worker *worker, struct halo_packet *packet, enum halo_drop reason);
/* The packet is for us; `to_all`: as one of several. */
void halo_local_ipv4(struct halo_worker *worker, struct halo_packet *packet, bool to_all);
/* The same for UDP: whole, and without options. */
void halo_local_udp(struct halo_worker *worker, struct halo_packet *packet, bool to_all);
/* Whether a frame of ours may go to the neighbor as it is; its use is noted. */
bool halo_neighbor_use(struct halo_worker *worker, struct halo_neighbor *neighbor);
/* What options mean for a packet that would go on; false: it was decided. */
bool halo_options_let_pass(struct halo_worker *worker, struct halo_packet *packet);
void halo_macswap(struct halo_worker *worker, struct halo_packet *packet, uint16_t port);
bool halo_interfaces_refresh(struct halo_worker *worker);
void halo_interfaces_compile(struct halo_worker *worker);
void halo_debug_keep(struct halo_worker *worker, uint32_t count);
void halo_debug_conclude(struct halo_worker *worker);

void halo_attach_rings(struct halo_worker *worker);

/* How wide bursts are, after a change of hooks or of wide_users. */
void halo_worker_set_width(struct halo_worker *worker);

/* Parse a packet anew, but for what is not in its frame. Returns HALO_DROP_COUNT, or the reason why it is none. */
enum halo_drop halo_packet_parse_again(const uint8_t *pool, const struct halo_pool_geometry *geometry,
				       struct halo_packet *packet);

/* chain: one burst with hooks, or of frames that were put in. Returns how many frames it has, or HALO_RING_BROKEN. */
uint32_t halo_chain_run(struct halo_worker *worker);
/* Tell Python what is parked for it. */
void halo_chain_show(struct halo_worker *worker, struct halo_poll_result *result);
/* The rings are not ours any more: what is parked or waits is lost. */
void halo_chain_abandon(struct halo_worker *worker);
/* The worker ends in order: what is parked or waits is dropped. */
void halo_chain_end(struct halo_worker *worker);
/* Hooks that were added or removed take their places. */
void halo_chain_arrange(struct halo_worker *worker);
/* Let a frame of ours wait for a stage. False: no room. */
bool halo_chain_wait(struct halo_worker *worker, enum halo_stage stage, struct halo_descriptor descriptor);

/* tx */
bool halo_take_spare(struct halo_worker *worker, struct halo_descriptor *descriptor);
/* A frame of ours in a spare buffer, counted as originated. -EMSGSIZE, -ENOBUFS: it is dropped, and counted. */
int halo_make_frame(struct halo_worker *worker, uint32_t port, const uint8_t *frame, uint32_t length,
		    struct halo_descriptor *descriptor);
/* Give a frame that is in no burst to another slot. */
void halo_hand_over(struct halo_worker *worker, struct halo_descriptor descriptor, uint8_t slot);
/* Send a frame that is in no burst out of its port: by way of the egress hooks, if there are any; and without them. */
void halo_send_frame(struct halo_worker *worker, struct halo_descriptor descriptor);
void halo_send_past_hooks(struct halo_worker *worker, struct halo_descriptor descriptor);
/* Put a buffer on tx for the driver to have back; it is counted by who does that. */
void halo_release(struct halo_worker *worker, struct halo_descriptor descriptor);
void halo_copy(struct halo_worker *worker, const struct halo_packet *packet, uint16_t port);
bool halo_tx_find_room(struct halo_worker *worker);
void halo_tx_count_interface(struct halo_worker *worker, struct halo_descriptor descriptor);
void halo_tx_submit(struct halo_worker *worker);
void halo_ring_doorbell(struct halo_worker *worker);

/* False: the ring has no room, or its indices make no sense. */
static inline bool halo_tx_put(struct halo_worker *worker, struct halo_descriptor descriptor)
{
	if (unlikely(worker->tx_pending == worker->tx_room) && !halo_tx_find_room(worker))
		return false;
	halo_ring_put(&worker->tx, worker->tx_pending++, descriptor);
	return true;
}

#endif
