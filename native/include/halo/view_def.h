/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet as a hook names its fields: packet.ipv4.src, packet.udp.dport. Each struct lies over struct halo_packet, whose
 * place for the same thing is asserted in view.c. Fields of a protocol that a packet has not are 0.
 */

struct halo_view_ipv4 {
	uint8_t skip0[10];
	uint8_t version;
	uint8_t protocol;
	uint8_t skip1[8];
	uint16_t length;
	uint16_t fragment;
	uint8_t ttl;
	uint8_t tos;
	uint8_t skip2[38];
	uint32_t src;
	uint8_t skip3[12];
	uint32_t dst;
	uint8_t skip4[44];
};

struct halo_view_icmp {
	uint8_t skip0[96];
	uint8_t type;
	uint8_t code;
	uint8_t skip1[30];
};

struct halo_view_tcp {
	uint8_t skip0[98];
	uint16_t sport;
	uint16_t dport;
	uint8_t skip1[26];
};

struct halo_view_udp {
	uint8_t skip0[102];
	uint16_t sport;
	uint16_t dport;
	uint8_t skip1[22];
};

/* Give each protocol its ports, and ICMP its type, for a hook that looks now. */
void halo_view_open(const uint8_t *pool, struct halo_packet *packets, uint32_t count);
/* Take over what the hook made of the ports. */
void halo_view_close(struct halo_packet *packets, uint32_t count);
/* halo_packets_update_checksums for the packets whose octet in `mask` is not 0. */
void halo_view_update_checksums(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
				uint32_t count, const uint8_t *mask);
