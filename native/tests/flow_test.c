/* SPDX-License-Identifier: Apache-2.0 */
/* Functional test of the two flow hashes: what has to be equal is, and the rest is as even as chance would have it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <halo/flow.h>

#include "check.h"

enum {
	FLOWS = 64 * 1024,
	TCP = 6,
	UDP = 17,
	ICMP = 1,
	MORE_FRAGMENTS = 0x2000,
	SEED = 20261122,
};

/* What a frame is made of. */
struct ends {
	uint32_t src, dst;
	uint16_t src_port, dst_port;
	uint8_t protocol;
	uint16_t fragment; /* flags and offset, as on the wire */
	uint16_t id;
	uint32_t tags;
	uint32_t words; /* of options */
};

static uint8_t *put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
	return at + 2;
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
	return put16(put16(at, value >> 16), value);
}

/* Write the frame; return its octets: headers and 8 octets of the protocol's. */
static uint32_t build(uint8_t *frame, const struct ends *ends)
{
	uint8_t *at = frame + 12;
	uint32_t i;

	memset(frame, 0x5a, 12);
	for (i = 0; i < ends->tags; i++)
		at = put16(put16(at, i == 0 && ends->tags > 1 ? 0x88a8 : 0x8100), 100 + i);
	at = put16(at, 0x0800);
	*at++ = (uint8_t)(0x45 + ends->words);
	*at++ = 0;
	at = put16(at, 28 + 4 * ends->words);
	at = put16(at, ends->id);
	at = put16(at, ends->fragment);
	*at++ = 64;
	*at++ = ends->protocol;
	at = put16(at, 0);
	at = put32(put32(at, ends->src), ends->dst);
	for (i = 0; i < ends->words; i++)
		at = put32(at, 0x01010101);
	at = put16(put16(at, ends->src_port), ends->dst_port);
	at = put32(at, 0xdeadbeef);
	return (uint32_t)(at - frame);
}

static uint32_t spread(const struct ends *ends)
{
	uint8_t frame[128];

	return halo_spread_hash(frame, build(frame, ends));
}

static struct ends any(uint64_t *state)
{
	struct ends ends = {.src = (uint32_t)random_next(state), .dst = (uint32_t)random_next(state)};

	ends.src_port = (uint16_t)random_next(state);
	ends.dst_port = (uint16_t)random_next(state);
	ends.protocol = random_below(state, 2) ? TCP : UDP;
	return ends;
}

static struct ends turned(struct ends ends)
{
	struct ends back = ends;

	back.src = ends.dst;
	back.dst = ends.src;
	back.src_port = ends.dst_port;
	back.dst_port = ends.src_port;
	return back;
}

/* ---- what is equal, and what is not --------------------------------------------------------------------------- */

static void both_directions(void)
{
	static const uint8_t protocols[] = {TCP, UDP, ICMP, 47};
	uint64_t state = SEED;
	uint32_t i;

	for (i = 0; i < FLOWS; i++) {
		struct ends ends = any(&state), back;

		ends.protocol = protocols[i % 4];
		if (i % 8 == 0)
			ends.dst = ends.src; /* only the ports tell the ends apart */
		ends.words = i % 3;
		back = turned(ends);
		back.words = 0;
		CHECK_EQUAL(spread(&ends), spread(&back));
	}
}

static void fields_that_count(void)
{
	struct ends ends = {.src = 0x0a000001, .dst = 0x0a000002, .src_port = 1000, .dst_port = 80, .protocol = TCP};
	struct ends other = ends;
	uint32_t hash = spread(&ends);

	other.src_port++;
	CHECK(spread(&other) != hash);
	other = ends;
	other.src++;
	CHECK(spread(&other) != hash);
	other = ends;
	other.protocol = UDP;
	CHECK(spread(&other) != hash);
	other = ends; /* addresses and ports belong together: the ends are not those of this flow */
	other.src_port = ends.dst_port;
	other.dst_port = ends.src_port;
	CHECK(spread(&other) != hash);
	other = ends;
	other.id = 7;
	CHECK_EQUAL(spread(&other), hash);
	ends.protocol = other.protocol = ICMP; /* what stands there are no ports */
	other.src_port = 0x0000;
	CHECK_EQUAL(spread(&other), spread(&ends));
}

static void fragments_of_a_datagram(void)
{
	static const uint16_t places[] = {MORE_FRAGMENTS, MORE_FRAGMENTS | 185, 370};
	uint64_t state = SEED;
	uint32_t i, j;

	for (i = 0; i < 1000; i++) {
		struct ends ends = any(&state), back;
		uint32_t hash;

		ends.fragment = places[0];
		hash = spread(&ends);
		for (j = 1; j < 3; j++) {
			ends.fragment = places[j];
			ends.src_port = (uint16_t)random_next(&state); /* there it is data */
			ends.dst_port = (uint16_t)random_next(&state);
			ends.words = j;
			CHECK_EQUAL(spread(&ends), hash);
		}
		ends.fragment = 0x4000; /* may not be fragmented: that is no fragment */
		CHECK(spread(&ends) != hash);
		back = turned(ends);
		back.fragment = places[2];
		CHECK_EQUAL(spread(&back), hash);
	}
}

static void tags_are_stepped_over(void)
{
	uint64_t state = SEED;
	struct ends ends = any(&state);
	uint32_t hash = spread(&ends);

	for (ends.tags = 1; ends.tags <= 2; ends.tags++)
		CHECK_EQUAL(spread(&ends), hash);
	CHECK_EQUAL(ends.tags, 3);
	CHECK_EQUAL(spread(&ends), 0);
}

static void no_ipv4_is_nothing(void)
{
	static const uint16_t ethertypes[] = {0x0806, 0x86dd, 0x88cc, 0x0027};
	uint64_t state = SEED;
	struct ends ends = any(&state);
	uint8_t frame[128];
	uint32_t length = build(frame, &ends);
	uint32_t i;

	for (i = 0; i < 4; i++) {
		put16(frame + 12, ethertypes[i]);
		CHECK_EQUAL(halo_spread_hash(frame, length), 0);
	}
	put16(frame + 12, 0x0800);
	CHECK(halo_spread_hash(frame, length) != 0);
	frame[14] = 0x65;
	CHECK_EQUAL(halo_spread_hash(frame, length), 0);
	for (i = 1; i <= 64; i++)
		CHECK_EQUAL(halo_flow_share(0, i), 0);
}

/* Copies of exactly that many octets, so that a sanitizer sees what is read behind them. */
static uint32_t hash_of_copy(const uint8_t *frame, uint32_t length)
{
	uint8_t *copy = malloc(length ? length : 1);
	uint32_t hash;

	CHECK(copy);
	memcpy(copy, frame, length);
	hash = halo_spread_hash(copy, length);
	free(copy);
	return hash;
}

static void truncated_at_every_length(void)
{
	struct ends ends = {.src = 1, .dst = 2, .src_port = 3, .dst_port = 4, .protocol = UDP};
	uint32_t with_ports, without;
	uint8_t frame[128];

	for (ends.tags = 0; ends.tags <= 2; ends.tags++) {
		uint32_t length = build(frame, &ends), header = 14 + 4 * ends.tags + 20, i;

		with_ports = halo_spread_hash(frame, length);
		without = hash_of_copy(frame, header);
		CHECK(with_ports != without && without != 0);
		for (i = 0; i <= length; i++)
			CHECK_EQUAL(hash_of_copy(frame, i), i < header ? 0 : i < header + 4 ? without : with_ports);
	}
}

static void header_length_that_lies(void)
{
	struct ends ends = {.src = 1, .dst = 2, .src_port = 3, .dst_port = 4, .protocol = UDP};
	uint8_t frame[128];
	uint32_t length = build(frame, &ends), words;

	for (words = 0; words < 16; words++) {
		frame[14] = (uint8_t)(0x40 + words);
		CHECK(hash_of_copy(frame, length) != 0);
	}
}

/* ---- how even ------------------------------------------------------------------------------------------------- */

typedef uint32_t (*hash_fn)(uint64_t *state, uint32_t i);

typedef uint32_t (*place_fn)(uint32_t hash, uint32_t count);

/* What the FIB does with a flow's hash; `count` is a power of two. */
static uint32_t low_bits(uint32_t hash, uint32_t count)
{
	return hash & (count - 1);
}

/* Pearson's statistic of FLOWS hashes over `count` places; of chance it is count - 1, give or take the root of twice that. */
static double chi_square(hash_fn hash, place_fn place, uint32_t count)
{
	uint32_t found[4096] = {0};
	uint64_t state = SEED;
	double expected = (double)FLOWS / count, sum = 0;
	uint32_t i;

	for (i = 0; i < FLOWS; i++)
		found[place(hash(&state, i), count)]++;
	for (i = 0; i < count; i++)
		sum += (found[i] - expected) * (found[i] - expected) / expected;
	return sum;
}

static double bound(uint32_t count)
{
	return count - 1 + 5 * sqrt(2.0 * (count - 1)) + 10;
}

static void check_places(const char *what, hash_fn hash, place_fn place, uint32_t count)
{
	double found = chi_square(hash, place, count);

	CHECK(found < bound(count), "%s over %u: %.1f, at most %.1f", what, count, found, bound(count));
}

static void check_even(const char *what, hash_fn hash)
{
	static const uint32_t counts[] = {2, 3, 4, 5, 7, 8, 16, 31, 64, 1024};
	uint32_t i;

	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		check_places(what, hash, halo_flow_share, counts[i]);
		if ((counts[i] & (counts[i] - 1)) == 0)
			check_places(what, hash, low_bits, counts[i]);
	}
}

static uint32_t spread_random(uint64_t *state, uint32_t i)
{
	struct ends ends = any(state);

	(void)i;
	return spread(&ends);
}

/* One server and its clients, next to each other, each from the same port. */
static uint32_t spread_sources(uint64_t *state, uint32_t i)
{
	struct ends ends = {
		.src = 0x0a4d0000 + i, .dst = 0xc0a80001, .src_port = 5000, .dst_port = 53, .protocol = UDP};

	(void)state;
	return spread(&ends);
}

/* Both addresses count up together, as generators have them: exclusive-or of the two would be one number. */
static uint32_t spread_pairs(uint64_t *state, uint32_t i)
{
	struct ends ends = {.src = 0x0a000000 + i, .dst = 0x0a800000 + i, .protocol = ICMP};

	(void)state;
	return spread(&ends);
}

/* Two stations, all ports. */
static uint32_t spread_ports(uint64_t *state, uint32_t i)
{
	struct ends ends = {
		.src = 0x0a000001, .dst = 0x0a000002, .src_port = (uint16_t)i, .dst_port = 80, .protocol = TCP};

	(void)state;
	return spread(&ends);
}

static uint32_t spread_both_ports(uint64_t *state, uint32_t i)
{
	struct ends ends = {.src = 0x0a000001, .dst = 0x0a000002, .src_port = (uint16_t)i, .protocol = UDP};

	(void)state;
	ends.dst_port = (uint16_t)(i + 1);
	return spread(&ends);
}

/* Networks, not hosts: the low octets stay. */
static uint32_t spread_networks(uint64_t *state, uint32_t i)
{
	struct ends ends = {.src = i << 16 | 1, .dst = 0x08080808, .src_port = 1, .dst_port = 2, .protocol = TCP};

	(void)state;
	return spread(&ends);
}

static void spread_is_even(void)
{
	check_even("random", spread_random);
	check_even("sources", spread_sources);
	check_even("pairs", spread_pairs);
	check_even("ports", spread_ports);
	check_even("both ports", spread_both_ports);
	check_even("networks", spread_networks);
}

static uint32_t flow_random(uint64_t *state, uint32_t i)
{
	struct ends ends = any(state);

	(void)i;
	return halo_flow_hash(7, ends.src, ends.dst, ends.protocol, ends.src_port, ends.dst_port);
}

static uint32_t flow_sources(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(7, 0x0a4d0000 + i, 0xc0a80001, UDP, 5000, 53);
}

static uint32_t flow_pairs(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(7, 0x0a000000 + i, 0x0a800000 + i, ICMP, 0, 0);
}

static uint32_t flow_destinations(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(7, 0x0a000001, i << 16 | 1, TCP, 1, 2);
}

static uint32_t flow_ports(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(7, 0x0a000001, 0x0a000002, TCP, (uint16_t)i, 80);
}

static uint32_t flow_destination_ports(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(7, 0x0a000001, 0x0a000002, TCP, 1024, (uint16_t)i);
}

/* The same flow under seeds that count up. */
static uint32_t flow_seeds(uint64_t *state, uint32_t i)
{
	(void)state;
	return halo_flow_hash(i, 0x0a000001, 0x0a000002, TCP, 1024, 80);
}

static void flow_is_even(void)
{
	check_even("random", flow_random);
	check_even("sources", flow_sources);
	check_even("pairs", flow_pairs);
	check_even("destinations", flow_destinations);
	check_even("ports", flow_ports);
	check_even("destination ports", flow_destination_ports);
	check_even("seeds", flow_seeds);
}

/* Two routers in a row: what the first has chosen says nothing of what the second will. */
static void seeds_choose_independently(void)
{
	static const uint32_t seeds[][2] = {{0, 1}, {1, 2}, {7, 0x80000007}, {0xffffffff, 0}, {1, 0x10001}};
	uint32_t pair, i;

	for (pair = 0; pair < 5; pair++) {
		uint32_t found[64] = {0};
		double expected = FLOWS / 64.0, sum = 0;

		for (i = 0; i < FLOWS; i++) {
			uint32_t src = 0x0a000000 + i / 256, port = i % 256;
			uint32_t first = halo_flow_hash(seeds[pair][0], src, 0xc0a80001, UDP, (uint16_t)port, 53);
			uint32_t second = halo_flow_hash(seeds[pair][1], src, 0xc0a80001, UDP, (uint16_t)port, 53);

			found[halo_flow_share(first, 8) * 8 + halo_flow_share(second, 8)]++;
		}
		for (i = 0; i < 64; i++)
			sum += (found[i] - expected) * (found[i] - expected) / expected;
		CHECK(sum < bound(64), "seeds %u and %u: %.1f", seeds[pair][0], seeds[pair][1], sum);
	}
}

static void flow_has_a_direction(void)
{
	uint64_t state = SEED;
	uint32_t same = 0, i;

	for (i = 0; i < FLOWS; i++) {
		struct ends ends = any(&state);
		uint32_t there = halo_flow_hash(1, ends.src, ends.dst, TCP, ends.src_port, ends.dst_port);
		uint32_t back = halo_flow_hash(1, ends.dst, ends.src, TCP, ends.dst_port, ends.src_port);

		same += halo_flow_share(there, 2) == halo_flow_share(back, 2);
	}
	CHECK(same > FLOWS * 49 / 100 && same < FLOWS * 51 / 100, "%u of %u", same, FLOWS);
}

/* Each bit of what goes in turns nearly half of the bits that come out. */
static void every_bit_matters(void)
{
	uint64_t state = SEED;
	uint32_t bit, i;

	for (bit = 0; bit < 136; bit++) {
		uint32_t turned_bits = 0;

		for (i = 0; i < 2000; i++) {
			uint32_t in[5] = {(uint32_t)random_next(&state), (uint32_t)random_next(&state),
					  (uint32_t)random_next(&state), (uint32_t)random_next(&state), i % 256};
			uint32_t before = halo_flow_hash(in[0], in[1], in[2], (uint8_t)in[4], (uint16_t)in[3],
							 (uint16_t)(in[3] >> 16));
			uint32_t after;

			in[bit / 32] ^= UINT32_C(1) << bit % 32;
			after = halo_flow_hash(in[0], in[1], in[2], (uint8_t)in[4], (uint16_t)in[3],
					       (uint16_t)(in[3] >> 16));
			turned_bits += (uint32_t)__builtin_popcount(before ^ after);
		}
		CHECK(turned_bits > 2000 * 14 && turned_bits < 2000 * 18, "bit %u turns %.2f of 32", bit,
		      turned_bits / 2000.0);
	}
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"both_directions", both_directions},
		{"fields_that_count", fields_that_count},
		{"fragments_of_a_datagram", fragments_of_a_datagram},
		{"tags_are_stepped_over", tags_are_stepped_over},
		{"no_ipv4_is_nothing", no_ipv4_is_nothing},
		{"truncated_at_every_length", truncated_at_every_length},
		{"header_length_that_lies", header_length_that_lies},
		{"spread_is_even", spread_is_even},
		{"flow_is_even", flow_is_even},
		{"seeds_choose_independently", seeds_choose_independently},
		{"flow_has_a_direction", flow_has_a_direction},
		{"every_bit_matters", every_bit_matters},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
