/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settling by itself, as tests of hooks use it: for random frames and random changes, checksums that were right are right afterwards,
 * by their definition, and what the frame says is what the packet says. The pool is one buffer with nothing around it, so that with
 * AddressSanitizer a step outside is an error.
 */
#include <stdlib.h>
#include <string.h>

#include <halo/fastpath.h>

#include "check.h"
#include "frames.h"

enum {
	STRIDE = 2240,
	START = HALO_METADATA_OCTETS + HALO_HEADROOM_OCTETS,
	ROUNDS = 40000,
	FRAGMENT_MASK = 0x3fff,
	FRAGMENT_OFFSET = 0x1fff,
};

static const struct halo_pool_geometry geometry = {
	.size_octets = STRIDE,
	.buffer_count = 1,
	.buffers_per_chunk = 1,
	.stride_octets = STRIDE,
	.data_octets = HALO_DATA_OCTETS,
};
static uint8_t *pool;
static uint64_t chance;
static struct plan plan;
static struct frame frame;
static struct halo_packet packet;
static struct halo_shadow shadow;
static struct halo_settled settled;

static uint32_t below(uint32_t limit)
{
	return random_below(&chance, limit);
}

static uint32_t get16(const uint8_t *octets)
{
	return (uint32_t)octets[0] << 8 | octets[1];
}

static uint32_t get32(const uint8_t *octets)
{
	return get16(octets) << 16 | get16(octets + 2);
}

/* ---- transports ------------------------------------------------------------------------------------------------ */

/* Where the checksum of the transport is; 0: it has none. */
static uint32_t checksum_at(const uint8_t *ip)
{
	uint32_t header = (ip[0] & 15u) * 4, octets = get16(ip + 2) - header;

	if ((ip[9] == UDP && octets >= 8) || (ip[9] == TCP && octets >= 18))
		return header + (ip[9] == UDP ? 6 : 16);
	return 0;
}

/* The checksum of pseudo header and transport, RFC 768 and 9293. */
static uint16_t transport_sum(const uint8_t *ip)
{
	uint32_t header = (ip[0] & 15u) * 4, octets = get16(ip + 2) - header;
	uint8_t covered[FRAME_ROOM + 12];

	memcpy(covered, ip + 12, 8);
	put16(covered + 8, ip[9]);
	put16(covered + 10, octets);
	memcpy(covered + 12, ip + header, octets);
	return reference_checksum(covered, octets + 12);
}

static void seal(uint8_t *ip, bool without)
{
	uint32_t at = checksum_at(ip);
	uint16_t sum;

	if (at == 0)
		return;
	put16(ip + at, 0);
	if (without && ip[9] == UDP)
		return;
	sum = transport_sum(ip);
	put16(ip + at, sum == 0 && ip[9] == UDP ? 0xffff : sum);
}

static void check_sums(const uint8_t *ip, bool without)
{
	uint32_t at = checksum_at(ip);

	CHECK_EQUAL(reference_checksum(ip, (ip[0] & 15u) * 4), 0);
	if (at == 0 || (plan.fragment & FRAGMENT_OFFSET))
		return;
	if (without && ip[9] == UDP)
		CHECK_EQUAL(get16(ip + at), 0);
	else
		CHECK(transport_sum(ip) == 0 && (ip[9] != UDP || get16(ip + at) != 0), "protocol %u, %u octets", ip[9],
		      get16(ip + 2));
}

/* ---- a frame --------------------------------------------------------------------------------------------------- */

static void make_any(bool without)
{
	static const uint8_t protocols[] = {ICMP, TCP, UDP, UDP, 47};

	plan = echo;
	plan.protocol = protocols[below(5)];
	plan.vlan = below(3) ? NO_VLAN : (int32_t)below(65536);
	plan.option_words = below(3) ? 0 : below(11);
	plan.fragment = below(4) ? 0 : below(2) ? 0x2000 : (uint16_t)random_next(&chance);
	plan.data_octets = below(4) ? below(40) : below(1400);
	plan.src = (uint32_t)random_next(&chance);
	plan.dst = (uint32_t)random_next(&chance);
	plan.src_port = (uint16_t)random_next(&chance);
	plan.dst_port = below(8) ? (uint16_t)random_next(&chance) : 0xffff;
	plan.ttl = (uint8_t)random_next(&chance);
	plan.tos = (uint8_t)random_next(&chance);
	plan.pad_to = below(2) ? 60 : 0;
	frame_make(&plan, &frame);
	seal(frame.octets + frame_l3(&frame), without);
}

static void place_frame(void)
{
	memset(pool, 0xa5, STRIDE);
	memcpy(pool + START, frame.octets, frame.length);
	memset(&packet, 0x5a, sizeof(packet));
	packet.offset = START;
	packet.length = (uint16_t)frame.length;
	packet.port = 3;
	packet.flags = 0;
	halo_packets_parse(pool, &geometry, &packet, 1, 1234);
	CHECK_EQUAL(packet.verdict, HALO_VERDICT_NONE);
	CHECK_EQUAL(packet.timestamp_ns, 1234);
	halo_packets_remember(pool, &packet, 1, &shadow);
	memset(&settled, 0, sizeof(settled));
}

static void settle(void)
{
	halo_packets_settle(pool, &geometry, &packet, 1, &shadow, HALO_HOOK_PASS, &settled);
}

/* A value for a field: another one, the same, or one that checksums have trouble with. */
static uint32_t any(uint32_t now)
{
	switch (below(5)) {
	case 0:
		return now;
	case 1:
		return 0;
	case 2:
		return UINT32_MAX;
	case 3:
		return now ^ 0xffff;
	default:
		return (uint32_t)random_next(&chance);
	}
}

static void change_fields(void)
{
	if (below(2))
		packet.src[0] = any(packet.src[0]);
	if (below(2))
		packet.dst[0] = any(packet.dst[0]);
	if (below(2))
		packet.ttl = (uint8_t)any(packet.ttl);
	if (below(2))
		packet.tos = (uint8_t)any(packet.tos);
	if (below(2))
		packet.src_port = (uint16_t)any(packet.src_port);
	if (below(2))
		packet.dst_port = (uint16_t)any(packet.dst_port);
}

/* The packet says what a parser says of the frame. */
static void check_agrees(void)
{
	struct halo_packet again = {.offset = packet.offset, .length = packet.length, .port = packet.port};

	halo_packets_parse(pool, &geometry, &again, 1, 1234);
	CHECK_EQUAL(again.verdict, HALO_VERDICT_NONE);
	again.interface = packet.interface;
	again.tx_port = packet.tx_port;
	again.mark = packet.mark;
	again.hooked = packet.hooked;
	CHECK(memcmp(&again, &packet, HALO_LINE) == 0, "the first line");
	CHECK(again.src[0] == packet.src[0] && again.dst[0] == packet.dst[0], "addresses");
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static void fields(void)
{
	uint32_t round, rewritten = 0;

	for (round = 0; round < ROUNDS; round++) {
		bool without = below(4) == 0;
		struct halo_packet wanted;
		bool ports;

		make_any(without);
		place_frame();
		change_fields();
		wanted = packet;
		ports = (plan.protocol == UDP || plan.protocol == TCP) && !(plan.fragment & FRAGMENT_MASK);
		settle();
		CHECK_EQUAL(packet.verdict, HALO_VERDICT_NONE);
		CHECK_EQUAL(packet.src[0], wanted.src[0]);
		CHECK_EQUAL(packet.dst[0], wanted.dst[0]);
		CHECK_EQUAL(packet.ttl, wanted.ttl);
		CHECK_EQUAL(packet.tos, wanted.tos);
		CHECK_EQUAL(packet.src_port, ports ? wanted.src_port : 0);
		CHECK_EQUAL(packet.dst_port, ports ? wanted.dst_port : 0);
		check_sums(pool + START + packet.l3_offset, without);
		check_agrees();
		CHECK_EQUAL(settled.dropped + settled.errors, 0);
		rewritten += settled.rewritten;
	}
	CHECK(rewritten > ROUNDS / 2, "%u", rewritten);
}

/* Nothing was changed: nothing is written, not even what would be the same. */
static void nothing(void)
{
	uint8_t before[STRIDE];
	uint32_t round;

	for (round = 0; round < ROUNDS / 10; round++) {
		make_any(below(2));
		place_frame();
		memcpy(before, pool, STRIDE);
		packet.mark = 17;
		packet.tx_port = 5;
		settle();
		CHECK(memcmp(before, pool, STRIDE) == 0);
		CHECK_EQUAL(packet.mark, 17);
		CHECK_EQUAL(settled.rewritten + settled.dropped + settled.errors, 0);
		check_agrees();
	}
}

/* The hook writes addresses and ports into the frame, has checksums made anew, and may change fields besides. */
static void octets(void)
{
	uint32_t round;

	for (round = 0; round < ROUNDS; round++) {
		bool without = below(4) == 0, both = below(2);
		uint8_t *ip;
		uint32_t dst, ttl;

		make_any(without);
		plan.fragment = 0;
		frame_make(&plan, &frame);
		seal(frame.octets + frame_l3(&frame), without);
		place_frame();
		ip = pool + START + packet.l3_offset;
		dst = any(plan.dst);
		put32(ip + 16, dst);
		if (packet.ip_length > packet.l4_offset - packet.l3_offset + 20u)
			ip[packet.ip_length - 1] ^= (uint8_t)random_next(&chance);
		halo_packets_update_checksums(pool, &geometry, &packet, 1);
		ttl = packet.ttl;
		if (both)
			packet.ttl = (uint8_t)(ttl + 1);
		settle();
		CHECK_EQUAL(packet.verdict, HALO_VERDICT_NONE);
		CHECK_EQUAL(packet.dst[0], dst);
		CHECK_EQUAL(get32(ip + 16), dst);
		CHECK_EQUAL(packet.ttl, (uint8_t)(ttl + both));
		CHECK_EQUAL(settled.rewritten, 1);
		if (packet.ip_protocol == ICMP)
			CHECK_EQUAL(reference_checksum(ip + (ip[0] & 15) * 4, packet.ip_length - (ip[0] & 15u) * 4), 0);
		check_sums(ip, without);
		check_agrees();
	}
}

/* Whatever is written wherever, what goes on is a packet, and in its buffer. */
static void check_sound(void)
{
	CHECK(packet.offset >= HALO_METADATA_OCTETS && packet.offset + packet.length <= STRIDE);
	CHECK(packet.length >= HALO_MIN_FRAME_OCTETS);
	CHECK(packet.interface == HALO_NO_INTERFACE && packet.port == 3 && packet.rewritten == 0);
	if (packet.ip_version != 4)
		return;
	CHECK(packet.l3_offset + packet.ip_length <= packet.length);
	CHECK(packet.l4_offset >= packet.l3_offset + 20 && packet.l4_offset <= packet.l3_offset + packet.ip_length);
	if (packet.l4_offset - packet.l3_offset == 20) /* options that were written without a word are not looked at */
		CHECK_EQUAL(reference_checksum(pool + packet.offset + packet.l3_offset, 20), 0);
}

static void anything(void)
{
	uint32_t round, i, sound = 0, ended = 0;

	for (round = 0; round < ROUNDS; round++) {
		make_any(below(2));
		if (below(8) == 0) /* broken, or no IPv4 at all, is shown too: at egress */
			put16(frame.octets + 12, below(2) ? 0x86dd : TYPE_ARP);
		place_frame();
		for (i = below(4); i; i--)
			((uint8_t *)&packet)[below(sizeof(packet))] = (uint8_t)random_next(&chance);
		for (i = below(4); i; i--)
			pool[HALO_METADATA_OCTETS + below(STRIDE - HALO_METADATA_OCTETS)] =
				(uint8_t)random_next(&chance);
		for (i = below(3); i; i--)
			pool[START + 12 + below(40)] = (uint8_t)random_next(&chance);
		if (below(3) == 0)
			packet.length = (uint16_t)any(packet.length);
		if (below(3) == 0)
			packet.offset = START - below(300) + below(300);
		if (below(3) == 0)
			packet.verdict = (uint8_t)below(9);
		if (below(3) == 0)
			halo_packets_update_checksums(pool, &geometry, &packet, 1);
		settle();
		if (packet.verdict == HALO_VERDICT_DROP || packet.verdict == HALO_VERDICT_CONSUME) {
			ended++;
			CHECK(packet.reason < HALO_DROP_COUNT);
			continue;
		}
		CHECK(packet.verdict == HALO_VERDICT_NONE || packet.verdict == HALO_VERDICT_PUNT ||
		      (packet.verdict == HALO_VERDICT_TRANSMIT && packet.tx_port < HALO_MAX_PORTS));
		check_sound();
		sound++;
	}
	CHECK(sound > ROUNDS / 10 && ended > ROUNDS / 10, "%u went on, %u did not", sound, ended);
}

/* A checksum that is not there stays so; one that comes to 0 is written as 0xffff. */
static void udp_zero(void)
{
	uint32_t port, zeros = 0;
	uint8_t *udp = pool + START + 34;

	plan = echo;
	plan.protocol = UDP;
	plan.data_octets = 0;
	for (port = 0; port < 65536; port++) {
		frame_make(&plan, &frame);
		seal(frame.octets + 14, false);
		place_frame();
		packet.dst_port = (uint16_t)port;
		settle();
		CHECK(get16(udp + 6) != 0);
		zeros += get16(udp + 6) == 0xffff;
		CHECK_EQUAL(transport_sum(pool + START + 14), 0);
	}
	CHECK(zeros >= 1, "no port makes it 0");
}

static const struct row rows[] = {
	{"fields", fields}, {"nothing", nothing}, {"octets", octets}, {"anything", anything}, {"udp_zero", udp_zero},
};

int main(int argc, char **argv)
{
	int failed;

	chance = 20261123;
	printf("seed %lu\n", (unsigned long)chance);
	pool = malloc(STRIDE);
	failed = pool ? run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv) : 1;
	free(pool);
	return failed;
}
