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

/* An address or a TTL that wants a closer look: the packet is decided by itself. */
static inline uint32_t is_unusual(const struct halo_worker *worker, const struct halo_packet *packet)
{
	return (uint32_t)(unusual[packet->src[0] >> 24] | unusual[packet->dst[0] >> 24]) | (packet->ttl <= 1) |
	       halo_own_suspected(&worker->own, packet->src[0]);
}

static void input_arp(struct halo_worker *worker, struct halo_packet *packet, const struct halo_interface *interface)
{
	packet->verdict = HALO_VERDICT_PUNT;
	if (interface->home_slot == worker->slot_number || (packet->flags & HALO_DESCRIPTOR_HANDED))
		return;
	if (interface->home_slot == HALO_NO_SLOT)
		return halo_drop(packet, HALO_DROP_neighbor_unresolved);
	halo_hand(packet, interface->home_slot);
}

/* IPv4 or ARP from a station that can be one, to us. False: it was decided. */
static bool is_meant(struct halo_packet *packet, const struct halo_interface *interface, const uint8_t *frame)
{
	uint64_t own = load_mac(interface->mac);
	uint64_t src = load_mac(frame + 6);

	if (!(frame[0] & 1) && load_mac(frame) != own)
		halo_drop(packet, HALO_DROP_not_for_us);
	else if ((src & 1) || src == 0 || (src == own && !(packet->flags & HALO_DESCRIPTOR_HANDED)))
		/* A group, nobody, or ourselves: a loop or a forgery, unless another worker of ours made it. */
		halo_drop(packet, HALO_DROP_ethernet_source);
	else if (packet->ip_version != 4 && packet->ethertype != ETHERTYPE_ARP)
		halo_drop(packet, HALO_DROP_ethertype_unknown);
	return packet->verdict == HALO_VERDICT_NONE;
}

/* Every frame but the ones that nine of ten are. Returns whether the packet goes on to be routed with its burst. */
static bool input_other(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	const uint8_t *frame = worker->pool + packet->offset;
	const struct halo_interface *interface;
	uint16_t number;

	packet->interface = HALO_NO_INTERFACE; /* ingress hooks were told which, whoever it is for */
	if (packet->port >= HALO_MAX_PORTS) {
		halo_drop(packet, HALO_DROP_bad_descriptor);
		return false;
	}
	number = packet->vlan ? halo_vlan_find(worker, packet->port, packet->vlan) : port->untagged;
	if (number == HALO_NO_INTERFACE) {
		halo_drop(packet, port->count ? HALO_DROP_vlan_unknown : HALO_DROP_no_interface);
		return false;
	}
	interface = &worker->interfaces.entry[number];
	if (!is_meant(packet, interface, frame))
		return false;
	packet->interface = number;
	if (packet->ip_version != 4) {
		input_arp(worker, packet, interface);
		return false;
	}
	if ((frame[0] & 1) || is_unusual(worker, packet) || !(interface->flags & HALO_INTERFACE_FORWARD) ||
	    packet->l4_offset != packet->l3_offset + PLAIN_HEADER) {
		halo_route_alone(worker, packet, frame[0] & 1);
		return false;
	}
	return true;
}

/*
 * Nine of ten: an untagged packet without options, from another station to ours, with usual addresses and a TTL to lower. True
 * says that it is one, and goes on to be routed with its burst.
 */
static inline bool is_usual(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const uint8_t *frame = worker->pool + packet->offset;
	uint64_t own = worker->port[packet->port].mac;
	uint64_t src;

	if (unlikely(!packet->plain || load_mac(frame) != own))
		return false;
	src = load_mac(frame + 6);
	return likely(!((src & 1) | (src == 0) | (src == own) | is_unusual(worker, packet)));
}

/* Return whether the packet goes on to be routed with its burst. */
static inline bool input_one(struct halo_worker *worker, struct halo_packet *packet)
{
	if (likely(is_usual(worker, packet))) {
		packet->interface = worker->port[packet->port].untagged;
		return true;
	}
	return packet->verdict == HALO_VERDICT_NONE && input_other(worker, packet);
}

/* Some port is in measuring mode; such a port has no interfaces. */
static bool input_measuring(struct halo_worker *worker, struct halo_packet *packet)
{
	uint16_t to = worker->port[packet->port].macswap_to;

	if (to == HALO_NO_PORT)
		return input_one(worker, packet);
	if (packet->verdict == HALO_VERDICT_NONE)
		halo_macswap(worker, packet, to);
	return false;
}

void halo_stage_input(struct halo_worker *worker, uint32_t count)
{
	const uint32_t *root = halo_fib_root(worker->fib);
	bool measuring = worker->measuring;
	uint32_t routed = 0;
	uint32_t i;

	if (unlikely(worker->raw.claims))
		halo_stage_raw(worker, count);
	halo_stage_twin(worker, count);
	worker->root = root;
	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (unlikely(measuring) ? !input_measuring(worker, packet) : !input_one(worker, packet))
			continue;
		__builtin_prefetch(&root[packet->dst[0] >> 16]);
		worker->routed.packet[routed++] = packet;
	}
	worker->routed.count = routed;
}
