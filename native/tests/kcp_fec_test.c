/* SPDX-License-Identifier: Apache-2.0 */
/* Forward error correction and checks of KCP: what is lost comes back, and whatever comes in, nothing else happens. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <halo/kcp_def.h>
#include <halo/kcp_fec_def.h>

#include "check.h"

enum {
	OCTETS = 300,
	MOST = HALO_KCP_FEC_MAX_SHARDS,
};

struct sent {
	uint8_t octets[OCTETS];
	uint32_t length;
};

struct link {
	struct halo_kcp_fec_encoder *encoder;
	struct halo_kcp_fec_decoder *decoder;
	struct halo_kcp_fec_settings settings;
	struct sent message[MOST];
	struct sent datagram[MOST];
	uint32_t messages;
	uint32_t datagrams;
	uint64_t seed;
};

static struct link link_state;

static struct link *open_link(uint32_t data, uint32_t parity, uint32_t first, uint64_t seed)
{
	struct link *link = &link_state;

	memset(link, 0, sizeof(*link));
	link->settings = (struct halo_kcp_fec_settings){
		.data = data, .parity = parity, .octets = OCTETS, .groups = 4, .tune = 1, .first = first};
	link->seed = seed;
	link->encoder = halo_kcp_fec_encoder_create(&link->settings);
	link->decoder = halo_kcp_fec_decoder_create(&link->settings);
	CHECK(link->encoder && link->decoder, "%u + %u", data, parity);
	return link;
}

static void close_link(struct link *link)
{
	halo_kcp_fec_encoder_free(link->encoder);
	halo_kcp_fec_decoder_free(link->decoder);
}

static void fill(struct link *link, uint8_t *octets, uint32_t length)
{
	uint32_t i;

	for (i = 0; i < length; i++)
		octets[i] = (uint8_t)random_next(&link->seed);
}

/* One group of messages of random lengths, each from a buffer that ends where it ends. */
static void send_group(struct link *link)
{
	int64_t count, i;

	link->messages = link->datagrams = 0;
	while (link->messages < link->settings.data) {
		struct sent *message = &link->message[link->messages++];
		uint8_t *exact;

		message->length = 1 + random_below(&link->seed, OCTETS - HALO_KCP_FEC_OVERHEAD);
		fill(link, message->octets, message->length);
		exact = malloc(message->length);
		memcpy(exact, message->octets, message->length);
		count = halo_kcp_fec_encode(link->encoder, exact, message->length, 0);
		free(exact);
		CHECK(count > 0, "%" PRId64, count);
		for (i = 0; i < count; i++) {
			struct sent *datagram = &link->datagram[link->datagrams++];
			const uint8_t *octets;

			datagram->length = (uint32_t)halo_kcp_fec_encoded(link->encoder, (uint32_t)i, &octets);
			memcpy(datagram->octets, octets, datagram->length);
		}
	}
	CHECK_EQUAL(link->datagrams, link->settings.data + link->settings.parity);
}

/* Which of the messages is this; -1: none. */
static int32_t which(const struct link *link, const uint8_t *octets, int64_t length)
{
	uint32_t i;

	for (i = 0; i < link->messages; i++)
		if (link->message[i].length == length && memcmp(link->message[i].octets, octets, (size_t)length) == 0)
			return (int32_t)i;
	return -1;
}

/* Deliver one from a buffer that ends where it ends; what comes out is looked at, and noted in `got`. */
static int64_t deliver(struct link *link, const uint8_t *octets, uint32_t length, bool *got)
{
	uint8_t *exact = malloc(length ? length : 1);
	int64_t count, i;

	memcpy(exact, octets, length);
	count = halo_kcp_fec_decode(link->decoder, exact, length);
	for (i = 0; i < count; i++) {
		const uint8_t *carried;
		int64_t carried_length = halo_kcp_fec_decoded(link->decoder, (uint32_t)i, &carried);
		int32_t message = which(link, carried, carried_length);

		if (got) {
			CHECK(message >= 0, "%" PRId64 " octets that nobody sent", carried_length);
			got[message] = true;
		}
	}
	free(exact);
	return count;
}

static void shuffle(struct link *link, uint8_t *order, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		order[i] = (uint8_t)i;
	for (i = count; i > 1; i--) {
		uint32_t other = random_below(&link->seed, i);
		uint8_t place = order[i - 1];

		order[i - 1] = order[other];
		order[other] = place;
	}
}

/* Of each group any `data` datagrams arrive, in any order. */
static void lose_as_many_as_parity(uint32_t data, uint32_t parity, uint32_t first, uint32_t groups)
{
	struct link *link = open_link(data, parity, first, data * 1000 + parity);
	struct halo_kcp_fec_counters counters;
	uint32_t i;

	while (groups-- > 0) {
		bool got[MOST] = {false};
		uint8_t order[MOST];

		send_group(link);
		shuffle(link, order, link->datagrams);
		for (i = 0; i < data; i++)
			deliver(link, link->datagram[order[i]].octets, link->datagram[order[i]].length, got);
		for (i = 0; i < data; i++)
			CHECK(got[i], "message %u of %u + %u", i, data, parity);
	}
	halo_kcp_fec_decoder_counters(link->decoder, &counters);
	CHECK_EQUAL(counters.errors + counters.misplaced + counters.incomplete + counters.repeated, 0);
	close_link(link);
}

static void any_shards_are_enough(void)
{
	lose_as_many_as_parity(1, 1, 0, 20);
	lose_as_many_as_parity(1, 254, 0, 3);
	lose_as_many_as_parity(10, 3, 0, 50);
	lose_as_many_as_parity(20, 20, 0, 10);
	lose_as_many_as_parity(128, 127, 0, 2);
	lose_as_many_as_parity(254, 1, 0, 3);
}

static void numbers_wrap(void)
{
	uint32_t limit = UINT32_MAX / 13 * 13;

	lose_as_many_as_parity(10, 3, limit - 13, 4);
	lose_as_many_as_parity(10, 3, limit - 26, 6);
	lose_as_many_as_parity(10, 3, UINT32_MAX, 2);
}

static void settings_that_can_not_be(void)
{
	static const struct halo_kcp_fec_settings wrong[] = {
		{.data = 0, .parity = 3, .octets = OCTETS, .groups = 4},
		{.data = 10, .parity = 0, .octets = OCTETS, .groups = 4},
		{.data = 255, .parity = 1, .octets = OCTETS, .groups = 4},
		{.data = 200, .parity = 56, .octets = OCTETS, .groups = 4},
		{.data = UINT32_MAX, .parity = 2, .octets = OCTETS, .groups = 4},
		{.data = 10, .parity = UINT32_MAX, .octets = OCTETS, .groups = 4},
		{.data = 10, .parity = 3, .octets = HALO_KCP_FEC_OVERHEAD - 1, .groups = 4},
		{.data = 10, .parity = 3, .octets = HALO_KCP_FEC_MAX_OCTETS + 1, .groups = 4},
		{.data = 10, .parity = 3, .octets = OCTETS, .groups = 0},
		{.data = 10, .parity = 3, .octets = OCTETS, .groups = HALO_KCP_FEC_MAX_GROUPS + 1},
	};
	uint32_t i;

	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CHECK(halo_kcp_fec_check(&wrong[i]) != NULL, "row %u", i);
		CHECK(halo_kcp_fec_encoder_create(&wrong[i]) == NULL, "row %u", i);
		CHECK(halo_kcp_fec_decoder_create(&wrong[i]) == NULL, "row %u", i);
	}
}

static void lengths_at_their_limits(void)
{
	struct link *link = open_link(2, 1, 0, 1);
	uint8_t octets[OCTETS + 1] = {0};
	const uint8_t *out;
	uint32_t length;

	CHECK_EQUAL(halo_kcp_fec_encode(link->encoder, octets, OCTETS - HALO_KCP_FEC_OVERHEAD + 1, 0), -EMSGSIZE);
	CHECK_EQUAL(halo_kcp_fec_encoded(link->encoder, 0, &out), -ENOENT);
	CHECK_EQUAL(halo_kcp_fec_encode(link->encoder, octets, OCTETS - HALO_KCP_FEC_OVERHEAD, 0), 1);
	CHECK_EQUAL(halo_kcp_fec_encoded(link->encoder, 0, &out), OCTETS);
	CHECK_EQUAL(halo_kcp_fec_encoded(link->encoder, 1, &out), -ENOENT);
	memcpy(octets, out, OCTETS);
	CHECK_EQUAL(deliver(link, octets, OCTETS, NULL), 1);
	CHECK_EQUAL(deliver(link, octets, OCTETS + 1, NULL), -EMSGSIZE);
	for (length = 0; length < OCTETS; length++) /* its size says more than there is */
		CHECK_EQUAL(deliver(link, octets, length, NULL), -EINVAL);
	close_link(link);
}

/* Whatever is changed on the way: what comes out lies within what went in, and memory is bounded. */
static void octets_that_lie(void)
{
	struct link *link = open_link(4, 3, 0, 99);
	struct halo_kcp_fec_counters counters;
	uint32_t round, i;

	for (round = 0; round < 10000; round++) {
		struct sent *datagram;

		if (round % 7 == 0)
			send_group(link);
		datagram = &link->datagram[random_below(&link->seed, link->datagrams)];
		for (i = random_below(&link->seed, 4); i > 0; i--)
			datagram->octets[random_below(&link->seed, random_below(&link->seed, 2) ? 8 : OCTETS)] =
				(uint8_t)random_next(&link->seed);
		if (random_below(&link->seed, 4) == 0)
			datagram->length = random_below(&link->seed, OCTETS + 1);
		deliver(link, datagram->octets, datagram->length, NULL);
	}
	halo_kcp_fec_decoder_counters(link->decoder, &counters);
	CHECK(counters.errors > 500 && counters.recovered > 100 && counters.incomplete > 100 && counters.repeated > 10,
	      "%" PRIu64 " errors, %" PRIu64 " recovered, %" PRIu64 " incomplete", counters.errors, counters.recovered,
	      counters.incomplete);
	close_link(link);
}

/* A decoder that was made for other numbers of shards goes over to the peer's, and then makes what is lost. */
static void peer_has_other_settings(void)
{
	static const uint32_t shapes[][4] = {
		{10, 3, 5, 2}, {2, 1, 2, 4}, {1, 1, 128, 127}, {20, 10, 3, 1}, {3, 3, 3, 2}};
	uint32_t i, group, n;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct link *link = open_link(shapes[i][2], shapes[i][3], 0, i);
		struct halo_kcp_fec_settings other = link->settings;
		struct halo_kcp_fec_counters counters;
		uint32_t data, parity;
		bool got[MOST] = {false};

		other.data = shapes[i][0];
		other.parity = shapes[i][1];
		halo_kcp_fec_decoder_free(link->decoder);
		link->decoder = halo_kcp_fec_decoder_create(&other);
		for (group = 0; group < 30; group++) {
			send_group(link);
			for (n = 0; n < link->datagrams; n++)
				deliver(link, link->datagram[n].octets, link->datagram[n].length, NULL);
		}
		halo_kcp_fec_decoder_shards(link->decoder, &data, &parity);
		halo_kcp_fec_decoder_counters(link->decoder, &counters);
		CHECK(data == shapes[i][2] && parity == shapes[i][3], "row %u: %u + %u", i, data, parity);
		CHECK_EQUAL(counters.tuned, 1);
		send_group(link);
		for (n = 1; n <= link->settings.data; n++)
			deliver(link, link->datagram[n].octets, link->datagram[n].length, got);
		CHECK(got[0], "row %u", i);
		close_link(link);
	}
}

/* Bit by bit, as the standard has it. */
static uint32_t slow_crc32(const uint8_t *octets, uint32_t length)
{
	uint32_t crc = UINT32_MAX, i, bit;

	for (i = 0; i < length; i++) {
		crc ^= octets[i];
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
	}
	return ~crc;
}

static void checks_read_no_more_than_they_cover(void)
{
	uint64_t seed = 3;
	uint32_t length, i;

	for (length = 0; length < 400; length++) {
		uint8_t *octets = malloc(length ? length : 1);

		for (i = 0; i < length; i++)
			octets[i] = (uint8_t)random_next(&seed);
		CHECK(halo_kcp_check_value(HALO_KCP_CHECK_CRC32, octets, length) == slow_crc32(octets, length),
		      "%u octets", length);
		halo_kcp_check_value(HALO_KCP_CHECK_XXH3, octets, length);
		CHECK_EQUAL(halo_kcp_check_value(HALO_KCP_CHECK_OFF, octets, length), 0);
		CHECK_EQUAL(halo_kcp_check_value(HALO_KCP_CHECK_ZERO, octets, length), 0);
		free(octets);
	}
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"any_shards_are_enough", any_shards_are_enough},
		{"numbers_wrap", numbers_wrap},
		{"settings_that_can_not_be", settings_that_can_not_be},
		{"lengths_at_their_limits", lengths_at_their_limits},
		{"octets_that_lie", octets_that_lie},
		{"peer_has_other_settings", peer_has_other_settings},
		{"checks_read_no_more_than_they_cover", checks_read_no_more_than_they_cover},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
