/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many sessions on one socket. A datagram finds its session by a hash of its conv, in the classic format of its peer too;
 * a timer wheel knows when each wants to be polled, so that who is idle costs nothing. All share one pool of segments.
 *
 * A session of halo's format may be heard of from elsewhere than before. That is believed, when the caller allows it at
 * all, after a datagram that is right as a whole and brings a segment or an acknowledgement that is new and within the
 * windows; everything else from there is as if it had not come.
 */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "wheel.h"
#include "wire.h"

enum {
	FIRST_MEMBERS = 16,
	AHEAD = 4, /* datagrams whose headers are asked for early */
	NOBODY = WHEEL_NOBODY,
};

struct member {
	struct halo_kcp *kcp; /* NULL: the number is free */
	struct halo_kcp_peer peer;
	uint32_t chained; /* the next of its hash, or of the free ones */
	uint32_t heard_ms;
	uint32_t alarm_ms;
	uint32_t wanted;
	uint32_t event;      /* its place in the events of this call */
	uint32_t event_call; /* of the group, in which it got that */
	bool alarmed;
	bool wants;
	bool ends; /* ENDING is to be told */
	bool migrates;
};

struct halo_kcp_group {
	struct pool pool;
	struct wheel wheel;
	struct member *member;
	struct timer *timer;
	uint32_t *bucket;
	uint32_t *borrower; /* numbers of sessions that borrow, until the group is settled; some are nobody's by then */
	uint32_t borrowers;
	uint64_t seed;
	uint32_t format;
	uint32_t most;
	uint32_t room; /* members, a power of two; as many buckets */
	uint32_t count;
	uint32_t fresh;      /* numbers from here on were never used */
	uint32_t free_first; /* numbers come back in the order in which they went */
	uint32_t free_last;
	uint32_t call;
	struct halo_kcp_counters retired;
};

void halo_kcp_events_clear(struct halo_kcp_events *events)
{
	events->count = 0;
}

void halo_kcp_events_free(struct halo_kcp_events *events)
{
	free(events->event);
	*events = (struct halo_kcp_events){.event = NULL};
}

static struct halo_kcp_event *add_event(struct halo_kcp_events *events)
{
	if (events->count == events->most) {
		uint32_t most = events->most ? 2 * events->most : 64;
		struct halo_kcp_event *event = realloc(events->event, most * sizeof(*event));

		if (!event) {
			events->lost++;
			return NULL;
		}
		events->event = event;
		events->most = most;
	}
	return &events->event[events->count++];
}

static void tell_of_nobody(struct halo_kcp_events *events, uint32_t datagram)
{
	struct halo_kcp_event *event = add_event(events);

	if (event)
		*event = (struct halo_kcp_event){(uint32_t)HALO_KCP_NO_SESSION, HALO_KCP_UNKNOWN, datagram, 0};
}

/* One event for each session and call, whatever happens to it. NULL: no memory. */
static struct halo_kcp_event *tell(struct halo_kcp_group *group, struct halo_kcp_events *events, uint32_t number,
				   uint32_t what)
{
	struct member *member = &group->member[number];
	struct halo_kcp_event *event;

	if (member->event_call == group->call && member->event < events->count &&
	    events->event[member->event].session == number) {
		event = &events->event[member->event];
	} else {
		event = add_event(events);
		if (!event)
			return NULL;
		*event = (struct halo_kcp_event){.session = number};
		member->event_call = group->call;
		member->event = events->count - 1;
	}
	event->what |= what;
	return event;
}

static void tell_datagram(struct halo_kcp_group *group, struct halo_kcp_events *events, uint32_t number, uint32_t what,
			  uint32_t datagram, int verdict)
{
	struct halo_kcp_event *event = tell(group, events, number, what);

	if (!event)
		return;
	event->datagram = datagram;
	event->verdict = verdict;
}

static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

static uint64_t hash_of(const struct halo_kcp_group *group, uint64_t conv, const struct halo_kcp_peer *peer)
{
	uint64_t hash = mix(conv ^ group->seed), word[3];

	if (group->format == HALO_KCP_HALO)
		return hash;
	memcpy(word, peer, sizeof(word));
	hash = mix(hash ^ word[0]);
	hash = mix(hash ^ word[1]);
	return mix(hash ^ word[2]);
}

_Static_assert(sizeof(struct halo_kcp_peer) == 24, "hash_of() reads three words");

static bool same_peer(const struct halo_kcp_peer *left, const struct halo_kcp_peer *right)
{
	return memcmp(left, right, sizeof(*left)) == 0;
}

static uint32_t *bucket_of(const struct halo_kcp_group *group, uint64_t conv, const struct halo_kcp_peer *peer)
{
	return &group->bucket[hash_of(group, conv, peer) & (group->room - 1)];
}

static uint32_t find(const struct halo_kcp_group *group, uint64_t conv, const struct halo_kcp_peer *peer)
{
	uint32_t number = group->room ? *bucket_of(group, conv, peer) : (uint32_t)NOBODY;

	for (; number != (uint32_t)NOBODY; number = group->member[number].chained) {
		const struct member *member = &group->member[number];

		if (member->kcp->conv == conv && (group->format == HALO_KCP_HALO || same_peer(&member->peer, peer)))
			return number;
	}
	return number;
}

static void chain(struct halo_kcp_group *group, uint32_t number)
{
	struct member *member = &group->member[number];
	uint32_t *bucket = bucket_of(group, member->kcp->conv, &member->peer);

	member->chained = *bucket;
	*bucket = number;
}

static void unchain(struct halo_kcp_group *group, uint32_t number)
{
	struct member *member = &group->member[number];
	uint32_t *at = bucket_of(group, member->kcp->conv, &member->peer);

	while (*at != number)
		at = &group->member[*at].chained;
	*at = member->chained;
}

struct halo_kcp_group *halo_kcp_group_create(uint32_t format, uint32_t most_sessions)
{
	struct halo_kcp_group *group;

	if (format > HALO_KCP_HALO || most_sessions == 0 || most_sessions > INT32_MAX)
		return NULL;
	group = calloc(1, sizeof(*group));
	if (!group)
		return NULL;
	group->format = format;
	group->most = most_sessions;
	group->free_first = group->free_last = (uint32_t)NOBODY;
	/* Where the memory lies is nothing that a peer knows. */
	group->seed = mix((uintptr_t)group ^ (uintptr_t)&halo_kcp_group_create);
	return group;
}

void halo_kcp_group_free(struct halo_kcp_group *group)
{
	uint32_t number;

	if (!group)
		return;
	for (number = 0; number < group->fresh; number++)
		halo_kcp_free(group->member[number].kcp);
	halo_pool_clear(&group->pool);
	free(group->member);
	free(group->timer);
	free(group->bucket);
	free(group->borrower);
	free(group);
}

static int grow(struct halo_kcp_group *group)
{
	uint32_t room = group->room ? 2 * group->room : FIRST_MEMBERS, number;
	struct member *member = realloc(group->member, room * sizeof(*member));
	struct timer *timer;
	uint32_t *bucket, *borrower;

	if (!member)
		return -ENOMEM;
	group->member = member;
	timer = realloc(group->timer, room * sizeof(*timer));
	if (!timer)
		return -ENOMEM;
	group->timer = timer;
	borrower = realloc(group->borrower, room * sizeof(*borrower));
	if (!borrower)
		return -ENOMEM;
	group->borrower = borrower;
	bucket = malloc(room * sizeof(*bucket));
	if (!bucket)
		return -ENOMEM;
	free(group->bucket);
	group->bucket = bucket;
	memset(bucket, 0xff, room * sizeof(*bucket));
	memset(member + group->room, 0, (room - group->room) * sizeof(*member));
	memset(timer + group->room, 0, (room - group->room) * sizeof(*timer));
	group->room = room;
	for (number = 0; number < group->fresh; number++)
		if (member[number].kcp)
			chain(group, number);
	return 0;
}

static int64_t take_number(struct halo_kcp_group *group)
{
	uint32_t number = group->free_first;
	int error;

	if (group->count == group->most)
		return -ENOSPC;
	/* Free numbers rest as long as there are others, so that what is told of one still means the one who had it. */
	if (number != (uint32_t)NOBODY &&
	    (group->fresh - group->count >= FIRST_MEMBERS || group->fresh == group->most)) {
		group->free_first = group->member[number].chained;
		if (number == group->free_last)
			group->free_last = (uint32_t)NOBODY;
		return number;
	}
	error = group->fresh == group->room ? grow(group) : 0;
	return error ? error : (int64_t)group->fresh++;
}

static void give_number(struct halo_kcp_group *group, uint32_t number)
{
	group->member[number] = (struct member){.chained = (uint32_t)NOBODY};
	if (group->free_last == (uint32_t)NOBODY)
		group->free_first = number;
	else
		group->member[group->free_last].chained = number;
	group->free_last = number;
}

/* Add the counters of a session to a sum, or take them away. */
static void add_counters(struct halo_kcp_counters *sum, const struct halo_kcp_counters *counters, uint64_t sign)
{
	const uint64_t *from = (const uint64_t *)counters;
	uint64_t *to = (uint64_t *)sum;
	uint32_t i;

	for (i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += sign * from[i];
}

static void set_timer(struct halo_kcp_group *group, uint32_t number, uint32_t now_ms)
{
	const struct member *member = &group->member[number];
	uint32_t wait_ms = halo_kcp_next(member->kcp, now_ms);

	if (member->alarmed)
		wait_ms = least(wait_ms, after(member->alarm_ms, now_ms) > 0 ? member->alarm_ms - now_ms : 0);
	if (member->ends || (member->wants && halo_kcp_waiting(member->kcp) <= member->wanted))
		wait_ms = 0;
	if (wait_ms == HALO_KCP_NO_DEADLINE)
		halo_wheel_cancel(&group->wheel, group->timer, number);
	else
		halo_wheel_set(&group->wheel, group->timer, number, now_ms + wait_ms, now_ms);
}

int64_t halo_kcp_group_add(struct halo_kcp_group *group, struct halo_kcp *kcp, const struct halo_kcp_peer *peer,
			   uint32_t migrate, uint32_t now_ms)
{
	int64_t number;

	if (kcp->grouped || kcp->settings.format != group->format)
		return -EINVAL;
	if (find(group, kcp->conv, peer) != (uint32_t)NOBODY)
		return -EEXIST;
	number = take_number(group);
	if (number < 0)
		return number;
	group->member[number] = (struct member){
		.kcp = kcp,
		.peer = *peer,
		.heard_ms = now_ms,
		.event_call = group->call - 1,
		.migrates = migrate && group->format == HALO_KCP_HALO,
	};
	chain(group, (uint32_t)number);
	group->count++;
	kcp->grouped = 1;
	halo_session_use_pool(kcp, &group->pool);
	add_counters(&group->retired, &kcp->counters, (uint64_t)-1);
	set_timer(group, (uint32_t)number, now_ms);
	return number;
}

static struct member *member_of(const struct halo_kcp_group *group, uint32_t number)
{
	return number < group->fresh && group->member[number].kcp ? &group->member[number] : NULL;
}

struct halo_kcp *halo_kcp_group_remove(struct halo_kcp_group *group, uint32_t number)
{
	struct member *member = member_of(group, number);
	struct halo_kcp *kcp;

	if (!member)
		return NULL;
	kcp = member->kcp;
	halo_wheel_cancel(&group->wheel, group->timer, number);
	unchain(group, number);
	give_number(group, number);
	group->count--;
	add_counters(&group->retired, &kcp->counters, 1);
	halo_session_settle(kcp);
	halo_session_use_pool(kcp, NULL);
	kcp->grouped = 0;
	return kcp;
}

struct halo_kcp *halo_kcp_group_session(const struct halo_kcp_group *group, uint32_t number)
{
	const struct member *member = member_of(group, number);

	return member ? member->kcp : NULL;
}

int64_t halo_kcp_group_find(const struct halo_kcp_group *group, uint64_t conv, const struct halo_kcp_peer *peer)
{
	uint32_t number = find(group, conv, peer);

	return number == (uint32_t)NOBODY ? -ENOENT : (int64_t)number;
}

int halo_kcp_group_peer(const struct halo_kcp_group *group, uint32_t number, struct halo_kcp_peer *peer)
{
	const struct member *member = member_of(group, number);

	if (!member)
		return -ENOENT;
	*peer = member->peer;
	return 0;
}

int halo_kcp_group_heard(const struct halo_kcp_group *group, uint32_t number, uint32_t *now_ms)
{
	const struct member *member = member_of(group, number);

	if (!member)
		return -ENOENT;
	*now_ms = member->heard_ms;
	return 0;
}

uint32_t halo_kcp_group_count(const struct halo_kcp_group *group)
{
	return group->count;
}

int64_t halo_kcp_group_send(struct halo_kcp_group *group, uint32_t number, const uint8_t *octets, uint64_t length,
			    uint32_t now_ms)
{
	struct member *member = member_of(group, number);
	int64_t result;

	if (!member)
		return -ENOENT;
	result = halo_kcp_send(member->kcp, octets, length);
	set_timer(group, number, now_ms);
	return result;
}

int64_t halo_kcp_group_receive(struct halo_kcp_group *group, uint32_t number, uint8_t *octets, uint64_t room,
			       uint32_t now_ms)
{
	struct member *member = member_of(group, number);
	int64_t result;

	if (!member)
		return -ENOENT;
	result = halo_kcp_receive(member->kcp, octets, room);
	set_timer(group, number, now_ms);
	return result;
}

int halo_kcp_group_want(struct halo_kcp_group *group, uint32_t number, uint32_t segments, uint32_t now_ms)
{
	struct member *member = member_of(group, number);

	if (!member)
		return -ENOENT;
	member->wants = true;
	member->wanted = segments;
	set_timer(group, number, now_ms);
	return 0;
}

int halo_kcp_group_probe(struct halo_kcp_group *group, uint32_t number, uint32_t now_ms)
{
	struct member *member = member_of(group, number);

	if (!member)
		return -ENOENT;
	halo_kcp_probe(member->kcp);
	set_timer(group, number, now_ms);
	return 0;
}

int halo_kcp_group_alarm(struct halo_kcp_group *group, uint32_t number, uint32_t in_ms, uint32_t now_ms)
{
	struct member *member = member_of(group, number);

	if (!member)
		return -ENOENT;
	member->alarmed = in_ms < HALO_KCP_NO_DEADLINE;
	member->alarm_ms = now_ms + in_ms;
	set_timer(group, number, now_ms);
	return 0;
}

/* What the application asked to be told, and is so now. */
static void tell_wanted(struct halo_kcp_group *group, struct halo_kcp_events *events, uint32_t number)
{
	struct member *member = &group->member[number];

	if (!member->wants || halo_kcp_waiting(member->kcp) > member->wanted)
		return;
	member->wants = tell(group, events, number, HALO_KCP_WRITABLE) == NULL;
}

/* Give a session its datagram. */
static void take_datagram(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t i,
			  uint32_t number, uint32_t now_ms, struct halo_kcp_events *events)
{
	struct member *member = &group->member[number];
	struct halo_kcp *kcp = member->kcp;
	uint32_t readable = kcp->receive_next;
	bool moved = !same_peer(&member->peer, &incoming->peer);
	int verdict;

	if (moved && !(member->migrates && halo_session_proves(kcp, incoming->octets, incoming->length))) {
		kcp->counters.strangers++;
		tell_datagram(group, events, number, HALO_KCP_STRANGER, i, 0);
		return;
	}
	verdict = halo_kcp_input(kcp, incoming->octets, incoming->length, now_ms);
	if (verdict != HALO_KCP_TAKEN) {
		tell_datagram(group, events, number, HALO_KCP_REFUSED, i, verdict);
	} else {
		member->heard_ms = now_ms;
		if (moved) {
			member->peer = incoming->peer;
			tell_datagram(group, events, number, HALO_KCP_MOVED, i, verdict);
		}
	}
	if (kcp->receive_next != readable && halo_kcp_peek(kcp) >= 0)
		tell(group, events, number, HALO_KCP_READABLE);
	tell_wanted(group, events, number);
}

static void lend(struct halo_kcp_group *group, uint32_t number)
{
	struct halo_kcp *kcp = group->member[number].kcp;

	if (kcp->borrows)
		return;
	halo_session_borrow(kcp);
	group->borrower[group->borrowers++] = number;
}

/* The headers of those that come next are on their way meanwhile. */
static void take_all(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t count,
		     uint32_t now_ms, bool lends, struct halo_kcp_events *events)
{
	uint32_t last = (uint32_t)NOBODY, i;

	group->call++;
	for (i = 0; i < count; i++) {
		uint32_t number = (uint32_t)NOBODY;
		uint64_t conv;

		if (i + AHEAD < count)
			__builtin_prefetch(incoming[i + AHEAD].octets);
		if (halo_kcp_conv(group->format, incoming[i].octets, incoming[i].length, &conv) == 0)
			number = find(group, conv, &incoming[i].peer);
		if (number == (uint32_t)NOBODY) {
			tell_of_nobody(events, i);
			continue;
		}
		if (last != number && last != (uint32_t)NOBODY)
			set_timer(group, last, now_ms);
		last = number;
		if (lends)
			lend(group, number);
		take_datagram(group, &incoming[i], i, number, now_ms, events);
	}
	if (last != (uint32_t)NOBODY)
		set_timer(group, last, now_ms);
}

void halo_kcp_group_input(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t count,
			  uint32_t now_ms, struct halo_kcp_events *events)
{
	take_all(group, incoming, count, now_ms, false, events);
}

void halo_kcp_group_borrow(struct halo_kcp_group *group, const struct halo_kcp_incoming *incoming, uint32_t count,
			   uint32_t now_ms, struct halo_kcp_events *events)
{
	halo_kcp_group_settle(group);
	take_all(group, incoming, count, now_ms, true, events);
}

void halo_kcp_group_settle(struct halo_kcp_group *group)
{
	uint32_t i;

	for (i = 0; i < group->borrowers; i++) {
		struct halo_kcp *kcp = group->member[group->borrower[i]].kcp;

		if (kcp)
			halo_session_settle(kcp);
	}
	group->borrowers = 0;
}

static void poll_member(struct halo_kcp_group *group, uint32_t number, uint32_t now_ms, struct halo_kcp_output *output,
			struct halo_kcp_events *events)
{
	struct member *member = &group->member[number];
	bool alive = member->kcp->end == HALO_KCP_ALIVE;
	uint32_t i = output->count;

	halo_kcp_poll(member->kcp, now_ms, output);
	for (; i < output->count; i++)
		output->datagram[i].session = number;
	/* What there is no memory for is told at the next poll: nobody would ask for it. */
	if (member->ends || (alive && member->kcp->end != HALO_KCP_ALIVE))
		member->ends = tell(group, events, number, HALO_KCP_ENDING) == NULL;
	if (member->alarmed && after(now_ms, member->alarm_ms) >= 0)
		member->alarmed = tell(group, events, number, HALO_KCP_ALARM) == NULL;
	tell_wanted(group, events, number);
	/* Not again in this call, whatever it says. */
	set_timer(group, number, now_ms);
	if (group->timer[number].place && after(group->timer[number].due_ms, now_ms) <= 0)
		halo_wheel_set(&group->wheel, group->timer, number, now_ms + 1, now_ms);
}

uint32_t halo_kcp_group_poll(struct halo_kcp_group *group, uint32_t now_ms, struct halo_kcp_output *output,
			     struct halo_kcp_events *events)
{
	uint32_t count = output->count;

	group->call++;
	while (!output->limit || output->count - count < output->limit) {
		uint32_t number = halo_wheel_take(&group->wheel, group->timer, now_ms);

		if (number == (uint32_t)NOBODY)
			break;
		poll_member(group, number, now_ms, output, events);
	}
	return output->count - count;
}

uint32_t halo_kcp_group_next(const struct halo_kcp_group *group, uint32_t now_ms)
{
	return least(halo_wheel_next(&group->wheel, now_ms), HALO_KCP_NO_DEADLINE);
}

void halo_kcp_group_counters(const struct halo_kcp_group *group, struct halo_kcp_counters *counters)
{
	uint32_t number;

	*counters = group->retired;
	for (number = 0; number < group->fresh; number++)
		if (group->member[number].kcp)
			add_counters(counters, &group->member[number].kcp->counters, 1);
}

uint64_t halo_kcp_group_octets(const struct halo_kcp_group *group)
{
	return sizeof(*group) + group->pool.octets +
	       (uint64_t)group->room * (sizeof(*group->member) + sizeof(*group->timer) + sizeof(*group->bucket) +
					sizeof(*group->borrower));
}
