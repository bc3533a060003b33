/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast path against a model of a router that is slow and plain: worlds of links, routes and neighbors at random, and bursts
 * of frames into them. What depends on the clock (bounds of errors and look-ups) may end in either way; all else in one.
 */
#include <stdlib.h>

#include <halo/fastpath.h>
#include <halo/flow.h>

#include "rig.h"

enum {
	LINKS = 8,
	PORTS = 4,
	ROUTES = 60,
	NEIGHBORS = 64,
	WORLDS = 120,
	BURSTS = 40,
	ENDINGS = 40,
	OTHER_SLOT = 9,
	ECHO_SLOT = 0xbeef >> 10, /* as the identifier of these frames says */
};

struct neighbor {
	uint32_t interface;
	uint32_t address;
	uint32_t state;              /* 0: not there */
	uint32_t held, perhaps_held; /* packets punted for it since Python said so */
	bool full;                   /* a packet was dropped because of that */
	bool touched;                /* told of since Python said so */
	bool used, perhaps; /* in this burst; a punt does not say for which of a group's members it was meant */
	uint8_t mac[6];
};

struct target {
	enum halo_target_kind kind;
	uint32_t interface, address;
	uint32_t member[16];
	uint32_t members;
};

/* One way for a frame to end. */
struct ending {
	enum halo_verdict verdict;
	enum halo_drop reason;
	uint32_t port; /* or slot */
	uint32_t link; /* sent: by which */
	struct neighbor *neighbor;
};

struct arrival {
	struct plan plan;
	struct frame frame;
	uint32_t port, link, option, buffer;
	bool handed, group, mine;
	struct ending ending[ENDINGS];
	uint32_t endings;
};

static uint64_t seed;
static struct link links[LINKS];
static struct neighbor neighbors[NEIGHBORS];
static struct target targets[HALO_MAX_TARGETS / 16];
static struct arrival burst[HALO_BURST];
static struct halo_interface_counters counted[LINKS];
static uint64_t sent_on;

static const struct {
	uint8_t octets[8];
	enum halo_drop reason; /* HALO_DROP_COUNT: harmless */
} options[] = {
	{{1, 1, 1, 1}, HALO_DROP_COUNT},     {{0x55, 3, 9, 0}, HALO_DROP_COUNT},
	{{7, 7, 4}, HALO_DROP_ipv4_options}, {{131, 7, 4}, HALO_DROP_ipv4_source_route},
	{{0x55, 1}, HALO_DROP_ipv4_options},
};

static uint32_t below(uint32_t limit)
{
	return random_below(&seed, limit);
}

/* ---- the model ------------------------------------------------------------------------------------------------- */

static void may_end(struct arrival *arrival, struct ending ending)
{
	CHECK(arrival->endings < ENDINGS);
	arrival->ending[arrival->endings++] = ending;
}

static void dropped(struct arrival *arrival, enum halo_drop reason)
{
	may_end(arrival, (struct ending){.verdict = HALO_VERDICT_DROP, .reason = reason});
}

static void punted(struct arrival *arrival)
{
	may_end(arrival, (struct ending){.verdict = HALO_VERDICT_PUNT});
}

static void error(struct arrival *arrival, enum halo_drop reason)
{
	punted(arrival);
	dropped(arrival, reason);
}

static void handed(struct arrival *arrival, uint32_t slot)
{
	may_end(arrival, (struct ending){.verdict = HALO_VERDICT_HAND, .port = slot});
}

static bool up(uint32_t link)
{
	return link < LINKS && (links[link].flags & HALO_INTERFACE_UP);
}

static bool is_broadcast_of(const struct link *link, uint32_t address)
{
	uint32_t mask = link->prefix_length ? UINT32_MAX << (32 - link->prefix_length) : 0;

	return link->prefix_length < 31 && (address & mask) == (link->address & mask) &&
	       ((address & ~mask) == ~mask || (address & ~mask) == 0);
}

static bool martian_source(const struct plan *plan, bool handed)
{
	uint32_t i;

	if (plan->src == 0)
		return plan->protocol != UDP || (plan->fragment & 0x3fff) || plan->dst_port != 67 ||
		       plan->dst != UINT32_MAX;
	for (i = 0; i < LINKS; i++)
		if (!handed && up(i) && (links[i].address == plan->src || is_broadcast_of(&links[i], plan->src)))
			return true;
	return plan->src >> 24 == 0 || plan->src >> 24 == 127 || plan->src >> 24 >= 224;
}

/* The longest prefix; of two that are the same, the later one. */
static struct target *lookup(uint32_t dst)
{
	static struct target none;
	struct target *found = &none;
	int32_t longest = -1;
	uint32_t i;

	for (i = 0; i < rig.route_count; i++) {
		const struct rig_route *route = &rig.routes[i];
		uint32_t mask = route->length ? UINT32_MAX << (32 - route->length) : 0;

		if (((dst ^ route->prefix) & mask) || route->length < longest)
			continue;
		longest = route->length;
		found = &targets[route->target];
	}
	return found;
}

static struct neighbor *neighbor_at(uint32_t interface, uint32_t address)
{
	uint32_t i;

	for (i = 0; i < NEIGHBORS; i++)
		if (neighbors[i].state && neighbors[i].interface == interface && neighbors[i].address == address)
			return &neighbors[i];
	return NULL;
}

static bool is_dead(uint32_t interface, uint32_t address)
{
	struct neighbor *neighbor = neighbor_at(interface, address);

	return !up(interface) || (neighbor && neighbor->state == HALO_NEIGHBOR_FAILED);
}

static void to_us(struct arrival *arrival, bool all)
{
	const struct plan *plan = &arrival->plan;

	if ((plan->fragment & 0x3fff) || plan->protocol != ICMP || plan->option_words)
		return punted(arrival);
	if (all)
		return dropped(arrival,
			       plan->icmp_type == 8 ? HALO_DROP_icmp_broadcast_echo : HALO_DROP_icmp_unhandled);
	if (plan->icmp_type == 0 && !arrival->handed)
		return handed(arrival, ECHO_SLOT);
	if (plan->icmp_type != 8 || frame_ip_length(&arrival->frame) > links[arrival->link].mtu)
		return punted(arrival);
	may_end(arrival,
		(struct ending){.verdict = HALO_VERDICT_TRANSMIT, .port = arrival->port, .link = arrival->link});
}

static void without_mac(struct arrival *arrival, uint32_t link, struct neighbor *neighbor)
{
	if (links[link].home_slot != RIG_SLOT_NUMBER) {
		if (arrival->handed)
			return dropped(arrival, HALO_DROP_neighbor_unresolved);
		return handed(arrival, links[link].home_slot);
	}
	may_end(arrival, (struct ending){.verdict = HALO_VERDICT_PUNT, .neighbor = neighbor});
	dropped(arrival, HALO_DROP_neighbor_rate);
	if (neighbor)
		may_end(arrival, (struct ending){.verdict = HALO_VERDICT_DROP,
						 .reason = HALO_DROP_neighbor_hold_full,
						 .neighbor = neighbor});
}

static void to_neighbor(struct arrival *arrival, uint32_t link, uint32_t next_hop)
{
	struct neighbor *neighbor = neighbor_at(link, next_hop);

	if (!up(link))
		return dropped(arrival, HALO_DROP_interface_down);
	if (neighbor && neighbor->state == HALO_NEIGHBOR_FAILED)
		return error(arrival, HALO_DROP_neighbor_unresolved);
	if (!neighbor || neighbor->state == HALO_NEIGHBOR_INCOMPLETE)
		return without_mac(arrival, link, neighbor);
	if (frame_ip_length(&arrival->frame) > links[link].mtu) {
		may_end(arrival, (struct ending){.verdict = HALO_VERDICT_PUNT, .neighbor = neighbor});
		if (arrival->plan.fragment & 0x4000)
			may_end(arrival, (struct ending){.verdict = HALO_VERDICT_DROP,
							 .reason = HALO_DROP_ipv4_too_big,
							 .neighbor = neighbor});
		return;
	}
	if (link == arrival->link && (links[link].flags & HALO_INTERFACE_REDIRECTS))
		may_end(arrival, (struct ending){.verdict = HALO_VERDICT_PUNT, .neighbor = neighbor});
	may_end(arrival, (struct ending){.verdict = HALO_VERDICT_TRANSMIT,
					 .port = links[link].port,
					 .link = link,
					 .neighbor = neighbor});
}

static uint32_t next_hop_of(const struct target *target, uint32_t dst)
{
	return target->kind == HALO_TARGET_GATEWAY ? target->address : dst;
}

/* The flow's own bucket; when that one is dead, any that is not. */
static void to_group(struct arrival *arrival, const struct target *group)
{
	const struct plan *plan = &arrival->plan;
	bool ports = (plan->protocol == UDP || plan->protocol == TCP) && !(plan->fragment & 0x3fff) &&
		     frame_ip_length(&arrival->frame) >= 24 + plan->option_words * 4;
	uint32_t hash = halo_flow_hash(rig.fib->hash_seed, plan->src, plan->dst, plan->protocol,
				       ports ? plan->src_port : 0, ports ? plan->dst_port : 0);
	const struct target *own = &targets[group->member[hash % group->members]];
	uint32_t i;

	if (!is_dead(own->interface, next_hop_of(own, plan->dst)))
		return to_neighbor(arrival, own->interface, next_hop_of(own, plan->dst));
	for (i = 0; i < group->members; i++) {
		const struct target *member = &targets[group->member[i]];
		uint32_t next_hop = next_hop_of(member, plan->dst);

		if (!is_dead(member->interface, next_hop))
			to_neighbor(arrival, member->interface, next_hop);
	}
	if (!arrival->endings)
		to_neighbor(arrival, own->interface, next_hop_of(own, plan->dst));
}

static void to_target(struct arrival *arrival, const struct target *target)
{
	if (!(links[arrival->link].flags & HALO_INTERFACE_FORWARD))
		return dropped(arrival, HALO_DROP_ipv4_not_local);
	if (target->kind == HALO_TARGET_BLACKHOLE)
		return dropped(arrival, HALO_DROP_ipv4_blackhole);
	if (target->kind == HALO_TARGET_UNREACHABLE)
		return error(arrival, HALO_DROP_ipv4_unreachable);
	if (target->kind == HALO_TARGET_PROHIBIT)
		return error(arrival, HALO_DROP_ipv4_prohibited);
	if (target->kind == HALO_TARGET_NONE)
		return error(arrival, HALO_DROP_ipv4_no_route);
	if (arrival->plan.ttl <= 1)
		return error(arrival, HALO_DROP_ipv4_ttl);
	if (arrival->plan.option_words && options[arrival->option].reason != HALO_DROP_COUNT)
		return error(arrival, options[arrival->option].reason);
	if (target->kind == HALO_TARGET_GROUP)
		return to_group(arrival, target);
	to_neighbor(arrival, target->interface, next_hop_of(target, arrival->plan.dst));
}

static bool link_local(uint32_t address)
{
	return address >> 16 == (169 << 8 | 254);
}

static void route_it(struct arrival *arrival)
{
	uint32_t dst = arrival->plan.dst;
	const struct target *target = lookup(dst);
	bool here = target->kind == HALO_TARGET_BROADCAST && target->interface == arrival->link;
	bool forwards = links[arrival->link].flags & HALO_INTERFACE_FORWARD;

	if (martian_source(&arrival->plan, arrival->handed))
		return dropped(arrival, HALO_DROP_ipv4_martian);
	if (dst == UINT32_MAX)
		return to_us(arrival, true);
	if (dst >> 24 == 0 || dst >> 24 == 127 || dst >> 24 >= 240)
		return dropped(arrival, HALO_DROP_ipv4_martian);
	if (dst >> 24 >= 224)
		return dropped(arrival, HALO_DROP_l2_multicast);
	if (target->kind == HALO_TARGET_LOCAL || here)
		return to_us(arrival, here || arrival->group);
	if (arrival->group)
		return dropped(arrival, HALO_DROP_l2_multicast);
	if (link_local(arrival->plan.src) || link_local(dst))
		return dropped(arrival, forwards ? HALO_DROP_ipv4_link_local : HALO_DROP_ipv4_not_local);
	if (target->kind != HALO_TARGET_BROADCAST)
		return to_target(arrival, target);
	if (!forwards)
		return dropped(arrival, HALO_DROP_ipv4_not_local);
	if (links[target->interface].flags & HALO_INTERFACE_DIRECTED_BROADCAST)
		return punted(arrival);
	dropped(arrival, HALO_DROP_ipv4_directed_broadcast);
}

static void arrive(struct arrival *arrival)
{
	uint32_t vlan = arrival->plan.vlan == NO_VLAN ? 0 : arrival->plan.vlan & 0xfff;
	bool any = false;
	uint32_t i;

	arrival->link = LINKS;
	for (i = LINKS; i-- > 0;) {
		if (!up(i) || links[i].port != arrival->port)
			continue;
		any = true;
		if (links[i].vlan == vlan)
			arrival->link = i;
	}
	if (arrival->link == LINKS)
		return dropped(arrival, any ? HALO_DROP_vlan_unknown : HALO_DROP_no_interface);
	if (!arrival->mine && !arrival->group)
		return dropped(arrival, HALO_DROP_not_for_us);
	counted[arrival->link].rx_packets++;
	counted[arrival->link].rx_octets += arrival->frame.length;
	route_it(arrival);
}

/* ---- a world at random ------------------------------------------------------------------------------------------ */

/* Addresses meet: few networks, few hosts in them, and what is special. */
static uint32_t any_address(void)
{
	static const uint32_t special[] = {0,
					   UINT32_MAX,
					   IPV4(127, 0, 0, 1),
					   IPV4(224, 0, 0, 5),
					   IPV4(240, 0, 0, 1),
					   IPV4(169, 254, 1, 2),
					   IPV4(0, 0, 0, 9)};
	uint32_t link = below(LINKS);

	if (below(24) == 0)
		return special[below(7)];
	if (below(8) == 0)
		return links[link].address;
	if (below(16) == 0)
		return links[link].address | (UINT32_MAX >> (links[link].prefix_length % 32));
	if (below(2))
		return (links[link].address & ~7u) | below(8);
	return IPV4(50 + below(2), below(3), below(3), below(6) * 50);
}

static uint32_t new_target(enum halo_target_kind kind, uint32_t interface, uint32_t address)
{
	uint32_t number = rig_target(kind, interface, address);

	targets[number] = (struct target){.kind = kind, .interface = interface, .address = address};
	return number;
}

static uint32_t any_hop(void)
{
	if (below(8) == 0)
		return new_target(HALO_TARGET_CONNECTED, below(LINKS + 1), 0);
	return new_target(HALO_TARGET_GATEWAY, below(12) ? below(LINKS) : LINKS + below(300),
			  neighbors[below(NEIGHBORS)].address);
}

static uint32_t any_target(void)
{
	static const enum halo_target_kind refusals[] = {HALO_TARGET_BLACKHOLE, HALO_TARGET_UNREACHABLE,
							 HALO_TARGET_PROHIBIT, HALO_TARGET_NONE};
	uint32_t member[16], count, i, group;

	if (below(4) == 0)
		return new_target(refusals[below(4)], 0, 0);
	if (below(3))
		return any_hop();
	count = 1u << below(5);
	for (i = 0; i < count; i++)
		member[i] = any_hop();
	group = rig_group(member, count);
	targets[group] = (struct target){.kind = HALO_TARGET_GROUP, .members = count};
	memcpy(targets[group].member, member, sizeof(member));
	return group;
}

static void make_links(void)
{
	static const uint8_t lengths[] = {16, 24, 24, 28, 29, 30, 31, 32};
	uint32_t i, flag;

	for (i = 0; i < LINKS; i++) {
		links[i] = rig_interface;
		links[i].port = (uint8_t)below(PORTS);
		links[i].vlan = (uint16_t)(below(2) ? 0 : 1 + below(3));
		links[i].mac[5] = (uint8_t)(links[i].port + 1);
		links[i].home_slot = below(3) ? RIG_SLOT_NUMBER : OTHER_SLOT;
		links[i].address = IPV4(10, i, 0, 1 + below(6));
		links[i].prefix_length = lengths[below(8)];
		links[i].mtu = below(3) ? 1500 : 100;
		links[i].flags = below(10) ? HALO_INTERFACE_UP : 0;
		for (flag = HALO_INTERFACE_FORWARD; flag <= HALO_INTERFACE_REDIRECTS; flag *= 2)
			links[i].flags |=
				flag == HALO_INTERFACE_FORWARD ? (below(8) ? flag : 0) : (below(3) ? 0 : flag);
	}
	/* Each port and VLAN once: of two, the second one is down. */
	for (i = 0; i < LINKS; i++)
		for (flag = 0; flag < i; flag++)
			if (up(flag) && links[flag].port == links[i].port && links[flag].vlan == links[i].vlan)
				links[i].flags &= ~(uint32_t)HALO_INTERFACE_UP;
}

/* The targets that rig_set_interfaces made, as the model has them. */
static void copy_targets(void)
{
	uint32_t i;

	memset(targets, 0, sizeof(targets));
	for (i = 0; i < rig.fib_targets; i++)
		targets[i] = (struct target){.kind = rig.fib->target[i].what & 0xffff,
					     .interface = rig.fib->target[i].what >> 16,
					     .address = rig.fib->target[i].address};
}

static void set_neighbor(struct neighbor *neighbor)
{
	static const uint32_t usable[] = {HALO_NEIGHBOR_REACHABLE, HALO_NEIGHBOR_STALE, HALO_NEIGHBOR_REPORT};
	uint32_t before = neighbor->state;

	neighbor->state = below(3) ? usable[below(3)] : below(6);
	neighbor->held = neighbor->perhaps_held = 0;
	neighbor->full = false;
	neighbor->used = neighbor->perhaps = false;
	/* A foreign neighbor that was told of is not told of again because it was set again. */
	if (neighbor->state != HALO_NEIGHBOR_REPORT ||
	    (before != HALO_NEIGHBOR_STALE && before != HALO_NEIGHBOR_REPORT))
		neighbor->touched = false;
	if (neighbor->state)
		CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, neighbor->interface, neighbor->address, neighbor->mac,
						     neighbor->state),
			    0);
	else
		halo_worker_remove_neighbor(rig.worker, neighbor->interface, neighbor->address);
}

static void make_neighbors(void)
{
	uint32_t i;

	for (i = 0; i < NEIGHBORS; i++) {
		uint32_t link = i % LINKS;

		neighbors[i] = (struct neighbor){
			.interface = link,
			.address = i < LINKS * 5 ? (links[link].address & ~7u) | i / LINKS
						 : IPV4(50, 0, i / LINKS % 3, 50),
			.mac = {2, 0xdd, 0, 0, 0, (uint8_t)i},
		};
	}
}

static bool is_own(uint32_t address)
{
	uint32_t i;

	for (i = 0; i < LINKS; i++)
		if (up(i) && (links[i].address == address || is_broadcast_of(&links[i], address)))
			return true;
	return false;
}

static void make_world(void)
{
	uint32_t i;

	make_links();
	rig_open(links, LINKS);
	rig.setup.debug = 1; /* so that a burst tells what became of each frame */
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_poll();
	rig.room_behind = 60;
	rig.fib->hash_seed = (uint32_t)random_next(&seed);
	copy_targets();
	make_neighbors();
	for (i = 0; i < ROUTES; i++) {
		uint8_t length = (uint8_t)(below(4) ? 16 + below(17) : below(33));
		uint32_t prefix = any_address() & (length ? UINT32_MAX << (32 - length) : 0);

		if (length < 32 || !is_own(prefix))
			rig_route(prefix, length, any_target());
	}
	rig_build_fib();
	for (i = 0; i < NEIGHBORS; i++)
		set_neighbor(&neighbors[i]);
	memset(counted, 0, sizeof(counted));
	sent_on = 0;
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

static void make_arrival(struct arrival *arrival)
{
	static const uint8_t protocols[] = {ICMP, ICMP, UDP, TCP, 47};
	static const uint16_t fragments[] = {0, 0x4000, 0x4000, 0x2000, 3};
	struct plan *plan = &arrival->plan;
	const struct link *link = &links[below(LINKS)];
	uint32_t to = below(20);

	memset(arrival, 0, sizeof(*arrival));
	*plan = echo;
	arrival->port = below(30) ? link->port : below(PORTS + 1);
	plan->vlan = link->vlan ? (int32_t)link->vlan | 0x6000 : below(4) ? NO_VLAN : 0;
	if (below(30) == 0)
		plan->vlan = (int32_t)below(6);
	plan->dst_mac[5] = (uint8_t)(arrival->port + 1);
	arrival->group = to == 0;
	arrival->mine = to > 1;
	plan->dst_mac[0] = (uint8_t)(to == 0 ? 1 : to == 1 ? 0x22 : plan->dst_mac[0]);
	plan->src = below(2) ? any_address() : PEER_ADDRESS + (60 << 8) + below(99);
	plan->dst = below(3) ? any_address() : IPV4(50, 0, below(3), below(6) * 50);
	plan->ttl = (uint8_t)(below(12) ? 2 + below(60) : below(2));
	plan->protocol = protocols[below(5)];
	plan->icmp_type = below(3) ? 8 : below(2) ? 0 : 3;
	plan->fragment = fragments[below(5)];
	plan->src_port = (uint16_t)below(9);
	plan->dst_port = (uint16_t)(below(9) ? below(70) : 67);
	plan->data_octets = below(5) ? below(60) : below(1400);
	plan->pad_to = below(3) ? 60 : below(200);
	plan->option_words = below(8) ? 0 : 2;
	arrival->option = below(sizeof(options) / sizeof(options[0]));
	memcpy(plan->options, options[arrival->option].octets, 8);
	arrival->handed = below(6) == 0;
	frame_make(plan, &arrival->frame);
}

static struct returned *returned_of(const struct arrival *arrival)
{
	uint32_t i;

	for (i = 0; i < rig.returned_count; i++)
		if (rig.returned[i].buffer == arrival->buffer)
			return &rig.returned[i];
	return NULL;
}

static bool is_sent_as(const struct arrival *arrival, const struct ending *ending, const struct returned *returned)
{
	const struct link *link = &links[ending->link];
	struct frame sent;
	uint32_t checked = arrival->frame.length;

	if (ending->neighbor) {
		frame_forwarded(&arrival->frame, ending->neighbor->mac, link->mac, link->vlan ? link->vlan : NO_VLAN,
				&sent);
		checked = sent.length;
	} else {
		frame_reply(&arrival->frame, &sent);
	}
	return returned->descriptor.port == ending->port && returned->descriptor.length == sent.length &&
	       memcmp(returned->octets, sent.octets, checked) == 0;
}

static bool ended_as(const struct arrival *arrival, const struct ending *ending, const struct halo_debug_frame *what)
{
	const struct returned *returned = returned_of(arrival);

	if (what->verdict != ending->verdict)
		return false;
	if (ending->verdict == HALO_VERDICT_PUNT)
		return true;
	if (ending->verdict == HALO_VERDICT_DROP)
		return what->reason == ending->reason;
	if (ending->verdict == HALO_VERDICT_TRANSMIT)
		return is_sent_as(arrival, ending, returned);
	return returned->descriptor.flags == HALO_ACTION_HAND && returned->descriptor.port == ending->port &&
	       memcmp(returned->octets, arrival->frame.octets, arrival->frame.length) == 0;
}

static bool tells(const struct neighbor *neighbor)
{
	return neighbor->state == HALO_NEIGHBOR_STALE || neighbor->state == HALO_NEIGHBOR_REPORT;
}

/* Whether all ways to end are about the same neighbor. */
static bool is_plain(const struct arrival *arrival)
{
	uint32_t i;

	for (i = 0; i < arrival->endings; i++)
		if (arrival->ending[i].verdict != HALO_VERDICT_DROP &&
		    arrival->ending[0].neighbor != arrival->ending[i].neighbor)
			return false;
	return true;
}

static void note_ending(const struct arrival *arrival, const struct ending *ending)
{
	struct neighbor *neighbor = ending->neighbor;
	bool held = ending->verdict == HALO_VERDICT_PUNT;
	uint32_t i;

	for (i = 0; i < arrival->endings; i++) {
		if (!arrival->ending[i].neighbor)
			continue;
		arrival->ending[i].neighbor->perhaps = true;
		arrival->ending[i].neighbor->perhaps_held += held && arrival->ending[i].verdict == HALO_VERDICT_PUNT;
	}
	if (ending->verdict == HALO_VERDICT_TRANSMIT) {
		sent_on += neighbor != NULL;
		counted[ending->link].tx_packets++;
		counted[ending->link].tx_octets += returned_of(arrival)->descriptor.length;
	}
	if (!neighbor)
		return;
	neighbor->used |= ending->verdict == HALO_VERDICT_TRANSMIT || is_plain(arrival);
	neighbor->held += held && is_plain(arrival);
	neighbor->full |= ending->verdict == HALO_VERDICT_DROP && ending->reason == HALO_DROP_neighbor_hold_full &&
			  is_plain(arrival);
}

static void check_arrival(struct arrival *arrival, const struct halo_debug_frame *what, uint32_t number)
{
	uint32_t i;

	for (i = 0; i < arrival->endings; i++)
		if (ended_as(arrival, &arrival->ending[i], what))
			return note_ending(arrival, &arrival->ending[i]);
	CHECK(false, "frame %u to %08x from %08x by port %u: verdict %u (%s), not %u (%s) or %u others", number,
	      arrival->plan.dst, arrival->plan.src, arrival->port, what->verdict,
	      what->verdict == HALO_VERDICT_DROP ? halo_drop_name(what->reason) : "", arrival->ending[0].verdict,
	      arrival->ending[0].verdict == HALO_VERDICT_DROP ? halo_drop_name(arrival->ending[0].reason) : "",
	      arrival->endings - 1);
}

static bool was_told(const struct neighbor *neighbor)
{
	uint32_t i;

	for (i = 0; i < rig.result.touched_count; i++)
		if (rig.result.touched[i].address == neighbor->address &&
		    rig.result.touched[i].interface == neighbor->interface)
			return true;
	return false;
}

/* Who was used first since Python said so, and nobody else, was told of. */
static void check_neighbors(void)
{
	uint32_t expected = 0, i;

	for (i = 0; i < NEIGHBORS; i++) {
		struct neighbor *neighbor = &neighbors[i];
		bool told = was_told(neighbor);

		if (neighbor->state == HALO_NEIGHBOR_INCOMPLETE)
			CHECK(neighbor->held <= HALO_HOLD_LIMIT &&
			      (!neighbor->full || neighbor->perhaps_held >= HALO_HOLD_LIMIT));
		CHECK(told || neighbor->touched || !neighbor->used || !tells(neighbor), "the use of %08x was not told",
		      neighbor->address);
		CHECK(!told || (!neighbor->touched && tells(neighbor) && neighbor->perhaps), "%08x was told of",
		      neighbor->address);
		neighbor->touched |= told;
		neighbor->used = neighbor->perhaps = false;
		expected += told;
	}
	CHECK_EQUAL(rig.result.touched_count, expected);
}

static void run_burst(void)
{
	uint32_t count = 1 + below(HALO_BURST), i;

	for (i = 0; i < count; i++) {
		make_arrival(&burst[i]);
		arrive(&burst[i]);
		burst[i].buffer = rig_deliver(&burst[i].frame, (uint8_t)burst[i].port,
					      burst[i].handed ? HALO_DESCRIPTOR_HANDED : 0);
	}
	rig_poll();
	rig_collect();
	CHECK_EQUAL(rig.result.debug_count, count);
	for (i = 0; i < count; i++)
		check_arrival(&burst[i], &rig.result.debug[i], i);
	check_neighbors();
	for (i = 0; i < rig.result.punt_count; i++)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
	rig_check_books();
}

static void check_counters(void)
{
	uint32_t i;

	CHECK_EQUAL(rig.slot->worker.forwarded, sent_on);
	for (i = 0; i < LINKS; i++) {
		CHECK_EQUAL(rig.slot->interface[i].rx_packets, counted[i].rx_packets);
		CHECK_EQUAL(rig.slot->interface[i].rx_octets, counted[i].rx_octets);
		CHECK_EQUAL(rig.slot->interface[i].tx_packets, counted[i].tx_packets);
		CHECK_EQUAL(rig.slot->interface[i].tx_octets, counted[i].tx_octets);
	}
}

/* ROUTE_TEST_SEED runs one world alone. */
static void worlds_at_random(void)
{
	const char *only = getenv("ROUTE_TEST_SEED");
	uint64_t all = 20261122, first;
	uint64_t forwarded = 0;
	uint32_t world, i;

	for (world = 0; world < WORLDS; world++) {
		first = seed = only ? strtoull(only, NULL, 0) : random_next(&all);
		printf("    ROUTE_TEST_SEED=%" PRIu64 "\n", first);
		make_world();
		for (i = 0; i < BURSTS; i++) {
			run_burst();
			set_neighbor(&neighbors[below(NEIGHBORS)]);
		}
		check_counters();
		forwarded += sent_on;
		rig_close();
		if (only)
			return;
	}
	CHECK(forwarded > 10000, "only %" PRIu64 " packets were sent on", forwarded);
}

/* Runs last: a model that never ended in a way has not shown it. */
static void every_reason_was_seen(void)
{
	static const enum halo_drop reasons[] = {
		HALO_DROP_not_for_us,          HALO_DROP_vlan_unknown,   HALO_DROP_no_interface,
		HALO_DROP_ipv4_martian,        HALO_DROP_l2_multicast,   HALO_DROP_ipv4_not_local,
		HALO_DROP_ipv4_link_local,     HALO_DROP_ipv4_blackhole, HALO_DROP_ipv4_directed_broadcast,
		HALO_DROP_icmp_broadcast_echo, HALO_DROP_icmp_unhandled, HALO_DROP_interface_down,
		HALO_DROP_neighbor_unresolved,
	};
	unsigned int i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		CHECK(reason_seen[reasons[i]], "no frame ended in %s", halo_drop_name(reasons[i]));
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"worlds_at_random", worlds_at_random},
		{"every_reason_was_seen", every_reason_was_seen},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
