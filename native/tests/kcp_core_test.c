/* SPDX-License-Identifier: Apache-2.0 */
/* One session, and two over a link that loses, repeats and reorders: formats, limits, octets that lie, export and import. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <halo/kcp.h>

#include "check.h"
#include "memory.h"

enum {
	SEED = 20261123,
	MOST_FLYING = 4096,
	MOST_OCTETS = 1 << 16,
	CONV = 0x01020304,
};

static const uint32_t formats[][2] = {
	{HALO_KCP_CLASSIC, HALO_KCP_CHECK_OFF}, {HALO_KCP_HALO, HALO_KCP_CHECK_OFF},
	{HALO_KCP_HALO, HALO_KCP_CHECK_ZERO},   {HALO_KCP_HALO, HALO_KCP_CHECK_CRC32},
	{HALO_KCP_HALO, HALO_KCP_CHECK_XXH3},   {HALO_KCP_CLASSIC, HALO_KCP_CHECK_CRC32},
};

enum { FORMATS = sizeof(formats) / sizeof(formats[0]) };

/* A datagram under way, in memory of exactly its size. */
struct flying {
	uint8_t *octets;
	uint32_t length;
	uint32_t to;
	uint32_t at_ms;
};

/* Two sessions and what is between them. */
struct pair {
	struct halo_kcp *end[2];
	struct halo_kcp_output output;
	struct flying flying[MOST_FLYING];
	uint32_t count;
	uint32_t loss; /* per cent */
	uint64_t seed;
	uint32_t now_ms;
	uint64_t sent, received; /* octets from end 0 to end 1: they count upwards */
	bool stream;
};

static struct halo_kcp_settings quick(uint32_t format, uint32_t check)
{
	struct halo_kcp_settings settings;

	halo_kcp_settings_default(&settings);
	settings.format = format;
	settings.check = check;
	settings.mtu = 200;
	settings.nodelay = 1;
	settings.interval_ms = 10;
	settings.resend = 2;
	settings.dead_link = 1000;
	return settings;
}

static uint64_t conv_of(uint32_t format)
{
	return format == HALO_KCP_HALO ? UINT64_C(0x1122334400000000) | CONV : CONV;
}

static struct halo_kcp *create(const struct halo_kcp_settings *settings)
{
	struct halo_kcp *kcp = halo_kcp_create(conv_of(settings->format), settings);

	CHECK(kcp != NULL, "settings: %s", halo_kcp_settings_check(settings));
	return kcp;
}

static void open_pair(struct pair *pair, const struct halo_kcp_settings *settings, uint32_t loss, uint32_t now_ms)
{
	memset(pair, 0, sizeof(*pair));
	pair->end[0] = create(settings);
	pair->end[1] = create(settings);
	pair->loss = loss;
	pair->seed = SEED + loss;
	pair->now_ms = now_ms;
	pair->stream = settings->stream;
}

static void close_pair(struct pair *pair)
{
	while (pair->count)
		free(pair->flying[--pair->count].octets);
	halo_kcp_free(pair->end[0]);
	halo_kcp_free(pair->end[1]);
	halo_kcp_output_free(&pair->output);
}

static void launch(struct pair *pair, uint32_t to)
{
	uint32_t i;

	for (i = 0; i < pair->output.count; i++) {
		const struct halo_kcp_datagram *datagram = &pair->output.datagram[i];
		struct flying *flying = &pair->flying[pair->count];

		if (random_below(&pair->seed, 100) < pair->loss || pair->count == MOST_FLYING)
			continue;
		flying->octets = malloc(datagram->length);
		memcpy(flying->octets, datagram->octets, datagram->length);
		flying->length = datagram->length;
		flying->to = to;
		flying->at_ms = pair->now_ms + random_below(&pair->seed, 50);
		pair->count++;
		/* Some come twice. */
		if (random_below(&pair->seed, 10) == 0)
			i--;
	}
	halo_kcp_output_clear(&pair->output);
}

static void land(struct pair *pair)
{
	uint32_t i;

	for (i = 0; i < pair->count;) {
		struct flying flying = pair->flying[i];
		int verdict;

		if ((int32_t)(flying.at_ms - pair->now_ms) > 0) {
			i++;
			continue;
		}
		pair->flying[i] = pair->flying[--pair->count];
		memory_inside = true;
		verdict = halo_kcp_input(pair->end[flying.to], flying.octets, flying.length, pair->now_ms);
		memory_inside = false;
		CHECK_EQUAL(verdict, HALO_KCP_TAKEN);
		free(flying.octets);
	}
}

static void write_some(struct pair *pair)
{
	uint8_t octets[3000];
	uint32_t length = random_below(&pair->seed, sizeof(octets)), i;
	int64_t sent;

	if (halo_kcp_waiting(pair->end[0]) > 100)
		return;
	for (i = 0; i < length; i++)
		octets[i] = (uint8_t)((pair->sent + i) * 31);
	memory_inside = true;
	sent = halo_kcp_send(pair->end[0], octets, length);
	memory_inside = false;
	if (memory_failing && sent == -ENOMEM)
		return;
	CHECK_EQUAL(sent, length);
	pair->sent += length;
}

static void read_some(struct pair *pair)
{
	uint8_t octets[3000];
	int64_t length;
	uint32_t i;

	while ((length = halo_kcp_receive(pair->end[1], octets,
					  pair->stream ? 1 + random_below(&pair->seed, 500) : sizeof(octets))) >= 0) {
		for (i = 0; i < length; i++)
			CHECK_EQUAL(octets[i], (uint8_t)((pair->received + i) * 31));
		pair->received += (uint64_t)length;
	}
	CHECK_EQUAL(length, -EAGAIN);
}

static void step(struct pair *pair, bool write)
{
	uint32_t i;

	pair->now_ms += 10;
	land(pair);
	if (write)
		write_some(pair);
	read_some(pair);
	for (i = 0; i < 2; i++) {
		memory_inside = true;
		halo_kcp_poll(pair->end[i], pair->now_ms, &pair->output);
		memory_inside = false;
		launch(pair, 1 - i);
	}
}

static void finish(struct pair *pair)
{
	uint32_t steps = 0;

	while (pair->received < pair->sent || halo_kcp_waiting(pair->end[0])) {
		CHECK(++steps < 20000, "%" PRIu64 " of %" PRIu64 " octets after %u steps", pair->received, pair->sent,
		      steps);
		step(pair, false);
	}
}

static struct pair pair;

static void octets_arrive_in_every_format(void)
{
	struct halo_kcp_counters counters;
	uint32_t i, steps;

	for (i = 0; i < 4 * FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i % FORMATS][0], formats[i % FORMATS][1]);

		settings.stream = i / FORMATS & 1;
		settings.flush_on_ack = settings.ack_no_delay = i / FORMATS > 1;
		settings.write_delay = i / FORMATS < 2;
		settings.conserve = settings.early = i / FORMATS > 1;
		/* The clock and both numbers wrap on the way. */
		open_pair(&pair, &settings, 15, (uint32_t)-1000);
		pair.output.by_reference = i & 1;
		CHECK_EQUAL(halo_kcp_start(pair.end[0], (uint32_t)-50, 7), 0);
		CHECK_EQUAL(halo_kcp_start(pair.end[1], 7, (uint32_t)-50), 0);
		for (steps = 0; steps < 300; steps++)
			step(&pair, true);
		finish(&pair);
		halo_kcp_counters_read(pair.end[0], &counters);
		CHECK(pair.sent > 20000, "%" PRIu64 " octets", pair.sent);
		CHECK_EQUAL(counters.bytes_sent, pair.sent);
		CHECK(counters.lost > 0 && counters.fast > 0, "no segment was sent again");
		CHECK_EQUAL(counters.retransmitted, counters.lost + counters.fast + counters.early);
		CHECK((counters.early > 0) == (settings.early != 0), "%" PRIu64 " early", counters.early);
		CHECK_EQUAL(counters.in_errors, 0);
		halo_kcp_counters_read(pair.end[1], &counters);
		CHECK_EQUAL(counters.bytes_received, pair.received);
		CHECK(counters.repeated > 0, "nothing came twice");
		close_pair(&pair);
	}
}

/* The least and the most that windows, MTU and interval can be. */
static void octets_arrive_at_the_limits(void)
{
	static const struct {
		uint32_t mtu, send_window, receive_window, interval_ms;
	} rows[] = {
		{HALO_KCP_MIN_MTU, 1, 1, 1},
		{HALO_KCP_MIN_MTU, HALO_KCP_MAX_WINDOW, HALO_KCP_MAX_WINDOW, 5000},
		{HALO_KCP_MAX_MTU, 1, HALO_KCP_MAX_WINDOW, 10},
		{HALO_KCP_MAX_MTU, HALO_KCP_MAX_WINDOW, 1, 10},
	};
	uint32_t i, steps;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]) * FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i % FORMATS][0], formats[i % FORMATS][1]);

		settings.mtu = rows[i / FORMATS].mtu;
		settings.send_window = rows[i / FORMATS].send_window;
		settings.receive_window = rows[i / FORMATS].receive_window;
		settings.interval_ms = rows[i / FORMATS].interval_ms;
		settings.congestion = HALO_KCP_CONGESTION_NONE;
		settings.stream = 1;
		open_pair(&pair, &settings, 5, 0);
		pair.output.by_reference = 1;
		for (steps = 0; steps < 60; steps++)
			step(&pair, true);
		finish(&pair);
		CHECK(pair.sent > 1000, "%" PRIu64 " octets", pair.sent);
		close_pair(&pair);
	}
}

/* Nobody polls for an hour, or for weeks, while all is under way. */
static void clock_leaps_forward(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_info info;
	uint32_t steps;

	open_pair(&pair, &settings, 5, (uint32_t)-3700000);
	for (steps = 0; steps < 300; steps++) {
		if (steps % 100 == 50) {
			halo_kcp_info_read(pair.end[0], &info);
			CHECK(info.in_flight > 0, "nothing is under way");
			pair.now_ms += steps == 150 ? 2000000000 : 3600000;
		}
		step(&pair, true);
	}
	finish(&pair);
	CHECK(pair.sent > 10000, "%" PRIu64 " octets", pair.sent);
	close_pair(&pair);
}

/* One poll fills a batch that has to grow, and what lies in it already moves. */
static void batch_grows_under_its_datagrams(void)
{
	static uint8_t octets[300000];
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_CRC32);
	uint32_t i;

	for (i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 31);
	settings.mtu = 1400;
	settings.send_window = settings.receive_window = 512;
	settings.congestion = HALO_KCP_CONGESTION_NONE;
	settings.stream = 1;
	open_pair(&pair, &settings, 0, 0);
	/* It reads what the peer's window lets in at first, 128 segments, and then the rest. */
	CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, sizeof(octets)), sizeof(octets));
	pair.sent = sizeof(octets);
	CHECK_EQUAL(halo_kcp_poll(pair.end[0], pair.now_ms, &pair.output), 128);
	launch(&pair, 1);
	finish(&pair);
	close_pair(&pair);
}

/* What a writer sends first: `count` messages of so many octets, in one datagram if they fit. */
static uint32_t first_datagram(struct pair *made, const struct halo_kcp_settings *settings, uint32_t count,
			       uint32_t length)
{
	static uint8_t octets[MOST_OCTETS];
	uint32_t i;

	open_pair(made, settings, 0, 0);
	for (i = 0; i < count; i++)
		CHECK_EQUAL(halo_kcp_send(made->end[0], octets, length), length);
	CHECK_EQUAL(halo_kcp_poll(made->end[0], 0, &made->output), 1);
	return made->output.datagram[0].length;
}

static void wrong_check_takes_nothing(void)
{
	struct halo_kcp_counters counters;
	struct halo_kcp_info before, after;
	uint32_t i;

	for (i = 2; i < FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i][0], formats[i][1]);
		uint32_t length, header;
		uint8_t *octets;

		settings.congestion = HALO_KCP_CONGESTION_NONE;
		length = first_datagram(&pair, &settings, 2, 40);
		header = length / 2 - 40;
		octets = (uint8_t *)pair.output.datagram[0].octets;
		halo_kcp_info_read(pair.end[1], &before);
		/* The first segment is right, the second one is not: in ZERO mode its check, else its payload. */
		octets[length / 2 + header - (formats[i][1] == HALO_KCP_CHECK_ZERO ? 1 : 0)] ^= 1;
		CHECK_EQUAL(halo_kcp_input(pair.end[1], octets, length, 0), HALO_KCP_BAD_CHECK);
		halo_kcp_info_read(pair.end[1], &after);
		CHECK(memcmp(&before, &after, sizeof(before)) == 0, "something was taken");
		halo_kcp_output_clear(&pair.output);
		CHECK_EQUAL(halo_kcp_poll(pair.end[1], 0, &pair.output), 0);
		halo_kcp_counters_read(pair.end[1], &counters);
		CHECK_EQUAL(counters.check_errors, 1);
		CHECK_EQUAL(counters.in_errors, 1);
		close_pair(&pair);
	}
}

/* A flood of what had come before takes no more memory than its acknowledgements may. */
static void repeats_take_no_memory(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_counters counters;
	struct halo_kcp_info info;
	uint32_t i;

	settings.congestion = HALO_KCP_CONGESTION_NONE;
	first_datagram(&pair, &settings, 1, 40);
	for (i = 0; i < 100000; i++)
		CHECK_EQUAL(halo_kcp_input(pair.end[1], pair.output.datagram[0].octets, 68, 0), HALO_KCP_TAKEN);
	halo_kcp_info_read(pair.end[1], &info);
	CHECK(info.octets < 16384, "%u octets", info.octets);
	halo_kcp_output_clear(&pair.output);
	halo_kcp_poll(pair.end[1], 0, &pair.output);
	halo_kcp_counters_read(pair.end[1], &counters);
	CHECK_EQUAL(counters.out_segments, 1024);
	CHECK_EQUAL(counters.repeated, 99999);
	close_pair(&pair);
}

static void imported_stream_merges_as_before(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	uint8_t octets[172] = {0}, state[4096];
	struct halo_kcp *kcp, *next;
	uint64_t length;

	settings.stream = 1;
	kcp = create(&settings);
	CHECK_EQUAL(halo_kcp_send(kcp, octets, 10), 10);
	length = halo_kcp_export(kcp, state, sizeof(state));
	next = halo_kcp_import(state, length);
	CHECK(next != NULL, "its own state");
	CHECK_EQUAL(halo_kcp_send(next, octets, 162), 162);
	CHECK_EQUAL(halo_kcp_waiting(next), 1);
	halo_kcp_free(kcp);
	halo_kcp_free(next);
}

static void truncated_at_every_length(void)
{
	uint32_t i, length, whole;

	for (i = 0; i < FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i][0], formats[i][1]);

		settings.congestion = HALO_KCP_CONGESTION_NONE;
		whole = first_datagram(&pair, &settings, 2, 40);
		for (length = 0; length <= whole; length++) {
			struct halo_kcp *kcp = create(&settings);
			uint8_t *octets = malloc(length ? length : 1);
			uint32_t header = whole / 2 - 40;
			/* Less than a header at the end is nothing. */
			int expected = length < header                                  ? HALO_KCP_BAD_CONV
				       : length < whole / 2                             ? HALO_KCP_BAD_LENGTH
				       : length - whole / 2 < header || length == whole ? HALO_KCP_TAKEN
											: HALO_KCP_BAD_LENGTH;

			memcpy(octets, pair.output.datagram[0].octets, length);
			CHECK_EQUAL(halo_kcp_input(kcp, octets, length, 0), expected);
			free(octets);
			halo_kcp_free(kcp);
		}
		close_pair(&pair);
	}
}

/* A datagram that parses, of segments whose fields are anything. */
static uint32_t hostile(uint64_t *seed, uint8_t *octets, const struct halo_kcp_settings *settings)
{
	uint64_t conv = conv_of(settings->format);
	uint32_t length = 0, segments = 1 + random_below(seed, 4), i;

	while (segments-- > 0) {
		uint32_t payload = random_below(seed, 30), header = settings->format == HALO_KCP_HALO ? 8 : 4, check;

		memcpy(octets + length, &conv, header);
		octets += length;
		for (i = header; i < header + 20; i++)
			octets[i] = (uint8_t)(random_below(seed, 3) ? random_below(seed, 4) : random_next(seed));
		octets[header] = (uint8_t)(81 + random_below(seed, 4));
		memcpy(octets + header + 16, &payload, 4);
		header += 20;
		check = octets[header - 20] == 81 ? halo_kcp_check_value(settings->check, octets + header + 4, payload)
						  : 0;
		if (settings->check != HALO_KCP_CHECK_OFF) {
			memcpy(octets + header, &check, 4);
			header += 4;
		}
		octets -= length;
		length += header + payload;
	}
	for (i = random_below(seed, 3); i > 0; i--)
		octets[random_below(seed, length)] ^= (uint8_t)(1 << random_below(seed, 8));
	return random_below(seed, 5) ? length : random_below(seed, length);
}

static void octets_that_lie(void)
{
	static uint8_t octets[1024], read[MOST_OCTETS];
	struct halo_kcp_output output = {.by_reference = 1};
	uint64_t seed = SEED;
	uint32_t i, j, now_ms = (uint32_t)-5000, verdicts[6] = {0};

	for (i = 0; i < 400 * FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i % FORMATS][0], formats[i % FORMATS][1]);
		struct halo_kcp *kcp;

		settings.stream = i & 1;
		settings.early = i & 2;
		settings.conserve = i & 4;
		settings.flush_on_ack = i & 8;
		settings.receive_window = 1 + random_below(&seed, 300);
		kcp = create(&settings);
		halo_kcp_start(kcp, (uint32_t)-2, (uint32_t)-2);
		for (j = 0; j < 60; j++) {
			uint32_t length = hostile(&seed, octets, &settings);
			uint8_t *exact = malloc(length ? length : 1);
			int verdict;

			memcpy(exact, octets, length);
			halo_kcp_send(kcp, octets, random_below(&seed, 500));
			verdict = halo_kcp_input(kcp, exact, length, now_ms);
			CHECK(verdict <= 0 && verdict >= HALO_KCP_ENDED, "verdict %d", verdict);
			verdicts[-verdict]++;
			free(exact);
			now_ms += random_below(&seed, 50);
			if (random_below(&seed, 2))
				halo_kcp_receive(kcp, read, random_below(&seed, 3) ? sizeof(read) : 10);
			halo_kcp_poll(kcp, now_ms, &output);
			halo_kcp_output_clear(&output);
			CHECK(halo_kcp_next(kcp, now_ms) <= HALO_KCP_NO_DEADLINE, "a time that is none");
		}
		halo_kcp_free(kcp);
	}
	for (i = 0; i < 5; i++)
		CHECK(verdicts[i] > 100, "verdict -%u came %u times", i, verdicts[i]);
	halo_kcp_output_free(&output);
}

static void messages_have_limits(void)
{
	static uint8_t octets[MOST_OCTETS];
	struct halo_kcp_settings settings = quick(HALO_KCP_CLASSIC, HALO_KCP_CHECK_OFF);
	struct halo_kcp_info info;
	struct halo_kcp *kcp;

	settings.most_fragments = 255;
	kcp = create(&settings);
	halo_kcp_info_read(kcp, &info);
	CHECK_EQUAL(info.mss, 176);
	CHECK_EQUAL(halo_kcp_send(kcp, octets, 255 * 176 + 1), -EMSGSIZE);
	CHECK_EQUAL(halo_kcp_waiting(kcp), 0);
	CHECK_EQUAL(halo_kcp_send(kcp, octets, 255 * 176), 255 * 176);
	CHECK_EQUAL(halo_kcp_waiting(kcp), 255);
	CHECK_EQUAL(halo_kcp_send(kcp, octets, 0), 0);
	CHECK_EQUAL(halo_kcp_waiting(kcp), 256);
	CHECK_EQUAL(halo_kcp_receive(kcp, octets, 1), -EAGAIN);
	halo_kcp_close(kcp);
	CHECK_EQUAL(halo_kcp_send(kcp, octets, 1), -EPIPE);
	CHECK_EQUAL(halo_kcp_input(kcp, octets, 24, 0), HALO_KCP_ENDED);
	CHECK_EQUAL(halo_kcp_next(kcp, 0), HALO_KCP_NO_DEADLINE);
	halo_kcp_free(kcp);

	settings.congestion = HALO_KCP_CONGESTION_NONE;
	first_datagram(&pair, &settings, 1, 100);
	CHECK_EQUAL(halo_kcp_input(pair.end[1], pair.output.datagram[0].octets, 124, 0), 0);
	CHECK_EQUAL(halo_kcp_peek(pair.end[1]), 100);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, 99), -EMSGSIZE);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, 100), 100);
	close_pair(&pair);
}

static void stream_merges(void)
{
	uint8_t octets[500] = {0};
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	uint32_t i;

	settings.stream = 1;
	settings.congestion = HALO_KCP_CONGESTION_NONE;
	open_pair(&pair, &settings, 0, 0);
	for (i = 0; i < 172; i++)
		CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, 1), 1);
	CHECK_EQUAL(halo_kcp_waiting(pair.end[0]), 1);
	CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, 0), 0);
	CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, 173), 173);
	CHECK_EQUAL(halo_kcp_waiting(pair.end[0]), 3);
	halo_kcp_poll(pair.end[0], 0, &pair.output);
	for (i = 0; i < pair.output.count; i++)
		halo_kcp_input(pair.end[1], pair.output.datagram[i].octets, pair.output.datagram[i].length, 0);
	CHECK_EQUAL(halo_kcp_peek(pair.end[1]), 345);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, 200), 200);
	CHECK_EQUAL(halo_kcp_peek(pair.end[1]), 145);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, 200), 145);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, 200), -EAGAIN);
	close_pair(&pair);
}

/* Who writes messages to one that reads a stream can write empty ones, more of them than the window holds. */
static void stream_is_not_shut_by_segments_of_nothing(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_info info;
	uint8_t octets[8];
	uint32_t i, steps;

	settings.receive_window = 4;
	open_pair(&pair, &settings, 20, 0);
	settings.stream = 1;
	CHECK_EQUAL(halo_kcp_change(pair.end[1], &settings), 0);
	for (i = 0; i < 20; i++)
		CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, 0), 0);
	CHECK_EQUAL(halo_kcp_send(pair.end[0], (const uint8_t *)"text", 4), 4);
	CHECK_EQUAL(halo_kcp_send(pair.end[0], octets, 0), 0);
	/* As who reads when there is something, and only then. */
	for (steps = 0; steps < 1000 && halo_kcp_peek(pair.end[1]) < 0; steps++) {
		pair.now_ms += 10;
		land(&pair);
		for (i = 0; i < 2; i++) {
			halo_kcp_poll(pair.end[i], pair.now_ms, &pair.output);
			launch(&pair, 1 - i);
		}
	}
	CHECK_EQUAL(halo_kcp_peek(pair.end[1]), 4);
	CHECK_EQUAL(halo_kcp_receive(pair.end[1], octets, sizeof(octets)), 4);
	halo_kcp_info_read(pair.end[1], &info);
	CHECK_EQUAL(info.unread, 0);
	close_pair(&pair);
}

static void full_reader_tells_when_there_is_room(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_info info;
	uint32_t steps;

	/* Messages have up to 18 fragments. */
	settings.receive_window = 18;
	open_pair(&pair, &settings, 0, 0);
	for (steps = 0; steps < 50; steps++) {
		uint32_t i;

		pair.now_ms += 10;
		land(&pair);
		write_some(&pair);
		for (i = 0; i < 2; i++) {
			halo_kcp_poll(pair.end[i], pair.now_ms, &pair.output);
			launch(&pair, 1 - i);
		}
	}
	halo_kcp_info_read(pair.end[1], &info);
	CHECK_EQUAL(info.unread, 18);
	halo_kcp_info_read(pair.end[0], &info);
	CHECK_EQUAL(info.remote_window, 0);
	CHECK(halo_kcp_next(pair.end[0], pair.now_ms) > 1000, "it does not wait for the window");
	/* Long before the writer would ask. */
	for (steps = 0; steps < 10; steps++)
		step(&pair, false);
	halo_kcp_info_read(pair.end[0], &info);
	CHECK(info.remote_window > 0, "nobody told it");
	close_pair(&pair);
}

static void idle_session_gives_its_memory_back(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_info info;
	uint32_t i, steps, polls = 0;

	open_pair(&pair, &settings, 0, 0);
	halo_kcp_info_read(pair.end[0], &info);
	CHECK(info.octets < 2048, "%u octets", info.octets);
	for (steps = 0; steps < 200; steps++)
		step(&pair, true);
	finish(&pair);
	halo_kcp_info_read(pair.end[0], &info);
	CHECK(info.octets > 2048, "%u octets", info.octets);
	for (i = 0; i < 2; i++) {
		uint32_t wait_ms;

		while ((wait_ms = halo_kcp_next(pair.end[i], pair.now_ms)) != HALO_KCP_NO_DEADLINE) {
			pair.now_ms += wait_ms;
			halo_kcp_poll(pair.end[i], pair.now_ms, &pair.output);
			CHECK(++polls < 10, "%u polls of an idle session", polls);
		}
		halo_kcp_info_read(pair.end[i], &info);
		CHECK(info.octets < 2048, "%u octets", info.octets);
	}
	/* And it goes on, however much later. */
	pair.now_ms += UINT32_C(0x80000001);
	for (steps = 0; steps < 20; steps++)
		step(&pair, true);
	finish(&pair);
	close_pair(&pair);
}

static uint8_t *exported(const struct halo_kcp *kcp, uint64_t *length)
{
	uint8_t *octets;

	*length = halo_kcp_export(kcp, NULL, 0);
	octets = malloc(*length);
	CHECK_EQUAL(halo_kcp_export(kcp, octets, *length), *length);
	return octets;
}

static void state_survives_its_session(void)
{
	uint32_t i, steps;

	for (i = 0; i < 2 * FORMATS; i++) {
		struct halo_kcp_settings settings = quick(formats[i % FORMATS][0], formats[i % FORMATS][1]);

		settings.stream = i / FORMATS;
		open_pair(&pair, &settings, 10, (uint32_t)-1000);
		for (steps = 0; steps < 300; steps++) {
			uint32_t which = random_below(&pair.seed, 2);
			uint64_t length, again;
			uint8_t *octets, *same;

			step(&pair, true);
			octets = exported(pair.end[which], &length);
			halo_kcp_free(pair.end[which]);
			pair.end[which] = halo_kcp_import(octets, length);
			CHECK(pair.end[which] != NULL, "step %u", steps);
			same = exported(pair.end[which], &again);
			CHECK_EQUAL(length, again);
			CHECK(memcmp(octets, same, length) == 0, "it is another one");
			free(octets);
			free(same);
		}
		finish(&pair);
		CHECK(pair.sent > 20000, "%" PRIu64 " octets", pair.sent);
		close_pair(&pair);
	}
}

/* Use a session that came of octets which were changed: whatever it is, it must hold. */
static void use(struct halo_kcp *kcp, uint64_t *seed)
{
	static uint8_t octets[MOST_OCTETS], read[MOST_OCTETS * 4];
	struct halo_kcp_output output = {.by_reference = 1};
	struct halo_kcp_settings settings;
	uint32_t i;

	halo_kcp_settings_read(kcp, &settings);
	for (i = 0; i < 5; i++) {
		uint32_t length = hostile(seed, octets, &settings);

		halo_kcp_input(kcp, octets, length, i * 100);
		halo_kcp_send(kcp, octets, 300);
		halo_kcp_receive(kcp, read, sizeof(read));
		halo_kcp_poll(kcp, i * 100, &output);
		halo_kcp_output_clear(&output);
	}
	halo_kcp_output_free(&output);
	halo_kcp_free(kcp);
}

static void scribbled_state_is_refused(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	uint32_t i, steps, taken = 0;
	uint8_t *octets, *copy;
	uint64_t length;

	open_pair(&pair, &settings, 20, 0);
	for (steps = 0; steps < 60; steps++)
		step(&pair, true);
	/* Something is in each of its queues. */
	for (i = 0; i < 2; i++) {
		octets = exported(pair.end[i], &length);
		for (steps = 0; steps < length; steps++) {
			copy = malloc(steps ? steps : 1);
			memcpy(copy, octets, steps);
			CHECK(halo_kcp_import(copy, steps) == NULL, "%u of %" PRIu64 " octets", steps, length);
			free(copy);
		}
		for (steps = 0; steps < 20000; steps++) {
			/* Mostly among what is not payload, and every other time with a CRC that is right. */
			uint32_t room = random_below(&pair.seed, 2) ? 400 : (uint32_t)length;
			uint32_t at = random_below(&pair.seed, (uint32_t)length < room ? (uint32_t)length : room);
			uint8_t value = (uint8_t)(1 << random_below(&pair.seed, 8));
			struct halo_kcp *kcp;

			copy = malloc(length);
			memcpy(copy, octets, length);
			copy[at] ^= value;
			if (steps & 1) {
				uint32_t crc =
					halo_kcp_check_value(HALO_KCP_CHECK_CRC32, copy + 20, (uint32_t)length - 20);

				memcpy(copy + 16, &crc, 4);
			}
			kcp = halo_kcp_import(copy, length);
			CHECK(!kcp || (steps & 1), "octet %u", at);
			if (kcp)
				use(kcp, &pair.seed);
			taken += kcp != NULL;
			free(copy);
		}
		free(octets);
	}
	CHECK(taken > 100, "%u were taken", taken);
	close_pair(&pair);
}

static void dead_link_ends_it(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF);
	struct halo_kcp_counters counters;
	struct halo_kcp_info info;
	uint32_t wait_ms, polls = 0;

	settings.dead_link = 5;
	open_pair(&pair, &settings, 100, 0);
	CHECK_EQUAL(halo_kcp_send(pair.end[0], (const uint8_t *)"x", 1), 1);
	while ((wait_ms = halo_kcp_next(pair.end[0], pair.now_ms)) != HALO_KCP_NO_DEADLINE) {
		pair.now_ms += wait_ms;
		halo_kcp_poll(pair.end[0], pair.now_ms, &pair.output);
		CHECK(++polls < 20, "%u polls for five segments", polls);
	}
	halo_kcp_info_read(pair.end[0], &info);
	CHECK_EQUAL(info.end, HALO_KCP_DEAD_LINK);
	halo_kcp_counters_read(pair.end[0], &counters);
	CHECK_EQUAL(counters.out_segments, 5);
	CHECK_EQUAL(counters.lost, 4);
	close_pair(&pair);
}

static void settings_change_on_the_way(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_OFF), other;
	uint32_t steps;

	open_pair(&pair, &settings, 5, 0);
	for (steps = 0; steps < 400; steps++) {
		other = settings;
		other.mtu = 60 + random_below(&pair.seed, 300);
		other.send_window = 1 + random_below(&pair.seed, 200);
		other.receive_window = 64 + random_below(&pair.seed, 200);
		other.nodelay = random_below(&pair.seed, 3);
		other.resend = random_below(&pair.seed, 3);
		other.congestion = random_below(&pair.seed, 2);
		other.interval_ms = 1 + random_below(&pair.seed, 20);
		CHECK_EQUAL(halo_kcp_change(pair.end[random_below(&pair.seed, 2)], &other), 0);
		step(&pair, true);
	}
	finish(&pair);
	other.format = HALO_KCP_CLASSIC;
	CHECK_EQUAL(halo_kcp_change(pair.end[0], &other), -EINVAL);
	CHECK_EQUAL(halo_kcp_start(pair.end[0], 0, 0), -EBUSY);
	close_pair(&pair);
}

/* Try until there is memory: whatever was begun before has been undone. */
static struct halo_kcp *import_at_last(const uint8_t *octets, uint64_t length)
{
	struct halo_kcp *kcp = NULL;
	uint32_t i;

	for (i = 0; i < 1000 && !kcp; i++) {
		memory_inside = true;
		kcp = halo_kcp_import(octets, length);
		memory_inside = false;
	}
	return kcp;
}

static void memory_fails_now_and_then(void)
{
	struct halo_kcp_settings settings = quick(HALO_KCP_HALO, HALO_KCP_CHECK_CRC32);
	uint32_t i, steps, imported = 0;

	for (i = 0; i < 4; i++) {
		settings.stream = i & 1;
		open_pair(&pair, &settings, 5, 0);
		pair.output.by_reference = i >> 1;
		memory_failing = 30;
		memory_failed = 0;
		for (steps = 0; steps < 300; steps++) {
			step(&pair, true);
			/* Queues come and go, so that there is something to fail. */
			if (steps % 20 == 19) {
				uint64_t length;
				uint8_t *octets = exported(pair.end[i & 1], &length);
				struct halo_kcp *kcp;

				memory_failing = 3;
				kcp = import_at_last(octets, length);
				memory_failing = 30;
				free(octets);
				CHECK(kcp != NULL, "it was never imported");
				halo_kcp_free(pair.end[i & 1]);
				pair.end[i & 1] = kcp;
				halo_kcp_output_free(&pair.output);
				imported++;
			}
		}
		finish(&pair);
		memory_failing = 0;
		CHECK(memory_failed > 30, "memory failed %u times", memory_failed);
		CHECK(pair.sent > 10000, "%" PRIu64 " octets", pair.sent);
		close_pair(&pair);
	}
	CHECK_EQUAL(imported, 60);
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"octets_arrive_in_every_format", octets_arrive_in_every_format},
		{"octets_arrive_at_the_limits", octets_arrive_at_the_limits},
		{"clock_leaps_forward", clock_leaps_forward},
		{"batch_grows_under_its_datagrams", batch_grows_under_its_datagrams},
		{"repeats_take_no_memory", repeats_take_no_memory},
		{"imported_stream_merges_as_before", imported_stream_merges_as_before},
		{"wrong_check_takes_nothing", wrong_check_takes_nothing},
		{"truncated_at_every_length", truncated_at_every_length},
		{"octets_that_lie", octets_that_lie},
		{"messages_have_limits", messages_have_limits},
		{"stream_merges", stream_merges},
		{"stream_is_not_shut_by_segments_of_nothing", stream_is_not_shut_by_segments_of_nothing},
		{"full_reader_tells_when_there_is_room", full_reader_tells_when_there_is_room},
		{"idle_session_gives_its_memory_back", idle_session_gives_its_memory_back},
		{"state_survives_its_session", state_survives_its_session},
		{"scribbled_state_is_refused", scribbled_state_is_refused},
		{"dead_link_ends_it", dead_link_ends_it},
		{"settings_change_on_the_way", settings_change_on_the_way},
		{"memory_fails_now_and_then", memory_fails_now_and_then},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
