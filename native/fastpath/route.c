/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Route: where does the packet go? One lookup of its destination says so, and whether it is for us, by whichever port it came.
 * Over a burst in passes: each asks for what the next one reads. RFC 1812 sections 4.2, 5.2.4 and 5.3.
 */
#include <halo/fib.h>
#include <halo/flow.h>

#include "worker.h"

enum {
	PROTOCOL_UDP = 17,
	PORT_DHCP_SERVER = 67,
	PLAIN_HEADER = 20,
};

void halo_punt_error(struct halo_worker *worker, struct halo_packet *packet, enum halo_drop reason)
{
	if (packet->injected == HALO_SOURCE_FORWARD) /* nobody has sent it, so nobody is to be told */
		return halo_drop(packet, reason);
	if (halo_tokens_take(&worker->error_tokens, worker->now_ns))
		return halo_punt(packet);
	halo_count(&worker->slot->worker.icmp_suppressed, 1);
	halo_drop(packet, reason);
}

/* ---- where it ends here --------------------------------------------------------------------------------------- */

static bool forwards(const struct halo_worker *worker, const struct halo_packet *packet)
{
	return worker->interfaces.entry[packet->interface].flags & HALO_INTERFACE_FORWARD;
}

/* To all stations of a link: of the one that it came by, or of another, which RFC 2644 closes unless told otherwise. */
static void to_broadcast(struct halo_worker *worker, struct halo_packet *packet, uint32_t interface)
{
	if (interface == packet->interface)
		return halo_local_ipv4(worker, packet, true);
	if (!forwards(worker, packet))
		return halo_drop(packet, HALO_DROP_ipv4_not_local);
	if (interface >= HALO_MAX_INTERFACES ||
	    !(worker->interfaces.entry[interface].flags & HALO_INTERFACE_DIRECTED_BROADCAST))
		return halo_drop(packet, HALO_DROP_ipv4_directed_broadcast);
	halo_punt(packet);
	packet->tx_interface = (uint16_t)interface; /* Python sends it on: it is shown to forward hooks all the same */
}

/* No route. The FIB may be a moment behind the interfaces, or not there: what is ours is ours all the same. */
static void to_nowhere(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_own_address *own = halo_own_find(&worker->own, packet->dst[0]);

	if (own && own->kind == HALO_TARGET_LOCAL)
		return halo_local_ipv4(worker, packet, false);
	if (own)
		return to_broadcast(worker, packet, own->interface);
	if (!forwards(worker, packet))
		return halo_drop(packet, HALO_DROP_ipv4_not_local);
	halo_punt_error(worker, packet, HALO_DROP_ipv4_no_route);
}

/* Whatever is not sent on to a neighbor. */
static void end_here(struct halo_worker *worker, struct halo_packet *packet, uint32_t what)
{
	uint32_t kind = halo_target_kind(what);

	if (kind == HALO_TARGET_LOCAL)
		return halo_local_ipv4(worker, packet, false);
	if (kind == HALO_TARGET_BROADCAST)
		return to_broadcast(worker, packet, halo_target_interface(what));
	if (!forwards(worker, packet) ||
	    (kind != HALO_TARGET_BLACKHOLE && kind != HALO_TARGET_UNREACHABLE && kind != HALO_TARGET_PROHIBIT))
		return to_nowhere(worker, packet);
	if (kind == HALO_TARGET_BLACKHOLE)
		return halo_drop(packet, HALO_DROP_ipv4_blackhole);
	halo_punt_error(worker, packet,
			kind == HALO_TARGET_UNREACHABLE ? HALO_DROP_ipv4_unreachable : HALO_DROP_ipv4_prohibited);
}

/* ---- where it goes on ----------------------------------------------------------------------------------------- */

/* Whether the interface forwards, TTL (RFC 1812 5.3.1), options (5.3.13). False: it was decided. */
static bool may_go_on(struct halo_worker *worker, struct halo_packet *packet, uint32_t interface)
{
	if (!forwards(worker, packet) && packet->injected != HALO_SOURCE_FORWARD) {
		to_nowhere(worker, packet);
		return false;
	}
	if (packet->ttl <= 1) {
		halo_punt_error(worker, packet, HALO_DROP_ipv4_ttl);
		return false;
	}
	if (packet->l4_offset == packet->l3_offset + PLAIN_HEADER || halo_options_let_pass(worker, packet))
		return true;
	packet->tx_interface = (uint16_t)interface; /* as above: Python may send it on */
	return false;
}

static inline uint32_t choose(const struct halo_fib *fib, struct halo_packet *packet, uint32_t leaf)
{
	packet->hash = halo_flow_hash(fib->hash_seed, packet->src[0], packet->dst[0], packet->ip_protocol,
				      packet->src_port, packet->dst_port);
	return halo_fib_choose(fib, leaf, packet->hash);
}

/*
 * Return whether the packet goes on, to the neighbor that `hop` says. `alone`: nobody has looked yet whether its interface
 * forwards, or at TTL and options. `neighbors` may be a copy, which no store can have changed.
 */
static inline bool decide(struct halo_worker *worker, const struct halo_fib *fib,
			  const struct halo_neighbors *neighbors, struct halo_packet *packet, uint32_t leaf,
			  struct halo_hop *hop, bool alone)
{
	const struct halo_target *target = &fib->target[leaf & (HALO_MAX_TARGETS - 1)];
	uint32_t what = halo_target_what(target);
	uint32_t kind = halo_target_kind(what);
	uint32_t next_hop = packet->dst[0];

	if (kind == HALO_TARGET_GROUP) {
		target = &fib->target[choose(fib, packet, leaf)];
		what = halo_target_what(target);
		kind = halo_target_kind(what);
	}
	if (likely(kind == HALO_TARGET_GATEWAY)) {
		next_hop = target->address;
	} else if (unlikely(kind != HALO_TARGET_CONNECTED)) {
		end_here(worker, packet, what);
		return false;
	}
	if (alone && !may_go_on(worker, packet, halo_target_interface(what)))
		return false;
	hop->packet = packet;
	hop->key = halo_neighbor_key((uint16_t)halo_target_interface(what), next_hop);
	hop->home = halo_neighbor_home(neighbors, hop->key);
	__builtin_prefetch(hop->home);
	return true;
}

/* ---- a packet by itself --------------------------------------------------------------------------------------- */

static bool link_local(uint32_t address)
{
	return address >> 16 == 0xa9fe;
}

/* RFC 1812 5.3.7 and RFC 1122 3.2.1.3: sources that nobody can have, or that only we can. 240/4 is above 224. */
static bool martian_source(const struct halo_worker *worker, const struct halo_packet *packet)
{
	uint32_t address = packet->src[0];
	uint32_t net = address >> 24;

	/* RFC 2131: a client without an address asks from 0.0.0.0, everybody, on the server's port. */
	if (address == 0)
		return packet->ip_protocol != PROTOCOL_UDP || packet->dst_port != PORT_DHCP_SERVER ||
		       packet->dst[0] != UINT32_MAX;
	if (net == 0 || net == 127 || net >= 224)
		return true;
	/* A handed one was looked at where it came in, or another worker made it. */
	return !(packet->flags & HALO_DESCRIPTOR_HANDED) && halo_own_find(&worker->own, address);
}

static bool martian_destination(uint32_t address)
{
	uint32_t net = address >> 24;

	return net == 0 || net == 127 || net >= 240;
}

/* Only for us, or for nobody. */
static void route_here(struct halo_worker *worker, struct halo_packet *packet, uint32_t leaf, enum halo_drop otherwise)
{
	uint32_t what = halo_target_what(&worker->fib->target[leaf & (HALO_MAX_TARGETS - 1)]);
	uint32_t kind = halo_target_kind(what);
	uint32_t interface = halo_target_interface(what);
	const struct halo_own_address *own = halo_own_find(&worker->own, packet->dst[0]);

	if (own && kind != HALO_TARGET_LOCAL && kind != HALO_TARGET_BROADCAST) {
		kind = own->kind;
		interface = own->interface;
	}
	if (kind == HALO_TARGET_LOCAL)
		return halo_local_ipv4(worker, packet, otherwise == HALO_DROP_l2_multicast);
	if (kind == HALO_TARGET_BROADCAST && interface == packet->interface)
		return halo_local_ipv4(worker, packet, true);
	halo_drop(packet, forwards(worker, packet) || otherwise == HALO_DROP_l2_multicast ? otherwise
											  : HALO_DROP_ipv4_not_local);
}

/* Behind the checks of where it comes from. */
static void route(struct halo_worker *worker, struct halo_packet *packet, bool group)
{
	uint32_t dst = packet->dst[0];
	uint32_t leaf;

	if (dst == UINT32_MAX)
		return halo_local_ipv4(worker, packet, true);
	if (martian_destination(dst))
		return halo_drop(packet, HALO_DROP_ipv4_martian);
	if (dst >> 28 == 14)
		return halo_drop(packet, HALO_DROP_l2_multicast);
	leaf = halo_fib_leaf(worker->fib, worker->root, dst);
	if (group) /* RFC 1812 5.3.4: what was sent to all stations of a link is not forwarded */
		return route_here(worker, packet, leaf, HALO_DROP_l2_multicast);
	if (link_local(packet->src[0]) || link_local(dst))
		return route_here(worker, packet, leaf, HALO_DROP_ipv4_link_local);
	worker->hop_count +=
		decide(worker, worker->fib, &worker->neighbors, packet, leaf, &worker->hop[worker->hop_count], true);
}

void halo_route_alone(struct halo_worker *worker, struct halo_packet *packet, bool group)
{
	if (martian_source(worker, packet))
		return halo_drop(packet, HALO_DROP_ipv4_martian);
	route(worker, packet, group);
}

void halo_route_again(struct halo_worker *worker, struct halo_packet *packet)
{
	route(worker, packet, false);
}

/* ---- a burst -------------------------------------------------------------------------------------------------- */

/* Ask for what an entry leads to. */
static inline void prefetch_entry(const struct halo_fib *fib, uint32_t entry, uint32_t octet)
{
	if (entry & HALO_FIB_CHILD)
		__builtin_prefetch(&halo_fib_node(fib, entry)[octet]);
	else
		__builtin_prefetch(&fib->target[entry & (HALO_MAX_TARGETS - 1)]);
}

/* One level down. Returns whether there is another one below, for any of them. */
static bool descend(const struct halo_worker *worker, uint32_t *entry, uint32_t shift)
{
	const struct halo_selection *routed = &worker->routed;
	const struct halo_fib *fib = worker->fib;
	uint32_t deeper = 0;
	uint32_t i;

	for (i = 0; i < routed->count; i++) {
		uint32_t dst = routed->packet[i]->dst[0];

		if (!(entry[i] & HALO_FIB_CHILD))
			continue;
		entry[i] = halo_fib_load(&halo_fib_node(fib, entry[i])[dst >> shift & 255]);
		deeper |= entry[i];
		prefetch_entry(fib, entry[i], dst & 255);
	}
	return deeper & HALO_FIB_CHILD;
}

void halo_stage_route(struct halo_worker *worker)
{
	const struct halo_selection *routed = &worker->routed;
	const struct halo_fib *fib = worker->fib;
	const struct halo_neighbors neighbors = worker->neighbors;
	const uint32_t *root = worker->root;
	uint32_t count = routed->count, hops = worker->hop_count;
	uint32_t entry[HALO_WIDE_BURST];
	uint32_t deeper = 0;
	uint32_t i;

	for (i = 0; i < count; i++) {
		uint32_t dst = routed->packet[i]->dst[0];

		entry[i] = halo_fib_load(&root[dst >> 16]);
		deeper |= entry[i];
		prefetch_entry(fib, entry[i], dst >> 8 & 255);
	}
	if ((deeper & HALO_FIB_CHILD) && descend(worker, entry, 8))
		descend(worker, entry, 0);
	for (i = 0; i < count; i++)
		hops += decide(worker, fib, &neighbors, routed->packet[i], entry[i], &worker->hop[hops], false);
	worker->hop_count = hops;
}
