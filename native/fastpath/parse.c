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
	uint32_t count = halo_ring_peek(&worker->rx, worker->width);
	uint32_t i;

	if (count == HALO_RING_BROKEN || count == 0)
		return count;
	worker->hop_count = 0;
	worker->forwarded_count = 0;
	worker->trimmed_octets = 0;
	for (i = 0; i < count; i++) {
		struct halo_descriptor descriptor = halo_ring_get(&worker->rx, i);

		halo_prefetch_write(worker->pool + descriptor.offset);
		memcpy(&worker->burst[i], &descriptor, sizeof(descriptor)); /* the same four fields, asserted below */
	}
	HALO_HOOK("worker.received");
	halo_ring_release(&worker->rx, count);
	HALO_HOOK("worker.consumed");
	return count;
}

static_assert(offsetof(struct halo_packet, offset) == offsetof(struct halo_descriptor, offset) &&
		      offsetof(struct halo_packet, length) == offsetof(struct halo_descriptor, length) &&
		      offsetof(struct halo_packet, port) == offsetof(struct halo_descriptor, port) &&
		      offsetof(struct halo_packet, flags) == offsetof(struct halo_descriptor, flags),
	      "a packet starts with its descriptor");

/* Where frames are. */
struct place {
	const uint8_t *pool;
	const struct halo_pool_geometry *geometry;
};

static bool port_verified(struct place place, const struct halo_packet *packet)
{
	const struct halo_metadata *metadata;
	uint32_t start;

	if (!(packet->flags & HALO_DESCRIPTOR_METADATA))
		return false;
	start = packet->offset - halo_place_in_buffer(place.geometry, packet->offset);
	metadata = (const struct halo_metadata *)(const void *)(place.pool + start);
	return metadata->flags & HALO_METADATA_IP_CHECKSUM_GOOD;
}

static bool checksum_is_right(struct place place, const struct halo_packet *packet, const uint8_t *ip, uint32_t header)
{
	if (header == 20)
		return plain_header_is_right(ip) || port_verified(place, packet);
	return header_checksum(ip, header) == 0 || port_verified(place, packet);
}

static inline void parse_ports(struct halo_packet *packet, const uint8_t *l4, uint32_t octets)
{
	uint32_t ports;

	if (packet->ip_protocol != PROTOCOL_UDP && packet->ip_protocol != PROTOCOL_TCP)
		return;
	if (octets < 4 || (packet->fragment & FRAGMENT_MASK))
		return;
	ports = load32(l4);
	packet->src_port = (uint16_t)(ports >> 16);
	packet->dst_port = (uint16_t)ports;
}

static void parse_ipv4(struct place place, struct halo_packet *packet, const uint8_t *frame)
{
	const uint8_t *ip = frame + packet->l3_offset;
	uint32_t room = packet->length - packet->l3_offset;
	uint32_t header;

	if (unlikely(room < 20))
		return halo_drop(packet, HALO_DROP_ipv4_truncated);
	if (unlikely(ip[0] >> 4 != 4))
		return halo_drop(packet, HALO_DROP_ipv4_version);
	header = (ip[0] & 15u) * 4;
	packet->ip_length = load16(ip + 2);
	if (unlikely(header < 20))
		return halo_drop(packet, HALO_DROP_ipv4_header_length);
	if (unlikely(packet->ip_length < header || packet->ip_length > room))
		return halo_drop(packet, HALO_DROP_ipv4_total_length);
	if (unlikely(!checksum_is_right(place, packet, ip, header)))
		return halo_drop(packet, HALO_DROP_ipv4_checksum);
	packet->ip_version = 4;
	packet->tos = ip[1];
	packet->fragment = load16(ip + 6);
	packet->ttl = ip[8];
	packet->ip_protocol = ip[9];
	packet->src[0] = load32(ip + 12);
	packet->dst[0] = load32(ip + 16);
	packet->l4_offset = (uint16_t)(packet->l3_offset + header);
	parse_ports(packet, ip + header, packet->ip_length - header);
}

/* What each packet starts from, behind its descriptor: `blank`, or `plain` for untagged IPv4 without options. */
static const struct halo_packet blank = {
	.l3_offset = 14,
	.interface = HALO_NO_INTERFACE,
	.tx_interface = HALO_NO_INTERFACE,
};
static const struct halo_packet plain = {
	.ethertype = ETHERTYPE_IPV4,
	.ip_version = 4,
	.l3_offset = 14,
	.l4_offset = 34,
	.interface = HALO_NO_INTERFACE,
	.tx_interface = HALO_NO_INTERFACE,
	.plain = 1,
};

static inline void start_from(struct halo_packet *packet, const struct halo_packet *template)
{
	memcpy((uint8_t *)packet + sizeof(struct halo_descriptor),
	       (const uint8_t *)template + sizeof(struct halo_descriptor), HALO_LINE - sizeof(struct halo_descriptor));
}

/*
 * Nine of ten packets, in few steps: untagged IPv4 without options and without a fault. False says that it is something else;
 * then nothing was decided, and the general way finds out what.
 */
static inline bool parse_plain(struct halo_packet *packet, const uint8_t *frame)
{
	static const uint8_t wanted[4] = {ETHERTYPE_IPV4 >> 8, ETHERTYPE_IPV4 & 0xff, 4 << 4 | 5, 0};
	uint32_t head, shape;
	uint16_t ip_length;

	memcpy(&head, frame + 12, sizeof(head));
	memcpy(&shape, wanted, sizeof(shape));
	ip_length = load16(frame + 16);
	if ((head & 0xffffff) != shape || (uint32_t)ip_length - 20 > (uint32_t)packet->length - 34)
		return false;
	if (unlikely(!plain_header_is_right(frame + 14)))
		return false;
	start_from(packet, &plain);
	packet->tos = frame[15];
	packet->ip_length = ip_length;
	packet->fragment = load16(frame + 20);
	packet->ttl = frame[22];
	packet->ip_protocol = frame[23];
	packet->src[0] = load32(frame + 26);
	packet->dst[0] = load32(frame + 30);
	packet->icmp_type = packet->icmp_code = 0; /* of the second line all that an earlier packet may have left */
	parse_ports(packet, frame + 34, ip_length - 20u);
	return true;
}

static void parse_other(struct place place, struct halo_packet *packet, const uint8_t *frame)
{
	start_from(packet, &blank);
	memset((uint8_t *)packet + HALO_LINE, 0, sizeof(*packet) - HALO_LINE);
	if (packet->length < HALO_MIN_FRAME_OCTETS)
		return halo_drop(packet, HALO_DROP_runt);
	packet->ethertype = load16(frame + 12);
	if (packet->ethertype == ETHERTYPE_VLAN) {
		if (packet->length < 18)
			return halo_drop(packet, HALO_DROP_vlan_truncated);
		packet->vlan = load16(frame + 14) & 0xfff;
		packet->ethertype = load16(frame + 16);
		packet->l3_offset = 18;
	}
	if (packet->ethertype == ETHERTYPE_IPV4)
		parse_ipv4(place, packet, frame);
}

static inline void parse_one(struct place place, struct halo_packet *packet)
{
	const uint8_t *frame = place.pool + packet->offset;

	if (unlikely((uint64_t)packet->offset + packet->length > place.geometry->size_octets ||
		     packet->length > place.geometry->stride_octets - HALO_METADATA_OCTETS)) {
		start_from(packet, &blank);
		return halo_drop(packet, HALO_DROP_bad_descriptor);
	}
	if (likely(packet->length >= 34 && parse_plain(packet, frame)))
		return;
	parse_other(place, packet, frame);
}

void halo_stage_parse(struct halo_worker *worker, uint32_t count)
{
	struct place place = {worker->pool, &worker->geometry};
	uint32_t i;

	for (i = 0; i < count; i++) {
		parse_one(place, &worker->burst[i]);
		worker->burst[i].timestamp_ns = worker->now_ns;
	}
}

/* ---- for hooks ------------------------------------------------------------------------------------------------ */

void halo_packets_parse(const uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			uint32_t count, uint64_t timestamp_ns)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		memset((uint8_t *)&packets[i] + HALO_LINE, 0, sizeof(packets[i]) - HALO_LINE);
		parse_one((struct place){pool, geometry}, &packets[i]);
		packets[i].timestamp_ns = timestamp_ns;
	}
}

/* In place, and field by field: a copy of the whole would wait for the stores of its parts. */
enum halo_drop halo_packet_parse_again(const uint8_t *pool, const struct halo_pool_geometry *geometry,
				       struct halo_packet *packet)
{
	struct {
		uint64_t timestamp_ns;
		uint32_t next_hop, hash, mark;
		uint16_t interface, tx_port, tx_interface;
		uint8_t verdict, reason, injected, hooked;
	} kept = {packet->timestamp_ns, packet->next_hop, packet->hash,         packet->mark,
		  packet->interface,    packet->tx_port,  packet->tx_interface, packet->verdict,
		  packet->reason,       packet->injected, packet->hooked};
	enum halo_drop reason;

	parse_one((struct place){pool, geometry}, packet);
	reason = packet->verdict == HALO_VERDICT_DROP ? (enum halo_drop)packet->reason : HALO_DROP_COUNT;
	packet->timestamp_ns = kept.timestamp_ns;
	packet->next_hop = kept.next_hop;
	packet->hash = kept.hash;
	packet->mark = kept.mark;
	packet->interface = kept.interface;
	packet->tx_port = kept.tx_port;
	packet->tx_interface = kept.tx_interface;
	packet->verdict = kept.verdict;
	packet->reason = kept.reason;
	packet->injected = kept.injected;
	packet->hooked = kept.hooked;
	return reason;
}
