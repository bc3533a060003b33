/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local: what the fast path answers itself. ICMP echo (RFC 792; RFC 1122 3.2.2.6): the request turns into its reply in its
 * own buffer, for whichever address of ours, and goes back by where it came from. Type of service, identification,
 * identifier, sequence number and data stay. UDP goes to its socket (datagram.c). Everything else is Python's, fragments too.
 */
#include "octets.h"
#include "worker.h"

enum {
	PROTOCOL_ICMP = 1,
	PROTOCOL_UDP = 17,
	FRAGMENT_MASK = 0x3fff, /* more-fragments and offset */
	PLAIN_HEADER = 20,
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO = 8,
	ECHO_SLOT_SHIFT = 10, /* an identifier of ours: number of the slot that asks, and ten bits */
	REPLY_TTL = 64,       /* RFC 1700 */
};

static void set_ttl(uint8_t *ip, uint8_t ttl)
{
	uint16_t old = load16(ip + 8);
	uint16_t new = (uint16_t)(ttl << 8 | (old & 0xff));

	store16(ip + 8, new);
	store16(ip + 10, checksum_update(load16(ip + 10), old, new));
}

static void turn_around(uint8_t *frame, uint8_t *ip, const uint8_t *own_mac)
{
	uint32_t src;

	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, own_mac, 6);
	memcpy(&src, ip + 12, 4);
	memcpy(ip + 12, ip + 16, 4);
	memcpy(ip + 16, &src, 4);
}

static void reply(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_interface *interface = &worker->interfaces.entry[packet->interface];
	uint8_t *frame = worker->pool + packet->offset;
	uint8_t *icmp = frame + packet->l4_offset;
	uint16_t checksum;

	turn_around(frame, frame + packet->l3_offset, interface->mac);
	set_ttl(frame + packet->l3_offset, REPLY_TTL);
	icmp[0] = ICMP_ECHO_REPLY;
	checksum = checksum_update(load16(icmp + 2), ICMP_ECHO << 8, ICMP_ECHO_REPLY << 8);
	store16(icmp + 2, checksum ? checksum : 0xffff); /* a reply of nothing but zeros does not verify with 0 */
	halo_count(&worker->slot->worker.echo_replies, 1);
	packet->tx_interface = packet->interface;
	halo_send(packet, packet->port);
}

/* An answer to what a worker asked: it goes to the one that did. */
static void receive_reply(const struct halo_worker *worker, struct halo_packet *packet, uint16_t identifier)
{
	uint8_t slot = (uint8_t)(identifier >> ECHO_SLOT_SHIFT);

	if (slot == worker->slot_number || (packet->flags & HALO_DESCRIPTOR_HANDED))
		return halo_punt(packet);
	halo_hand(packet, slot);
}

static void local_icmp(struct halo_worker *worker, struct halo_packet *packet)
{
	const uint8_t *icmp = worker->pool + packet->offset + packet->l4_offset;
	uint32_t length = packet->ip_length - 20u;

	if (length < 8)
		return halo_drop(packet, HALO_DROP_icmp_truncated);
	if (header_checksum(icmp, length) != 0)
		return halo_drop(packet, HALO_DROP_icmp_checksum);
	packet->icmp_type = icmp[0];
	packet->icmp_code = icmp[1];
	if (packet->icmp_type == ICMP_ECHO_REPLY && packet->icmp_code == 0)
		return receive_reply(worker, packet, load16(icmp + 4));
	/* A packet that somebody below has put together may be longer than the MTU: Python sends fragments. */
	if (packet->icmp_type != ICMP_ECHO || packet->icmp_code != 0 ||
	    packet->ip_length > worker->interfaces.entry[packet->interface].mtu)
		return halo_punt(packet);
	reply(worker, packet);
}

/* RFC 1122 3.2.2.6: an echo request to everybody is not answered, and nothing else of ICMP is meant for everybody. */
static void icmp_to_all(const struct halo_worker *worker, struct halo_packet *packet)
{
	if (packet->ip_length >= 28 && worker->pool[packet->offset + packet->l4_offset] != ICMP_ECHO)
		return halo_drop(packet, HALO_DROP_icmp_unhandled);
	halo_drop(packet, HALO_DROP_icmp_broadcast_echo);
}

void halo_local_ipv4(struct halo_worker *worker, struct halo_packet *packet, bool to_all)
{
	if (packet->injected == HALO_SOURCE_FORWARD) /* to ourselves */
		return halo_punt(packet);
	if ((packet->fragment & FRAGMENT_MASK) || packet->l4_offset != packet->l3_offset + PLAIN_HEADER)
		return halo_punt(packet);
	if (packet->ip_protocol == PROTOCOL_UDP)
		return halo_local_udp(worker, packet, to_all);
	if (packet->ip_protocol != PROTOCOL_ICMP)
		return halo_punt(packet);
	if (to_all)
		return icmp_to_all(worker, packet);
	local_icmp(worker, packet);
}

/* Measuring mode, as dpdk-testpmd's macswap plus the work of a hop: TTL and checksum. */
void halo_macswap(struct halo_worker *worker, struct halo_packet *packet, uint16_t port)
{
	uint8_t *frame = worker->pool + packet->offset;

	swap_macs(frame);
	if (packet->ip_version == 4) {
		if (packet->ttl <= 1)
			return halo_drop(packet, HALO_DROP_ipv4_ttl);
		decrement_ttl(frame + packet->l3_offset);
	}
	halo_send(packet, port);
}
