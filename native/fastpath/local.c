/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local: what the fast path answers itself. ICMP echo (RFC 792; RFC 1122 3.2.2.6): the request turns into its reply in its
 * own buffer. Type of service, identification, identifier, sequence number and data stay.
 */
#include "octets.h"
#include "worker.h"

enum {
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO = 8,
	REPLY_TTL = 64, /* RFC 1700 */
};

static void set_ttl(uint8_t *ip, uint8_t ttl)
{
	uint16_t old = load16(ip + 8);
	uint16_t new = (uint16_t)(ttl << 8 | (old & 0xff));

	store16(ip + 8, new);
	store16(ip + 10, checksum_update(load16(ip + 10), old, new));
}

static void turn_around(uint8_t *frame, uint8_t *ip, uint64_t own_mac)
{
	uint32_t src;

	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, &own_mac, 6);
	memcpy(&src, ip + 12, 4);
	memcpy(ip + 12, ip + 16, 4);
	memcpy(ip + 16, &src, 4);
}

void halo_local_icmp(struct halo_worker *worker, struct halo_packet *packet)
{
	uint8_t *frame = worker->pool + packet->offset;
	uint8_t *ip = frame + packet->l3_offset;
	uint8_t *icmp = frame + packet->l4_offset;
	uint32_t length = packet->ip_length - 20u;
	uint16_t checksum;

	if (length < 8)
		return halo_drop(packet, HALO_DROP_icmp_truncated);
	if (header_checksum(icmp, length) != 0)
		return halo_drop(packet, HALO_DROP_icmp_checksum);
	packet->icmp_type = icmp[0];
	packet->icmp_code = icmp[1];
	/* A packet that somebody below has put together may be longer than the MTU: Python sends fragments. */
	if (packet->icmp_type != ICMP_ECHO || packet->icmp_code != 0 ||
	    packet->ip_length > worker->interfaces.entry[packet->interface].mtu) {
		packet->verdict = HALO_VERDICT_PUNT;
		return;
	}
	turn_around(frame, ip, worker->port[packet->port].mac);
	set_ttl(ip, REPLY_TTL);
	icmp[0] = ICMP_ECHO_REPLY;
	checksum = checksum_update(load16(icmp + 2), ICMP_ECHO << 8, ICMP_ECHO_REPLY << 8);
	store16(icmp + 2, checksum ? checksum : 0xffff); /* a reply of nothing but zeros does not verify with 0 */
	halo_count(&worker->slot->worker.echo_replies, 1);
	halo_send(packet, packet->port);
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
