/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets that lie, for the KCP core: datagrams of two sessions that talk are changed on their way to a third, and states are
 * changed between export and import. Whatever they hold, a datagram with a wrong check changes nothing, memory stays within
 * what the windows allow, and what was imported goes on. The sanitizers see the rest.
 *
 *   kcp_fuzz_test [row...]     HALO_KCP_FUZZ is how many inputs each row makes; 20,000 without it
 */
#include <stdlib.h>
#include <string.h>

#include <halo/kcp.h>

#include "check.h"

enum {
	OCTETS = 600, /* of a datagram, after it was changed */
	MTU = 256,
	WINDOW = 32,
	MOST_FRAGMENTS = 8,
	/* A session with full windows: segments of both sides, arrays, acknowledgements. */
	MOST_OCTETS = 2 * WINDOW * (MTU + 128) + 64 * 1024,
};

static const uint64_t CONV = UINT64_C(0xaabbccdd11223344);

struct changed {
	uint8_t octets[OCTETS];
	uint32_t length;
};

static uint32_t inputs(void)
{
	const char *text = getenv("HALO_KCP_FUZZ");

	return text ? (uint32_t)strtoul(text, NULL, 10) : 20000;
}

static struct halo_kcp *new_session(uint32_t format, uint32_t check, uint32_t stream)
{
	struct halo_kcp_settings settings;
	struct halo_kcp *kcp;

	halo_kcp_settings_default(&settings);
	settings.format = format;
	settings.check = check;
	settings.stream = stream;
	settings.mtu = MTU;
	settings.send_window = settings.receive_window = WINDOW;
	settings.most_fragments = MOST_FRAGMENTS;
	settings.nodelay = 1;
	settings.interval_ms = 10;
	settings.resend = 2;
	settings.congestion = HALO_KCP_CONGESTION_NONE;
	settings.dead_link = UINT32_MAX;
	kcp = halo_kcp_create(format == HALO_KCP_HALO ? CONV : (uint32_t)CONV, &settings);
	CHECK(kcp != NULL, "%s", halo_kcp_settings_check(&settings));
	return kcp;
}

static uint8_t interesting(uint64_t *seed)
{
	static const uint8_t values[] = {0, 1, 0x51, 0x52, 0x53, 0x54, 0x7f, 0x80, 0xff};
	uint32_t which = random_below(seed, 2 * sizeof(values));

	return which < sizeof(values) ? values[which] : (uint8_t)random_next(seed);
}

static void change_once(struct changed *it, uint64_t *seed)
{
	uint32_t count;

	switch (it->length ? random_below(seed, 6) : 5) {
	case 0:
		it->octets[random_below(seed, it->length)] ^= (uint8_t)(1 << random_below(seed, 8));
		break;
	case 1:
		it->length = random_below(seed, it->length + 1);
		break;
	case 2:
	case 3: /* in the first header */
		it->octets[random_below(seed, it->length < 32 ? it->length : 32)] = interesting(seed);
		break;
	case 4: /* once more behind itself */
		count = it->length < OCTETS - it->length ? it->length : OCTETS - it->length;
		memcpy(it->octets + it->length, it->octets, count);
		it->length += count;
		break;
	default:
		for (count = random_below(seed, 40); count > 0 && it->length < OCTETS; count--)
			it->octets[it->length++] = interesting(seed);
	}
}

/* One in eight stays what it was. */
static void change(struct changed *it, const struct halo_kcp_datagram *datagram, uint64_t *seed)
{
	uint32_t count = random_below(seed, 8) ? 1 + random_below(seed, 3) : 0;

	it->length = datagram->length;
	memcpy(it->octets, datagram->octets, datagram->length);
	while (count-- > 0)
		change_once(it, seed);
}

/* From a buffer that ends where the datagram ends. */
static int give(struct halo_kcp *kcp, const struct changed *it, uint32_t now_ms)
{
	uint8_t *exact = malloc(it->length ? it->length : 1);
	int verdict;

	memcpy(exact, it->octets, it->length);
	verdict = halo_kcp_input(kcp, exact, it->length, now_ms);
	free(exact);
	return verdict;
}

static void write_some(struct halo_kcp *kcp, uint64_t *seed)
{
	uint8_t message[4 * MTU];
	uint32_t length = 1 + random_below(seed, sizeof(message)), i;

	for (i = 0; i < length; i++)
		message[i] = (uint8_t)random_next(seed);
	if (halo_kcp_waiting(kcp) < 2 * WINDOW)
		CHECK_EQUAL(halo_kcp_send(kcp, message, length), length);
}

static void read_all(struct halo_kcp *kcp)
{
	static uint8_t room[MOST_FRAGMENTS * MTU * 32];
	int64_t length;

	while ((length = halo_kcp_receive(kcp, room, sizeof(room))) >= 0)
		;
}

static void same_info(const struct halo_kcp_info *before, const struct halo_kcp *kcp)
{
	struct halo_kcp_info after;

	halo_kcp_info_read(kcp, &after);
	CHECK(memcmp(before, &after, sizeof(after)) == 0, "a datagram with a wrong check has changed the session");
}

/* Replace the session by what its exported state makes; the other is freed. */
static struct halo_kcp *move_on(struct halo_kcp *kcp)
{
	uint64_t length = halo_kcp_export(kcp, NULL, 0);
	uint8_t *state = malloc(length);
	struct halo_kcp *next;

	CHECK_EQUAL(halo_kcp_export(kcp, state, length), length);
	next = halo_kcp_import(state, length);
	free(state);
	CHECK(next != NULL, "%" PRIu64 " octets of a good state were refused", length);
	halo_kcp_free(kcp);
	return next;
}

struct scene {
	struct halo_kcp *peer;
	struct halo_kcp *victim;
	struct halo_kcp_output output;
	uint64_t seed;
	uint32_t now_ms;
	uint32_t verdict[6]; /* how many of each, -verdict being the place */
};

static void attack_once(struct scene *scene, const struct halo_kcp_datagram *datagram)
{
	struct halo_kcp_info info;
	struct changed it;
	int verdict;

	change(&it, datagram, &scene->seed);
	halo_kcp_info_read(scene->victim, &info);
	verdict = give(scene->victim, &it, scene->now_ms);
	CHECK(verdict <= 0 && verdict >= HALO_KCP_ENDED, "verdict %d", verdict);
	scene->verdict[-verdict]++;
	if (verdict == HALO_KCP_BAD_CHECK)
		same_info(&info, scene->victim);
	halo_kcp_info_read(scene->victim, &info);
	CHECK(info.octets < MOST_OCTETS, "%u octets", info.octets);
}

/* What the peer sends is changed and given to the victim, whose own datagrams the peer gets as they are. Returns how many. */
static uint32_t attack(struct scene *scene)
{
	uint32_t count, i;

	write_some(scene->peer, &scene->seed);
	if (random_below(&scene->seed, 4) == 0)
		write_some(scene->victim, &scene->seed);
	scene->now_ms += random_below(&scene->seed, 30);
	halo_kcp_output_clear(&scene->output);
	count = halo_kcp_poll(scene->peer, scene->now_ms, &scene->output);
	for (i = 0; i < count; i++)
		attack_once(scene, &scene->output.datagram[i]);
	if (random_below(&scene->seed, 2))
		read_all(scene->victim);
	halo_kcp_output_clear(&scene->output);
	for (i = halo_kcp_poll(scene->victim, scene->now_ms, &scene->output); i-- > 0;)
		halo_kcp_input(scene->peer, scene->output.datagram[i].octets, scene->output.datagram[i].length,
			       scene->now_ms);
	read_all(scene->peer);
	if (random_below(&scene->seed, 50) == 0)
		scene->victim = move_on(scene->victim);
	return count;
}

static void close_scene(struct scene *scene)
{
	halo_kcp_free(scene->peer);
	halo_kcp_free(scene->victim);
	halo_kcp_output_free(&scene->output);
}

static void attack_all(uint32_t format, uint32_t check)
{
	struct scene scene = {.seed = 1 + format * 10 + check};
	uint32_t done = 0, age = 0;

	while (done < inputs() / 8) {
		if (age++ % 40 == 0) { /* who believes a wrong una or sn is of no use to the other for long */
			close_scene(&scene);
			scene.peer = new_session(format, check, age % 3 == 0);
			scene.victim = new_session(format, check, age % 3 == 0);
			scene.output = (struct halo_kcp_output){0};
			scene.now_ms = random_below(&scene.seed, 2) ? 0 : UINT32_MAX - 300;
		}
		done += attack(&scene);
	}
	CHECK(scene.verdict[0] > done / 50 && scene.verdict[1] > 0 && scene.verdict[2] > 0 && scene.verdict[3] > 0,
	      "%u, %u, %u, %u", scene.verdict[0], scene.verdict[1], scene.verdict[2], scene.verdict[3]);
	CHECK((scene.verdict[4] > 0) == (check != HALO_KCP_CHECK_OFF), "%u with a wrong check", scene.verdict[4]);
	close_scene(&scene);
}

static void changed_datagrams(void)
{
	uint32_t format, check;

	for (format = HALO_KCP_CLASSIC; format <= HALO_KCP_HALO; format++)
		for (check = HALO_KCP_CHECK_OFF; check <= HALO_KCP_CHECK_XXH3; check++)
			attack_all(format, check);
}

enum { SESSIONS = 8, BURST = 16 };

struct crowd {
	struct halo_kcp_group *group;
	struct halo_kcp *peer[SESSIONS];
	struct halo_kcp_output output;
	struct halo_kcp_events events;
	uint64_t seed;
	uint32_t now_ms;
	uint32_t seen; /* bits of events */
};

static struct halo_kcp_peer address(uint32_t number)
{
	return (struct halo_kcp_peer){.family = 4, .port = (uint16_t)(1000 + number), .address = {192, 0, 2, 1}};
}

/* Sessions of one conv and the next; in the classic format several of one conv, each with its peer. */
static struct halo_kcp *crowd_session(uint32_t format, uint32_t i)
{
	struct halo_kcp *model = new_session(format, HALO_KCP_CHECK_OFF, 0), *kcp;
	struct halo_kcp_settings settings;

	halo_kcp_settings_read(model, &settings);
	kcp = halo_kcp_create(format == HALO_KCP_HALO ? CONV + i : (uint32_t)CONV + i / 4, &settings);
	halo_kcp_free(model);
	CHECK(kcp != NULL, "%u", i);
	return kcp;
}

static void open_crowd(struct crowd *crowd, uint32_t format)
{
	uint32_t i;

	*crowd = (struct crowd){.group = halo_kcp_group_create(format, SESSIONS), .seed = 5 + format};
	for (i = 0; i < SESSIONS; i++) {
		struct halo_kcp_peer peer = address(i);

		crowd->peer[i] = crowd_session(format, i);
		CHECK(halo_kcp_group_add(crowd->group, crowd_session(format, i), &peer, format == HALO_KCP_HALO, 0) >=
			      0,
		      "%u", i);
	}
}

static void close_crowd(struct crowd *crowd)
{
	uint32_t i;

	for (i = 0; i < SESSIONS; i++)
		halo_kcp_free(crowd->peer[i]);
	halo_kcp_group_free(crowd->group);
	halo_kcp_output_free(&crowd->output);
	halo_kcp_events_free(&crowd->events);
}

/* What a peer sends, changed, and from any address. */
static uint32_t gather(struct crowd *crowd, struct changed *store, struct halo_kcp_incoming *incoming)
{
	uint32_t which = random_below(&crowd->seed, SESSIONS), count, i;

	write_some(crowd->peer[which], &crowd->seed);
	halo_kcp_output_clear(&crowd->output);
	count = halo_kcp_poll(crowd->peer[which], crowd->now_ms, &crowd->output);
	count = count < BURST ? count : BURST;
	for (i = 0; i < count; i++) {
		change(&store[i], &crowd->output.datagram[i], &crowd->seed);
		incoming[i] = (struct halo_kcp_incoming){
			.octets = store[i].octets,
			.length = store[i].length,
			.peer = address(random_below(&crowd->seed, 4) ? which
								      : random_below(&crowd->seed, 2 * SESSIONS)),
		};
	}
	return count;
}

static void look_at_events(struct crowd *crowd, uint32_t datagrams)
{
	uint32_t i;

	CHECK(crowd->events.count <= SESSIONS + datagrams, "%u events", crowd->events.count);
	for (i = 0; i < crowd->events.count; i++) {
		const struct halo_kcp_event *event = &crowd->events.event[i];

		crowd->seen |= event->what;
		CHECK(event->what & HALO_KCP_UNKNOWN ? event->session == (uint32_t)HALO_KCP_NO_SESSION
						     : event->session < SESSIONS,
		      "session %u, what %u", event->session, event->what);
		if (event->what & (HALO_KCP_REFUSED | HALO_KCP_UNKNOWN | HALO_KCP_MOVED | HALO_KCP_STRANGER))
			CHECK(event->datagram < datagrams, "%u of %u", event->datagram, datagrams);
		/* One event tells all of a session: the verdict is that of the last datagram it tells of. */
		CHECK(event->verdict <= 0 && event->verdict >= HALO_KCP_ENDED, "%d", event->verdict);
	}
	halo_kcp_events_clear(&crowd->events);
}

static void attack_crowd(uint32_t format)
{
	static uint8_t room[MOST_FRAGMENTS * MTU];
	struct changed store[BURST];
	struct halo_kcp_incoming incoming[BURST];
	struct crowd crowd;
	uint32_t done = 0, all = HALO_KCP_READABLE | HALO_KCP_REFUSED | HALO_KCP_UNKNOWN, i;

	open_crowd(&crowd, format);
	while (done < inputs() / 2) {
		uint32_t count = gather(&crowd, store, incoming);

		if (random_below(&crowd.seed, 2))
			halo_kcp_group_borrow(crowd.group, incoming, count, crowd.now_ms, &crowd.events);
		else
			halo_kcp_group_input(crowd.group, incoming, count, crowd.now_ms, &crowd.events);
		look_at_events(&crowd, count);
		for (i = random_below(&crowd.seed, 2); i < SESSIONS; i++)
			while (halo_kcp_group_receive(crowd.group, i, room, sizeof(room), crowd.now_ms) >= 0)
				;
		halo_kcp_group_settle(crowd.group);
		crowd.now_ms += random_below(&crowd.seed, 40);
		halo_kcp_output_clear(&crowd.output);
		halo_kcp_group_poll(crowd.group, crowd.now_ms, &crowd.output, &crowd.events);
		for (i = 0; i < crowd.output.count; i++)
			halo_kcp_input(crowd.peer[crowd.output.datagram[i].session], crowd.output.datagram[i].octets,
				       crowd.output.datagram[i].length, crowd.now_ms);
		look_at_events(&crowd, 0);
		done += count + 1;
	}
	all |= format == HALO_KCP_HALO ? HALO_KCP_STRANGER | HALO_KCP_MOVED : 0;
	CHECK((crowd.seen & all) == all, "%#x of %#x were seen", crowd.seen, all);
	close_crowd(&crowd);
}

static void changed_datagrams_for_a_group(void)
{
	attack_crowd(HALO_KCP_CLASSIC);
	attack_crowd(HALO_KCP_HALO);
}

/* Two sessions in the middle of something: what is exported then has all that a state can have. */
static struct halo_kcp *busy_session(struct scene *scene, uint32_t format)
{
	uint32_t i;

	*scene = (struct scene){.peer = new_session(format, HALO_KCP_CHECK_CRC32, 0),
				.victim = new_session(format, HALO_KCP_CHECK_CRC32, 0),
				.seed = 77};
	for (i = 0; i < 40; i++)
		attack(scene);
	write_some(scene->victim, &scene->seed);
	return scene->victim;
}

/* Whatever was imported can be used: nothing of it is believed. */
static void use(struct halo_kcp *kcp, struct scene *scene)
{
	const uint8_t nothing[64] = {0};
	uint32_t i;

	for (i = 0; i < 5; i++) {
		halo_kcp_output_clear(&scene->output);
		halo_kcp_poll(kcp, scene->now_ms + 50 * i, &scene->output);
		halo_kcp_next(kcp, scene->now_ms + 50 * i);
		halo_kcp_input(kcp, nothing, sizeof(nothing), scene->now_ms + 50 * i);
		read_all(kcp);
		if (halo_kcp_waiting(kcp) < 2 * WINDOW)
			halo_kcp_send(kcp, nothing, sizeof(nothing));
	}
}

static void changed_states(void)
{
	struct scene scene;
	uint32_t refused = 0, i;

	for (i = 0; i < inputs() / 10; i++) {
		uint64_t length;
		uint8_t *state;
		struct halo_kcp *kcp;
		uint32_t turns;

		if (i % 500 == 0) {
			if (i > 0)
				close_scene(&scene);
			busy_session(&scene, i / 500 % 2);
		}
		length = halo_kcp_export(scene.victim, NULL, 0);
		state = malloc(length);
		halo_kcp_export(scene.victim, state, length);
		for (turns = random_below(&scene.seed, 4); turns > 0; turns--)
			state[random_below(&scene.seed, random_below(&scene.seed, 2) ? 200 : (uint32_t)length)] =
				interesting(&scene.seed);
		if (random_below(&scene.seed, 5) == 0) {
			length = random_below(&scene.seed, (uint32_t)length + 1);
			state = realloc(state, length ? length : 1);
		}
		kcp = halo_kcp_import(state, length);
		free(state);
		refused += kcp == NULL;
		if (kcp)
			use(kcp, &scene);
		halo_kcp_free(kcp);
	}
	close_scene(&scene);
	CHECK(refused > i / 4 && refused < i, "%u of %u were refused", refused, i);
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"changed_datagrams", changed_datagrams},
		{"changed_datagrams_for_a_group", changed_datagrams_for_a_group},
		{"changed_states", changed_states},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
