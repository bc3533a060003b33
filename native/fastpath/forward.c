/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward: the neighbor's Ethernet header in front of the packet, a TTL less, and out. What has no usable neighbor is looked at
 * more closely: Python resolves it at home, and another worker hands the frame there, as it came.
 */
#include <halo/fib.h>

#include "octets.h"
#include "worker.h"

enum {
	SHORTEST_FRAME = 60, /* of Ethernet, without the frame check sequence */
	OTHER_BUCKETS = 16,  /* of a group are tried, when the neighbor of the chosen one has failed */
	DONT_FRAGMENT = 0x4000,
};

/* ---- neighbors that want a closer look ------------------------------------------------------------------------ */

/* False: the list is full, so its next use will be told of. */
static bool touch(struct halo_worker *worker, const struct halo_neighbor *neighbor)
{
	if (worker->touched_count == HALO_MAX_TOUCHED)
		return false;
	if (worker->touched_count == 0)
		worker->touched_since_ns = worker->now_ns;
	worker->touched[worker->touched_count++] = (struct halo_touched){
		.address = (uint32_t)neighbor->key, .interface = halo_neighbor_interface(neighbor->key)};
	halo_count(&worker->slot->worker.neighbor_touches, 1);
	return true;
}

/* Python hears that it is used. */
static void use(struct halo_worker *worker, struct halo_neighbor *neighbor)
{
	if (!touch(worker, neighbor))
		return;
	neighbor->touched = 1;
	neighbor->reported_ns = worker->now_ns;
	neighbor->quiet_until_ns = neighbor->state == HALO_NEIGHBOR_STALE
					   ? UINT64_MAX
					   : worker->now_ns + HALO_REPORT_S * UINT64_C(1000000000);
}

static bool is_up(const struct halo_worker *worker, uint16_t interface)
{
	return interface < worker->interfaces.count && (worker->interfaces.entry[interface].flags & HALO_INTERFACE_UP);
}

static bool is_dead(const struct halo_worker *worker, uint16_t interface, const struct halo_neighbor *neighbor)
{
	return !is_up(worker, interface) || (neighbor && neighbor->state == HALO_NEIGHBOR_FAILED);
}

bool halo_hop_is_dead(const struct halo_worker *worker, uint16_t interface, uint32_t next_hop)
{
	return is_dead(worker, interface,
		       halo_neighbor_find(&worker->neighbors, halo_neighbor_key(interface, next_hop)));
}

bool halo_another_hop(const struct halo_worker *worker, uint32_t leaf, uint32_t hash, uint32_t dst,
		      struct halo_route_found *found)
{
	const struct halo_fib *fib = worker->fib;
	uint32_t other = hash >> 16; /* with an odd stride, so that each bucket of a small group has its turn */
	uint32_t stride = hash >> 8 | 1;
	uint32_t i;

	if (halo_target_kind(halo_target_what(&fib->target[leaf & (HALO_MAX_TARGETS - 1)])) != HALO_TARGET_GROUP)
		return false;
	for (i = 0; i < OTHER_BUCKETS; i++, other += stride) {
		const struct halo_target *target = &fib->target[halo_fib_choose(fib, leaf, other)];
		uint32_t what = halo_target_what(target);
		uint32_t kind = halo_target_kind(what);
		uint32_t next_hop = kind == HALO_TARGET_GATEWAY ? target->address : dst;
		uint16_t interface = (uint16_t)halo_target_interface(what);

		if (kind != HALO_TARGET_GATEWAY && kind != HALO_TARGET_CONNECTED)
			continue;
		if (halo_hop_is_dead(worker, interface, next_hop))
			continue;
		*found = (struct halo_route_found){.kind = kind, .interface = interface, .address = next_hop};
		return true;
	}
	return false;
}

/* The packet's neighbor has failed: go to that of another member of its target, if that is a group. */
static struct halo_neighbor *take_another(struct halo_worker *worker, struct halo_packet *packet,
					  struct halo_neighbor *failed)
{
	uint32_t leaf = halo_fib_leaf(worker->fib, worker->root, packet->dst[0]);
	struct halo_route_found found;

	if (!halo_another_hop(worker, leaf, packet->hash, packet->dst[0], &found))
		return failed;
	packet->tx_interface = (uint16_t)found.interface;
	packet->next_hop = found.address;
	return halo_neighbor_find(&worker->neighbors, halo_neighbor_key(packet->tx_interface, found.address));
}

/* At home: Python looks for the neighbor and keeps the packet, as long as it is one of few. */
static void look_for(struct halo_worker *worker, struct halo_packet *packet, struct halo_neighbor *neighbor)
{
	if (neighbor && neighbor->held >= HALO_HOLD_LIMIT)
		return halo_drop(packet, HALO_DROP_neighbor_hold_full);
	if (!halo_tokens_take(&worker->resolve_tokens, worker->now_ns))
		return halo_drop(packet, HALO_DROP_neighbor_rate);
	if (neighbor)
		neighbor->held++;
	halo_punt(packet);
}

/* Not known, looked for, failed, or behind an interface that is down. */
static void without_neighbor(struct halo_worker *worker, struct halo_packet *packet, struct halo_neighbor *neighbor)
{
	const struct halo_interface *interface;

	if (!is_up(worker, packet->tx_interface))
		return halo_drop(packet, HALO_DROP_interface_down);
	interface = &worker->interfaces.entry[packet->tx_interface];
	if (neighbor && neighbor->state == HALO_NEIGHBOR_FAILED)
		return halo_punt_error(worker, packet, HALO_DROP_neighbor_unresolved);
	/* What is ours goes from here: the other worker would take it for a forgery. */
	if (interface->home_slot == worker->slot_number || packet->injected == HALO_SOURCE_FORWARD)
		return look_for(worker, packet, neighbor);
	/* Nobody looks for it, or the two workers disagree: nobody asks a third. */
	if (interface->home_slot == HALO_NO_SLOT || (packet->flags & HALO_DESCRIPTOR_HANDED))
		return halo_drop(packet, HALO_DROP_neighbor_unresolved);
	halo_hand(packet, interface->home_slot);
}

bool halo_neighbor_use(struct halo_worker *worker, struct halo_neighbor *neighbor)
{
	if (!neighbor->up)
		return false;
	if (worker->now_ns < neighbor->quiet_until_ns)
		return true;
	if (neighbor->state != HALO_NEIGHBOR_STALE && neighbor->state != HALO_NEIGHBOR_REPORT)
		return false;
	use(worker, neighbor);
	return true;
}

/* Return the neighbor that the packet goes to; NULL: it was decided. */
static struct halo_neighbor *look_closer(struct halo_worker *worker, struct halo_packet *packet,
					 struct halo_neighbor *neighbor)
{
	if (is_dead(worker, packet->tx_interface, neighbor))
		neighbor = take_another(worker, packet, neighbor);
	if (neighbor && halo_neighbor_use(worker, neighbor))
		return neighbor;
	without_neighbor(worker, packet, neighbor);
	return NULL;
}

/* ---- the frame ------------------------------------------------------------------------------------------------ */

static void too_long(struct halo_worker *worker, struct halo_packet *packet)
{
	if (packet->fragment & DONT_FRAGMENT)
		return halo_punt_error(worker, packet, HALO_DROP_ipv4_too_big);
	halo_punt(packet); /* Python sends it in fragments */
}

/* A frame that lost its tag may be too short now: octets that were somebody else's must not fill it. */
static void pad(struct halo_worker *worker, struct halo_packet *packet)
{
	if (packet->length >= SHORTEST_FRAME ||
	    halo_room_in_buffer(&worker->geometry, packet->offset) < SHORTEST_FRAME ||
	    (uint64_t)packet->offset + SHORTEST_FRAME > worker->geometry.size_octets)
		return;
	memset(worker->pool + packet->offset + packet->length, 0, SHORTEST_FRAME - packet->length);
	packet->length = SHORTEST_FRAME;
}

/* From tagged to untagged or back: the packet stays where it is, and the frame starts later or earlier. */
static bool retag(struct halo_worker *worker, struct halo_packet *packet, uint32_t header)
{
	uint32_t start = halo_place_in_buffer(&worker->geometry, packet->offset);
	uint16_t length = packet->length;

	if (header > packet->l3_offset && start < HALO_METADATA_OCTETS + header - packet->l3_offset) {
		halo_drop(packet, HALO_DROP_bad_descriptor); /* no headroom: no port's frame starts there */
		return false;
	}
	packet->offset = packet->offset + packet->l3_offset - header;
	packet->length = (uint16_t)(packet->length + header - packet->l3_offset);
	packet->l4_offset = (uint16_t)(packet->l4_offset + header - packet->l3_offset);
	packet->l3_offset = (uint16_t)header;
	if (packet->length < length)
		pad(worker, packet);
	return true;
}

/* Octets behind the packet, beyond what pads a short frame, go no further. */
static void trim(struct halo_packet *packet)
{
	uint32_t octets = (uint32_t)packet->l3_offset + packet->ip_length;

	packet->length = (uint16_t)(octets < SHORTEST_FRAME ? SHORTEST_FRAME : octets);
}

/* The frame as it was received is `before` octets: the books of what came in are kept by that. */
static void note_length(struct halo_worker *worker, const struct halo_packet *packet, uint32_t before)
{
	uint64_t less = (uint64_t)before - packet->length;

	worker->trimmed_octets += less;
	if (packet->interface < HALO_MAX_INTERFACES && !packet->injected)
		halo_count(&worker->slot->interface[packet->interface].rx_octets, less);
}

/* Everything about the frame that is not as usual. False: it was decided. */
static bool reshape(struct halo_worker *worker, struct halo_packet *packet, uint32_t header)
{
	uint32_t before = packet->length;

	if (header != packet->l3_offset && !retag(worker, packet, header))
		return false;
	if (packet->length > SHORTEST_FRAME && packet->length > packet->l3_offset + packet->ip_length)
		trim(packet);
	if (packet->length != before)
		note_length(worker, packet, before);
	return true;
}

/* Put the header in front of the packet, a TTL less. They have been made to fit. */
static inline void send_on(uint8_t *pool, struct halo_packet *packet, const struct halo_neighbor *neighbor,
			   uint32_t header)
{
	uint8_t *frame = pool + packet->offset;

	packet->tx_interface = halo_neighbor_interface(neighbor->key);
	halo_send(packet, neighbor->port);
	decrement_ttl(frame + header);
	memcpy(frame, neighbor->header, header);
}

/* Every packet but the ones that nine of ten are. Returns whether it was sent on. */
static bool forward_other(struct halo_worker *worker, const struct halo_hop *hop, struct halo_neighbor *neighbor)
{
	struct halo_packet *packet = hop->packet;

	packet->tx_interface = halo_neighbor_interface(hop->key);
	packet->next_hop = (uint32_t)hop->key;
	if (!neighbor || worker->now_ns >= neighbor->quiet_until_ns)
		neighbor = look_closer(worker, packet, neighbor);
	if (!neighbor)
		return false;
	if (packet->ip_length > neighbor->mtu) {
		too_long(worker, packet);
		return false;
	}
	/* Python tells the sender of the shorter way, and forwards; above the bound it is simply forwarded. */
	if (packet->interface == neighbor->redirect && halo_tokens_take(&worker->error_tokens, worker->now_ns)) {
		halo_punt(packet);
		return false;
	}
	if (!reshape(worker, packet, neighbor->header_octets))
		return false;
	if (neighbor->header_octets == ETHERNET_OCTETS)
		send_on(worker->pool, packet, neighbor, ETHERNET_OCTETS);
	else
		send_on(worker->pool, packet, neighbor, TAGGED_OCTETS);
	return true;
}

/* Untagged on both sides, to a neighbor that is known and silent, not too long, and with nothing behind the packet. */
static inline bool is_usual(const struct halo_packet *packet, const struct halo_neighbor *neighbor, uint64_t now_ns)
{
	uint32_t octets = ETHERNET_OCTETS + (uint32_t)packet->ip_length;

	return likely((now_ns < neighbor->quiet_until_ns) & (packet->ip_length <= neighbor->plain_mtu) &
		      (packet->interface != neighbor->redirect) & packet->plain &
		      ((packet->length == octets) | (packet->length <= SHORTEST_FRAME)));
}

/* Return whether the packet was sent on. */
static inline bool forward_one(struct halo_worker *worker, const struct halo_hop *hop, uint64_t now_ns, uint8_t *pool)
{
	struct halo_neighbor *neighbor = hop->home;

	if (unlikely(neighbor->key != hop->key))
		neighbor = halo_neighbor_search(&worker->neighbors, hop->key);
	if (unlikely(!neighbor || !is_usual(hop->packet, neighbor, now_ns)))
		return forward_other(worker, hop, neighbor);
	send_on(pool, hop->packet, neighbor, ETHERNET_OCTETS);
	return true;
}

void halo_stage_forward(struct halo_worker *worker)
{
	uint32_t count = worker->hop_count, sent = 0;
	uint64_t now_ns = worker->now_ns;
	uint8_t *pool = worker->pool;
	uint32_t i;

	for (i = 0; i < count; i++)
		sent += forward_one(worker, &worker->hop[i], now_ns, pool);
	worker->forwarded_count = sent;
}
