/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: by which interface a frame came in, and whether its station is meant. IPv4 goes on to be routed, ARP to Python: at
 * home, the worker that alone resolves what is behind the port; a frame that was handed over goes no further.
 */
#include <halo/fib.h>

#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_ARP = 0x0806,
	PLAIN_HEADER = 20,
};

/* First octets of addresses that want a closer look: nobody's, loopback, link-local's, groups, 240/4. */
static const uint8_t unusual[256] = {[0] = 1, [127] = 1, [169] = 1, [224 ... 255] = 1};

static void input_arp(struct halo_worker *worker, struct halo_packet *packet, const struct halo_interface *interface)
{
	packet->verdict = HALO_VERDICT_PUNT;
	if (interface->home_slot != worker->slot_number && !(packet->flags & HALO_DESCRIPTOR_HANDED))
		halo_hand(packet, interface->home_slot);
}

/* The number of the frame's interface where it is not the port's untagged one; or HALO_NO_INTERFACE, and it was decided. */
static uint16_t find_interface(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint16_t number = HALO_NO_INTERFACE;

	if (port->macswap_to != HALO_NO_PORT)
		halo_macswap(worker, packet, port->macswap_to);
	else if (packet->vlan)
		number = halo_vlan_find(worker, packet->port, packet->vlan);
	if (number == HALO_NO_INTERFACE && packet->verdict == HALO_VERDICT_NONE)
		halo_drop(packet, port->count ? HALO_DROP_vlan_unknown : HALO_DROP_no_interface);
	return number;
}

/* What is not IPv4 from one station to us, or has something about it that is to be decided by itself. */
static void input_other(struct halo_worker *worker, struct halo_packet *packet, uint16_t number, bool group)
{
	if (packet->ip_version != 4 && packet->ethertype != ETHERTYPE_ARP)
		return halo_drop(packet, HALO_DROP_ethertype_unknown);
	packet->interface = number;
	if (packet->ip_version != 4)
		return input_arp(worker, packet, &worker->interfaces.entry[number]);
	halo_route_alone(worker, packet, group);
}

/* Return whether the packet goes on to be routed with its burst. */
static inline bool input_one(struct halo_worker *worker, struct halo_packet *packet, const uint8_t *frame)
{
	uint32_t src_address = packet->src[0], dst_address = packet->dst[0];
	const struct halo_interface *interface;
	uint64_t own, src, dst;
	uint32_t closer;
	uint16_t number;

	if (unlikely(packet->port >= HALO_MAX_PORTS)) {
		halo_drop(packet, HALO_DROP_bad_descriptor);
		return false;
	}
	number = worker->port[packet->port].untagged;
	if (unlikely(packet->vlan || number == HALO_NO_INTERFACE)) {
		number = find_interface(worker, packet);
		if (number == HALO_NO_INTERFACE)
			return false;
	}
	interface = &worker->interfaces.entry[number];
	own = load_mac(interface->mac);
	dst = load_mac(frame);
	src = load_mac(frame + 6);
	if (unlikely(dst != own && !(dst & 1))) {
		halo_drop(packet, HALO_DROP_not_for_us);
		return false;
	}
	/* A source that no other station can have: a group, nobody, or ourselves (a loop, or a forgery). */
	if (unlikely((src & 1) || src == 0 || src == own)) {
		halo_drop(packet, HALO_DROP_ethernet_source);
		return false;
	}
	closer = unusual[src_address >> 24] | unusual[dst_address >> 24];
	closer |= halo_own_suspected(&worker->own, src_address);
	closer |= (packet->ip_version ^ 4) | (packet->ttl <= 1) |
		  (packet->l4_offset ^ (packet->l3_offset + PLAIN_HEADER));
	closer |= ~interface->flags & HALO_INTERFACE_FORWARD;
	if (unlikely(closer || dst != own)) {
		input_other(worker, packet, number, dst != own);
		return false;
	}
	packet->interface = number;
	__builtin_prefetch(&worker->root[dst_address >> 16]);
	return true;
}

void halo_stage_input(struct halo_worker *worker, uint32_t count)
{
	const uint8_t *pool = worker->pool;
	uint32_t routed = 0;
	uint32_t i;

	worker->root = halo_fib_root(worker->fib);
	worker->hop_count = 0;
	worker->forwarded_count = 0;
	worker->trimmed_octets = 0;
	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (likely(packet->verdict == HALO_VERDICT_NONE) && input_one(worker, packet, pool + packet->offset))
			worker->routed.index[routed++] = i;
	}
	worker->routed.count = routed;
}
