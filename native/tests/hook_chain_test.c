/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks in the line: what each verdict means at each stage, what a hook may change, and that the books balance whatever it does. Each
 * row runs twice, with a native hook and with one of Python's, whose part the test plays.
 */
#include <errno.h>

#include <halo/fastpath.h>

#include "rig.h"

enum {
	INSIDE = 0,  /* 10.0.0.1/24 on port 0 */
	OUTSIDE = 1, /* 10.1.0.1/24 on port 1 */
	TAGGED = 2,  /* 10.2.0.1/24 on port 1, VLAN 77 */
	LINKS = 3,
};

#define HOST IPV4(10, 1, 0, 2)
#define OTHER IPV4(10, 2, 0, 2)

typedef void (*script)(struct halo_packet *packet, uint8_t *frame);

static const uint8_t host_mac[6] = {0x02, 0xcc, 0, 0, 0, 9};
static const uint8_t other_mac[6] = {0x02, 0xcc, 0, 0, 0, 10};
static struct link links[LINKS];
static struct plan plan;
static struct frame frame, expected;
static bool in_python; /* which of the two runs this is */
static script act[HALO_MAX_HOOKS];
static uint32_t shown, calls;
static int64_t answer;

/* ---- hooks ---------------------------------------------------------------------------------------------------- */

static void run_script(script script, struct halo_packet *packets, int64_t count)
{
	int64_t i;

	calls++;
	for (i = 0; i < count; i++, shown++) {
		CHECK_EQUAL(packets[i].verdict, HALO_VERDICT_NONE);
		script(&packets[i], rig.pool + packets[i].offset);
	}
}

/* Native hooks know nothing but their packets: one function for each number. */
#define NATIVE(number)                                                                            \
	static int64_t native_##number(struct halo_packet *packets, int64_t count, uint8_t *pool) \
	{                                                                                         \
		CHECK(pool == rig.pool);                                                          \
		run_script(act[number], packets, count);                                          \
		return answer;                                                                    \
	}
NATIVE(0)
NATIVE(1)
NATIVE(2)
NATIVE(3)
static const halo_hook_function native[] = {native_0, native_1, native_2, native_3};

static uint32_t add_at(uint32_t stage, script script, int32_t priority, uint64_t ports, uint32_t interface,
		       uint32_t on_error)
{
	struct halo_hook_setup setup = {.name = "a hook",
					.stage = stage,
					.priority = priority,
					.ports = ports,
					.interface = interface,
					.on_error = on_error};
	int number = halo_worker_add_hook(rig.worker, &setup);

	CHECK(number >= 0 && number < 4);
	act[number] = script;
	if (!in_python)
		CHECK_EQUAL(halo_worker_set_hook_function(rig.worker, (uint32_t)number, native[number]), 0);
	return (uint32_t)number;
}

static uint32_t add(uint32_t stage, script script)
{
	return add_at(stage, script, 0, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
}

/* Poll until the burst is through, and answer for Python. */
static uint32_t poll_through(void)
{
	uint32_t reasons = rig_poll();

	while (reasons & HALO_POLL_HOOK) {
		CHECK(in_python);
		CHECK_EQUAL(halo_worker_parked(rig.worker), rig.result.hook_count);
		CHECK_EQUAL(rig.result.punt_count, 0);
		run_script(act[rig.result.hook], rig.result.hook_packets, rig.result.hook_count);
		reasons = rig_poll();
	}
	CHECK_EQUAL(halo_worker_parked(rig.worker), 0);
	CHECK_EQUAL(rig.result.hook_count, 0);
	return reasons;
}

static void run(void)
{
	rig_deliver(&frame, 0, 0);
	poll_through();
	rig_collect();
}

static uint64_t dropped(enum halo_drop reason)
{
	return rig.slot->worker.drops[reason];
}

static const struct halo_hook_counters *counters(uint32_t number)
{
	return &rig.slot->hook[number];
}

/* ---- the scene ------------------------------------------------------------------------------------------------ */

static void set_links(void)
{
	uint32_t i;

	for (i = 0; i < LINKS; i++) {
		links[i] = rig_interface;
		links[i].flags |= HALO_INTERFACE_FORWARD;
		links[i].address = IPV4(10, i, 0, 1);
		links[i].port = i != INSIDE;
		links[i].mac[5] = (uint8_t)(1 + links[i].port);
	}
	links[TAGGED].vlan = 77;
}

/* The checksum of UDP and TCP, from its definition. */
static void seal_transport(void)
{
	uint32_t l3 = frame_l3(&frame), header = (frame.octets[l3] & 15u) * 4;
	uint32_t octets = frame_ip_length(&frame) - header, at = plan.protocol == UDP ? 6 : 16;
	uint8_t *l4 = frame.octets + l3 + header, covered[FRAME_ROOM + 12];
	uint16_t checksum;

	if ((plan.protocol != UDP && plan.protocol != TCP) || octets < at + 2 || (plan.fragment & 0x1fff))
		return;
	put16(l4 + at, 0);
	memcpy(covered, frame.octets + l3 + 12, 8);
	put16(covered + 8, plan.protocol);
	put16(covered + 10, octets);
	memcpy(covered + 12, l4, octets);
	checksum = reference_checksum(covered, octets + 12);
	put16(l4 + at, checksum || plan.protocol == TCP ? checksum : 0xffff);
}

static void make(void)
{
	frame_make(&plan, &frame);
	if (plan.ethertype == TYPE_IPV4)
		seal_transport();
}

static void open_router(void)
{
	set_links();
	plan = echo;
	plan.dst = HOST;
	plan.protocol = UDP;
	plan.src_port = 1000;
	plan.dst_port = 2000;
	rig_open(links, LINKS);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REACHABLE), 0);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, TAGGED, OTHER, other_mac, HALO_NEIGHBOR_REACHABLE), 0);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, INSIDE, PEER_ADDRESS, host_mac, HALO_NEIGHBOR_REACHABLE), 0);
	make();
	shown = calls = 0;
	answer = 0;
}

/* For a message: some drop that was counted. */
static const char *only_drop(void)
{
	uint32_t i;

	for (i = 0; i < HALO_DROP_COUNT; i++)
		if (rig.slot->worker.drops[i])
			return halo_drop_name(i);
	return "no drop";
}

static void check_returned(uint32_t action, uint32_t port)
{
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK(rig.returned[0].descriptor.flags == action, "%s", only_drop());
	CHECK_EQUAL(rig.returned[0].descriptor.port, port);
}

static void check_octets(const struct frame *wanted)
{
	uint32_t i;

	CHECK_EQUAL(rig.returned[0].descriptor.length, wanted->length);
	for (i = 0; i < wanted->length; i++)
		CHECK(rig.returned[0].octets[i] == wanted->octets[i], "octet %u is %02x, not %02x", i,
		      rig.returned[0].octets[i], wanted->octets[i]);
}

static void check_sent(uint32_t interface, const uint8_t *mac)
{
	const struct link *out = &links[interface];

	check_returned(HALO_ACTION_TRANSMIT, out->port);
	frame_forwarded(&frame, mac, out->mac, out->vlan ? out->vlan : NO_VLAN, &expected);
	check_octets(&expected);
}

static void check_drop(enum halo_drop reason, uint64_t times)
{
	check_returned(HALO_ACTION_RELEASE, 0);
	CHECK(dropped(reason) == times, "%s", only_drop());
}

/* ---- verdicts ------------------------------------------------------------------------------------------------- */

static void do_nothing(struct halo_packet *packet, uint8_t *octets)
{
	(void)packet, (void)octets;
}

static void do_drop(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->verdict = HALO_VERDICT_DROP;
}

static void pass(void)
{
	uint32_t stage;

	open_router();
	for (stage = 0; stage < HALO_STAGE_COUNT; stage++)
		add(stage, do_nothing);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(shown, 3);
	CHECK_EQUAL(calls, 3);
	CHECK_EQUAL(rig.slot->worker.forwarded, 1);
	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		CHECK_EQUAL(counters(stage)->calls, 1);
		CHECK_EQUAL(counters(stage)->packets, 1);
		CHECK_EQUAL(counters(stage)->dropped + counters(stage)->rewritten + counters(stage)->errors, 0);
		CHECK_EQUAL(counters(stage)->state, HALO_HOOK_ACTIVE);
		CHECK_EQUAL(counters(stage)->stage, stage);
	}
	rig_close();
}

static void drop(void)
{
	uint32_t stage;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		open_router();
		add(stage, do_drop);
		run();
		check_drop(HALO_DROP_hook_drop, 1);
		CHECK_EQUAL(counters(0)->dropped, 1);
		CHECK_EQUAL(rig.slot->worker.forwarded, 0);
		rig_close();
	}
}

static uint8_t wanted_verdict, wanted_reason;
static uint16_t wanted_port;

static void do_verdict(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->verdict = wanted_verdict;
	packet->reason = wanted_reason;
	packet->tx_port = wanted_port;
}

/* One frame past a hook at that stage that says so. */
static void run_verdict(uint32_t stage, uint8_t verdict, uint8_t reason, uint16_t port, uint32_t on_error)
{
	open_router();
	wanted_verdict = verdict;
	wanted_reason = reason;
	wanted_port = port;
	add_at(stage, do_verdict, 0, 0, HALO_NO_INTERFACE, on_error);
	run();
	CHECK_EQUAL(shown, 1);
}

static void verdicts(void)
{
	uint32_t stage;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		run_verdict(stage, HALO_VERDICT_DROP, HALO_DROP_app_drop, 0, HALO_HOOK_DROP);
		check_drop(HALO_DROP_app_drop, 1);
		rig_close();
		run_verdict(stage, HALO_VERDICT_DROP, 250, 0, HALO_HOOK_DROP); /* no such reason */
		check_drop(HALO_DROP_hook_error, 1);
		CHECK_EQUAL(counters(0)->errors, 1);
		rig_close();
		run_verdict(stage, HALO_VERDICT_CONSUME, 0, 0, HALO_HOOK_DROP);
		check_returned(HALO_ACTION_RELEASE, 0);
		CHECK_EQUAL(rig.slot->worker.consumed, 1);
		CHECK_EQUAL(rig.slot->worker.forwarded, 0);
		rig_close();
		run_verdict(stage, HALO_VERDICT_TRANSMIT, 0, 5, HALO_HOOK_DROP);
		check_returned(HALO_ACTION_TRANSMIT, 5);
		CHECK_EQUAL(rig.slot->worker.tx_frames, 1);
		if (stage != HALO_STAGE_EGRESS)
			check_octets(&frame); /* as it is */
		rig_close();
		run_verdict(stage, HALO_VERDICT_PUNT, 0, 0, HALO_HOOK_DROP);
		CHECK_EQUAL(rig.result.punt_count, 1);
		CHECK_EQUAL(rig.slot->worker.held, 1);
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
		rig_close();
	}
}

static void verdicts_that_there_are_not(void)
{
	static const uint8_t none[] = {HALO_VERDICT_HAND, HALO_VERDICT_DELIVER, HALO_VERDICT_RAW, 8, 254};
	uint32_t stage, i;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		for (i = 0; i < sizeof(none); i++) {
			run_verdict(stage, none[i], 0, 0, HALO_HOOK_PASS);
			check_drop(HALO_DROP_hook_error, 1);
			CHECK_EQUAL(counters(0)->errors, 1);
			CHECK_EQUAL(counters(0)->dropped, 1);
			rig_close();
		}
		run_verdict(stage, HALO_VERDICT_TRANSMIT, 0, HALO_MAX_PORTS, HALO_HOOK_PASS);
		check_drop(HALO_DROP_hook_error, 1);
		rig_close();
	}
	run_verdict(HALO_STAGE_INGRESS, HALO_VERDICT_NONE, 0, 5,
		    HALO_HOOK_PASS); /* a port, but not the verdict for it */
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void failures(void)
{
	uint32_t stage;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		run_verdict(stage, HALO_VERDICT_ERROR, 0, 0, HALO_HOOK_DROP);
		check_drop(HALO_DROP_hook_error, 1);
		CHECK_EQUAL(counters(0)->errors, 1);
		rig_close();
		run_verdict(stage, HALO_VERDICT_ERROR, 0, 0, HALO_HOOK_PASS);
		check_sent(OUTSIDE, host_mac);
		CHECK_EQUAL(counters(0)->errors, 1);
		CHECK_EQUAL(counters(0)->dropped, 0);
		CHECK_EQUAL(halo_worker_count_hook_errors(rig.worker, 0, 2), 0);
		CHECK_EQUAL(counters(0)->errors, 3);
		rig_close();
	}
	if (in_python)
		return;
	open_router(); /* a native hook that says of a whole burst that it failed */
	answer = -1;
	add(HALO_STAGE_INGRESS, do_nothing);
	run();
	check_drop(HALO_DROP_hook_error, 1);
	rig_close();
}

/* A hook that fails half through has changed nothing, but for octets that it wrote into the frame itself. */
static void do_fail_half_through(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->dst[0] = OTHER;
	packet->ttl = 1;
	packet->interface = 4000;
	packet->offset = UINT32_MAX;
	packet->verdict = HALO_VERDICT_ERROR;
}

static void failure_undone(void)
{
	open_router();
	add_at(HALO_STAGE_FORWARD, do_fail_half_through, 0, 0, HALO_NO_INTERFACE, HALO_HOOK_PASS);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(counters(0)->rewritten, 0);
	rig_close();
}

/* ---- several -------------------------------------------------------------------------------------------------- */

static uint32_t seen[8], seen_count;

static void see_first(struct halo_packet *packet, uint8_t *octets)
{
	(void)packet, (void)octets;
	seen[seen_count++ % 8] = 1;
}

static void see_second(struct halo_packet *packet, uint8_t *octets)
{
	(void)packet, (void)octets;
	seen[seen_count++ % 8] = 2;
}

static void see_third(struct halo_packet *packet, uint8_t *octets)
{
	(void)packet, (void)octets;
	seen[seen_count++ % 8] = 3;
}

static void order(void)
{
	open_router();
	seen_count = 0;
	add_at(HALO_STAGE_INGRESS, see_third, 7, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_INGRESS, see_first, -3, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_INGRESS, see_second, -3, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	run();
	CHECK_EQUAL(seen_count, 3);
	CHECK(seen[0] == 1 && seen[1] == 2 && seen[2] == 3, "%u %u %u", seen[0], seen[1], seen[2]);
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void decided_is_not_shown_again(void)
{
	open_router();
	seen_count = 0;
	add_at(HALO_STAGE_INGRESS, do_drop, 0, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_INGRESS, see_second, 1, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	run();
	check_drop(HALO_DROP_hook_drop, 1);
	CHECK_EQUAL(seen_count, 0);
	rig_close();
}

static void do_mark_and_drop_odd(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	CHECK_EQUAL(packet->mark, 0);
	packet->mark = 7;
	if (packet->src_port & 1)
		packet->verdict = HALO_VERDICT_DROP;
}

static void do_check_mark(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	CHECK_EQUAL(packet->mark, 7);
	CHECK_EQUAL(packet->src_port & 1, 0);
}

/* What is left of a burst lies in no row any more: the next hooks get copies, and what they write counts. */
static void do_rewrite_even(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->dst_port = (uint16_t)(packet->src_port + 1);
}

static void gathered(void)
{
	uint32_t i, ports = 0;

	open_router();
	add_at(HALO_STAGE_INGRESS, do_mark_and_drop_odd, 0, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_INGRESS, do_check_mark, 1, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_FORWARD, do_rewrite_even, 1, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	for (i = 0; i < 40; i++) {
		plan.src_port = (uint16_t)i;
		make();
		rig_deliver(&frame, 0, 0);
	}
	poll_through();
	rig_collect();
	CHECK_EQUAL(dropped(HALO_DROP_hook_drop), 20);
	CHECK_EQUAL(counters(1)->packets, 20);
	CHECK_EQUAL(counters(2)->rewritten, 20);
	CHECK_EQUAL(rig.slot->worker.forwarded, 20);
	for (i = 0; i < rig.returned_count; i++) {
		const uint8_t *udp = rig.returned[i].octets + 34;

		if (rig.returned[i].descriptor.flags != HALO_ACTION_TRANSMIT)
			continue;
		CHECK_EQUAL(udp[1] + 1, udp[3]);
		ports += udp[1];
	}
	CHECK_EQUAL(ports, 380);
	rig_close();
}

static void only_some(void)
{
	open_router();
	add_at(HALO_STAGE_INGRESS, do_drop, 0, UINT64_C(1) << 1, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	add_at(HALO_STAGE_FORWARD, do_drop, 0, 0, TAGGED, HALO_HOOK_DROP);
	add_at(HALO_STAGE_EGRESS, do_drop, 0, UINT64_C(1) << 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(shown, 0);
	CHECK_EQUAL(halo_worker_set_hook_interface(rig.worker, 1, INSIDE), 0);
	run();
	check_drop(HALO_DROP_hook_drop, 1);
	CHECK_EQUAL(counters(1)->packets, 1);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 1), 0);
	add_at(HALO_STAGE_EGRESS, do_drop, 0, UINT64_C(1) << 1, OUTSIDE, HALO_HOOK_DROP);
	run();
	check_drop(HALO_DROP_hook_drop, 2);
	rig_close();
}

static void limits(void)
{
	struct halo_hook_setup setup = {.name = "one of many", .interface = HALO_NO_INTERFACE};
	uint32_t i;

	open_router();
	for (i = 0; i < HALO_MAX_HOOKS; i++)
		CHECK_EQUAL(halo_worker_add_hook(rig.worker, &setup), i);
	CHECK_EQUAL(halo_worker_add_hook(rig.worker, &setup), -ENOSPC);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 9), 0);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 9), -ENOENT);
	CHECK_EQUAL(counters(9)->state, HALO_HOOK_REMOVED);
	CHECK_EQUAL(halo_worker_add_hook(rig.worker, &setup), 9);
	setup.stage = HALO_STAGE_TX;
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 3), 0);
	CHECK_EQUAL(halo_worker_add_hook(rig.worker, &setup), -EINVAL);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, HALO_MAX_HOOKS), -ENOENT);
	CHECK_EQUAL(halo_worker_set_hook_function(rig.worker, 3, native_0), -ENOENT);
	CHECK_EQUAL(halo_worker_set_hook_interface(rig.worker, 3, 0), -ENOENT);
	CHECK_EQUAL(halo_worker_quarantine_hook(rig.worker, 3, HALO_HOOK_DROP), -ENOENT);
	CHECK_EQUAL(halo_worker_quarantine_hook(rig.worker, 4, 2), -EINVAL);
	CHECK_EQUAL(halo_worker_count_hook_errors(rig.worker, HALO_MAX_HOOKS, 1), -ENOENT);
	rig_close();
}

static void in_quarantine(void)
{
	open_router();
	add(HALO_STAGE_FORWARD, do_drop);
	CHECK_EQUAL(halo_worker_quarantine_hook(rig.worker, 0, HALO_HOOK_PASS), 0);
	CHECK_EQUAL(counters(0)->state, HALO_HOOK_QUARANTINED);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(halo_worker_quarantine_hook(rig.worker, 0, HALO_HOOK_DROP), 0);
	run();
	check_drop(HALO_DROP_hook_quarantined, 1);
	CHECK_EQUAL(shown, 0);
	CHECK_EQUAL(halo_worker_set_hook_function(rig.worker, 0, in_python ? NULL : native_0), 0);
	run();
	check_drop(HALO_DROP_hook_drop, 1);
	CHECK_EQUAL(shown, 1);
	rig_close();
}

/* ---- rewriting ------------------------------------------------------------------------------------------------ */

static void do_redirect(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->dst[0] = OTHER;
}

static void redirected(void)
{
	uint32_t stage;

	for (stage = HALO_STAGE_INGRESS; stage <= HALO_STAGE_FORWARD; stage++) {
		open_router();
		add(stage, do_redirect);
		run();
		plan.dst = OTHER;
		make();
		check_sent(TAGGED, other_mac);
		CHECK_EQUAL(counters(0)->rewritten, 1);
		CHECK_EQUAL(rig.slot->worker.forwarded, 1);
		rig_close();
	}
}

static void do_everything(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->src[0] = IPV4(172, 16, 9, 9);
	packet->ttl = 200;
	packet->tos = 0x2e;
	packet->src_port = 4242;
	packet->dst_port = 53;
}

static void rewritten(void)
{
	uint32_t protocol, stage;

	for (protocol = TCP; protocol <= UDP; protocol += UDP - TCP) {
		for (stage = HALO_STAGE_INGRESS; stage <= HALO_STAGE_FORWARD; stage++) {
			open_router();
			plan.protocol = (uint8_t)protocol;
			make();
			add(stage, do_everything);
			run();
			plan.src = IPV4(172, 16, 9, 9);
			plan.ttl = 200;
			plan.tos = 0x2e;
			plan.src_port = 4242;
			plan.dst_port = 53;
			make();
			check_sent(OUTSIDE, host_mac);
			rig_close();
		}
	}
}

/* A source of our own, as translating addresses needs, is no forgery behind the checks. */
static void do_masquerade(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->src[0] = links[OUTSIDE].address;
}

static void own_source(void)
{
	open_router();
	add(HALO_STAGE_FORWARD, do_masquerade);
	run();
	plan.src = links[OUTSIDE].address;
	make();
	check_sent(OUTSIDE, host_mac);
	rig_close();
	open_router();
	add(HALO_STAGE_INGRESS, do_masquerade);
	run();
	check_drop(HALO_DROP_ipv4_martian, 1);
	rig_close();
}

static void do_send_to_us(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->dst[0] = OWN_ADDRESS;
}

static void becomes_local(void)
{
	open_router();
	plan.protocol = ICMP;
	make();
	add(HALO_STAGE_FORWARD, do_send_to_us);
	run();
	check_returned(HALO_ACTION_TRANSMIT, 0);
	CHECK_EQUAL(rig.slot->worker.echo_replies, 1);
	CHECK_EQUAL(rig.slot->worker.forwarded, 0);
	rig_close();
}

static uint32_t wanted_dst;

static void do_send_to(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->dst[0] = wanted_dst;
}

static void to_nowhere(void)
{
	static const struct {
		uint32_t dst;
		enum halo_drop reason;
	} ends[] = {
		{IPV4(127, 0, 0, 1), HALO_DROP_ipv4_martian},
		{IPV4(250, 0, 0, 1), HALO_DROP_ipv4_martian},
		{IPV4(224, 0, 0, 1), HALO_DROP_l2_multicast},
		{IPV4(169, 254, 0, 1), HALO_DROP_ipv4_link_local},
		{IPV4(10, 2, 0, 255), HALO_DROP_ipv4_directed_broadcast},
	};
	uint32_t i;

	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		open_router();
		wanted_dst = ends[i].dst;
		add(HALO_STAGE_FORWARD, do_send_to);
		run();
		check_drop(ends[i].reason, 1);
		rig_close();
	}
	open_router();
	wanted_dst = IPV4(203, 0, 113, 1); /* no route: Python tells the sender */
	add(HALO_STAGE_FORWARD, do_send_to);
	run();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, HALO_DROP_ipv4_no_route), 0);
	rig_close();
}

static void do_expire(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->ttl = 1;
}

static void expires(void)
{
	open_router();
	add(HALO_STAGE_FORWARD, do_expire);
	run();
	CHECK_EQUAL(rig.result.punt_count, 1); /* Python tells the sender */
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, HALO_DROP_ipv4_ttl), 0);
	rig_close();
}

/* Fields that are not the hook's are put back, whatever was written there. */
static void do_scribble(struct halo_packet *packet, uint8_t *octets)
{
	struct halo_packet kept = *packet;

	(void)octets;
	memset(packet, 0xa5, sizeof(*packet));
	packet->verdict = HALO_VERDICT_NONE;
	packet->offset = kept.offset;
	packet->length = kept.length;
	packet->src[0] = kept.src[0];
	packet->dst[0] = kept.dst[0];
	packet->src_port = kept.src_port;
	packet->dst_port = kept.dst_port;
	packet->ttl = kept.ttl;
	packet->tos = kept.tos;
	packet->rewritten = 0;
}

static void scribbled(void)
{
	uint32_t stage;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		open_router();
		add(stage, do_scribble);
		run();
		check_sent(OUTSIDE, host_mac);
		CHECK_EQUAL(counters(0)->rewritten, 0);
		rig_close();
	}
}

/* ---- octets ---------------------------------------------------------------------------------------------------- */

static void do_write_address(struct halo_packet *packet, uint8_t *octets)
{
	uint8_t *ip = octets + packet->l3_offset;

	put32(ip + 16, OTHER);
	halo_packets_update_checksums(rig.pool, &rig.slot->geometry.pool, packet, 1);
}

static void do_write_address_unseen(struct halo_packet *packet, uint8_t *octets)
{
	do_write_address(packet, octets);
	packet->rewritten = 0; /* it is noticed all the same */
}

static void octets_are_routed(void)
{
	static const script scripts[] = {do_write_address, do_write_address_unseen};
	uint32_t i, stage;

	for (i = 0; i < 2; i++) {
		for (stage = HALO_STAGE_INGRESS; stage <= HALO_STAGE_FORWARD; stage++) {
			open_router();
			add(stage, scripts[i]);
			run();
			plan.dst = OTHER;
			make();
			check_sent(TAGGED, other_mac);
			CHECK_EQUAL(counters(0)->rewritten, 1);
			rig_close();
		}
	}
}

static void do_break(struct halo_packet *packet, uint8_t *octets)
{
	octets[packet->l3_offset + 8] ^= 0x55; /* a TTL that its checksum does not know */
}

static void broken_octets(void)
{
	uint32_t stage;

	for (stage = 0; stage < HALO_STAGE_COUNT; stage++) {
		open_router();
		add(stage, do_break);
		run();
		check_drop(HALO_DROP_ipv4_checksum, 1);
		rig_close();
	}
}

static void do_become_arp(struct halo_packet *packet, uint8_t *octets)
{
	put16(octets + 12, TYPE_ARP);
	packet->rewritten = 1;
}

static void no_packet_any_more(void)
{
	open_router();
	add(HALO_STAGE_FORWARD, do_become_arp);
	run();
	check_drop(HALO_DROP_ethertype_unknown, 1);
	rig_close();
}

static void do_payload(struct halo_packet *packet, uint8_t *octets)
{
	memset(octets + packet->l4_offset + 8, 0, packet->ip_length - 28u);
	halo_packets_update_checksums(rig.pool, &rig.slot->geometry.pool, packet, 1);
}

static void payload(void)
{
	static const uint8_t protocols[] = {ICMP, TCP, UDP};
	uint32_t i, l3;

	for (i = 0; i < sizeof(protocols); i++) {
		open_router();
		plan.protocol = protocols[i];
		plan.data_octets = 101;
		make();
		add(HALO_STAGE_EGRESS, do_payload);
		run();
		check_returned(HALO_ACTION_TRANSMIT, 1);
		l3 = frame_l3(&frame);
		CHECK_EQUAL(reference_checksum(rig.returned[0].octets + l3, 20), 0);
		if (protocols[i] == ICMP)
			CHECK_EQUAL(reference_checksum(rig.returned[0].octets + l3 + 20, frame_ip_length(&frame) - 20),
				    0);
		CHECK_EQUAL(counters(0)->rewritten, 1);
		rig_close();
	}
}

static int32_t moved_start, moved_end;

static void do_move(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	packet->offset = (uint32_t)((int32_t)packet->offset + moved_start);
	packet->length = (uint16_t)((int32_t)packet->length - moved_start + moved_end);
}

static void moved(int32_t start, int32_t end, enum halo_drop reason)
{
	open_router();
	plan.data_octets = 100;
	make();
	moved_start = start;
	moved_end = end;
	rig_expose_all();
	add(HALO_STAGE_INGRESS, do_move);
	run();
	check_drop(reason, 1);
	rig_close();
}

static void lengths(void)
{
	open_router();
	plan.data_octets = 100;
	make();
	rig_expose_all();
	moved_start = 0;
	moved_end = 30; /* octets behind the packet: they do not go on */
	add(HALO_STAGE_INGRESS, do_move);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(rig.slot->worker.rx_octets, frame.length);
	rig_close();
	moved(0, -30, HALO_DROP_ipv4_total_length);
	moved(0, -130, HALO_DROP_hook_error); /* no frame */
	moved(0, 3000, HALO_DROP_hook_error);
	moved(-4096, 0, HALO_DROP_hook_error);
	moved(RIG_STRIDE, RIG_STRIDE, HALO_DROP_hook_error); /* somebody else's buffer */
	moved(INT32_MAX / 2, INT32_MAX / 2, HALO_DROP_hook_error);
}

/* An outer header, pushed in front: the packet is another one. */
static void do_encapsulate(struct halo_packet *packet, uint8_t *octets)
{
	uint8_t *front = octets - 20, *ip = front + 14;

	memmove(front, octets, 14);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, packet->ip_length + 20u);
	ip[8] = 64;
	ip[9] = 4;
	put32(ip + 12, packet->src[0]);
	put32(ip + 16, OTHER);
	put16(ip + 10, reference_checksum(ip, 20));
	packet->offset -= 20;
	packet->length = (uint16_t)(packet->length + 20);
}

static void encapsulated(void)
{
	open_router();
	rig_expose_all();
	add(HALO_STAGE_FORWARD, do_encapsulate);
	run();
	check_returned(HALO_ACTION_TRANSMIT, 1);
	CHECK_EQUAL(rig.returned[0].descriptor.length, frame_ip_length(&frame) + 20 + 18);
	CHECK(memcmp(rig.returned[0].octets, other_mac, 6) == 0);
	CHECK_EQUAL(rig.returned[0].octets[18 + 8], 63);
	CHECK(memcmp(rig.returned[0].octets + 18 + 20, frame.octets + 14, frame_ip_length(&frame)) == 0);
	rig_close();
}

/* ---- stages --------------------------------------------------------------------------------------------------- */

static struct halo_packet shown_packet;

static void do_look(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	shown_packet = *packet;
}

static void what_ingress_sees(void)
{
	open_router();
	add(HALO_STAGE_INGRESS, do_look);
	run();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(shown_packet.interface, INSIDE);
	CHECK_EQUAL(shown_packet.port, 0);
	CHECK_EQUAL(shown_packet.src[0], plan.src);
	CHECK_EQUAL(shown_packet.dst[0], plan.dst);
	CHECK_EQUAL(shown_packet.src_port, 1000);
	CHECK_EQUAL(shown_packet.ttl, plan.ttl);
	plan.ethertype = TYPE_ARP;
	make();
	run();
	CHECK_EQUAL(shown_packet.ethertype, TYPE_ARP);
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_deliver(&frame, 0, HALO_DESCRIPTOR_HANDED); /* shown at the worker that handed it */
	rig_poll();
	CHECK_EQUAL(shown, 2);
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

static void what_forward_sees(void)
{
	open_router();
	add(HALO_STAGE_FORWARD, do_look);
	plan.dst = OTHER;
	make();
	run();
	check_sent(TAGGED, other_mac);
	CHECK_EQUAL(shown_packet.interface, INSIDE);
	CHECK_EQUAL(shown_packet.tx_interface, TAGGED);
	CHECK_EQUAL(shown_packet.tx_port, 1);
	CHECK_EQUAL(shown_packet.next_hop, OTHER);
	CHECK_EQUAL(shown_packet.ttl, plan.ttl);
	plan.protocol = ICMP;
	plan.dst = OWN_ADDRESS; /* for us: not forwarded */
	make();
	run();
	CHECK_EQUAL(rig.slot->worker.echo_replies, 1);
	CHECK_EQUAL(shown, 1);
	rig_close();
}

/* A packet with a record route is Python's to send on: no way around the hooks. */
static void options_are_shown(void)
{
	static const uint8_t record_route[] = {7, 7, 4, 0, 0, 0, 0, 0};

	open_router();
	plan.option_words = 2;
	memcpy(plan.options, record_route, sizeof(record_route));
	make();
	add(HALO_STAGE_FORWARD, do_look);
	run();
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(shown_packet.tx_interface, OUTSIDE);
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_check_books();
	add(HALO_STAGE_FORWARD, do_drop);
	run();
	check_drop(HALO_DROP_hook_drop, 1);
	rig_close();
}

static void what_egress_sees(void)
{
	open_router();
	add(HALO_STAGE_EGRESS, do_look);
	plan.dst = OTHER;
	make();
	run();
	check_sent(TAGGED, other_mac);
	CHECK_EQUAL(shown_packet.tx_port, 1);
	CHECK_EQUAL(shown_packet.tx_interface, TAGGED);
	CHECK_EQUAL(shown_packet.vlan, 77);
	CHECK_EQUAL(shown_packet.ttl, plan.ttl - 1);
	CHECK_EQUAL(shown_packet.length, frame.length + 4);
	plan.protocol = ICMP;
	plan.dst = OWN_ADDRESS;
	make();
	run();
	CHECK_EQUAL(rig.slot->worker.echo_replies, 1);
	CHECK_EQUAL(shown, 2);
	CHECK_EQUAL(shown_packet.src[0], OWN_ADDRESS);
	CHECK_EQUAL(shown_packet.dst[0], plan.src);
	rig_close();
}

static void egress_sees_what_python_sends(void)
{
	open_router();
	rig_give_spares(2);
	add(HALO_STAGE_EGRESS, do_look);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 1, frame.octets, frame.length), 0);
	CHECK_EQUAL(rig.slot->worker.originated, 1);
	CHECK_EQUAL(rig.slot->worker.held, 1);
	CHECK_EQUAL(halo_worker_held(rig.worker), 0);
	poll_through();
	rig_collect();
	check_returned(HALO_ACTION_TRANSMIT, 1);
	check_octets(&frame);
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(shown_packet.tx_port, 1);
	CHECK_EQUAL(shown_packet.injected, 1 + HALO_STAGE_EGRESS);
	CHECK_EQUAL(rig.slot->worker.held, 0);
	CHECK_EQUAL(rig.slot->worker.rx_frames, 0);
	CHECK_EQUAL(rig.slot->worker.injected, 0);
	plan.ethertype = TYPE_ARP;
	make();
	run();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 0, rig.result.punts[0].offset, rig.result.punts[0].length, 2),
		    0);
	CHECK_EQUAL(rig.slot->worker.held, 1);
	poll_through();
	rig_collect();
	check_returned(HALO_ACTION_TRANSMIT, 2);
	CHECK_EQUAL(shown, 2);
	rig_close();
}

/* ---- frames that are put in ----------------------------------------------------------------------------------- */

static void inject(uint32_t stage, uint32_t port)
{
	CHECK_EQUAL(halo_worker_inject(rig.worker, stage, port, frame.octets, frame.length), 0);
}

static void inject_at_ingress(void)
{
	open_router();
	rig_give_spares(1);
	add(HALO_STAGE_INGRESS, do_look);
	inject(HALO_STAGE_INGRESS, 0);
	CHECK_EQUAL(rig.slot->worker.held, 1);
	poll_through();
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(shown_packet.injected, 1 + HALO_STAGE_INGRESS);
	CHECK_EQUAL(shown_packet.interface, INSIDE);
	CHECK_EQUAL(rig.slot->worker.rx_frames, 0);
	CHECK_EQUAL(rig.slot->worker.rx_octets, 0);
	CHECK_EQUAL(rig.slot->interface[INSIDE].rx_packets, 0);
	CHECK_EQUAL(rig.slot->worker.originated, 1);
	CHECK_EQUAL(rig.slot->worker.injected, 1);
	CHECK_EQUAL(rig.slot->worker.forwarded, 1);
	rig_close();
}

static void inject_at_forward(void)
{
	open_router();
	rig_give_spares(4);
	add(HALO_STAGE_INGRESS, do_drop); /* is behind it */
	add(HALO_STAGE_FORWARD, do_look);
	plan.src = OWN_ADDRESS;
	make();
	inject(HALO_STAGE_FORWARD, 0);
	poll_through();
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(shown_packet.injected, 1 + HALO_STAGE_FORWARD);
	CHECK_EQUAL(rig.slot->worker.rx_frames, 0);
	CHECK_EQUAL(rig.slot->worker.injected, 1);
	plan.dst = IPV4(203, 0, 113, 1); /* nobody is told of it */
	make();
	inject(HALO_STAGE_FORWARD, 0);
	poll_through();
	CHECK_EQUAL(dropped(HALO_DROP_ipv4_no_route), 1);
	plan.dst = IPV4(10, 1, 0, 77); /* no neighbor: Python finds it */
	make();
	inject(HALO_STAGE_FORWARD, 0);
	poll_through();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(rig.result.punts[0].injected, 1 + HALO_STAGE_FORWARD);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	plan.dst = links[OUTSIDE].address; /* to ourselves */
	make();
	inject(HALO_STAGE_FORWARD, 0);
	poll_through();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

static void inject_where_nothing_is_forwarded(void)
{
	open_router();
	links[INSIDE].flags &= ~(uint32_t)HALO_INTERFACE_FORWARD;
	rig_set_interfaces(links, LINKS);
	rig_give_spares(3);
	inject(HALO_STAGE_FORWARD, 0); /* ours may go */
	poll_through();
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	inject(HALO_STAGE_FORWARD, 9);
	poll_through();
	CHECK_EQUAL(dropped(HALO_DROP_no_interface), 1);
	plan.ethertype = TYPE_ARP;
	make();
	inject(HALO_STAGE_FORWARD, 0);
	poll_through();
	CHECK_EQUAL(dropped(HALO_DROP_ethertype_unknown), 1);
	rig_close();
}

static void inject_at_the_end(void)
{
	open_router();
	rig_give_spares(2);
	add(HALO_STAGE_FORWARD, do_drop);
	add(HALO_STAGE_EGRESS, do_look);
	inject(HALO_STAGE_EGRESS, 5);
	poll_through();
	rig_collect();
	check_returned(HALO_ACTION_TRANSMIT, 5);
	check_octets(&frame);
	CHECK_EQUAL(shown, 1);
	inject(HALO_STAGE_TX, 6);
	CHECK_EQUAL(rig.slot->worker.held, 0);
	poll_through();
	rig_collect();
	check_returned(HALO_ACTION_TRANSMIT, 6);
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(rig.slot->worker.injected, 2);
	rig_close();
}

static void inject_too_much(void)
{
	static uint8_t octets[HALO_DATA_OCTETS + 1];
	uint32_t i;

	open_router();
	CHECK_EQUAL(halo_worker_inject(rig.worker, 4, 0, frame.octets, frame.length), -EINVAL);
	CHECK_EQUAL(halo_worker_inject(rig.worker, 0, HALO_MAX_PORTS, frame.octets, frame.length), -EINVAL);
	CHECK_EQUAL(halo_worker_inject(rig.worker, 0, 0, frame.octets, 13), -EINVAL);
	CHECK_EQUAL(halo_worker_inject(rig.worker, 0, 0, octets, sizeof(octets)), -EMSGSIZE);
	CHECK_EQUAL(dropped(HALO_DROP_originate_too_long), 1);
	CHECK_EQUAL(halo_worker_inject(rig.worker, 0, 0, frame.octets, frame.length), -ENOBUFS);
	CHECK_EQUAL(dropped(HALO_DROP_no_spare_buffer), 1);
	for (i = 0; i < HALO_WIDE_BURST; i++) {
		rig_give_spares(1);
		inject(HALO_STAGE_INGRESS, 0);
	}
	CHECK_EQUAL(halo_worker_inject(rig.worker, 0, 0, frame.octets, frame.length), -ENOBUFS);
	CHECK_EQUAL(dropped(HALO_DROP_inject_full), 1);
	for (i = 0; i < HALO_WIDE_BURST / HALO_BURST; i++) {
		poll_through();
		rig_collect();
	}
	CHECK_EQUAL(rig.slot->worker.held, 0);
	CHECK_EQUAL(rig.slot->worker.forwarded, HALO_WIDE_BURST);
	rig_close();
}

/* Each source has its turn: what a hook puts in, for each packet one more, does not keep frames from being received. */
static void do_inject(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	if (packet->injected)
		packet->verdict = HALO_VERDICT_DROP;
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_inject(rig.worker, HALO_STAGE_INGRESS, 0, frame.octets, frame.length), 0);
}

static void inject_from_a_hook(void)
{
	uint32_t i;

	open_router();
	add(HALO_STAGE_INGRESS, do_inject);
	for (i = 0; i < 20; i++) {
		rig_deliver(&frame, 0, 0);
		poll_through();
		poll_through();
		rig_collect();
	}
	CHECK_EQUAL(rig.slot->worker.rx_frames, 20);
	CHECK(counters(0)->packets >= 39, "%lu", (unsigned long)counters(0)->packets);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 0), 0);
	while (rig.slot->worker.held)
		poll_through();
	rig_close();
}

/* ---- parked --------------------------------------------------------------------------------------------------- */

static uint32_t park(uint32_t frames)
{
	while (frames--)
		rig_deliver(&frame, 0, 0);
	CHECK(rig_poll() & HALO_POLL_HOOK);
	return rig.result.hook_count;
}

static void wide_bursts(void)
{
	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_INGRESS, do_nothing);
	CHECK_EQUAL(park(RIG_RING), HALO_WIDE_BURST);
	poll_through();
	CHECK_EQUAL(rig.slot->worker.forwarded, HALO_WIDE_BURST);
	CHECK_EQUAL(rig.slot->worker.rx_bursts, 1);
	rig_collect();
	CHECK_EQUAL(park(3), 3); /* nobody waits for more */
	poll_through();
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 0), 0);
	rig_collect();
	while (rig.slot->worker.rx_frames < HALO_WIDE_BURST + 3 + 100) {
		rig_deliver(&frame, 0, 0);
		if (rig.rx.head - rig.slot->rx.consumer == 100)
			while (rig.rx.head != rig.slot->rx.consumer)
				rig_poll();
	}
	CHECK_EQUAL(rig.slot->worker.rx_bursts, 4); /* 64 and 36 */
	rig_close();
}

/* A burst of punts, as wide as it may be. */
static void wide_punts(void)
{
	uint32_t i;

	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_INGRESS, do_verdict);
	for (i = 0; i < RIG_RING; i++)
		rig_deliver(&frame, 0, 0);
	CHECK(rig_poll() & HALO_POLL_HOOK);
	for (i = 0; i < rig.result.hook_count; i++)
		rig.result.hook_packets[i].verdict = HALO_VERDICT_PUNT;
	CHECK(rig_poll() & HALO_POLL_PUNTS);
	CHECK_EQUAL(rig.result.punt_count, HALO_WIDE_BURST);
	for (i = 0; i < HALO_WIDE_BURST; i++)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
	rig_close();
}

/* Whatever Python does to hooks while a burst is parked holds for the next one. */
static void changed_while_parked(void)
{
	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_INGRESS, do_nothing);
	add_at(HALO_STAGE_INGRESS, do_drop, 5, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	CHECK_EQUAL(park(1), 1);
	CHECK_EQUAL(rig.result.hook, 0);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 0), 0);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 1), 0);
	add_at(HALO_STAGE_INGRESS, do_drop, -5, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	CHECK_EQUAL(act[2] == do_drop, 1);
	CHECK_EQUAL(rig_poll() & HALO_POLL_HOOK, 0); /* the second was removed before its turn */
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	run();
	check_drop(HALO_DROP_hook_drop, 1);
	CHECK_EQUAL(counters(2)->packets, 1);
	rig_close();
}

/* However often hooks come and go meanwhile there is room; but never in the place of one that the burst may come by. */
static void places_while_parked(void)
{
	struct halo_hook_setup setup = {.name = "toggled", .interface = HALO_NO_INTERFACE};
	uint32_t i;
	int number;

	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_INGRESS, do_nothing);
	add_at(HALO_STAGE_INGRESS, do_drop, 5, 0, HALO_NO_INTERFACE, HALO_HOOK_DROP);
	CHECK_EQUAL(park(1), 1);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 0), 0);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 1), 0);
	for (i = 0; i < 3 * HALO_MAX_HOOKS; i++) {
		number = halo_worker_add_hook(rig.worker, &setup);
		CHECK(number > 1);
		CHECK_EQUAL(halo_worker_remove_hook(rig.worker, (uint32_t)number), 0);
	}
	CHECK_EQUAL(rig_poll() & HALO_POLL_HOOK, 0);
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(halo_worker_add_hook(rig.worker, &setup), 0); /* the one that was left first */
	rig_close();
}

/* Neighbors come and go, and their table grows, while the burst waits for its answer. */
static void neighbors_while_parked(void)
{
	uint32_t i;

	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_FORWARD, do_nothing);
	park(1);
	for (i = 0; i < 3000; i++)
		CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, IPV4(10, 1, 1, 0) + i, host_mac,
						     HALO_NEIGHBOR_REACHABLE),
			    0);
	poll_through();
	rig_collect();
	check_sent(OUTSIDE, host_mac);
	park(1);
	CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, OUTSIDE, HOST), 0);
	poll_through();
	CHECK_EQUAL(rig.result.punt_count, 1); /* to be looked for */
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

/* Interfaces that change meanwhile are seen by the next burst. */
static void interfaces_while_parked(void)
{
	open_router();
	if (!in_python)
		return rig_close();
	add(HALO_STAGE_FORWARD, do_redirect);
	park(1);
	rig.result.hook_packets[0].dst[0] = OTHER;
	rig_set_interfaces(links, 2);
	CHECK_EQUAL(rig_poll() & HALO_POLL_EPOCH, 0);
	rig_collect();
	CHECK_EQUAL(rig.slot->worker.rx_frames, 1);
	if (rig.slot->worker.held)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	CHECK(rig_poll() & HALO_POLL_EPOCH);
	rig_close();
}

static void rings_reset_while_parked(void)
{
	open_router();
	if (!in_python)
		return rig_close();
	rig_give_spares(2);
	add(HALO_STAGE_INGRESS, do_nothing);
	add(HALO_STAGE_EGRESS, do_nothing);
	park(7);
	inject(HALO_STAGE_FORWARD, 0);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 1, frame.octets, frame.length), 0);
	rig_reset_rings();
	CHECK(rig_poll() & HALO_POLL_DISABLED);
	CHECK_EQUAL(halo_worker_parked(rig.worker), 0);
	CHECK_EQUAL(dropped(HALO_DROP_punt_lost), 7);
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK_EQUAL(dropped(HALO_DROP_punt_lost), 9);
	CHECK_EQUAL(rig.slot->worker.held, 0);
	run();
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void ends_while_parked(void)
{
	open_router();
	if (!in_python)
		return rig_close();
	rig_give_spares(2);
	add(HALO_STAGE_FORWARD, do_nothing);
	park(7);
	inject(HALO_STAGE_FORWARD, 0);
	inject(HALO_STAGE_EGRESS, 0);
	halo_worker_detach(rig.worker);
	rig.worker = NULL;
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 9);
	CHECK_EQUAL(dropped(HALO_DROP_punt_lost), 9);
	CHECK_EQUAL(rig.slot->worker.held, 0);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_close();
}

/* ---- with others ---------------------------------------------------------------------------------------------- */

static void do_drop_from_port_0(struct halo_packet *packet, uint8_t *octets)
{
	(void)octets;
	if (packet->port == 0)
		packet->verdict = HALO_VERDICT_DROP;
}

static void do_payload_of_nobody(struct halo_packet *packet, uint8_t *octets)
{
	CHECK_EQUAL(packet->ip_version, 0);
	octets[50] ^= 1;
	packet->rewritten = 1;
}

static void twins(void)
{
	open_router();
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, 63, 0), 0);
	plan.dst_mac[5] = 99; /* the kernel's */
	make();
	add(HALO_STAGE_EGRESS, do_look);
	run();
	check_returned(HALO_ACTION_TRANSMIT, 63);
	CHECK_EQUAL(shown, 1);
	CHECK_EQUAL(shown_packet.tx_port, 63);
	add(HALO_STAGE_INGRESS, do_drop_from_port_0);
	run();
	check_drop(HALO_DROP_hook_drop, 1); /* and that is not the twin's to decide */
	rig_close();
	open_router(); /* what is broken is the kernel's business */
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, 63, 0), 0);
	frame.octets[24] ^= 1;
	frame.octets[5] = 99;
	add(HALO_STAGE_EGRESS, do_payload_of_nobody);
	run();
	check_returned(HALO_ACTION_TRANSMIT, 63);
	rig_close();
}

/* --debug-log tells of a frame when it has ended, not while it is parked. */
static void debug_log(void)
{
	open_router();
	halo_worker_detach(rig.worker);
	rig.setup.debug = 1;
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REACHABLE), 0);
	rig_give_spares(1);
	add(HALO_STAGE_INGRESS, do_nothing);
	add(HALO_STAGE_FORWARD, do_drop);
	if (in_python) {
		CHECK_EQUAL(park(2), 2);
		CHECK_EQUAL(rig.result.debug_count, 0);
		CHECK_EQUAL(rig.result.reasons & HALO_POLL_PUNTS, 0);
	} else {
		rig_deliver(&frame, 0, 0);
		rig_deliver(&frame, 0, 0);
	}
	CHECK(poll_through() & HALO_POLL_PUNTS);
	CHECK_EQUAL(rig.result.debug_count, 2);
	CHECK_EQUAL(rig.result.debug[0].verdict, HALO_VERDICT_DROP);
	CHECK_EQUAL(rig.result.debug[1].reason, HALO_DROP_hook_drop);
	CHECK(memcmp(rig.result.debug[1].octets, frame.octets, 60) == 0);
	inject(HALO_STAGE_INGRESS, 0); /* was not received */
	CHECK_EQUAL(poll_through() & HALO_POLL_PUNTS, 0);
	CHECK_EQUAL(rig.result.debug_count, 0);
	rig_close();
}

static void measuring(void)
{
	open_router();
	CHECK_EQUAL(halo_worker_set_macswap(rig.worker, 0, 1), 0);
	add(HALO_STAGE_INGRESS, do_nothing);
	add(HALO_STAGE_EGRESS, do_look);
	run();
	check_returned(HALO_ACTION_TRANSMIT, 1);
	CHECK_EQUAL(shown_packet.ttl, plan.ttl - 1);
	rig_close();
}
/* ---- anything ------------------------------------------------------------------------------------------------- */

static uint64_t chance = 1;

static uint32_t below(uint32_t limit)
{
	return random_below(&chance, limit);
}

/* A hook out of its mind: it writes anything anywhere in the packet and in the frame. */
static void do_anything(struct halo_packet *packet, uint8_t *octets)
{
	static const uint32_t addresses[] = {HOST, OTHER, OWN_ADDRESS, UINT32_MAX, 0, IPV4(10, 1, 0, 77), PEER_ADDRESS};
	uint32_t length = packet->length, i;

	for (i = below(4); i; i--) {
		switch (below(9)) {
		case 0:
			((uint8_t *)packet)[below(sizeof(*packet))] = (uint8_t)random_next(&chance);
			break;
		case 1:
			octets[below(length)] = (uint8_t)random_next(&chance);
			break;
		case 2:
			packet->verdict = (uint8_t)below(10);
			break;
		case 3:
			packet->dst[0] = addresses[below(7)];
			break;
		case 4:
			packet->src[0] = addresses[below(7)];
			break;
		case 5:
			packet->tx_port = (uint16_t)below(70);
			packet->reason = (uint8_t)below(130);
			break;
		case 6:
			halo_packets_update_checksums(rig.pool, &rig.slot->geometry.pool, packet, 1);
			break;
		case 7:
			packet->ttl = (uint8_t)below(3);
			break;
		default:
			packet->length = (uint16_t)(packet->length + below(9) - 4);
			packet->offset = packet->offset + below(9) - 4;
			break;
		}
	}
}

static void deliver_any(void)
{
	static const uint8_t protocols[] = {ICMP, TCP, UDP, UDP, 47};

	plan.protocol = protocols[below(5)];
	plan.vlan = below(5) ? NO_VLAN : below(2) ? 77 : 5;
	plan.ethertype = below(9) ? TYPE_IPV4 : TYPE_ARP;
	plan.fragment = below(6) ? 0 : (uint16_t)random_next(&chance);
	plan.option_words = below(5) ? 0 : below(3);
	plan.data_octets = below(200);
	plan.ttl = (uint8_t)(1 + below(4));
	plan.dst = below(3) ? HOST : below(2) ? OTHER : OWN_ADDRESS;
	frame_make(&plan, &frame);
	rig_deliver(&frame, (uint8_t)below(3), below(9) ? 0 : HALO_DESCRIPTOR_HANDED);
}

static void end_punts(void)
{
	uint32_t i;

	for (i = 0; i < rig.result.punt_count; i++) {
		if (below(2))
			CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
		else
			CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, i, rig.result.punts[i].offset,
							      rig.result.punts[i].length, below(4)),
				    0);
	}
}

static void anything(void)
{
	uint32_t round, i;

	open_router();
	rig_expose_all();
	for (i = 0; i < HALO_STAGE_COUNT; i++)
		add_at(i, do_anything, 0, 0, HALO_NO_INTERFACE, below(2));
	add_at(below(3), do_anything, 1, UINT64_C(3), HALO_NO_INTERFACE, HALO_HOOK_PASS);
	for (round = 0; round < 3000; round++) {
		for (i = below(40); i; i--)
			deliver_any();
		while (rig.spare.head - rig.slot->spare.consumer < 8)
			rig_give_spares(1);
		for (i = below(4); i; i--)
			halo_worker_inject(rig.worker, below(4), below(4), frame.octets, frame.length);
		if (below(2))
			halo_worker_originate(rig.worker, below(4), frame.octets, frame.length);
		for (i = 0; i < 4; i++) { /* each source has its turn */
			poll_through();
			end_punts();
		}
		halo_worker_flush(rig.worker);
		rig_check_books();
	}
	for (i = 0; i < 4; i++)
		CHECK(counters(i)->packets > 1000 && counters(i)->errors > 10 && counters(i)->rewritten > 100 &&
			      counters(i)->dropped > 100,
		      "hook %u is not tried", i);
	while (rig.slot->worker.held || rig.rx.head != rig.slot->rx.consumer) {
		poll_through();
		end_punts();
	}
	rig_close();
}

static const struct row rows[] = {
	{"pass", pass},
	{"drop", drop},
	{"verdicts", verdicts},
	{"verdicts_that_there_are_not", verdicts_that_there_are_not},
	{"failures", failures},
	{"failure_undone", failure_undone},
	{"order", order},
	{"decided_is_not_shown_again", decided_is_not_shown_again},
	{"gathered", gathered},
	{"only_some", only_some},
	{"limits", limits},
	{"in_quarantine", in_quarantine},
	{"redirected", redirected},
	{"rewritten", rewritten},
	{"own_source", own_source},
	{"becomes_local", becomes_local},
	{"to_nowhere", to_nowhere},
	{"expires", expires},
	{"scribbled", scribbled},
	{"octets_are_routed", octets_are_routed},
	{"broken_octets", broken_octets},
	{"no_packet_any_more", no_packet_any_more},
	{"payload", payload},
	{"lengths", lengths},
	{"encapsulated", encapsulated},
	{"what_ingress_sees", what_ingress_sees},
	{"what_forward_sees", what_forward_sees},
	{"options_are_shown", options_are_shown},
	{"what_egress_sees", what_egress_sees},
	{"egress_sees_what_python_sends", egress_sees_what_python_sends},
	{"inject_at_ingress", inject_at_ingress},
	{"inject_at_forward", inject_at_forward},
	{"inject_where_nothing_is_forwarded", inject_where_nothing_is_forwarded},
	{"inject_at_the_end", inject_at_the_end},
	{"inject_too_much", inject_too_much},
	{"inject_from_a_hook", inject_from_a_hook},
	{"wide_bursts", wide_bursts},
	{"wide_punts", wide_punts},
	{"changed_while_parked", changed_while_parked},
	{"places_while_parked", places_while_parked},
	{"neighbors_while_parked", neighbors_while_parked},
	{"interfaces_while_parked", interfaces_while_parked},
	{"rings_reset_while_parked", rings_reset_while_parked},
	{"ends_while_parked", ends_while_parked},
	{"twins", twins},
	{"debug_log", debug_log},
	{"measuring", measuring},
	{"anything", anything},
};

int main(int argc, char **argv)
{
	int failed = run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);

	in_python = true;
	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv) | failed;
}
