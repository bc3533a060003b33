/* SPDX-License-Identifier: Apache-2.0 */
/* A packet by the names that hooks use. Ports have one place in the line, and one of each protocol while a hook looks. */
#include <halo/fastpath.h>

#include <assert.h>
#include <stddef.h>

enum {
	FRAGMENT_OFFSET = 0x1fff,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
};

#define SAME_PLACE(view, name, field)                                                                   \
	static_assert(offsetof(struct halo_view_##view, name) == offsetof(struct halo_packet, field) && \
			      sizeof(struct halo_view_##view) == sizeof(struct halo_packet),            \
		      #view "." #name)
SAME_PLACE(ipv4, version, ip_version);
SAME_PLACE(ipv4, protocol, ip_protocol);
SAME_PLACE(ipv4, length, ip_length);
SAME_PLACE(ipv4, fragment, fragment);
SAME_PLACE(ipv4, ttl, ttl);
SAME_PLACE(ipv4, tos, tos);
SAME_PLACE(ipv4, src, src);
SAME_PLACE(ipv4, dst, dst);
SAME_PLACE(icmp, type, icmp_type);
SAME_PLACE(icmp, code, icmp_code);
SAME_PLACE(tcp, sport, tcp_src_port);
SAME_PLACE(tcp, dport, tcp_dst_port);
SAME_PLACE(udp, sport, udp_src_port);
SAME_PLACE(udp, dport, udp_dst_port);

static void open_icmp(const uint8_t *pool, struct halo_packet *packet)
{
	const uint8_t *icmp = pool + packet->offset + packet->l4_offset;

	if (packet->fragment & FRAGMENT_OFFSET || packet->l3_offset + packet->ip_length < packet->l4_offset + 2)
		return;
	packet->icmp_type = icmp[0];
	packet->icmp_code = icmp[1];
}

void halo_view_open(const uint8_t *pool, struct halo_packet *packets, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &packets[i];
		uint16_t tcp = packet->ip_protocol == PROTOCOL_TCP ? 0xffff : 0;
		uint16_t udp = packet->ip_protocol == PROTOCOL_UDP ? 0xffff : 0;

		packet->shown_protocol = packet->ip_protocol;
		packet->tcp_src_port = packet->src_port & tcp;
		packet->tcp_dst_port = packet->dst_port & tcp;
		packet->udp_src_port = packet->src_port & udp;
		packet->udp_dst_port = packet->dst_port & udp;
		if (packet->ip_protocol == PROTOCOL_ICMP)
			open_icmp(pool, packet);
	}
}

void halo_view_close(struct halo_packet *packets, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &packets[i];

		if (packet->shown_protocol == PROTOCOL_TCP) {
			packet->src_port = packet->tcp_src_port;
			packet->dst_port = packet->tcp_dst_port;
		} else if (packet->shown_protocol == PROTOCOL_UDP) {
			packet->src_port = packet->udp_src_port;
			packet->dst_port = packet->udp_dst_port;
		}
	}
}

void halo_view_update_checksums(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
				uint32_t count, const uint8_t *mask)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		if (mask[i])
			halo_packets_update_checksums(pool, geometry, &packets[i], 1);
}
