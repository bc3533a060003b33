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
static const halo_hook_function native[] = {native_0, native_1, native_2};

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

	CHECK(number >= 0 && number < 3);
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
	frame_make(&plan, &frame);
	shown = calls = 0;
	answer = 0;
}

static void check_returned(uint32_t action, uint32_t port)
{
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, action);
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
	CHECK_EQUAL(dropped(reason), times);
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

static const struct row rows[] = {
	{"pass", pass},
	{"drop", drop},
};

int main(int argc, char **argv)
{
	int failed = run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);

	in_python = true;
	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv) | failed;
}
