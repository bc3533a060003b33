/* SPDX-License-Identifier: Apache-2.0 */
/* A port that is shared with the kernel: which frames are whose. After every row the books balance, copies included. */
#include <errno.h>

#include <halo/fastpath.h>

#include "rig.h"

enum {
	SHARED = 0, /* port of 10.0.0.1/24, and on VLAN 77 of 10.2.0.1/24 */
	ALONE = 1,  /* port of 10.1.0.1/24 */
	TWIN = 63,
	VLAN = 77,
	LINKS = 3,
	REQUEST = 1,
	REPLY = 2,
	ARP_FRAME = 42,
};

#define TAGGED_ADDRESS IPV4(10, 2, 0, 1)
#define ALONE_ADDRESS IPV4(10, 1, 0, 1)
#define KERNEL_ADDRESS IPV4(10, 0, 0, 9)

static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t multicast[6] = {0x01, 0, 0x5e, 0, 0, 1};
static const uint8_t stranger[6] = {0x02, 0xcc, 0, 0, 0, 1};
static struct link links[LINKS];
static struct plan plan;
static struct frame frame;

static void open_shared(uint32_t only)
{
	uint32_t i;

	for (i = 0; i < LINKS; i++)
		links[i] = rig_interface;
	links[1].vlan = VLAN;
	links[1].address = TAGGED_ADDRESS;
	links[2].port = ALONE;
	links[2].address = ALONE_ADDRESS;
	plan = echo;
	rig_open(links, LINKS);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, SHARED, TWIN, only), 0);
}

static void make(void)
{
	frame_make(&plan, &frame);
}

static void make_arp(const uint8_t *dst_mac, uint32_t operation, uint32_t sender, uint32_t target)
{
	uint8_t *arp;

	plan.ethertype = TYPE_ARP;
	plan.data_octets = 28;
	plan.pad_to = 0;
	make();
	memcpy(frame.octets, dst_mac, 6);
	arp = frame.octets + frame_l3(&frame);
	memset(arp, 0, 28);
	put16(arp, 1);
	put16(arp + 2, TYPE_IPV4);
	arp[4] = 6;
	arp[5] = 4;
	put16(arp + 6, operation);
	memcpy(arp + 8, plan.src_mac, 6);
	put32(arp + 14, sender);
	put32(arp + 24, target);
}

static void check_kernels(void)
{
	rig_check_sent(&frame, SHARED, &frame, TWIN);
}

/* Punted, and the same octets on their way to the twin. */
static void check_both(void)
{
	uint64_t copies = rig.slot->worker.copies;

	rig_give_spares(1);
	rig_deliver(&frame, SHARED, 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(rig.slot->worker.copies, copies + 1);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK_EQUAL(rig.returned[0].descriptor.port, TWIN);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_TRANSMIT);
	CHECK_EQUAL(rig.returned[0].descriptor.length, frame.length);
	CHECK(memcmp(rig.returned[0].octets, frame.octets, frame.length) == 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
}

/* ---- IPv4 ----------------------------------------------------------------------------------------------------- */

static void packets_for_our_addresses(void)
{
	static const uint32_t ours[] = {OWN_ADDRESS, TAGGED_ADDRESS, ALONE_ADDRESS};
	uint32_t i;

	open_shared(0);
	for (i = 0; i < 3; i++) {
		plan.dst = ours[i];
		make();
		rig_check_reply(&frame, SHARED);
	}
	plan.dst = OWN_ADDRESS;
	plan.protocol = TCP;
	make();
	rig_check_punt(&frame, SHARED);
	rig_close();
}

static void packets_for_others(void)
{
	static const uint32_t others[] = {KERNEL_ADDRESS,     IPV4(10, 0, 0, 255), IPV4(10, 0, 0, 0), IPV4(8, 8, 8, 8),
					  IPV4(127, 0, 0, 1), IPV4(224, 0, 0, 1),  UINT32_MAX,        0};
	uint32_t i;

	open_shared(0);
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		plan.dst = others[i];
		make();
		check_kernels();
	}
	plan.dst = KERNEL_ADDRESS;
	plan.ttl = 1; /* whoever forwards is the kernel */
	make();
	check_kernels();
	plan.fragment = 0x2000;
	plan.option_words = 3;
	make();
	check_kernels();
	rig_close();
}

static void other_destination_macs(void)
{
	static const uint8_t *const macs[] = {broadcast, multicast, stranger};
	uint32_t i;

	open_shared(0);
	for (i = 0; i < 3; i++) {
		plan.dst = OWN_ADDRESS;
		memcpy(plan.dst_mac, macs[i], 6);
		make();
		check_kernels();
		plan.dst = UINT32_MAX;
		make();
		check_kernels();
	}
	rig_close();
}

/* What parse has found wrong is our drop where the packet is ours, and the kernel's to find where it is not. */
static void broken_packets(void)
{
	open_shared(0);
	make();
	frame.octets[24] ^= 1;
	rig_check_drop(&frame, SHARED, HALO_DROP_ipv4_checksum);
	plan.dst = KERNEL_ADDRESS;
	make();
	frame.octets[24] ^= 1;
	check_kernels();
	make();
	frame.octets[14] = 0x65;
	check_kernels();
	make();
	for (frame.length = HALO_MIN_FRAME_OCTETS; frame.length < 34; frame.length++)
		check_kernels();
	frame.length = HALO_MIN_FRAME_OCTETS - 1;
	rig_check_drop(&frame, SHARED, HALO_DROP_runt);
	rig_close();
}

static void one_address_only(void)
{
	open_shared(OWN_ADDRESS);
	make();
	rig_check_reply(&frame, SHARED);
	plan.dst = ALONE_ADDRESS;
	make();
	check_kernels();
	rig_check_reply(&frame, ALONE); /* of the other port it says nothing */
	plan.vlan = VLAN;
	plan.dst = TAGGED_ADDRESS;
	make();
	check_kernels();
	make_arp(broadcast, REQUEST, PEER_ADDRESS, TAGGED_ADDRESS);
	check_kernels();
	rig_close();
}

/* ---- VLANs, and what is no IPv4 ------------------------------------------------------------------------------- */

static void tagged_frames(void)
{
	open_shared(0);
	plan.vlan = VLAN;
	plan.dst = TAGGED_ADDRESS;
	make();
	rig_check_reply(&frame, SHARED);
	plan.vlan = VLAN + 1;
	make();
	check_kernels();
	make_arp(broadcast, REQUEST, PEER_ADDRESS, TAGGED_ADDRESS);
	check_kernels();
	frame.length = 16; /* ends inside the tag */
	check_kernels();
	rig_close();
}

static void other_ethertypes(void)
{
	static const uint16_t types[] = {0x86dd, 0x88cc, 0x0027, 0x88a8, 0xffff};
	uint32_t i;

	open_shared(0);
	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		plan.ethertype = types[i];
		make();
		check_kernels();
		memcpy(frame.octets, multicast, 6);
		check_kernels();
	}
	rig_close();
}

/* Until the tables are there, and where they say nothing of the port, all of it is the kernel's. */
static void no_interface(void)
{
	open_shared(0);
	make();
	rig_check_reply(&frame, SHARED);
	rig_set_interfaces(links + 2, 1);
	CHECK(rig_poll() & HALO_POLL_EPOCH);
	check_kernels();
	make_arp(broadcast, REQUEST, PEER_ADDRESS, OWN_ADDRESS);
	check_kernels();
	rig_close();
}

/* ---- ARP ------------------------------------------------------------------------------------------------------ */

static void arp_requests(void)
{
	open_shared(0);
	make_arp(broadcast, REQUEST, PEER_ADDRESS, OWN_ADDRESS);
	rig_check_punt(&frame, SHARED);
	make_arp(plan.dst_mac, REQUEST, PEER_ADDRESS, OWN_ADDRESS);
	rig_check_punt(&frame, SHARED);
	make_arp(broadcast, REQUEST, 0, OWN_ADDRESS); /* a probe (RFC 5227) */
	rig_check_punt(&frame, SHARED);
	make_arp(broadcast, REQUEST, OWN_ADDRESS, OWN_ADDRESS); /* who announces it has taken it: a conflict */
	rig_check_punt(&frame, SHARED);
	make_arp(broadcast, REQUEST, PEER_ADDRESS, KERNEL_ADDRESS);
	check_kernels();
	make_arp(broadcast, REQUEST, PEER_ADDRESS, ALONE_ADDRESS); /* ours, but not on this link */
	check_kernels();
	make_arp(stranger, REQUEST, PEER_ADDRESS, OWN_ADDRESS);
	check_kernels();
	rig_close();
}

static void arp_for_both(void)
{
	open_shared(0);
	make_arp(plan.dst_mac, REPLY, PEER_ADDRESS, OWN_ADDRESS);
	check_both();
	make_arp(plan.dst_mac, REPLY, PEER_ADDRESS, KERNEL_ADDRESS);
	check_both();
	make_arp(broadcast, REPLY, PEER_ADDRESS, PEER_ADDRESS);
	check_both();
	make_arp(broadcast, REQUEST, PEER_ADDRESS, PEER_ADDRESS);
	check_both();
	make_arp(broadcast, REQUEST, OWN_ADDRESS, PEER_ADDRESS); /* somebody uses our address */
	check_both();
	make_arp(stranger, REPLY, PEER_ADDRESS, KERNEL_ADDRESS);
	check_kernels();
	rig_close();
}

static void arp_truncated_at_every_length(void)
{
	open_shared(0);
	make_arp(plan.dst_mac, REPLY, PEER_ADDRESS, OWN_ADDRESS);
	for (frame.length = HALO_MIN_FRAME_OCTETS; frame.length < ARP_FRAME; frame.length++)
		check_kernels();
	check_both();
	rig_close();
}

static void no_buffer_for_a_copy(void)
{
	open_shared(0);
	make_arp(plan.dst_mac, REPLY, PEER_ADDRESS, OWN_ADDRESS);
	rig_deliver(&frame, SHARED, 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(rig.slot->worker.copies, 1);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_copy_no_buffer], 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(rig_drops(), 1);
	rig_close();
}

/* ---- from the kernel, and other ports ------------------------------------------------------------------------- */

static void frames_of_the_kernel(void)
{
	open_shared(0);
	make();
	rig_check_sent(&frame, TWIN, &frame, SHARED); /* even to us: it is not asked what it sends */
	frame.octets[24] ^= 1;
	rig_check_sent(&frame, TWIN, &frame, SHARED);
	make_arp(broadcast, REQUEST, KERNEL_ADDRESS, OWN_ADDRESS);
	rig_check_sent(&frame, TWIN, &frame, SHARED);
	plan.vlan = VLAN;
	plan.ethertype = 0x86dd;
	make();
	rig_check_sent(&frame, TWIN, &frame, SHARED);
	frame.length = HALO_MIN_FRAME_OCTETS - 1;
	rig_check_drop(&frame, TWIN, HALO_DROP_runt);
	rig_close();
}

static void ports_without_a_twin(void)
{
	open_shared(0);
	plan.dst = KERNEL_ADDRESS;
	memcpy(plan.dst_mac, stranger, 6);
	make();
	rig_check_drop(&frame, ALONE, HALO_DROP_not_for_us);
	rig_close();
}

/* The worker that got it from the port has decided, and has made the copy. */
static void frames_that_were_handed(void)
{
	open_shared(0);
	make_arp(plan.dst_mac, REPLY, PEER_ADDRESS, OWN_ADDRESS);
	rig_deliver(&frame, SHARED, HALO_DESCRIPTOR_HANDED);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(rig.slot->worker.copies, 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	rig_close();
}

static void twins_that_make_no_sense(void)
{
	open_shared(0);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 64, 63, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, 64, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 5, 5, 0), -EINVAL);
	rig_close();
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"packets_for_our_addresses", packets_for_our_addresses},
		{"packets_for_others", packets_for_others},
		{"other_destination_macs", other_destination_macs},
		{"broken_packets", broken_packets},
		{"one_address_only", one_address_only},
		{"tagged_frames", tagged_frames},
		{"other_ethertypes", other_ethertypes},
		{"no_interface", no_interface},
		{"arp_requests", arp_requests},
		{"arp_for_both", arp_for_both},
		{"arp_truncated_at_every_length", arp_truncated_at_every_length},
		{"no_buffer_for_a_copy", no_buffer_for_a_copy},
		{"frames_of_the_kernel", frames_of_the_kernel},
		{"ports_without_a_twin", ports_without_a_twin},
		{"frames_that_were_handed", frames_that_were_handed},
		{"twins_that_make_no_sense", twins_that_make_no_sense},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
