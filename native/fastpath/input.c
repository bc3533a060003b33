/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: is the frame for us, and who finishes it? A frame for a local address is answered here when it is an ICMP echo,
 * and punted otherwise, fragments too. Broadcast and multicast go to the Python stack only where it has a use for them.
 */
#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	PROTOCOL_ICMP = 1,
	PROTOCOL_UDP = 17,
	ICMP_ECHO = 8,
	FRAGMENT_MASK = 0x3fff,
	PORT_DHCP_SERVER = 67,
};

/* One of the port's interfaces that is up. `first` and `count` span what lies between, too. */
static bool is_up(const struct halo_interface *interface, const struct halo_packet *packet)
{
	return interface->port == packet->port && (interface->flags & HALO_INTERFACE_UP);
}

/*
 * All ones in the host part, or all zeros, the obsolete form (RFC 1122 3.3.6), on links that have a broadcast address (not
 * /31 and /32: RFC 3021).
 */
static bool is_subnet_broadcast(const struct halo_address *own, uint32_t address)
{
	uint32_t host = own->prefix_length < 32 ? UINT32_MAX >> own->prefix_length : 0;

	return host > 1 && own->address && !((address ^ own->address) & ~host) &&
	       ((address & host) == host || (address & host) == 0);
}

/* RFC 1812 5.3.7 and RFC 1122 3.2.1.3: sources that nobody can have, or that only we can. 240/4 is above 224. */
static bool martian_source(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint32_t address = packet->src[0];
	uint32_t net = address >> 24;
	uint16_t i;

	/* RFC 2131: a client without an address asks from 0.0.0.0, everybody, on the server's port. */
	if (address == 0)
		return packet->ip_protocol != PROTOCOL_UDP || packet->dst_port != PORT_DHCP_SERVER ||
		       packet->dst[0] != UINT32_MAX;
	if (net == 0 || net == 127 || net >= 224)
		return true;
	for (i = port->first; i < port->first + port->count; i++) {
		const struct halo_interface *interface = &worker->interfaces.entry[i];
		uint32_t k;

		if (!is_up(interface, packet))
			continue;
		for (k = interface->first_address; k < interface->first_address + interface->address_count; k++)
			if (worker->interfaces.address[k].address == address ||
			    is_subnet_broadcast(&worker->interfaces.address[k], address))
				return true;
	}
	return false;
}

/* Find the interface of this port and VLAN whose address or broadcast address is `dst`; UINT16_MAX: none. */
static uint16_t find_interface(const struct halo_worker *worker, const struct halo_packet *packet, bool *broadcast)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint32_t dst = packet->dst[0];
	uint16_t i;

	*broadcast = dst == UINT32_MAX;
	for (i = port->first; i < port->first + port->count; i++) {
		const struct halo_interface *interface = &worker->interfaces.entry[i];
		uint32_t k;

		if (!is_up(interface, packet) || interface->vlan != packet->vlan)
			continue;
		if (*broadcast)
			return i;
		for (k = interface->first_address; k < interface->first_address + interface->address_count; k++) {
			const struct halo_address *own = &worker->interfaces.address[k];

			*broadcast = is_subnet_broadcast(own, dst);
			if (*broadcast || own->address == dst)
				return i;
		}
	}
	return UINT16_MAX;
}

static void input_icmp(struct halo_worker *worker, struct halo_packet *packet, const uint8_t *frame, bool to_all)
{
	if (!to_all)
		return halo_local_icmp(worker, packet);
	if (packet->ip_length >= 28 && frame[packet->l4_offset] != ICMP_ECHO)
		return halo_drop(packet, HALO_DROP_icmp_unhandled);
	halo_drop(packet, HALO_DROP_icmp_broadcast_echo);
}

static void input_ipv4(struct halo_worker *worker, struct halo_packet *packet, const uint8_t *frame, bool group)
{
	bool broadcast;

	if (martian_source(worker, packet) || packet->dst[0] == 0)
		return halo_drop(packet, HALO_DROP_ipv4_martian);
	packet->interface = find_interface(worker, packet, &broadcast);
	if (packet->interface == UINT16_MAX) {
		bool multicast = packet->dst[0] >> 28 == 14;

		return halo_drop(packet, group || multicast ? HALO_DROP_l2_multicast : HALO_DROP_ipv4_not_local);
	}
	if (!(packet->fragment & FRAGMENT_MASK) && packet->ip_protocol == PROTOCOL_ICMP &&
	    packet->l4_offset == packet->l3_offset + 20)
		return input_icmp(worker, packet, frame, broadcast || group);
	packet->verdict = HALO_VERDICT_PUNT;
}

static bool has_vlan(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const struct halo_port_entry *port = &worker->port[packet->port];
	uint16_t i;

	for (i = port->first; i < port->first + port->count; i++)
		if (is_up(&worker->interfaces.entry[i], packet) && worker->interfaces.entry[i].vlan == packet->vlan)
			return true;
	return false;
}

/* A source that no other station can have: a group, nobody, or ourselves (a loop, or a forgery). */
static bool bad_source(const uint8_t *frame, uint64_t own_mac)
{
	uint64_t source = load_mac(frame + 6);

	return (frame[6] & 1) || source == 0 || source == own_mac;
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
	if (bad_source(frame, port->mac))
		return halo_drop(packet, HALO_DROP_ethernet_source);
	if (!has_vlan(worker, packet))
		return halo_drop(packet, HALO_DROP_vlan_unknown);
	if (packet->ethertype == ETHERTYPE_IPV4)
		return input_ipv4(worker, packet, frame, group);
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
