/* SPDX-License-Identifier: Apache-2.0 */
/* Is the frame for us, and who finishes it? Addresses, VLANs, interfaces, punts. After every row the books balance. */
#include <halo/fastpath.h>

#include "rig.h"

static struct plan plan;
static struct frame frame;

static void open_plain(void)
{
	plan = echo;
	rig_open(&rig_interface, 1);
}

static void make(void)
{
	frame_make(&plan, &frame);
}

static void check_drop(enum halo_drop reason)
{
	rig_check_drop(&frame, 0, reason);
}

/* ---- addresses ------------------------------------------------------------------------------------------------ */

static void martians(void)
{
	static const uint32_t sources[] = {
		0,
		IPV4(0, 0, 0, 1),
		IPV4(0, 255, 255, 255),
		IPV4(127, 0, 0, 1),
		IPV4(127, 255, 255, 255),
		IPV4(224, 0, 0, 1),
		IPV4(239, 255, 255, 255),
		IPV4(240, 0, 0, 1),
		UINT32_MAX,
		OWN_ADDRESS,
	};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		plan.src = sources[i];
		plan.protocol = ICMP;
		make();
		check_drop(HALO_DROP_ipv4_martian);
		plan.protocol = TCP;
		make();
		check_drop(HALO_DROP_ipv4_martian);
	}
	plan.src = 0;
	plan.protocol = UDP;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	rig_close();
}

/* RFC 2131: a client without an address asks from 0.0.0.0; nothing but that may come from there. */
static void source_unspecified(void)
{
	open_plain();
	plan.src = 0;
	plan.dst = UINT32_MAX;
	plan.protocol = UDP;
	plan.src_port = 68;
	plan.dst_port = 67;
	make();
	rig_check_punt(&frame, 0);
	plan.dst_port = 68;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.dst_port = 67;
	plan.fragment = 1; /* what looks like a port there is none */
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.fragment = 0;
	plan.protocol = TCP;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.protocol = UDP;
	plan.dst = OWN_ADDRESS;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	rig_close();
}

/* RFC 1122 3.2.1.3: a directed broadcast is no source. */
static void source_subnet_broadcast(void)
{
	open_plain();
	plan.src = IPV4(10, 0, 0, 255);
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.src = IPV4(10, 0, 0, 0); /* the form of old */
	make();
	check_drop(HALO_DROP_ipv4_martian);
	rig_close();
}

/* A group, nobody, and ourselves: for IP and for ARP, to us and to everybody. */
static void source_macs(void)
{
	static const uint8_t sources[][6] = {{0x03, 1, 2, 3, 4, 5}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0}, OWN_MAC};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		plan.ethertype = i % 2 ? TYPE_ARP : TYPE_IPV4;
		memcpy(plan.src_mac, sources[i], 6);
		make();
		check_drop(HALO_DROP_ethernet_source);
		memset(frame.octets, 0xff, 6);
		check_drop(HALO_DROP_ethernet_source);
	}
	rig_close();
}

static void destination_of_others(void)
{
	open_plain();
	plan.dst = IPV4(10, 0, 0, 3);
	make();
	check_drop(HALO_DROP_ipv4_not_local);
	plan.dst = IPV4(10, 0, 1, 255); /* the broadcast address of a subnet that is not ours */
	make();
	check_drop(HALO_DROP_ipv4_not_local);
	plan.dst = IPV4(127, 0, 0, 1);
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.dst = IPV4(224, 0, 0, 1);
	make();
	check_drop(HALO_DROP_l2_multicast);
	plan.dst = IPV4(10, 0, 0, 3);
	make();
	memset(frame.octets, 0xff, 6);
	check_drop(HALO_DROP_l2_multicast);
	rig_close();
}

static void destination_unspecified(void)
{
	struct link bare = rig_interface;

	bare.address = 0;
	bare.prefix_length = 0;
	plan = echo;
	rig_open(&bare, 1);
	plan.dst = 0;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.protocol = UDP;
	make();
	check_drop(HALO_DROP_ipv4_martian);
	plan.dst = UINT32_MAX; /* where an answer of a DHCP server goes */
	plan.src_port = 67;
	plan.dst_port = 68;
	make();
	rig_check_punt(&frame, 0);
	rig_close();
}

static void broadcasts(void)
{
	static const uint32_t destinations[] = {UINT32_MAX, IPV4(10, 0, 0, 255), IPV4(10, 0, 0, 0)};
	unsigned int i;

	open_plain();
	for (i = 0; i < 3; i++) {
		plan.dst = destinations[i];
		plan.protocol = ICMP;
		make();
		check_drop(HALO_DROP_icmp_broadcast_echo);
		memset(frame.octets, 0xff, 6);
		check_drop(HALO_DROP_icmp_broadcast_echo);
		plan.icmp_type = 5; /* a redirect to everybody */
		make();
		check_drop(HALO_DROP_icmp_unhandled);
		plan.icmp_type = 8;
		plan.protocol = UDP;
		make();
		memset(frame.octets, 0xff, 6);
		rig_check_punt(&frame, 0);
	}
	plan = echo; /* our own address, but to all stations */
	make();
	memset(frame.octets, 0xff, 6);
	check_drop(HALO_DROP_icmp_broadcast_echo);
	rig_close();
}

/* RFC 3021: a link of two addresses has no broadcast address; a host route neither. */
static void short_prefixes(void)
{
	struct link link = rig_interface;

	for (link.prefix_length = 31; link.prefix_length <= 32; link.prefix_length++) {
		plan = echo;
		rig_open(&link, 1);
		make();
		rig_check_reply(&frame, 0);
		plan.src = IPV4(10, 9, 9, 9);
		plan.dst = link.prefix_length == 31 ? OWN_ADDRESS & ~1u : OWN_ADDRESS + 1;
		make();
		check_drop(HALO_DROP_ipv4_not_local);
		rig_close();
	}
}

static void macs(void)
{
	uint32_t bit;

	open_plain();
	for (bit = 0; bit < 48; bit++) {
		make();
		frame.octets[bit / 8] ^= (uint8_t)(1 << bit % 8);
		check_drop(bit == 0 ? HALO_DROP_icmp_broadcast_echo : HALO_DROP_not_for_us);
	}
	rig_close();
}

static void ethertypes(void)
{
	static const uint16_t types[] = {0x86dd, 0x88a8, 0x8847, 0x88cc, 0x0000, 0x0026, 0x05dc, 0x0801, 0xffff};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		plan.ethertype = types[i];
		plan.vlan = NO_VLAN;
		make();
		check_drop(HALO_DROP_ethertype_unknown);
		plan.vlan = 0;
		make();
		check_drop(HALO_DROP_ethertype_unknown);
	}
	plan.ethertype = TYPE_VLAN; /* a tag in a tag */
	make();
	check_drop(HALO_DROP_ethertype_unknown);
	rig_close();
}

/* ---- interfaces and VLANs ------------------------------------------------------------------------------------- */

static void vlans(void)
{
	struct link both[2] = {rig_interface, rig_interface};
	uint32_t vlan;

	both[1].vlan = 5;
	both[1].address = IPV4(10, 5, 0, 1);
	plan = echo;
	rig_open(both, 2);
	make();
	rig_check_reply(&frame, 0);
	plan.vlan = 0xe000 | 5; /* priority 7 */
	make();
	rig_check_reply(&frame, 0); /* the address of the untagged interface is ours from everywhere */
	plan.dst = both[1].address;
	make();
	rig_check_reply(&frame, 0);
	plan.vlan = 0xf000 | 5; /* and eligible to be dropped */
	make();
	rig_check_reply(&frame, 0);
	plan.vlan = NO_VLAN;
	make();
	rig_check_reply(&frame, 0);
	for (vlan = 1; vlan < 4096; vlan++) {
		plan.vlan = (int32_t)vlan;
		make();
		if (vlan == 5)
			rig_check_reply(&frame, 0);
		else
			check_drop(HALO_DROP_vlan_unknown);
	}
	plan.ethertype = TYPE_ARP;
	plan.vlan = 5;
	make();
	rig_check_punt(&frame, 0);
	CHECK_EQUAL(rig.result.punts[0].vlan, 5);
	rig_close();
}

static void no_untagged_interface(void)
{
	struct link tagged = rig_interface;

	tagged.vlan = 5;
	plan = echo;
	rig_open(&tagged, 1);
	make();
	check_drop(HALO_DROP_vlan_unknown);
	plan.vlan = 0;
	make();
	check_drop(HALO_DROP_vlan_unknown);
	plan.vlan = 5;
	make();
	rig_check_reply(&frame, 0);
	rig_close();
}

static void no_interface(void)
{
	struct link down = rig_interface;

	open_plain();
	make();
	rig_check_drop(&frame, 1, HALO_DROP_no_interface);
	rig_check_drop(&frame, HALO_MAX_PORTS - 1, HALO_DROP_no_interface);
	down.flags = 0;
	rig_set_interfaces(&down, 1);
	check_drop(HALO_DROP_no_interface);
	rig_set_interfaces(NULL, 0);
	check_drop(HALO_DROP_no_interface);
	rig_close();
}

static void several_ports(void)
{
	struct link three[3] = {rig_interface, rig_interface, rig_interface};

	three[1].port = 7;
	three[1].address = IPV4(10, 7, 0, 1);
	three[1].mac[5] = 7;
	three[2].port = HALO_MAX_PORTS - 1;
	three[2].address = IPV4(10, 63, 0, 1);
	three[2].mac[5] = 63;
	plan = echo;
	rig_open(three, 3);
	make();
	rig_check_reply(&frame, 0);
	rig_check_drop(&frame, 7, HALO_DROP_not_for_us);
	plan.dst = three[2].address;
	plan.dst_mac[5] = 63;
	make();
	rig_check_reply(&frame, HALO_MAX_PORTS - 1);
	rig_close();
}

/* One port's interfaces lie next to each other; should they not, what lies between stays another port's. */
static void interface_of_another_port_between_two(void)
{
	struct link three[3] = {rig_interface, rig_interface, rig_interface};

	three[1].port = 7;
	three[1].address = IPV4(10, 7, 0, 1);
	three[1].vlan = 7;
	three[2].address = IPV4(10, 6, 0, 1);
	plan = echo;
	rig_open(three, 3);
	plan.dst = three[2].address;
	make();
	rig_check_reply(&frame, 0);
	plan.dst = three[1].address;
	make();
	rig_check_reply(&frame, 0);
	plan.vlan = 7;
	make();
	check_drop(HALO_DROP_vlan_unknown);
	rig_check_reply(&frame, 7);
	rig_close();
}

static void interface_down_between_two(void)
{
	struct link three[3] = {rig_interface, rig_interface, rig_interface};

	three[1].address = IPV4(10, 5, 0, 1);
	three[1].vlan = 5;
	three[1].flags = 0;
	three[2].address = IPV4(10, 6, 0, 1);
	three[2].vlan = 6;
	plan = echo;
	rig_open(three, 3);
	plan.vlan = 6;
	plan.dst = three[2].address;
	make();
	rig_check_reply(&frame, 0);
	plan.vlan = 5;
	plan.dst = three[1].address;
	make();
	check_drop(HALO_DROP_vlan_unknown);
	rig_close();
}

/* ---- what a punt says ----------------------------------------------------------------------------------------- */

static const struct halo_packet *punted(void)
{
	rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	return &rig.result.punts[0];
}

static void punt_says_what_was_parsed(void)
{
	const struct halo_packet *packet;

	open_plain();
	plan.protocol = UDP;
	plan.vlan = 0x2000;
	plan.option_words = 2;
	make();
	packet = punted();
	CHECK_EQUAL(packet->length, frame.length);
	CHECK_EQUAL(packet->port, 0);
	CHECK_EQUAL(packet->verdict, HALO_VERDICT_PUNT);
	CHECK_EQUAL(packet->ip_version, 4);
	CHECK_EQUAL(packet->ip_protocol, UDP);
	CHECK_EQUAL(packet->ethertype, TYPE_IPV4);
	CHECK_EQUAL(packet->vlan, 0);
	CHECK_EQUAL(packet->l3_offset, 18);
	CHECK_EQUAL(packet->l4_offset, 18 + 28);
	CHECK_EQUAL(packet->ip_length, frame_ip_length(&frame));
	CHECK_EQUAL(packet->fragment, plan.fragment);
	CHECK_EQUAL(packet->ttl, plan.ttl);
	CHECK_EQUAL(packet->tos, plan.tos);
	CHECK_EQUAL(packet->interface, 0);
	CHECK_EQUAL(packet->src_port, plan.src_port);
	CHECK_EQUAL(packet->dst_port, plan.dst_port);
	CHECK_EQUAL(packet->src[0], plan.src);
	CHECK_EQUAL(packet->dst[0], plan.dst);
	CHECK(packet->timestamp_ns != 0 && packet->mark == 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	plan = echo; /* too short for ports: they are not read */
	plan.protocol = TCP;
	make();
	put16(frame.octets + 16, 23);
	frame_seal(&frame);
	CHECK_EQUAL(punted()->dst_port, 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

static void punt_shows_nothing_of_earlier_frames(void)
{
	static const uint32_t nothing[8];
	const struct halo_packet *packet;

	open_plain();
	make();
	rig_check_reply(&frame, 0);
	plan.ethertype = TYPE_ARP;
	make();
	packet = punted();
	CHECK_EQUAL(packet->interface, 0);
	CHECK_EQUAL(packet->tx_interface, HALO_NO_INTERFACE);
	CHECK(packet->l4_offset == 0 && packet->ip_length == 0 && packet->ttl == 0 && packet->src_port == 0);
	CHECK(memcmp(packet->src, nothing, sizeof(nothing)) == 0, "addresses of an earlier frame");
	CHECK_EQUAL(packet->icmp_type, 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	plan = echo;
	make();
	rig_check_reply(&frame, 0);
	plan.protocol = UDP;
	make();
	CHECK_EQUAL(punted()->icmp_type, 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

/* ---- measuring mode ------------------------------------------------------------------------------------------- */

static void macswap(void)
{
	struct frame swapped;
	uint32_t ttl;

	rig_open(NULL, 0);
	CHECK_EQUAL(halo_worker_set_macswap(rig.worker, 2, 9), 0);
	for (ttl = 0; ttl < 256; ttl++) {
		plan = echo;
		plan.ttl = (uint8_t)ttl;
		plan.vlan = ttl % 2 ? NO_VLAN : 77;
		make();
		if (ttl <= 1) {
			rig_check_drop(&frame, 2, HALO_DROP_ipv4_ttl);
			continue;
		}
		swapped = frame;
		memcpy(swapped.octets, frame.octets + 6, 6);
		memcpy(swapped.octets + 6, frame.octets, 6);
		swapped.octets[frame_l3(&frame) + 8]--;
		frame_seal(&swapped);
		rig_deliver(&frame, 2, 0);
		rig_poll();
		rig_collect();
		CHECK_EQUAL(rig.returned_count, 1);
		CHECK_EQUAL(rig.returned[0].descriptor.port, 9);
		CHECK(memcmp(rig.returned[0].octets, swapped.octets, swapped.length) == 0, "ttl %u", ttl);
	}
	make();
	rig_check_drop(&frame, 9, HALO_DROP_no_interface);
	CHECK_EQUAL(halo_worker_set_macswap(rig.worker, 2, HALO_NO_PORT), 0);
	rig_check_drop(&frame, 2, HALO_DROP_no_interface);
	CHECK(halo_worker_set_macswap(rig.worker, HALO_MAX_PORTS, 0) < 0);
	CHECK(halo_worker_set_macswap(rig.worker, 0, HALO_MAX_PORTS) < 0);
	rig_close();
}

/* Runs last: each drop that says a frame is not for us was seen by a row above. */
static void every_reason_was_seen(void)
{
	static const enum halo_drop reasons[] = {
		HALO_DROP_vlan_unknown,        HALO_DROP_ethertype_unknown, HALO_DROP_not_for_us,
		HALO_DROP_l2_multicast,        HALO_DROP_ethernet_source,   HALO_DROP_no_interface,
		HALO_DROP_ipv4_martian,        HALO_DROP_ipv4_not_local,    HALO_DROP_ipv4_ttl,
		HALO_DROP_icmp_broadcast_echo, HALO_DROP_icmp_unhandled,
	};
	unsigned int i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		CHECK(reason_seen[reasons[i]], "no row ended in %s", halo_drop_name(reasons[i]));
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"martians", martians},
		{"source_unspecified", source_unspecified},
		{"source_subnet_broadcast", source_subnet_broadcast},
		{"source_macs", source_macs},
		{"destination_of_others", destination_of_others},
		{"destination_unspecified", destination_unspecified},
		{"broadcasts", broadcasts},
		{"short_prefixes", short_prefixes},
		{"macs", macs},
		{"ethertypes", ethertypes},
		{"vlans", vlans},
		{"no_untagged_interface", no_untagged_interface},
		{"no_interface", no_interface},
		{"several_ports", several_ports},
		{"interface_of_another_port_between_two", interface_of_another_port_between_two},
		{"interface_down_between_two", interface_down_between_two},
		{"punt_says_what_was_parsed", punt_says_what_was_parsed},
		{"punt_shows_nothing_of_earlier_frames", punt_shows_nothing_of_earlier_frames},
		{"macswap", macswap},
		{"every_reason_was_seen", every_reason_was_seen},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
