/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for tests, made octet by octet from a plan, with checksums from the definition: no code of the fast path here. */
#ifndef HALO_TEST_FRAMES_H
#define HALO_TEST_FRAMES_H

#include <stdint.h>
#include <string.h>

enum {
	FRAME_ROOM = 2240,
	NO_VLAN = -1,
	TYPE_IPV4 = 0x0800,
	TYPE_ARP = 0x0806,
	TYPE_VLAN = 0x8100,
	ICMP = 1,
	TCP = 6,
	UDP = 17,
};

#define IPV4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

struct frame {
	uint32_t length;
	uint8_t octets[FRAME_ROOM];
};

struct plan {
	uint8_t dst_mac[6];
	uint8_t src_mac[6];
	int32_t vlan; /* the whole tag, or NO_VLAN */
	uint16_t ethertype;
	uint8_t tos;
	uint8_t ttl;
	uint8_t protocol;
	uint16_t id;
	uint16_t fragment;
	uint32_t src;
	uint32_t dst;
	uint32_t option_words;
	uint8_t options[40]; /* all zeros: no operations */
	uint8_t icmp_type;
	uint16_t src_port;
	uint16_t dst_port;
	uint32_t data_octets; /* behind the header of protocol; without one, behind IPv4 or Ethernet */
	uint32_t pad_to;
};

/* An echo request from PEER to OWN. */
#define OWN_MAC                                    \
	{                                          \
		0x02, 0xaa, 0x00, 0x00, 0x00, 0x01 \
	}
#define PEER_MAC                                   \
	{                                          \
		0x02, 0xbb, 0x00, 0x00, 0x00, 0x02 \
	}
#define OWN_ADDRESS IPV4(10, 0, 0, 1)
#define PEER_ADDRESS IPV4(10, 0, 0, 2)
extern const struct plan echo;

uint16_t reference_checksum(const uint8_t *octets, uint32_t length);
void put16(uint8_t *octets, uint32_t value);
void put32(uint8_t *octets, uint32_t value);

void frame_make(const struct plan *plan, struct frame *frame);
uint32_t frame_l3(const struct frame *frame);
uint32_t frame_ip_length(const struct frame *frame);
/* Set the IPv4 header checksum again after a change. */
void frame_seal(struct frame *frame);
/*
 * The frame as a router sends it on: these MAC addresses, untagged or with this VLAN, a TTL less; the packet itself stays. Octets
 * behind the packet go, but for those that pad a frame to 60 octets; a frame that lost its tag is padded with zeros.
 */
void frame_forwarded(const struct frame *received, const uint8_t *dst, const uint8_t *src, int32_t vlan,
		     struct frame *sent);
/* The echo reply that RFC 792 and RFC 1122 ask for. */
void frame_reply(const struct frame *request, struct frame *reply);

#endif
