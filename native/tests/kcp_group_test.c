/* SPDX-License-Identifier: Apache-2.0 */
/* Many sessions: who is found, who is told, who is polled and when; and the timer wheel alone. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <halo/kcp.h>

#include "check.h"
#include "memory.h"
#include "wheel.h"

enum {
	SEED = 20261123,
	MANY = 10000,
	SESSION_OCTETS = 2048,
};

static struct halo_kcp_events events;
static struct halo_kcp_output output;

static struct halo_kcp_settings settings_of(uint32_t format)
{
	struct halo_kcp_settings settings;

	halo_kcp_settings_default(&settings);
	settings.format = format;
	settings.mtu = 200;
	settings.nodelay = 1;
	settings.interval_ms = 10;
	settings.dead_link = 5;
	settings.congestion = HALO_KCP_CONGESTION_NONE;
	return settings;
}

static struct halo_kcp_peer peer_of(uint32_t number)
{
	return (struct halo_kcp_peer){
		.family = 4,
		.port = (uint16_t)(number & 1023),
		.address = {10, (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number},
	};
}

static uint32_t add(struct halo_kcp_group *group, uint32_t format, uint64_t conv, uint32_t peer, uint32_t migrate)
{
	struct halo_kcp_settings settings = settings_of(format);
	struct halo_kcp_peer at = peer_of(peer);
	struct halo_kcp *kcp = halo_kcp_create(conv, &settings);
	int64_t number = halo_kcp_group_add(group, kcp, &at, migrate, 0);

	CHECK(number >= 0, "%" PRId64, number);
	return (uint32_t)number;
}

static void clear(void)
{
	halo_kcp_events_clear(&events);
	halo_kcp_output_clear(&output);
}

static const struct halo_kcp_event *event_of(uint32_t session)
{
	static const struct halo_kcp_event none;
	uint32_t i;

	for (i = 0; i < events.count; i++)
		if (events.event[i].session == session)
			return &events.event[i];
	return &none;
}

/* Copy what is in `output`, which came from sessions of one group, as coming from their peers' side. */
static struct halo_kcp_incoming *carry(uint32_t *count)
{
	struct halo_kcp_incoming *incoming = calloc(output.count ? output.count : 1, sizeof(*incoming));
	uint32_t i;

	*count = output.count;
	for (i = 0; i < output.count; i++) {
		uint8_t *octets = malloc(output.datagram[i].length);

		memcpy(octets, output.datagram[i].octets, output.datagram[i].length);
		incoming[i] = (struct halo_kcp_incoming){
			.octets = octets,
			.length = output.datagram[i].length,
			.peer = peer_of(output.datagram[i].session),
		};
	}
	return incoming;
}

static void drop(struct halo_kcp_incoming *incoming, uint32_t count)
{
	while (count > 0)
		free((uint8_t *)incoming[--count].octets);
	free(incoming);
}

static void exchange(struct halo_kcp_group *from, struct halo_kcp_group *to, uint32_t now_ms)
{
	struct halo_kcp_incoming *incoming;
	uint32_t count;

	clear();
	halo_kcp_group_poll(from, now_ms, &output, &events);
	incoming = carry(&count);
	clear();
	halo_kcp_group_input(to, incoming, count, now_ms, &events);
	drop(incoming, count);
}

/* Two groups of ten thousand that are each other's peers, by the same numbers. */
static void many_sessions_cost_only_when_they_have_something(void)
{
	uint32_t format, i, now_ms, polls, told;

	for (format = 0; format < 2; format++) {
		struct halo_kcp_group *left = halo_kcp_group_create(format, MANY);
		struct halo_kcp_group *right = halo_kcp_group_create(format, MANY);
		struct halo_kcp_counters counters;
		struct halo_kcp_info info;
		uint64_t octets = 0;

		for (i = 0; i < MANY; i++) {
			CHECK_EQUAL(add(left, format, i / 2 * 7 + (format ? i & 1 : 0), i, 0), i);
			CHECK_EQUAL(add(right, format, i / 2 * 7 + (format ? i & 1 : 0), i, 0), i);
		}
		CHECK_EQUAL(halo_kcp_group_next(left, 0), HALO_KCP_NO_DEADLINE);
		CHECK_EQUAL(halo_kcp_group_poll(left, 5, &output, &events), 0);
		/* Every hundredth writes. */
		for (i = 0; i < MANY; i += 100)
			CHECK_EQUAL(halo_kcp_group_send(left, i, (const uint8_t *)"hello", 5, 10), 5);
		CHECK_EQUAL(halo_kcp_group_next(left, 10), 0);
		exchange(left, right, 10);
		CHECK_EQUAL(events.count, MANY / 100);
		for (i = 0; i < events.count; i++) {
			uint8_t text[8];

			CHECK_EQUAL(events.event[i].what, HALO_KCP_READABLE);
			CHECK_EQUAL(events.event[i].session % 100, 0);
			CHECK_EQUAL(halo_kcp_group_receive(right, events.event[i].session, text, 8, 10), 5);
		}
		exchange(right, left, 10);
		/* All is acknowledged; memory is given back a second later, and then nobody wants anything. */
		for (now_ms = 10, polls = 0, told = 0; polls < 200; polls++) {
			uint32_t wait_ms = halo_kcp_group_next(left, now_ms);

			if (wait_ms == HALO_KCP_NO_DEADLINE)
				break;
			now_ms += wait_ms;
			clear();
			told += halo_kcp_group_poll(left, now_ms, &output, &events) + events.count;
		}
		CHECK(polls < 10, "%u wake-ups", polls);
		CHECK_EQUAL(told, 0);
		for (i = 0; i < MANY; i++) {
			CHECK_EQUAL(halo_kcp_waiting(halo_kcp_group_session(left, i)), 0);
			halo_kcp_info_read(halo_kcp_group_session(left, i), &info);
			CHECK(info.octets <= SESSION_OCTETS, "%u octets", info.octets);
			octets += info.octets;
		}
		octets += halo_kcp_group_octets(left);
		CHECK(octets / MANY < SESSION_OCTETS, "%" PRIu64 " octets each", octets / MANY);
		halo_kcp_group_counters(left, &counters);
		CHECK_EQUAL(counters.bytes_sent, 5 * MANY / 100);
		CHECK_EQUAL(counters.out_packets, MANY / 100);
		halo_kcp_group_free(left);
		halo_kcp_group_free(right);
	}
}

static void sums_never_go_backwards(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	struct halo_kcp_counters before, now;
	struct halo_kcp_peer peer = peer_of(1);
	struct halo_kcp *kcp;
	uint32_t number = add(group, HALO_KCP_HALO, 1, 1, 0);

	halo_kcp_group_send(group, number, (const uint8_t *)"hello", 5, 0);
	halo_kcp_group_counters(group, &before);
	CHECK_EQUAL(before.bytes_sent, 5);
	kcp = halo_kcp_group_remove(group, number);
	halo_kcp_group_counters(group, &now);
	CHECK(memcmp(&before, &now, sizeof(now)) == 0, "the sum changed");
	/* One that comes back, or from elsewhere, brings what it has counted there, and that is not counted here. */
	CHECK(halo_kcp_group_add(group, kcp, &peer, 0, 0) >= 0, "it can not come back");
	halo_kcp_group_counters(group, &now);
	CHECK(memcmp(&before, &now, sizeof(now)) == 0, "the sum changed");
	halo_kcp_group_free(group);
}

static void members_have_limits(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 20);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	struct halo_kcp *kcp = halo_kcp_create(100, &settings);
	struct halo_kcp_peer peer = peer_of(0);
	uint32_t i, first;

	for (i = 0; i < 20; i++)
		add(group, HALO_KCP_HALO, i, i, 0);
	CHECK_EQUAL(halo_kcp_group_add(group, kcp, &peer, 0, 0), -ENOSPC);
	halo_kcp_free(halo_kcp_group_remove(group, 3));
	halo_kcp_free(halo_kcp_group_remove(group, 5));
	CHECK(halo_kcp_group_remove(group, 3) == NULL, "it was there twice");
	/* The number that rested longest comes first. */
	first = (uint32_t)halo_kcp_group_add(group, kcp, &peer, 0, 0);
	CHECK_EQUAL(first, 3);
	CHECK_EQUAL(halo_kcp_group_add(group, kcp, &peer, 0, 0), -EINVAL);
	CHECK_EQUAL(halo_kcp_group_find(group, 100, &peer), 3);
	CHECK_EQUAL(halo_kcp_group_find(group, 5, &peer), -ENOENT);
	CHECK_EQUAL(halo_kcp_group_count(group), 19);
	CHECK_EQUAL(halo_kcp_group_send(group, 5, (const uint8_t *)"x", 1, 0), -ENOENT);
	CHECK_EQUAL(halo_kcp_group_send(group, UINT32_MAX, (const uint8_t *)"x", 1, 0), -ENOENT);
	kcp = halo_kcp_create(100, &settings);
	CHECK_EQUAL(halo_kcp_group_add(group, kcp, &peer, 0, 0), -EEXIST);
	halo_kcp_free(kcp);
	settings = settings_of(HALO_KCP_CLASSIC);
	kcp = halo_kcp_create(101, &settings);
	CHECK_EQUAL(halo_kcp_group_add(group, kcp, &peer, 0, 0), -EINVAL);
	halo_kcp_free(kcp);
	halo_kcp_group_free(group);
}

/* A datagram that a session of this conv would send, alone. */
static struct halo_kcp_incoming datagram(struct halo_kcp *kcp, uint32_t now_ms, uint32_t peer)
{
	clear();
	CHECK_EQUAL(halo_kcp_poll(kcp, now_ms, &output), 1);
	return (struct halo_kcp_incoming){
		.octets = output.datagram[0].octets,
		.length = output.datagram[0].length,
		.peer = peer_of(peer),
	};
}

static void give(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t now_ms)
{
	halo_kcp_events_clear(&events);
	halo_kcp_group_input(group, incoming, 1, now_ms, &events);
	CHECK_EQUAL(events.count, 1);
}

static void session_moves_only_with_proof(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	uint32_t stays = add(group, HALO_KCP_HALO, 1, 1, 0), moves = add(group, HALO_KCP_HALO, 2, 1, 1), i;
	uint8_t old[1000], changed[1000];
	struct halo_kcp_incoming incoming;
	struct halo_kcp_counters counters;
	struct halo_kcp_peer peer, expected = peer_of(2);
	struct halo_kcp *other;

	/* One that may not move, does not. */
	other = halo_kcp_create(1, &settings);
	halo_kcp_send(other, (const uint8_t *)"hello", 5);
	incoming = datagram(other, 10, 2);
	give(group, &incoming, 10);
	CHECK_EQUAL(event_of(stays)->what, HALO_KCP_STRANGER);
	halo_kcp_free(other);

	other = halo_kcp_create(2, &settings);
	halo_kcp_send(other, (const uint8_t *)"hello", 5);
	incoming = datagram(other, 10, 1);
	memcpy(old, incoming.octets, incoming.length);
	give(group, &incoming, 10);
	CHECK_EQUAL(event_of(moves)->what, HALO_KCP_READABLE);
	/* A copy of what came before, from elsewhere; and damaged ones of what is new. */
	incoming.octets = old;
	incoming.peer = peer_of(2);
	give(group, &incoming, 20);
	CHECK_EQUAL(event_of(moves)->what, HALO_KCP_STRANGER);
	halo_kcp_send(other, (const uint8_t *)"again", 5);
	incoming = datagram(other, 30, 2);
	for (i = 0; i < 28; i++) {
		struct halo_kcp_incoming wrong = incoming;

		if (i == 9 || (i >= 10 && i < 16))
			continue; /* frg, wnd and ts may be anything */
		memcpy(changed, incoming.octets, incoming.length);
		changed[i] ^= 0x80;
		wrong.octets = changed;
		give(group, &wrong, 30);
		CHECK(events.event[0].what == (i < 8 ? HALO_KCP_UNKNOWN : HALO_KCP_STRANGER), "octet %u: %u", i,
		      events.event[0].what);
	}
	/* A probe says nothing that is new. */
	memcpy(changed, incoming.octets, 28);
	changed[8] = 83;
	memset(changed + 24, 0, 4);
	give(group, &(struct halo_kcp_incoming){.octets = changed, .length = 28, .peer = peer_of(2)}, 30);
	CHECK_EQUAL(event_of(moves)->what, HALO_KCP_STRANGER);
	/* What is new and right moves it. */
	give(group, &incoming, 30);
	CHECK_EQUAL(event_of(moves)->what, HALO_KCP_MOVED | HALO_KCP_READABLE);
	halo_kcp_group_peer(group, moves, &peer);
	CHECK(memcmp(&peer, &expected, sizeof(peer)) == 0, "it is at another one");
	halo_kcp_group_counters(group, &counters);
	CHECK_EQUAL(counters.strangers, 1 + 1 + 13 + 1);
	CHECK_EQUAL(counters.in_packets, 2);

	/* Its acknowledgement was lost: said once more, and later than anything before, the same is proof. */
	for (i = 1; i < 1000 && halo_kcp_next(other, 30) != 0; i++) {
		clear();
		if (halo_kcp_poll(other, 30 + i, &output))
			break;
	}
	CHECK_EQUAL(output.count, 1);
	incoming = (struct halo_kcp_incoming){
		.octets = output.datagram[0].octets, .length = output.datagram[0].length, .peer = peer_of(3)};
	give(group, &incoming, 30 + i);
	CHECK_EQUAL(event_of(moves)->what, HALO_KCP_MOVED);
	halo_kcp_free(other);
	halo_kcp_group_free(group);
}

/* What was lost on its way comes late, as a copy from elsewhere: it is new, and older than what is known. */
static void late_copy_moves_nothing(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	uint32_t number = add(group, HALO_KCP_HALO, 1, 1, 1), heard_ms;
	struct halo_kcp *other = halo_kcp_create(1, &settings);
	struct halo_kcp_incoming incoming, late;
	uint8_t old[200];

	halo_kcp_send(other, (const uint8_t *)"first", 5);
	late = datagram(other, 10, 2);
	memcpy(old, late.octets, late.length);
	late.octets = old;
	halo_kcp_send(other, (const uint8_t *)"second", 6);
	incoming = datagram(other, 30, 1);
	halo_kcp_events_clear(&events);
	halo_kcp_group_input(group, &incoming, 1, 30, &events);
	CHECK_EQUAL(events.count, 0); /* there is a gap before it */
	give(group, &late, 40);
	CHECK_EQUAL(event_of(number)->what, HALO_KCP_STRANGER);
	halo_kcp_group_heard(group, number, &heard_ms);
	CHECK_EQUAL(heard_ms, 30);
	late.peer = peer_of(1);
	give(group, &late, 50);
	CHECK_EQUAL(event_of(number)->what, HALO_KCP_READABLE);
	halo_kcp_group_heard(group, number, &heard_ms);
	CHECK_EQUAL(heard_ms, 50);
	/* Refused: it was not heard of. */
	late.length--;
	give(group, &late, 60);
	CHECK_EQUAL(event_of(number)->what, HALO_KCP_REFUSED);
	halo_kcp_group_heard(group, number, &heard_ms);
	CHECK_EQUAL(heard_ms, 50);
	halo_kcp_free(other);
	halo_kcp_group_free(group);
}

/* Whoever goes, the next one gets a number that nobody had, as long as there are such. */
static void numbers_rest(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	uint32_t i;

	for (i = 0; i < 4; i++)
		add(group, HALO_KCP_HALO, i, i, 0);
	halo_kcp_free(halo_kcp_group_remove(group, 1));
	CHECK_EQUAL(add(group, HALO_KCP_HALO, 9, 9, 0), 4);
	halo_kcp_group_free(group);
}

/* A session that was exported and came back still knows what it was told. */
static void imported_session_moves_only_with_proof(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	uint32_t number = add(group, HALO_KCP_HALO, 1, 1, 1);
	struct halo_kcp *other = halo_kcp_create(1, &settings), *kcp;
	struct halo_kcp_peer peer = peer_of(1);
	struct halo_kcp_incoming incoming;
	uint8_t old[200], state[4096], text[8];
	uint64_t length;

	halo_kcp_send(other, (const uint8_t *)"hello", 5);
	incoming = datagram(other, 10, 1);
	memcpy(old, incoming.octets, incoming.length);
	incoming.octets = old;
	give(group, &incoming, 10);
	CHECK_EQUAL(halo_kcp_group_receive(group, number, text, sizeof(text), 10), 5);

	kcp = halo_kcp_group_remove(group, number);
	length = halo_kcp_export(kcp, state, sizeof(state));
	halo_kcp_free(kcp);
	kcp = halo_kcp_import(state, length);
	CHECK(kcp != NULL, "its own state");
	number = (uint32_t)halo_kcp_group_add(group, kcp, &peer, 1, 20);
	incoming.peer = peer_of(2);
	give(group, &incoming, 20);
	CHECK_EQUAL(event_of(number)->what, HALO_KCP_STRANGER);
	halo_kcp_free(other);
	halo_kcp_group_free(group);
}

static void classic_sessions_are_told_apart_by_peer(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_CLASSIC, 8);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_CLASSIC);
	struct halo_kcp *other = halo_kcp_create(7, &settings);
	uint32_t one = add(group, HALO_KCP_CLASSIC, 7, 1, 1), two = add(group, HALO_KCP_CLASSIC, 7, 2, 1);
	struct halo_kcp_incoming incoming;

	halo_kcp_send(other, (const uint8_t *)"hello", 5);
	incoming = datagram(other, 10, 2);
	give(group, &incoming, 10);
	CHECK_EQUAL(event_of(two)->what, HALO_KCP_READABLE);
	CHECK_EQUAL(event_of(one)->what, 0);
	incoming.peer = peer_of(3);
	give(group, &incoming, 10);
	CHECK_EQUAL(events.event[0].session, (uint32_t)HALO_KCP_NO_SESSION);
	CHECK_EQUAL(events.event[0].what, HALO_KCP_UNKNOWN);
	/* Too short to have a conv. */
	incoming.length = 23;
	give(group, &incoming, 10);
	CHECK_EQUAL(events.event[0].what, HALO_KCP_UNKNOWN);
	halo_kcp_free(other);
	halo_kcp_group_free(group);
}

static void asked_for_is_told_once(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 8);
	uint32_t number = add(group, HALO_KCP_HALO, 1, 1, 0), now_ms, alarms = 0, ends = 0, polls = 0;

	/* A long alarm needs few wake-ups. */
	CHECK_EQUAL(halo_kcp_group_alarm(group, number, 3600000, 0), 0);
	for (now_ms = 0; halo_kcp_group_next(group, now_ms) != HALO_KCP_NO_DEADLINE; polls++) {
		now_ms += halo_kcp_group_next(group, now_ms);
		clear();
		halo_kcp_group_poll(group, now_ms, &output, &events);
		alarms += event_of(number)->what == HALO_KCP_ALARM;
	}
	CHECK_EQUAL(alarms, 1);
	CHECK_EQUAL(now_ms, 3600000);
	CHECK(polls < 20, "%u wake-ups", polls);

	CHECK_EQUAL(halo_kcp_group_want(group, number, 0, now_ms), 0);
	CHECK_EQUAL(halo_kcp_group_next(group, now_ms), 0);
	clear();
	halo_kcp_group_poll(group, now_ms, &output, &events);
	CHECK_EQUAL(event_of(number)->what, HALO_KCP_WRITABLE);
	clear();
	halo_kcp_group_poll(group, now_ms + 1, &output, &events);
	CHECK_EQUAL(events.count, 0);

	/* A probe leaves at once, and one that nobody answers ends the session in time. */
	halo_kcp_group_probe(group, number, now_ms);
	CHECK_EQUAL(halo_kcp_group_next(group, now_ms + 2), 0);
	CHECK_EQUAL(halo_kcp_group_poll(group, now_ms + 2, &output, &events), 1);
	halo_kcp_group_send(group, number, (const uint8_t *)"x", 1, now_ms + 3);
	for (polls = 0; halo_kcp_group_next(group, now_ms) != HALO_KCP_NO_DEADLINE && polls < 100; polls++) {
		now_ms += halo_kcp_group_next(group, now_ms);
		clear();
		halo_kcp_group_poll(group, now_ms, &output, &events);
		ends += event_of(number)->what == HALO_KCP_ENDING;
	}
	CHECK_EQUAL(ends, 1);
	CHECK(polls < 20, "%u wake-ups", polls);
	halo_kcp_group_free(group);
}

static void poll_comes_back_at_its_limit(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 100);
	uint32_t i, count, all = 0;

	for (i = 0; i < 100; i++) {
		add(group, HALO_KCP_HALO, i, i, 0);
		halo_kcp_group_send(group, i, (const uint8_t *)"x", 1, 0);
	}
	output.limit = 30;
	for (i = 0; i < 4; i++) {
		CHECK_EQUAL(halo_kcp_group_next(group, 0), 0);
		clear();
		count = halo_kcp_group_poll(group, 0, &output, &events);
		CHECK(count <= 30, "%u datagrams", count);
		all += count;
	}
	CHECK_EQUAL(all, 100);
	output.limit = 0;
	halo_kcp_group_free(group);
}

/* What is told once is told when there is memory again, whatever was without. */
static void what_had_no_memory_is_told_later(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 100);
	uint32_t i, now_ms, told[3] = {0};

	for (i = 0; i < 100; i++) {
		add(group, HALO_KCP_HALO, i, i, 0);
		halo_kcp_group_alarm(group, i, 50, 0);
		halo_kcp_group_want(group, i, 5, 0);
		halo_kcp_group_send(group, i, (const uint8_t *)"x", 1, 0);
	}
	for (now_ms = 0; now_ms < 20000; now_ms++) {
		/* Each time the events need memory again. */
		halo_kcp_events_free(&events);
		halo_kcp_output_free(&output);
		memory_failing = now_ms % 10 ? 100 : 0;
		memory_inside = true;
		halo_kcp_group_poll(group, now_ms, &output, &events);
		memory_inside = false;
		for (i = 0; i < events.count; i++) {
			told[0] += (events.event[i].what & HALO_KCP_ALARM) != 0;
			told[1] += (events.event[i].what & HALO_KCP_WRITABLE) != 0;
			told[2] += (events.event[i].what & HALO_KCP_ENDING) != 0;
		}
	}
	memory_failing = 0;
	for (i = 0; i < 3; i++)
		CHECK_EQUAL(told[i], 100);
	CHECK_EQUAL(halo_kcp_group_next(group, now_ms), HALO_KCP_NO_DEADLINE);
	halo_kcp_group_free(group);
}

/* A group takes the next session when it could not take the last. */
static void group_without_memory_is_as_before(void)
{
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 1000);
	uint32_t i, refused = 0;

	for (i = 0; i < 1000; i++) {
		struct halo_kcp *kcp = halo_kcp_create(i, &settings);
		struct halo_kcp_peer peer = peer_of(i);
		int64_t number;

		memory_failing = 60;
		do {
			memory_inside = true;
			number = halo_kcp_group_add(group, kcp, &peer, 0, 0);
			memory_inside = false;
			refused += number == -ENOMEM;
			CHECK(i == 0 || halo_kcp_group_find(group, i - 1, &peer) == i - 1, "%u is lost", i - 1);
		} while (number == -ENOMEM);
		memory_failing = 0;
		CHECK_EQUAL(number, i);
	}
	CHECK(refused > 0, "memory never failed");
	CHECK_EQUAL(halo_kcp_group_count(group), 1000);
	halo_kcp_group_free(group);
}

enum { LENT_SESSIONS = 4, LENT_ROUNDS = 3000, LENT_READ = 700, LENT_QUEUE = 20 };

/* One group takes datagrams as they are, the other leaves them where they lie. */
struct lending {
	struct halo_kcp_group *from;
	struct halo_kcp_group *lent;
	struct halo_kcp_group *own;
	uint64_t seed;
	uint64_t octets; /* that were read from both */
	uint32_t now_ms;
};

static void open_lending(struct lending *lending, bool stream)
{
	struct halo_kcp_group **groups[] = {&lending->from, &lending->lent, &lending->own};
	struct halo_kcp_settings settings = settings_of(HALO_KCP_HALO);
	uint32_t i, j;

	settings.stream = stream;
	for (i = 0; i < 3; i++) {
		*groups[i] = halo_kcp_group_create(HALO_KCP_HALO, LENT_SESSIONS);
		for (j = 0; j < LENT_SESSIONS; j++) {
			struct halo_kcp_peer peer = peer_of(j);

			CHECK_EQUAL(halo_kcp_group_add(*groups[i], halo_kcp_create(j, &settings), &peer, 0, 0), j);
		}
	}
}

/* What the sessions of `from` send now, in any order, and sometimes not all of it. */
static struct halo_kcp_incoming *write_and_carry(struct lending *lending, uint32_t *count)
{
	struct halo_kcp_incoming *incoming;
	uint8_t text[LENT_READ];
	uint32_t i, lost;

	memset(text, (int)random_below(&lending->seed, 256), sizeof(text));
	for (i = 0; i < LENT_SESSIONS; i++)
		if (halo_kcp_waiting(halo_kcp_group_session(lending->from, i)) < LENT_QUEUE)
			halo_kcp_group_send(lending->from, i, text, 1 + random_below(&lending->seed, sizeof(text)),
					    lending->now_ms);
	clear();
	halo_kcp_group_poll(lending->from, lending->now_ms, &output, &events);
	incoming = carry(count);
	for (i = 0; i < *count; i++) {
		struct halo_kcp_incoming *other = &incoming[random_below(&lending->seed, *count)], one = incoming[i];

		incoming[i] = *other;
		*other = one;
	}
	for (lost = random_below(&lending->seed, 4) ? 0 : *count / 2; lost > 0; lost--)
		free((uint8_t *)incoming[--*count].octets);
	return incoming;
}

/* Read as much, or as little, from both: it is the same. Returns how many octets. */
static uint64_t read_both(struct halo_kcp *lent, struct halo_kcp *own, uint64_t room)
{
	uint8_t left[LENT_READ], right[LENT_READ];
	int64_t count = halo_kcp_receive(lent, left, room);

	CHECK_EQUAL(halo_kcp_receive(own, right, room), count);
	CHECK(count <= 0 || memcmp(left, right, (size_t)count) == 0, "of %" PRId64 " octets some differ", count);
	return count > 0 ? (uint64_t)count : 0;
}

/* Take datagrams in, now and then twice, and read some of them before their octets are no more. */
static void take_and_read(struct lending *lending, struct halo_kcp_incoming *incoming, uint32_t count)
{
	uint32_t times = 1 + !random_below(&lending->seed, 8), i;

	for (i = 0; i < times; i++) {
		clear();
		halo_kcp_group_input(lending->own, incoming, count, lending->now_ms, &events);
		clear();
		halo_kcp_group_borrow(lending->lent, incoming, count, lending->now_ms, &events);
	}
	for (i = 0; i < LENT_SESSIONS; i++)
		if (random_below(&lending->seed, 3))
			lending->octets += read_both(halo_kcp_group_session(lending->lent, i),
						     halo_kcp_group_session(lending->own, i),
						     1 + random_below(&lending->seed, LENT_READ));
}

/* What both answer is the same, and goes back. */
static void answer(struct lending *lending)
{
	struct halo_kcp_incoming *incoming;
	uint32_t count, i;

	clear();
	halo_kcp_group_poll(lending->own, lending->now_ms, &output, &events);
	incoming = carry(&count);
	clear();
	CHECK_EQUAL(halo_kcp_group_poll(lending->lent, lending->now_ms, &output, &events), count);
	for (i = 0; i < count; i++)
		CHECK(output.datagram[i].length == incoming[i].length &&
			      memcmp(output.datagram[i].octets, incoming[i].octets, incoming[i].length) == 0,
		      "at %u ms datagram %u differs", lending->now_ms, i);
	clear();
	halo_kcp_group_input(lending->from, incoming, count, lending->now_ms, &events);
	drop(incoming, count);
}

static void borrowing_changes_nothing(void)
{
	struct lending lending = {.seed = SEED};
	uint32_t stream, round;

	for (stream = 0; stream < 2; stream++) {
		struct halo_kcp *lent = NULL, *own = NULL;

		open_lending(&lending, stream);
		for (round = 0; round < LENT_ROUNDS; round++) {
			uint32_t count;
			struct halo_kcp_incoming *incoming = write_and_carry(&lending, &count);

			take_and_read(&lending, incoming, count);
			if (round == LENT_ROUNDS - 1) { /* it goes, and has borrowed */
				lent = halo_kcp_group_remove(lending.lent, 0);
				own = halo_kcp_group_remove(lending.own, 0);
			}
			if (lent || random_below(&lending.seed, 4))
				halo_kcp_group_settle(lending.lent);
			else /* it settles what was lent before */
				halo_kcp_group_borrow(lending.lent, NULL, 0, lending.now_ms, &events);
			drop(incoming, count);
			if (!lent)
				answer(&lending);
			lending.now_ms += random_below(&lending.seed, 8);
		}
		while (read_both(lent, own, LENT_READ))
			;
		halo_kcp_free(lent);
		halo_kcp_free(own);
		halo_kcp_group_free(lending.from);
		halo_kcp_group_free(lending.lent);
		halo_kcp_group_free(lending.own);
	}
	CHECK(lending.octets > 100000, "%" PRIu64 " octets were read", lending.octets);
}

/* A copy outlives the session that it was in. */
static void kept_output_needs_no_session(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_CLASSIC, 2);
	struct halo_kcp_output kept = {.by_reference = 1};
	uint8_t text[1000];
	uint32_t i;

	for (i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 7);
	add(group, HALO_KCP_CLASSIC, 1, 1, 0);
	CHECK_EQUAL(halo_kcp_group_send(group, 0, text, sizeof(text), 0), sizeof(text));
	clear();
	CHECK(halo_kcp_group_poll(group, 0, &kept, &events) > 4, "%u datagrams", kept.count);
	CHECK(kept.used < sizeof(text) / 2, "%u octets were copied", kept.used);
	halo_kcp_output_keep(&kept, 1);
	halo_kcp_output_keep(&kept, 0);
	CHECK(kept.used >= sizeof(text), "%u octets are kept", kept.used);
	halo_kcp_group_free(group);
	for (i = 0; i < kept.count; i++)
		CHECK(memcmp(kept.datagram[i].octets + 24, text + i * 176, kept.datagram[i].length - 24) == 0,
		      "datagram %u is another", i);
	halo_kcp_output_free(&kept);
}

/* The window that a session tells is what its last datagram says, in octets 6 and 7. */
static uint32_t told_window(struct halo_kcp_group *group, uint32_t now_ms)
{
	const uint8_t *header;

	clear();
	CHECK(halo_kcp_group_poll(group, now_ms, &output, &events) > 0, "nothing was told");
	header = output.datagram[output.count - 1].octets;
	return header[6] | (uint32_t)header[7] << 8;
}

static void what_is_allowed_does_not_count(void)
{
	struct halo_kcp_group *from = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp_group *to = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp *kcp;
	uint32_t i;

	add(from, HALO_KCP_CLASSIC, 1, 0, 0);
	add(to, HALO_KCP_CLASSIC, 1, 0, 0);
	kcp = halo_kcp_group_session(to, 0);
	halo_kcp_allow(kcp, 10);
	for (i = 0; i < 12; i++)
		halo_kcp_group_send(from, 0, (const uint8_t *)"x", 1, 0);
	exchange(from, to, 0);
	CHECK_EQUAL(told_window(to, 10), 128 - 2);
	halo_kcp_allow(kcp, 0);
	halo_kcp_group_probe(to, 0, 20);
	CHECK_EQUAL(told_window(to, 20), 128 - 12);
	halo_kcp_allow(kcp, UINT32_MAX);
	halo_kcp_group_probe(to, 0, 30);
	CHECK_EQUAL(told_window(to, 30), 128);
	halo_kcp_group_free(from);
	halo_kcp_group_free(to);
}

/* Whether what a session polls ends with WINS. */
static bool tells_window(struct halo_kcp *kcp, uint32_t now_ms)
{
	clear();
	return halo_kcp_poll(kcp, now_ms, &output) > 0 && output.datagram[output.count - 1].octets[4] == 0x54;
}

/* The peer of a full window asks only after seconds: it hears of one that opens by being allowed, too. */
static void window_that_opens_by_allowing_is_told(void)
{
	struct halo_kcp_group *from = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp_group *to = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_CLASSIC);
	struct halo_kcp *kcp;
	uint32_t i;

	add(from, HALO_KCP_CLASSIC, 1, 0, 0);
	add(to, HALO_KCP_CLASSIC, 1, 0, 0);
	kcp = halo_kcp_group_session(to, 0);
	settings.receive_window = 4;
	CHECK_EQUAL(halo_kcp_change(kcp, &settings), 0);
	for (i = 0; i < 6; i++)
		halo_kcp_group_send(from, 0, (const uint8_t *)"x", 1, 0);
	exchange(from, to, 0);
	CHECK_EQUAL(told_window(to, 10), 0);
	CHECK(!tells_window(kcp, 1000), "it is full still");
	halo_kcp_allow(kcp, 1);
	CHECK(!tells_window(kcp, 2000), "what was held has filled it again");
	halo_kcp_allow(kcp, 8);
	CHECK(tells_window(kcp, 3000), "nothing was told");
	CHECK(!tells_window(kcp, 4000), "told twice");
	halo_kcp_group_free(from);
	halo_kcp_group_free(to);
}

/* What is allowed is octets, as many segments of ours have. */
static void less_is_allowed_of_longer_segments(void)
{
	struct halo_kcp_group *from = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp_group *to = halo_kcp_group_create(HALO_KCP_CLASSIC, 1);
	struct halo_kcp_settings settings = settings_of(HALO_KCP_CLASSIC);
	static const uint8_t text[1760]; /* of ours one has 176 */
	uint32_t i;

	add(from, HALO_KCP_CLASSIC, 1, 0, 0);
	add(to, HALO_KCP_CLASSIC, 1, 0, 0);
	settings.mtu = sizeof(text) + 24;
	CHECK_EQUAL(halo_kcp_change(halo_kcp_group_session(from, 0), &settings), 0);
	halo_kcp_allow(halo_kcp_group_session(to, 0), 20);
	for (i = 0; i < 12; i++)
		CHECK_EQUAL(halo_kcp_group_send(from, 0, text, sizeof(text), 0), sizeof(text));
	exchange(from, to, 0);
	CHECK_EQUAL(told_window(to, 10), 128 - (12 - 20 / 10));
	halo_kcp_group_free(from);
	halo_kcp_group_free(to);
}

enum { TIMERS = 500 };

/* The wheel against a list that is searched: nothing early, nothing late, whatever the steps and wherever the clock is. */
static void wheel_is_exact(void)
{
	static struct wheel wheel;
	static struct timer timer[TIMERS];
	uint32_t due[TIMERS], now_ms = (uint32_t)-300000, step, i, taken = 0;
	bool set[TIMERS] = {false};
	uint64_t seed = SEED;

	for (step = 0; step < 100000; step++) {
		uint32_t number = random_below(&seed, TIMERS), next = UINT32_MAX, told;
		static const uint32_t ranges[] = {1, 20, 1000, 5000, 900000};

		if (random_below(&seed, 4) == 0) {
			halo_wheel_cancel(&wheel, timer, number);
			set[number] = false;
		} else {
			due[number] = now_ms + random_below(&seed, ranges[random_below(&seed, 5)]);
			set[number] = true;
			halo_wheel_set(&wheel, timer, number, due[number], now_ms);
		}
		for (i = 0; i < TIMERS && step % 16 == 0; i++)
			if (set[i] && due[i] - now_ms < next)
				next = due[i] - now_ms;
		told = halo_wheel_next(&wheel, now_ms);
		CHECK(step % 16 || told <= next, "step %u: next is in %u, not in %u ms", step, next, told);
		if (random_below(&seed, 8))
			continue;
		now_ms += random_below(&seed, ranges[random_below(&seed, 4)]);
		while ((number = halo_wheel_take(&wheel, timer, now_ms)) != (uint32_t)WHEEL_NOBODY) {
			CHECK(set[number] && (int32_t)(due[number] - now_ms) <= 0, "step %u: %u is early", step,
			      number);
			set[number] = false;
			taken++;
		}
		for (i = 0; i < TIMERS; i++)
			CHECK(!set[i] || (int32_t)(due[i] - now_ms) > 0, "step %u: %u is late", step, i);
	}
	CHECK(taken > 1000, "%u were taken", taken);
}

static void empty_wheel_forgets_the_time(void)
{
	static struct wheel wheel;
	struct timer timer[1] = {0};

	halo_wheel_set(&wheel, timer, 0, 100, 50);
	CHECK_EQUAL(halo_wheel_take(&wheel, timer, 100), 0);
	/* 30 days later, by a clock that wraps after 49. */
	halo_wheel_set(&wheel, timer, 0, 2592000010u, 2592000000u);
	CHECK_EQUAL(halo_wheel_next(&wheel, 2592000000u), 10);
	CHECK_EQUAL(halo_wheel_take(&wheel, timer, 2592000010u), 0);
}

static void anything_may_come_in(void)
{
	struct halo_kcp_group *group = halo_kcp_group_create(HALO_KCP_HALO, 64);
	struct halo_kcp_incoming incoming[32];
	uint8_t octets[32][120];
	uint64_t seed = SEED;
	uint32_t i, j, k, now_ms = 0, readable = 0;

	for (i = 0; i < 64; i++)
		add(group, HALO_KCP_HALO, i, i, i & 1);
	for (i = 0; i < 5000; i++) {
		for (j = 0; j < 32; j++) {
			uint32_t length = random_below(&seed, 120);

			for (k = 0; k < length; k++)
				octets[j][k] = (uint8_t)(random_below(&seed, 4) ? 0 : random_below(&seed, 64));
			octets[j][8] = (uint8_t)(80 + random_below(&seed, 6));
			incoming[j] = (struct halo_kcp_incoming){
				.octets = octets[j], .length = length, .peer = peer_of(random_below(&seed, 64))};
			if (random_below(&seed, 2))
				incoming[j].peer = peer_of(octets[j][0]);
		}
		halo_kcp_group_input(group, incoming, 32, now_ms, &events);
		for (j = 0; j < events.count; j++) {
			readable += events.event[j].what & HALO_KCP_READABLE;
			if (events.event[j].session != (uint32_t)HALO_KCP_NO_SESSION)
				halo_kcp_group_receive(group, events.event[j].session, octets[0], 120, now_ms);
		}
		now_ms += random_below(&seed, 50);
		clear();
		halo_kcp_group_poll(group, now_ms, &output, &events);
		clear();
	}
	CHECK(readable > 0, "nothing was ever taken");
	halo_kcp_group_free(group);
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"many_sessions_cost_only_when_they_have_something", many_sessions_cost_only_when_they_have_something},
		{"sums_never_go_backwards", sums_never_go_backwards},
		{"members_have_limits", members_have_limits},
		{"session_moves_only_with_proof", session_moves_only_with_proof},
		{"late_copy_moves_nothing", late_copy_moves_nothing},
		{"numbers_rest", numbers_rest},
		{"imported_session_moves_only_with_proof", imported_session_moves_only_with_proof},
		{"classic_sessions_are_told_apart_by_peer", classic_sessions_are_told_apart_by_peer},
		{"asked_for_is_told_once", asked_for_is_told_once},
		{"poll_comes_back_at_its_limit", poll_comes_back_at_its_limit},
		{"what_had_no_memory_is_told_later", what_had_no_memory_is_told_later},
		{"group_without_memory_is_as_before", group_without_memory_is_as_before},
		{"borrowing_changes_nothing", borrowing_changes_nothing},
		{"kept_output_needs_no_session", kept_output_needs_no_session},
		{"what_is_allowed_does_not_count", what_is_allowed_does_not_count},
		{"window_that_opens_by_allowing_is_told", window_that_opens_by_allowing_is_told},
		{"less_is_allowed_of_longer_segments", less_is_allowed_of_longer_segments},
		{"wheel_is_exact", wheel_is_exact},
		{"empty_wheel_forgets_the_time", empty_wheel_forgets_the_time},
		{"anything_may_come_in", anything_may_come_in},
	};
	int status = run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);

	halo_kcp_events_free(&events);
	halo_kcp_output_free(&output);
	return status;
}
