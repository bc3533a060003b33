/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: by which interface a frame came in, and whether its station is meant. IPv4 goes on to be routed, ARP to Python: at
 * home, the worker that alone resolves what is behind the port; a frame that was handed over goes no further.
 */
#include <halo/fib.h>

#include "octets.h"
#include "worker.h"

enum { ETHERTYPE_ARP = 0x0806 };

/* First octets of addresses that want a closer look: nobody's, loopback, link-local's, groups, 240/4. */
static const uint8_t unusual[256] = {[0] = 1, [127] = 1, [169] = 1, [224 ... 255] = 1};

static void input_arp(struct halo_worker *worker, struct halo_packet *packet, const struct halo_interface *interface)
{
	packet->verdict = HALO_VERDICT_PUNT;
	if (interface->home_slot != worker->slot_number && !(packet->flags & HALO_DESCRIPTOR_HANDED))
		halo_hand(packet, interface->home_slot);
}

static void input_strange(struct halo_packet *packet, const struct halo_port_entry *port)
{
	halo_drop(packet, port->count ? HALO_DROP_vlan_unknown : HALO_DROP_no_interface);
}

static inline void input_ipv4(struct halo_worker *worker, struct halo_packet *packet, uint32_t index, bool group)
{
	uint32_t src = packet->src[0], dst = packet->dst[0];

	if (unlikely(group || (unusual[src >> 24] | unusual[dst >> 24]) || halo_own_suspected(&worker->own, src)))
		return halo_route_alone(worker, packet, group);
	__builtin_prefetch(&worker->root[dst >> 16]);
	halo_select(&worker->routed, index);
}

static inline void input_one(struct halo_worker *worker, struct halo_packet *packet, uint32_t index)
{
	const uint8_t *frame = worker->pool + packet->offset;
	const struct halo_interface *interface;
	const struct halo_port_entry *port;
	uint64_t own, src;
	uint16_t number;
	bool group;

	if (unlikely(packet->port >= HALO_MAX_PORTS))
		return halo_drop(packet, HALO_DROP_bad_descriptor);
	port = &worker->port[packet->port];
	if (unlikely(port->macswap_to != HALO_NO_PORT))
		return halo_macswap(worker, packet, port->macswap_to);
	number = packet->vlan ? halo_vlan_find(worker, packet->port, packet->vlan) : port->untagged;
	if (unlikely(number == HALO_NO_INTERFACE))
		return input_strange(packet, port);
	interface = &worker->interfaces.entry[number];
	own = load_mac(interface->mac);
	group = false;
	if (unlikely(load_mac(frame) != own)) {
		group = frame[0] & 1;
		if (!group)
			return halo_drop(packet, HALO_DROP_not_for_us);
	}
	/* A source that no other station can have: a group, nobody, or ourselves (a loop, or a forgery). */
	src = load_mac(frame + 6);
	if (unlikely((src & 1) || src == 0 || src == own))
		return halo_drop(packet, HALO_DROP_ethernet_source);
	if (unlikely(packet->ip_version != 4 && packet->ethertype != ETHERTYPE_ARP))
		return halo_drop(packet, HALO_DROP_ethertype_unknown);
	packet->interface = number;
	if (unlikely(packet->ip_version != 4))
		return input_arp(worker, packet, interface);
	input_ipv4(worker, packet, index, group);
}

void halo_stage_input(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	halo_stage_twin(worker, count);
	worker->root = halo_fib_root(worker->fib);
	worker->routed.count = 0;
	worker->forwarded.count = 0;
	worker->forwarded_count = 0;
	worker->trimmed_octets = 0;
	for (i = 0; i < count; i++)
		if (likely(worker->burst[i].verdict == HALO_VERDICT_NONE))
			input_one(worker, &worker->burst[i], i);
}
