/* SPDX-License-Identifier: Apache-2.0 */
/* A router in C: routes, neighbors, and what is left to Python. After every row the books balance. */
#include <errno.h>

#include <halo/fastpath.h>

#include "rig.h"

enum {
	INSIDE = 0,  /* numbers of interfaces: 10.0.0.1/24 on port 0 */
	OUTSIDE = 1, /* 10.1.0.1/24 on port 1 */
	TAGGED = 2,  /* 10.2.0.1/24 on port 1, VLAN 77 */
	FOREIGN = 3, /* 10.3.0.1/24 on port 2, whose home is another slot */
	LINKS = 4,
	OTHER_SLOT = 9,
};

#define HOST IPV4(10, 1, 0, 2)
#define GATEWAY IPV4(10, 1, 0, 254)
#define FAR IPV4(192, 0, 2, 1)

static const uint8_t host_mac[6] = {0x02, 0xcc, 0, 0, 0, 9};
static const uint8_t gateway_mac[6] = {0x02, 0xcc, 0, 0, 0, 254};
static struct link links[LINKS];
static struct plan plan;
static struct frame frame, expected;

static void set_links(void)
{
	uint32_t i;

	for (i = 0; i < LINKS; i++) {
		links[i] = rig_interface;
		links[i].flags |= HALO_INTERFACE_FORWARD;
		links[i].address = IPV4(10, i, 0, 1);
		links[i].port = (uint8_t)(i == FOREIGN ? 2 : i != INSIDE);
		links[i].mac[5] = (uint8_t)(1 + links[i].port);
	}
	links[TAGGED].vlan = 77;
	links[FOREIGN].home_slot = OTHER_SLOT;
}

static void set_neighbor(uint32_t interface, uint32_t address, const uint8_t *mac, uint32_t state)
{
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, interface, address, mac, state), 0);
}

static void route(uint32_t prefix, uint8_t length, uint32_t target)
{
	rig_route(prefix, length, target);
	rig_build_fib();
}

static void open_router(void)
{
	set_links();
	plan = echo;
	plan.dst = HOST;
	rig_open(links, LINKS);
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REACHABLE);
	set_neighbor(OUTSIDE, GATEWAY, gateway_mac, HALO_NEIGHBOR_REACHABLE);
}

static void make(void)
{
	frame_make(&plan, &frame);
}

static void check_sent(uint32_t interface, const uint8_t *mac)
{
	const struct link *out = &links[interface];

	frame_forwarded(&frame, mac, out->mac, out->vlan ? out->vlan : NO_VLAN, &expected);
	rig_check_sent(&frame, 0, &expected, out->port);
	CHECK_EQUAL(rig.result.touched_count, 0);
}

static void check_drop(enum halo_drop reason)
{
	rig_check_drop(&frame, 0, reason);
}

/* Use up what errors may cost, so that the drop behind an error's punt shows. */
static void drain_errors(void)
{
	uint32_t i;

	plan = echo;
	plan.dst = IPV4(203, 0, 113, 1); /* no route */
	make();
	for (i = 0; i < HALO_ERROR_BURST + 200 && !rig.slot->worker.icmp_suppressed; i++) {
		rig_deliver(&frame, 0, 0);
		rig_poll();
		if (rig.result.punt_count)
			CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
	}
	CHECK(rig.slot->worker.icmp_suppressed > 0);
}

/* An error's punt while there are tokens. Then, soon after another, its drop: the clock gives a token each millisecond. */
static void check_error(enum halo_drop reason)
{
	uint64_t suppressed, dropped;
	struct frame kept = frame;
	struct plan before = plan;
	uint32_t tries;

	rig_check_punt(&frame, 0);
	drain_errors();
	plan = before;
	frame = kept;
	suppressed = rig.slot->worker.icmp_suppressed;
	dropped = rig.slot->worker.drops[reason];
	for (tries = 0; tries < 2000 && rig.slot->worker.drops[reason] == dropped; tries++) {
		rig_deliver(&frame, 0, 0);
		rig_poll();
		if (rig.result.punt_count)
			CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
	}
	CHECK(rig.slot->worker.drops[reason] == dropped + 1, "not dropped as %s", halo_drop_name(reason));
	CHECK_EQUAL(rig.slot->worker.icmp_suppressed, suppressed + 1);
}

/* ---- sending on ------------------------------------------------------------------------------------------------ */

static void connected_and_gateway(void)
{
	open_router();
	make();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(rig.slot->worker.forwarded, 1);
	plan.dst = FAR;
	make();
	rig_check_punt(&frame, 0); /* no route */
	route(IPV4(192, 0, 2, 0), 24, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	check_sent(OUTSIDE, gateway_mac);
	route(0, 0, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, HOST));
	check_sent(OUTSIDE, gateway_mac);
	plan.dst = IPV4(192, 0, 3, 1);
	make();
	check_sent(OUTSIDE, host_mac);
	route(IPV4(192, 0, 3, 1), 32, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	check_sent(OUTSIDE, gateway_mac);
	CHECK_EQUAL(rig.slot->worker.forwarded, 5);
	CHECK_EQUAL(rig.slot->interface[OUTSIDE].tx_packets, 5);
	CHECK_EQUAL(rig.slot->interface[OUTSIDE].tx_octets, 5 * frame.length);
	CHECK_EQUAL(rig.slot->interface[INSIDE].rx_packets, 6);
	CHECK_EQUAL(rig.slot->interface[INSIDE].rx_octets, 6 * frame.length);
	CHECK_EQUAL(rig.slot->interface[INSIDE].tx_packets, 0);
	rig_close();
}

static void any_header(void)
{
	uint64_t seed = 11;
	int round;

	open_router();
	for (round = 0; round < 20000; round++) {
		plan.tos = (uint8_t)random_next(&seed);
		plan.id = (uint16_t)random_next(&seed);
		plan.ttl = (uint8_t)(2 + random_below(&seed, 254));
		plan.fragment = (uint16_t)random_next(&seed);
		plan.protocol = (uint8_t)random_next(&seed);
		plan.src = IPV4(1 + random_below(&seed, 9), random_below(&seed, 256), 3, 4);
		plan.data_octets = random_below(&seed, 90);
		make();
		check_sent(OUTSIDE, host_mac);
	}
	rig_close();
}

/* Untagged to tagged and back, with a priority tag too; short frames, and octets behind the packet. */
static void tags_and_lengths(void)
{
	static const int32_t tags[] = {NO_VLAN, 0, 0x6000, 0xf000 | 5};
	uint32_t in, out, octets, pad;
	uint64_t received = 0, sent = 0;

	open_router();
	links[FOREIGN].port = 0;
	links[FOREIGN].mac[5] = 1;
	links[FOREIGN].vlan = 5;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	set_neighbor(TAGGED, IPV4(10, 2, 0, 2), gateway_mac, HALO_NEIGHBOR_REACHABLE);
	rig.room_behind = 60;
	for (in = 0; in < 4; in++) {
		for (out = OUTSIDE; out <= TAGGED; out++) {
			for (octets = 0; octets < 60; octets++) {
				for (pad = 0; pad <= 128; pad += 32) {
					plan.vlan = tags[in];
					plan.dst = IPV4(10, out, 0, 2);
					plan.data_octets = octets;
					plan.pad_to = pad;
					make();
					check_sent(out, out == OUTSIDE ? host_mac : gateway_mac);
					received += frame.length;
					sent += expected.length;
				}
			}
		}
	}
	CHECK_EQUAL(rig.slot->worker.rx_octets, received);
	CHECK_EQUAL(rig.slot->worker.tx_octets, sent);
	CHECK_EQUAL(rig.slot->interface[INSIDE].rx_octets + rig.slot->interface[FOREIGN].rx_octets, received);
	CHECK_EQUAL(rig.slot->interface[OUTSIDE].tx_octets + rig.slot->interface[TAGGED].tx_octets, sent);
	rig_close();
}

/* A tag needs four octets in front of the frame; where there is no headroom, nothing is written. */
static void tag_without_headroom(void)
{
	static const uint32_t starts[] = {0, 3, 64, 67, 68};
	struct halo_descriptor descriptor;
	uint32_t i;

	open_router();
	rig_expose_all();
	set_neighbor(TAGGED, IPV4(10, 2, 0, 2), gateway_mac, HALO_NEIGHBOR_REACHABLE);
	plan.dst = IPV4(10, 2, 0, 2);
	make();
	for (i = 0; i < 5; i++) {
		descriptor = rig_fill(&frame, 0, 0);
		descriptor.offset = descriptor.offset / RIG_STRIDE * RIG_STRIDE + starts[i];
		memcpy(rig.pool + descriptor.offset, frame.octets, frame.length);
		rig_deliver_raw(descriptor);
		rig_poll();
		rig_collect();
		CHECK_EQUAL(rig.returned_count, 1);
		CHECK_EQUAL(rig.returned[0].descriptor.flags,
			    starts[i] == 68 ? HALO_ACTION_TRANSMIT : HALO_ACTION_RELEASE);
	}
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_bad_descriptor], 4);
	/* The same at the end of the pool: no room for padding, so the frame stays short. */
	rig_close();
}

static void same_interface_and_redirects(void)
{
	open_router();
	set_neighbor(INSIDE, IPV4(10, 0, 0, 7), host_mac, HALO_NEIGHBOR_REACHABLE);
	plan.dst = IPV4(10, 0, 0, 7);
	make();
	check_sent(INSIDE, host_mac);
	links[INSIDE].flags |= HALO_INTERFACE_REDIRECTS;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	rig_check_punt(&frame, 0);
	plan.dst = HOST; /* by another interface: nothing to tell */
	make();
	check_sent(OUTSIDE, host_mac);
	drain_errors();
	plan.dst = IPV4(10, 0, 0, 7);
	make();
	rig_deliver(&frame, 0, 0);
	rig_deliver(&frame, 0, 0);
	rig_poll(); /* at most one of two finds a token: the other just goes */
	CHECK(rig.result.punt_count <= 1);
	if (rig.result.punt_count)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

/* ---- what is not sent on --------------------------------------------------------------------------------------- */

static void ttl(void)
{
	open_router();
	for (plan.ttl = 0; plan.ttl < 2; plan.ttl++) {
		make();
		rig_check_punt(&frame, 0);
	}
	plan.ttl = 2;
	make();
	check_sent(OUTSIDE, host_mac);
	plan.ttl = 1;
	make();
	check_error(HALO_DROP_ipv4_ttl);
	rig_close();
}

static void routes_that_end(void)
{
	static const struct {
		enum halo_target_kind kind;
		enum halo_drop reason;
	} kinds[] = {
		{HALO_TARGET_NONE, HALO_DROP_ipv4_no_route},
		{HALO_TARGET_UNREACHABLE, HALO_DROP_ipv4_unreachable},
		{HALO_TARGET_PROHIBIT, HALO_DROP_ipv4_prohibited},
	};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		open_router();
		route(IPV4(192, 0, 0, 0), 8, rig_target(kinds[i].kind, OUTSIDE, 0));
		plan.dst = FAR;
		make();
		check_error(kinds[i].reason);
		rig_close();
	}
	open_router();
	route(0, 0, rig_target(HALO_TARGET_BLACKHOLE, 0, 0));
	plan.dst = FAR;
	make();
	check_drop(HALO_DROP_ipv4_blackhole);
	CHECK_EQUAL(rig.slot->worker.punted, 0);
	rig_close();
}

static void too_long(void)
{
	open_router();
	links[OUTSIDE].mtu = 600;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	plan.data_octets = 600 - 28;
	make();
	check_sent(OUTSIDE, host_mac);
	plan.data_octets++;
	plan.fragment = 0;
	make();
	rig_check_punt(&frame, 0); /* Python sends fragments: no error, no bound */
	plan.fragment = 0x4000;
	make();
	check_error(HALO_DROP_ipv4_too_big);
	rig_close();
}

static void options(void)
{
	static const struct {
		uint8_t octets[8];
		enum halo_drop reason; /* HALO_DROP_COUNT: goes on as it is */
	} cases[] = {
		{{1, 1, 1, 1, 1, 1, 1, 1}, HALO_DROP_COUNT},
		{{148, 4, 0, 0, 0}, HALO_DROP_COUNT},            /* router alert */
		{{0x55, 8, 1, 2, 3, 4, 5, 6}, HALO_DROP_COUNT},  /* nobody knows */
		{{1, 0, 131, 7}, HALO_DROP_COUNT},               /* behind the end */
		{{7, 7, 4, 0, 0, 0, 0}, HALO_DROP_ipv4_options}, /* record route */
		{{68, 8, 5, 0, 0, 0, 0}, HALO_DROP_ipv4_options},
		{{131, 7, 4, 10, 0, 0, 9}, HALO_DROP_ipv4_source_route},
		{{1, 137, 7, 4, 10, 0, 0, 9}, HALO_DROP_ipv4_source_route},
		{{7, 0}, HALO_DROP_ipv4_options},
		{{7, 1}, HALO_DROP_ipv4_options},
		{{0x55, 9}, HALO_DROP_ipv4_options},
		{{1, 1, 1, 1, 1, 1, 1, 0x55}, HALO_DROP_ipv4_options},
	};
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		open_router();
		plan.option_words = 2;
		memcpy(plan.options, cases[i].octets, 8);
		make();
		if (cases[i].reason == HALO_DROP_COUNT)
			check_sent(OUTSIDE, host_mac);
		else
			check_error(cases[i].reason);
		rig_close();
	}
}

static void link_local(void)
{
	open_router();
	route(0, 0, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	plan.src = IPV4(169, 254, 3, 4);
	make();
	check_drop(HALO_DROP_ipv4_link_local);
	plan.dst = OWN_ADDRESS; /* but to us */
	make();
	rig_check_reply(&frame, 0);
	plan = echo;
	plan.dst = IPV4(169, 254, 3, 4);
	make();
	check_drop(HALO_DROP_ipv4_link_local);
	plan.dst = IPV4(169, 253, 3, 4); /* the rest of 169/8 is like any other */
	make();
	check_sent(OUTSIDE, gateway_mac);
	plan.src = IPV4(169, 255, 0, 1);
	make();
	check_sent(OUTSIDE, gateway_mac);
	rig_close();
}

static void groups_of_stations(void)
{
	open_router();
	route(0, 0, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	make();
	memset(frame.octets, 0xff, 6);
	check_drop(HALO_DROP_l2_multicast);
	plan.dst = FAR;
	make();
	frame.octets[0] = 1;
	check_drop(HALO_DROP_l2_multicast);
	plan.dst = IPV4(224, 0, 0, 5);
	make();
	check_drop(HALO_DROP_l2_multicast);
	plan.dst = IPV4(10, 1, 0, 255); /* the broadcast address of another link, to all stations of this one */
	make();
	memset(frame.octets, 0xff, 6);
	check_drop(HALO_DROP_l2_multicast);
	rig_close();
}

static void directed_broadcast(void)
{
	open_router();
	plan.dst = IPV4(10, 1, 0, 255);
	make();
	check_drop(HALO_DROP_ipv4_directed_broadcast);
	links[OUTSIDE].flags |= HALO_INTERFACE_DIRECTED_BROADCAST;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	rig_check_punt(&frame, 0);
	links[INSIDE].flags &= ~(uint32_t)HALO_INTERFACE_FORWARD;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	check_drop(HALO_DROP_ipv4_not_local);
	rig_close();
}

static void martians(void)
{
	static const uint32_t destinations[] = {0, IPV4(0, 1, 2, 3), IPV4(127, 0, 0, 1), IPV4(240, 0, 0, 1),
						IPV4(255, 255, 255, 254)};
	static const uint32_t sources[] = {
		IPV4(0, 1, 2, 3),  IPV4(127, 0, 0, 1), IPV4(224, 0, 0, 1),  IPV4(250, 0, 0, 1), UINT32_MAX,
		IPV4(10, 1, 0, 1), IPV4(10, 2, 0, 1),  IPV4(10, 3, 0, 255), IPV4(10, 1, 0, 0),  IPV4(10, 0, 0, 255)};
	unsigned int i;

	open_router();
	route(0, 0, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	for (i = 0; i < sizeof(destinations) / sizeof(destinations[0]); i++) {
		plan.dst = destinations[i];
		make();
		check_drop(HALO_DROP_ipv4_martian);
	}
	plan.dst = HOST;
	for (i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		plan.src = sources[i];
		make();
		check_drop(HALO_DROP_ipv4_martian);
	}
	rig_close();
}

static void forwarding_off(void)
{
	open_router();
	links[INSIDE].flags = HALO_INTERFACE_UP;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	make();
	check_drop(HALO_DROP_ipv4_not_local);
	route(IPV4(192, 0, 2, 0), 24, rig_target(HALO_TARGET_UNREACHABLE, 0, 0));
	plan.dst = FAR;
	make();
	check_drop(HALO_DROP_ipv4_not_local);
	plan.dst = IPV4(10, 2, 0, 1); /* any address of ours is ours */
	make();
	rig_check_reply(&frame, 0);
	rig_close();
}

static void interface_that_is_down(void)
{
	open_router();
	route(IPV4(192, 0, 2, 0), 24, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	make();
	check_sent(OUTSIDE, host_mac);
	links[OUTSIDE].flags = HALO_INTERFACE_FORWARD;
	rig_set_interfaces(links, LINKS);
	route(IPV4(192, 0, 2, 0), 24, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	rig_poll();
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2); /* kept, for when it is up again */
	plan.dst = FAR;
	make();
	check_drop(HALO_DROP_interface_down);
	links[OUTSIDE].flags |= HALO_INTERFACE_UP;
	rig_set_interfaces(links, LINKS);
	route(IPV4(192, 0, 2, 0), 24, rig_target(HALO_TARGET_GATEWAY, OUTSIDE, GATEWAY));
	rig_poll();
	check_sent(OUTSIDE, gateway_mac);
	rig_close();
}

/* ---- neighbors -------------------------------------------------------------------------------------------------- */

static void neighbor_unknown(void)
{
	open_router();
	plan.dst = IPV4(10, 1, 0, 3);
	make();
	rig_check_punt(&frame, 0);
	CHECK_EQUAL(rig.result.punts[0].tx_interface, OUTSIDE);
	CHECK_EQUAL(rig.result.punts[0].next_hop, plan.dst);
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2); /* C makes no entries */
	plan.dst = IPV4(10, 3, 0, 3);
	make();
	rig_check_handed(&frame, 0, OTHER_SLOT);
	rig_deliver(&frame, 0, HALO_DESCRIPTOR_HANDED);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_neighbor_unresolved], 1);
	rig_close();
}

/* Nobody looks for neighbors behind the port: what is static works, the rest is dropped, ARP too, and never handed. */
static void port_without_home(void)
{
	set_links();
	links[FOREIGN].home_slot = HALO_NO_SLOT;
	plan = echo;
	plan.dst = IPV4(10, 3, 0, 3);
	make();
	rig_open(links, LINKS);
	check_drop(HALO_DROP_neighbor_unresolved);
	set_neighbor(FOREIGN, plan.dst, host_mac, HALO_NEIGHBOR_REACHABLE);
	check_sent(FOREIGN, host_mac);
	plan.ethertype = TYPE_ARP;
	memcpy(plan.dst_mac, links[FOREIGN].mac, 6);
	make();
	rig_check_drop(&frame, 2, HALO_DROP_neighbor_unresolved);
	rig_close();
}

static void neighbor_incomplete(void)
{
	uint32_t i;

	open_router();
	set_neighbor(OUTSIDE, HOST, NULL, HALO_NEIGHBOR_INCOMPLETE);
	make();
	for (i = 0; i < HALO_HOLD_LIMIT; i++)
		rig_check_punt(&frame, 0);
	check_drop(HALO_DROP_neighbor_hold_full);
	set_neighbor(OUTSIDE, HOST, NULL, HALO_NEIGHBOR_INCOMPLETE); /* looked for anew: so is the count */
	rig_check_punt(&frame, 0);
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REACHABLE);
	check_sent(OUTSIDE, host_mac);
	set_neighbor(FOREIGN, IPV4(10, 3, 0, 3), NULL, HALO_NEIGHBOR_INCOMPLETE);
	plan.dst = IPV4(10, 3, 0, 3);
	make();
	rig_check_handed(&frame, 0, OTHER_SLOT);
	rig_close();
}

static void neighbor_failed(void)
{
	open_router();
	set_neighbor(OUTSIDE, HOST, NULL, HALO_NEIGHBOR_FAILED);
	make();
	check_error(HALO_DROP_neighbor_unresolved);
	rig_close();
}

/* More new neighbors than anybody can look for: the punts end before the packets do. */
static void neighbors_scanned(void)
{
	uint32_t punts = 0, frames = 0, i;

	open_router();
	while (!rig.slot->worker.drops[HALO_DROP_neighbor_rate] && frames < 40 * HALO_RESOLVE_BURST) {
		for (i = 0; i < HALO_BURST; i++, frames++) {
			plan.dst = IPV4(10, 1, 0, 3) + frames % 200;
			make();
			rig_deliver(&frame, 0, 0);
		}
		rig_poll();
		punts += rig.result.punt_count;
		for (i = 0; i < rig.result.punt_count; i++)
			CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
	}
	CHECK(rig.slot->worker.drops[HALO_DROP_neighbor_rate] > 0);
	CHECK(punts >= HALO_RESOLVE_BURST, "%u punts", punts);
	make();
	plan.dst = HOST; /* who is known is not hit by it */
	make();
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void check_touched(uint32_t count)
{
	frame_forwarded(&frame, host_mac, links[OUTSIDE].mac, NO_VLAN, &expected);
	rig_check_sent(&frame, 0, &expected, 1);
	CHECK_EQUAL(rig.result.touched_count, count);
	CHECK_EQUAL((rig.result.reasons & HALO_POLL_TOUCHED) != 0, count != 0);
	if (!count)
		return;
	CHECK_EQUAL(rig.result.touched[0].address, HOST);
	CHECK_EQUAL(rig.result.touched[0].interface, OUTSIDE);
}

static void neighbor_stale(void)
{
	open_router();
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_STALE);
	make();
	check_touched(1);
	check_touched(0);
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_STALE);
	check_touched(1);
	rig_set_interfaces(links, LINKS); /* nothing new there, nothing is told anew */
	rig_poll();
	check_touched(0);
	CHECK_EQUAL(rig.slot->worker.neighbor_touches, 2);
	rig_close();
}

static void neighbor_reported(void)
{
	open_router();
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REPORT);
	make();
	check_touched(1);
	check_touched(0);
	set_neighbor(OUTSIDE, HOST, host_mac,
		     HALO_NEIGHBOR_REPORT); /* told again within the time: not reported again */
	check_touched(0);
	links[OUTSIDE].mtu = 1400; /* nor when the interface changed */
	rig_set_interfaces(links, LINKS);
	rig_poll();
	check_touched(0);
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REACHABLE);
	set_neighbor(OUTSIDE, HOST, host_mac, HALO_NEIGHBOR_REPORT); /* ours, and foreign again */
	check_touched(1);
	rig_close();
}

static void touches_beyond_their_list(void)
{
	uint32_t i, touched = 0, polls = 0;

	open_router();
	for (i = 0; i < 400; i++)
		set_neighbor(OUTSIDE, IPV4(10, 1, 4, 0) + i, host_mac, HALO_NEIGHBOR_STALE);
	route(IPV4(10, 1, 0, 0), 16, rig_target(HALO_TARGET_CONNECTED, OUTSIDE, 0));
	for (i = 0; i < 400; i++) {
		plan.dst = IPV4(10, 1, 4, 0) + i;
		make();
		rig_deliver(&frame, 0, 0);
	}
	/* A poll with time left gathers several bursts, but leaves before a burst could be too many. */
	while (touched < 400) {
		CHECK_EQUAL(halo_worker_poll(rig.worker, INT64_C(1000000000), &rig.result), 0);
		CHECK(rig.result.touched_count <= HALO_MAX_TOUCHED);
		touched += rig.result.touched_count;
		polls++;
		CHECK(polls < 20);
	}
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 400);
	CHECK_EQUAL(touched, 400);
	CHECK_EQUAL(rig.slot->worker.neighbor_touches, 400);
	rig_close();
}

/* Python's calls, right and wrong. */
static void neighbor_arguments(void)
{
	open_router();
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, LINKS, HOST, host_mac, HALO_NEIGHBOR_REACHABLE), -ENOENT);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, UINT32_MAX, HOST, host_mac, HALO_NEIGHBOR_REACHABLE), -ENOENT);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, NULL, HALO_NEIGHBOR_REACHABLE), -EINVAL);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, NULL, HALO_NEIGHBOR_STALE), -EINVAL);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, NULL, HALO_NEIGHBOR_REPORT), -EINVAL);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, host_mac, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, OUTSIDE, HOST, host_mac, 6), -EINVAL);
	CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, OUTSIDE, FAR), -ENOENT);
	CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, UINT32_MAX, HOST), -ENOENT);
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.neighbors, 2);
	make();
	check_sent(OUTSIDE, host_mac);
	CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, OUTSIDE, HOST), 0);
	rig_check_punt(&frame, 0);
	rig_close();
}

/* Against a plain table: entries come, change and go; all that are there are found, none that are not. */
static void neighbors_at_random(void)
{
	enum { ADDRESSES = 3000, ROUNDS = 60000 };
	static uint8_t known[ADDRESSES];
	uint64_t seed = 20261122;
	uint32_t round, i, count = 2;

	printf("    seed %" PRIu64 "\n", seed);
	memset(known, 0, sizeof(known));
	open_router();
	for (round = 0; round < ROUNDS; round++) {
		uint32_t filling = round / 10000 % 2 == 0;

		i = random_below(&seed, ADDRESSES);
		if (random_below(&seed, 10) < (filling ? 8 : 2)) {
			set_neighbor(TAGGED, IPV4(10, 2, 0, 0) + i, host_mac, HALO_NEIGHBOR_REACHABLE);
			count += !known[i];
			known[i] = 1;
		} else {
			CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, TAGGED, IPV4(10, 2, 0, 0) + i),
				    known[i] ? 0 : -ENOENT);
			count -= known[i];
			known[i] = 0;
		}
		CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), count);
	}
	for (i = 0; i < ADDRESSES; i++)
		CHECK_EQUAL(halo_worker_remove_neighbor(rig.worker, TAGGED, IPV4(10, 2, 0, 0) + i),
			    known[i] ? 0 : -ENOENT);
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2);
	make();
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void neighbors_beyond_their_limit(void)
{
	uint32_t i;

	open_router();
	for (i = 2; i < HALO_MAX_NEIGHBORS; i++)
		set_neighbor(TAGGED, i, host_mac, HALO_NEIGHBOR_REACHABLE);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, TAGGED, i, host_mac, HALO_NEIGHBOR_REACHABLE), -ENOSPC);
	set_neighbor(TAGGED, 2, gateway_mac, HALO_NEIGHBOR_REACHABLE); /* one that is there may change */
	make();
	check_sent(OUTSIDE, host_mac);
	rig_set_interfaces(links, 2); /* and all of them go with their interface */
	rig_poll();
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2);
	check_sent(OUTSIDE, host_mac);
	rig_close();
}

static void interface_changes(void)
{
	open_router();
	set_neighbor(TAGGED, IPV4(10, 2, 0, 2), host_mac, HALO_NEIGHBOR_REACHABLE);
	links[OUTSIDE].mac[4] = 0x55;
	links[OUTSIDE].mtu = 100;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 3);
	make();
	check_sent(OUTSIDE, host_mac);
	plan.data_octets = 200;
	make();
	rig_check_punt(&frame, 0);
	links[TAGGED].vlan = 78; /* another link: who was there is not here */
	rig_set_interfaces(links, LINKS);
	rig_poll();
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 2);
	links[OUTSIDE].mtu = 0; /* no interface there any more */
	links[OUTSIDE].flags = 0;
	rig_set_interfaces(links, LINKS);
	rig_poll();
	CHECK_EQUAL(halo_worker_neighbor_count(rig.worker), 0);
	rig_close();
}

/* ---- groups ----------------------------------------------------------------------------------------------------- */

enum { MEMBERS = 4, FLOWS = 400 };

/* Sends one flow's packet and returns which member it went to; MEMBERS: to none. */
static uint32_t member_of(uint32_t flow)
{
	plan = echo;
	plan.protocol = UDP;
	plan.src_port = (uint16_t)flow;
	plan.dst = FAR + flow;
	make();
	rig_deliver(&frame, 0, 0);
	rig_poll();
	if (rig.result.punt_count)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 1);
	return rig.returned[0].descriptor.flags == HALO_ACTION_TRANSMIT ? rig.returned[0].octets[5] : MEMBERS;
}

static void member_state(uint32_t member, uint32_t state)
{
	uint8_t mac[6] = {0x02, 0xdd, 0, 0, 0, (uint8_t)member};

	set_neighbor(OUTSIDE, IPV4(10, 1, 0, 100) + member, mac, state);
}

static void open_group(void)
{
	uint32_t targets[16];
	uint32_t i;

	open_router();
	rig.fib->hash_seed = 12345;
	for (i = 0; i < MEMBERS; i++) {
		targets[i] = rig_target(HALO_TARGET_GATEWAY, OUTSIDE, IPV4(10, 1, 0, 100) + i);
		member_state(i, HALO_NEIGHBOR_REACHABLE);
	}
	for (i = MEMBERS; i < 16; i++)
		targets[i] = targets[i % MEMBERS];
	route(IPV4(192, 0, 0, 0), 8, rig_group(targets, 16));
}

static void group_spreads_flows(void)
{
	uint32_t seen[MEMBERS + 1] = {0};
	uint32_t i;

	open_group();
	for (i = 0; i < FLOWS; i++) {
		uint32_t member = member_of(i);

		seen[member]++;
		CHECK_EQUAL(member_of(i), member);
	}
	for (i = 0; i < MEMBERS; i++)
		CHECK(seen[i] > FLOWS / MEMBERS / 2, "member %u had %u of %u flows", i, seen[i], FLOWS);
	rig_close();
}

/* Fragments go by addresses and protocol, the first one too: they stay together. */
static void group_keeps_fragments_together(void)
{
	uint32_t i, offset, member;

	open_group();
	for (i = 0; i < 40; i++) {
		for (offset = 0; offset < 3; offset++) {
			plan = echo;
			plan.protocol = UDP;
			plan.src_port = (uint16_t)(i * 3 + offset);
			plan.dst = FAR + i;
			plan.fragment = (uint16_t)(offset | (offset < 2 ? 0x2000 : 0));
			make();
			rig_deliver(&frame, 0, 0);
			rig_poll();
			rig_collect();
			CHECK_EQUAL(rig.returned_count, 1);
			if (offset == 0)
				member = rig.returned[0].octets[5];
			CHECK_EQUAL(rig.returned[0].octets[5], member);
		}
	}
	rig_close();
}

/* A member that fails costs nothing, the others keep their flows, and its own go to all of them. */
static void group_with_failed_members(void)
{
	uint32_t before[FLOWS], moved[MEMBERS + 1] = {0};
	uint32_t i;

	open_group();
	for (i = 0; i < FLOWS; i++)
		before[i] = member_of(i);
	member_state(2, HALO_NEIGHBOR_FAILED);
	for (i = 0; i < FLOWS; i++) {
		uint32_t member = member_of(i);

		CHECK(member != 2);
		if (before[i] == 2)
			moved[member]++;
		else
			CHECK_EQUAL(member, before[i]);
	}
	CHECK(moved[0] > 5 && moved[1] > 5 && moved[3] > 5 && moved[MEMBERS] == 0, "%u %u %u %u", moved[0], moved[1],
	      moved[3], moved[MEMBERS]);
	for (i = 0; i < MEMBERS; i++)
		member_state(i, HALO_NEIGHBOR_FAILED);
	CHECK_EQUAL(member_of(1), MEMBERS);
	member_state(1, HALO_NEIGHBOR_STALE);
	CHECK_EQUAL(member_of(1), 1);
	CHECK_EQUAL(rig.result.touched_count, 1);
	rig_close();
}

/* ---- odds ------------------------------------------------------------------------------------------------------- */

static void arp_goes_home(void)
{
	open_router();
	plan.ethertype = TYPE_ARP;
	make();
	rig_check_punt(&frame, 0);
	frame.octets[5] = 3;
	rig_check_handed(&frame, 2, OTHER_SLOT);
	rig_deliver(&frame, 2, HALO_DESCRIPTOR_HANDED);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

static void echo_to_each_address(void)
{
	open_router();
	for (plan.dst = IPV4(10, 0, 0, 1); plan.dst <= IPV4(10, 3, 0, 1); plan.dst += 1 << 16) {
		make();
		rig_check_reply(&frame, 0);
	}
	CHECK_EQUAL(rig.slot->interface[INSIDE].tx_packets, 4);
	CHECK_EQUAL(rig.slot->worker.forwarded, 0);
	rig_close();
}

static void without_a_fib(void)
{
	open_router();
	rig.setup.fib = NULL;
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_poll();
	make();
	rig_check_punt(&frame, 0); /* no route */
	plan.dst = OWN_ADDRESS;
	make();
	rig_check_reply(&frame, 0);
	plan.dst = IPV4(10, 0, 0, 255);
	make();
	check_drop(HALO_DROP_icmp_broadcast_echo);
	plan.dst = IPV4(10, 2, 0, 255);
	make();
	check_drop(HALO_DROP_ipv4_directed_broadcast);
	rig_close();
}

/* What Python sends counts on the interface that its octets name. */
static void python_sends(void)
{
	open_router();
	rig_give_spares(3);
	make();
	CHECK_EQUAL(halo_worker_originate(rig.worker, 1, frame.octets, frame.length), 0);
	plan.vlan = 77;
	make();
	CHECK_EQUAL(halo_worker_originate(rig.worker, 1, frame.octets, frame.length), 0);
	plan.vlan = 78;
	make();
	CHECK_EQUAL(halo_worker_originate(rig.worker, 1, frame.octets, frame.length), 0);
	CHECK_EQUAL(rig.slot->interface[OUTSIDE].tx_packets, 1);
	CHECK_EQUAL(rig.slot->interface[TAGGED].tx_packets, 1);
	CHECK_EQUAL(rig.slot->interface[TAGGED].tx_octets, frame.length);
	rig_close();
}

/* Whatever stands in the FIB, nothing leads out of its tables. */
static void fib_of_garbage(void)
{
	uint64_t seed = 77;
	uint32_t round, i;
	uint32_t *words;

	printf("    seed %" PRIu64 "\n", seed);
	open_router();
	words = (uint32_t *)(void *)rig.fib;
	for (round = 0; round < 400; round++) {
		for (i = sizeof(struct halo_region_header) / 4 + round % 64; i < sizeof(struct halo_fib) / 4; i += 64)
			words[i] =
				(uint32_t)random_next(&seed) >> (random_below(&seed, 4) ? 0 : random_below(&seed, 32));
		for (i = 0; i < 64; i++) {
			uint32_t node = random_below(&seed, HALO_FIB_MAX_NODES) * HALO_FIB_NODE;

			words[sizeof(struct halo_fib) / 4 + node] = (uint32_t)random_next(&seed);
			plan.dst = (uint32_t)random_next(&seed);
			make();
			rig_deliver(&frame, 0, 0);
		}
		rig_poll();
		for (i = 0; i < rig.result.punt_count; i++)
			CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
		rig_check_books();
	}
	rig_close();
}

/* Runs last. */
static void every_reason_was_seen(void)
{
	static const enum halo_drop reasons[] = {
		HALO_DROP_ipv4_blackhole,
		HALO_DROP_ipv4_unreachable,
		HALO_DROP_ipv4_prohibited,
		HALO_DROP_ipv4_too_big,
		HALO_DROP_ipv4_link_local,
		HALO_DROP_ipv4_source_route,
		HALO_DROP_interface_down,
		HALO_DROP_neighbor_rate,
		HALO_DROP_ipv4_directed_broadcast,
		HALO_DROP_ipv4_no_route,
		HALO_DROP_ipv4_ttl,
		HALO_DROP_ipv4_options,
		HALO_DROP_neighbor_hold_full,
		HALO_DROP_neighbor_unresolved,
	};
	unsigned int i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		CHECK(reason_seen[reasons[i]], "no row ended in %s", halo_drop_name(reasons[i]));
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"connected_and_gateway", connected_and_gateway},
		{"any_header", any_header},
		{"tags_and_lengths", tags_and_lengths},
		{"tag_without_headroom", tag_without_headroom},
		{"same_interface_and_redirects", same_interface_and_redirects},
		{"ttl", ttl},
		{"routes_that_end", routes_that_end},
		{"too_long", too_long},
		{"options", options},
		{"link_local", link_local},
		{"groups_of_stations", groups_of_stations},
		{"directed_broadcast", directed_broadcast},
		{"martians", martians},
		{"forwarding_off", forwarding_off},
		{"interface_that_is_down", interface_that_is_down},
		{"neighbor_unknown", neighbor_unknown},
		{"port_without_home", port_without_home},
		{"neighbor_incomplete", neighbor_incomplete},
		{"neighbor_failed", neighbor_failed},
		{"neighbors_scanned", neighbors_scanned},
		{"neighbor_stale", neighbor_stale},
		{"neighbor_reported", neighbor_reported},
		{"touches_beyond_their_list", touches_beyond_their_list},
		{"neighbor_arguments", neighbor_arguments},
		{"neighbors_at_random", neighbors_at_random},
		{"neighbors_beyond_their_limit", neighbors_beyond_their_limit},
		{"interface_changes", interface_changes},
		{"group_spreads_flows", group_spreads_flows},
		{"group_keeps_fragments_together", group_keeps_fragments_together},
		{"group_with_failed_members", group_with_failed_members},
		{"arp_goes_home", arp_goes_home},
		{"echo_to_each_address", echo_to_each_address},
		{"without_a_fib", without_a_fib},
		{"python_sends", python_sends},
		{"fib_of_garbage", fib_of_garbage},
		{"every_reason_was_seen", every_reason_was_seen},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
