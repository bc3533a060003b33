/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: is the frame for us, and who finishes it? A frame for a local address is answered here when it is an ICMP echo,
 * and punted otherwise. Broadcast and multicast go to the Python stack only where it has a use for them.
 */
#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	PROTOCOL_ICMP = 1,
	FRAGMENT_MASK = 0x3fff,
	PORT_DHCP_CLIENT = 68,
};

static bool martian_source(uint32_t address)
{
	uint32_t net = address >> 24;

	return net == 0 || net == 127 || net >= 224; /* RFC 1812 5.3.7; 240/4 and broadcast are above 224 */
}

/* Find the interface of this port and VLAN whose address or broadcast address is `dst`; UINT16_MAX: none. */
static uint16_t find_interface(const struct halo_worker *worker, const struct halo_packet *packet, uint32_t dst,
			       bool *broadcast)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint16_t i;

	*broadcast = dst == UINT32_MAX;
	for (i = port->first; i < port->first + port->count; i++) {
		const struct halo_interface *interface = &worker->interfaces[i];
		uint32_t host = interface->prefix_length < 32 ? UINT32_MAX >> interface->prefix_length : 0;

		if (interface->vlan != packet->vlan)
			continue;
		if (interface->address == dst)
			return i;
		if (*broadcast)
			return i;
		/* All ones in the host part, on links that have a broadcast address (not /31, /32: RFC 3021). */
		if (host > 1 && (dst & host) == host && (dst & ~host) == (interface->address & ~host)) {
			*broadcast = true;
			return i;
		}
	}
	return UINT16_MAX;
}

static bool own_address(const struct halo_worker *worker, const struct halo_packet *packet, uint32_t address)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint16_t i;

	for (i = port->first; i < port->first + port->count; i++)
		if (worker->interfaces[i].address == address)
			return true;
	return false;
}

static void input_ipv4(struct halo_worker *worker, struct halo_packet *packet, bool group)
{
	bool broadcast;

	if (martian_source(packet->src[0]) || own_address(worker, packet, packet->src[0])) {
		/* RFC 2131: a client without an address asks from 0.0.0.0; the Python stack may want that one. */
		if (packet->src[0] != 0 || packet->dst_port != PORT_DHCP_CLIENT - 1)
			return halo_drop(packet, HALO_DROP_ipv4_martian);
	}
	packet->interface = find_interface(worker, packet, packet->dst[0], &broadcast);
	if (packet->interface == UINT16_MAX) {
		bool multicast = packet->dst[0] >> 28 == 14;

		return halo_drop(packet, group || multicast ? HALO_DROP_l2_multicast : HALO_DROP_ipv4_not_local);
	}
	if (packet->fragment & FRAGMENT_MASK)
		return halo_drop(packet, HALO_DROP_ipv4_fragment);
	if (packet->ip_protocol == PROTOCOL_ICMP && packet->l4_offset == packet->l3_offset + 20) {
		if (!broadcast && !group)
			return halo_local_icmp(worker, packet);
		return halo_drop(packet, HALO_DROP_icmp_broadcast_echo);
	}
	packet->verdict = HALO_VERDICT_PUNT;
}

static bool has_vlan(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint16_t i;

	for (i = port->first; i < port->first + port->count; i++)
		if (worker->interfaces[i].vlan == packet->vlan)
			return true;
	return false;
}

static void input_one(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_port_entry *port;
	const uint8_t *frame = worker->pool + packet->offset;
	bool group;

	if (packet->port >= HALO_MAX_PORTS)
		return halo_drop(packet, HALO_DROP_bad_descriptor);
	port = &worker->port[packet->port];
	if (port->macswap_to != HALO_NO_PORT)
		return halo_macswap(worker, packet, port->macswap_to);
	if (port->count == 0)
		return halo_drop(packet, HALO_DROP_no_interface);
	group = frame[0] & 1;
	if (!group && load_mac(frame) != port->mac)
		return halo_drop(packet, HALO_DROP_not_for_us);
	if (!has_vlan(worker, packet))
		return halo_drop(packet, HALO_DROP_vlan_unknown);
	if (packet->ethertype == ETHERTYPE_IPV4)
		return input_ipv4(worker, packet, group);
	if (packet->ethertype == ETHERTYPE_ARP) {
		packet->verdict = HALO_VERDICT_PUNT;
		return;
	}
	halo_drop(packet, HALO_DROP_ethertype_unknown);
}

void halo_stage_input(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		if (worker->burst[i].verdict == HALO_VERDICT_NONE)
			input_one(worker, &worker->burst[i]);
}
