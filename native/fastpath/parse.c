/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receive and parse: from descriptors to packets with offsets and header fields.
 *
 * Everything that later stages decide on is copied out of the frame here, once. What fails is a named drop. Checks are
 * those of RFC 1812 section 5.2.2, except the checksum of frames that a port has already verified.
 */
#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ETHERTYPE_VLAN = 0x8100,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	FRAGMENT_MASK = 0x3fff, /* more-fragments and offset */
};

uint32_t halo_stage_receive(struct halo_worker *worker)
{
	uint32_t count = halo_ring_peek(&worker->rx, HALO_BURST);
	uint32_t i;

	if (count == HALO_RING_BROKEN || count == 0)
		return count;
	for (i = 0; i < count; i++) {
		struct halo_descriptor descriptor = halo_ring_get(&worker->rx, i);
		struct halo_packet *packet = &worker->burst[i];

		halo_prefetch_write(worker->pool + descriptor.offset);
		packet->offset = descriptor.offset;
		packet->length = descriptor.length;
		packet->port = descriptor.port;
		packet->flags = descriptor.flags;
	}
	halo_ring_release(&worker->rx, count);
	return count;
}

static bool port_verified(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const struct halo_metadata *metadata;
	uint32_t start;

	if (!(packet->flags & HALO_DESCRIPTOR_METADATA))
		return false;
	start = packet->offset & (HALO_CHUNK_OCTETS - 1);
	start = packet->offset - start % worker->geometry.stride_octets;
	metadata = (const struct halo_metadata *)(const void *)(worker->pool + start);
	return metadata->flags & HALO_METADATA_IP_CHECKSUM_GOOD;
}

static void parse_ipv4(const struct halo_worker *worker, struct halo_packet *packet, const uint8_t *frame)
{
	const uint8_t *ip = frame + packet->l3_offset;
	uint32_t room = packet->length - packet->l3_offset;
	uint32_t header;

	if (room < 20)
		return halo_drop(packet, HALO_DROP_ipv4_truncated);
	if (ip[0] >> 4 != 4)
		return halo_drop(packet, HALO_DROP_ipv4_version);
	header = (ip[0] & 15u) * 4;
	packet->ip_length = load16(ip + 2);
	if (header < 20)
		return halo_drop(packet, HALO_DROP_ipv4_header_length);
	if (packet->ip_length < header || packet->ip_length > room)
		return halo_drop(packet, HALO_DROP_ipv4_total_length);
	if (!port_verified(worker, packet) && header_checksum(ip, header) != 0)
		return halo_drop(packet, HALO_DROP_ipv4_checksum);
	packet->ip_version = 4;
	packet->tos = ip[1];
	packet->fragment = load16(ip + 6);
	packet->ttl = ip[8];
	packet->ip_protocol = ip[9];
	packet->src[0] = load32(ip + 12);
	packet->dst[0] = load32(ip + 16);
	packet->l4_offset = (uint16_t)(packet->l3_offset + header);
	if ((packet->ip_protocol == PROTOCOL_UDP || packet->ip_protocol == PROTOCOL_TCP) &&
	    packet->ip_length >= header + 4 && !(packet->fragment & FRAGMENT_MASK)) {
		packet->src_port = load16(frame + packet->l4_offset);
		packet->dst_port = load16(frame + packet->l4_offset + 2);
	}
}

static void parse_one(const struct halo_worker *worker, struct halo_packet *packet)
{
	const uint8_t *frame = worker->pool + packet->offset;

	if ((uint64_t)packet->offset + packet->length > worker->geometry.size_octets)
		return halo_drop(packet, HALO_DROP_bad_descriptor);
	if (packet->length < HALO_MIN_FRAME_OCTETS)
		return halo_drop(packet, HALO_DROP_runt);
	packet->ethertype = load16(frame + 12);
	packet->l3_offset = 14;
	if (packet->ethertype == ETHERTYPE_VLAN) {
		if (packet->length < 18)
			return halo_drop(packet, HALO_DROP_vlan_truncated);
		packet->vlan = load16(frame + 14) & 0xfff;
		packet->ethertype = load16(frame + 16);
		packet->l3_offset = 18;
	}
	if (packet->ethertype == ETHERTYPE_IPV4)
		parse_ipv4(worker, packet, frame);
}

void halo_stage_parse(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &worker->burst[i];

		/* Offset, length, port and flags stand; the rest of what stages read starts from 0. */
		memset((uint8_t *)packet + 8, 0, 64 - 8);
		packet->interface = UINT16_MAX;
		packet->timestamp_ns = worker->now_ns;
		parse_one(worker, packet);
	}
}
