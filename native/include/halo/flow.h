/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which flow a frame belongs to, as a number. No DPDK, no state: the driver, the fast path and Python (through _native) get
 * the same number for the same frame.
 *
 *   halo_spread_hash   from a frame, for spreading a port over workers: the same for both directions of a flow
 *   halo_flow_hash     from a packet's fields, for choosing among equal paths: seeded, and each direction for itself
 *
 * Both end with the upper half of a product, whose bits depend on all of the input; halo_flow_share() makes an index of them.
 */
#ifndef HALO_FLOW_H
#define HALO_FLOW_H

#include <stdint.h>

/* Odd numbers without a pattern: the fractional parts of the golden ratio and of the square roots of 2 and 3. */
#define HALO_FLOW_PRIME_A UINT64_C(0x9e3779b97f4a7c15)
#define HALO_FLOW_PRIME_B UINT64_C(0x6a09e667f3bcc909)
#define HALO_FLOW_PRIME_C UINT64_C(0xbb67ae8584caa73b)

enum halo_flow_constant {
	HALO_FLOW_ETHERNET = 14,
	HALO_FLOW_VLAN = 4,
	HALO_FLOW_TAGS = 2, /* at most: 802.1ad around 802.1Q */
	HALO_FLOW_IPV4 = 20,
	HALO_FLOW_FRAGMENT = 0x3fff, /* more-fragments and offset */
};

static inline uint32_t halo_flow_load16(const uint8_t *octets)
{
	return (uint32_t)octets[0] << 8 | octets[1];
}

static inline uint32_t halo_flow_load32(const uint8_t *octets)
{
	return halo_flow_load16(octets) << 16 | halo_flow_load16(octets + 2);
}

/* Fold two words into one. Multiplying carries upwards only, so what is above comes down in between. */
static inline uint32_t halo_flow_mix(uint64_t first, uint64_t second)
{
	uint64_t mixed = first * HALO_FLOW_PRIME_A;

	mixed = ((mixed ^ (mixed >> 32)) + second) * HALO_FLOW_PRIME_B;
	mixed = (mixed ^ (mixed >> 29)) * HALO_FLOW_PRIME_C;
	return (uint32_t)(mixed >> 32);
}

/* An index below `count`, each as often as the others: what a hash says of `count` queues, or paths. */
static inline uint32_t halo_flow_share(uint32_t hash, uint32_t count)
{
	return (uint32_t)(((uint64_t)hash * count) >> 32);
}

/* Where the IPv4 header of a frame starts; 0: it has none that is whole. Tags are stepped over. */
static inline uint32_t halo_flow_ipv4(const uint8_t *frame, uint32_t length)
{
	uint32_t at = HALO_FLOW_ETHERNET;
	uint32_t tags;

	for (tags = 0; at + HALO_FLOW_IPV4 <= length; tags++, at += HALO_FLOW_VLAN) {
		uint32_t ethertype = halo_flow_load16(frame + at - 2);

		if (ethertype == 0x0800)
			return frame[at] >> 4 == 4 ? at : 0;
		if (tags == HALO_FLOW_TAGS || (ethertype != 0x8100 && ethertype != 0x88a8))
			return 0;
	}
	return 0;
}

/*
 * The flow of a frame, the same number both ways: the two ends are put in order before they are mixed. An end is an address,
 * and a port where the protocol (TCP, UDP) has ports. All fragments of a datagram go by addresses and protocol, the first
 * one too, though it has ports: they shall meet again. What is no IPv4 is 0, and so in the first share of any count: ARP has
 * one home.
 */
static inline uint32_t halo_spread_hash(const uint8_t *frame, uint32_t length)
{
	uint32_t at = halo_flow_ipv4(frame, length);
	const uint8_t *ip = frame + at;
	uint64_t src, dst, low, high;
	uint32_t header, protocol;

	if (at == 0)
		return 0;
	header = (ip[0] & 15u) * 4;
	protocol = ip[9];
	src = (uint64_t)halo_flow_load32(ip + 12) << 16;
	dst = (uint64_t)halo_flow_load32(ip + 16) << 16;
	if ((protocol == 6 || protocol == 17) && !(halo_flow_load16(ip + 6) & HALO_FLOW_FRAGMENT) &&
	    header >= HALO_FLOW_IPV4 && at + header + 4 <= length) {
		src |= halo_flow_load16(ip + header);
		dst |= halo_flow_load16(ip + header + 2);
	}
	low = src < dst ? src : dst;
	high = src < dst ? dst : src;
	return halo_flow_mix(((uint64_t)protocol << 48) ^ low, high);
}

/*
 * The flow of a packet, one way. Two routers with seeds of their own choose independently; with the same seed the second
 * would find only flows that the first has sorted already. Ports are 0 where there are none, or where they are not to count
 * (fragments). Addresses in host order.
 */
static inline uint32_t halo_flow_hash(uint32_t seed, uint32_t src, uint32_t dst, uint8_t protocol, uint16_t src_port,
				      uint16_t dst_port)
{
	uint64_t addresses = (uint64_t)src << 32 | dst;
	uint64_t rest = (uint64_t)src_port << 24 | (uint64_t)dst_port << 8 | protocol;

	/* The seed is multiplied too: what is only added to one of the words would be there again for another flow. */
	return halo_flow_mix(addresses ^ (seed * HALO_FLOW_PRIME_C), rest ^ ((uint64_t)seed << 32));
}

#endif
