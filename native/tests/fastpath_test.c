/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, verdicts out: what the fast path parses, answers, and refuses as broken. After every row the books balance. */
#include <pthread.h>

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

/* ---- echo ----------------------------------------------------------------------------------------------------- */

/* What is longer than the MTU has to be answered in fragments, which is Python's work. */
static void check_echo(void)
{
	if (frame_ip_length(&frame) <= rig_interface.mtu)
		rig_check_reply(&frame, 0);
	else
		rig_check_punt(&frame, 0);
}

static void echo_of_each_length(void)
{
	uint32_t octets;

	open_plain();
	for (octets = 0; octets <= HALO_DATA_OCTETS - 46; octets += octets < 130 ? 1 : 37) {
		plan.data_octets = octets;
		plan.vlan = NO_VLAN;
		plan.pad_to = 60;
		make();
		check_echo();
		plan.vlan = 0; /* a priority tag is no VLAN (802.1Q) */
		plan.pad_to = 0;
		make();
		check_echo();
		plan.pad_to = frame.length + 3;
		make();
		check_echo();
	}
	CHECK(rig.slot->worker.punted > 0);
	CHECK(rig.slot->worker.echo_replies == rig.slot->worker.tx_frames);
	rig_close();
}

static void echo_of_any_header(void)
{
	uint64_t seed = 3;
	int round;

	open_plain();
	for (round = 0; round < 5000; round++) {
		plan.tos = (uint8_t)random_next(&seed);
		plan.id = (uint16_t)random_next(&seed);
		plan.ttl = (uint8_t)random_next(&seed);
		plan.fragment = (uint16_t)(random_next(&seed) & 0x4000);
		plan.src = IPV4(1 + random_below(&seed, 126), random_below(&seed, 256), 3, 4);
		plan.data_octets = random_below(&seed, 90);
		make();
		rig_check_reply(&frame, 0);
	}
	rig_close();
}

/* Incremental update at its edges: every checksum that an echo request can have, and a message of zeros. */
static void echo_of_each_checksum(void)
{
	uint32_t value;
	uint8_t *icmp;

	open_plain();
	plan.data_octets = 2;
	make();
	icmp = frame.octets + 34;
	for (value = 0; value < 0x10000; value++) {
		put32(icmp + 4, 0);
		put16(icmp + 8, value);
		put16(icmp + 2, 0);
		put16(icmp + 2, reference_checksum(icmp, 10));
		rig_check_reply(&frame, 0);
	}
	rig_close();
}

static void echo_reply_and_other_types(void)
{
	static const uint8_t types[] = {3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 30, 255};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(types); i++) {
		plan.icmp_type = types[i];
		make();
		rig_check_punt(&frame, 0);
	}
	plan.icmp_type = 8;
	make();
	frame.octets[35] = 1; /* code */
	put16(frame.octets + 36, 0);
	put16(frame.octets + 36, reference_checksum(frame.octets + 34, 8 + plan.data_octets));
	rig_check_punt(&frame, 0);
	rig_close();
}

/* An identifier of ours has the number of the slot that asked: its answer is handed there, once. */
static void echo_reply_of_another_slot(void)
{
	uint32_t slot;

	open_plain();
	plan.icmp_type = 0;
	for (slot = 0; slot < HALO_MAX_SLOTS; slot++) {
		make();
		put16(frame.octets + 38, slot << 10 | 5);
		put16(frame.octets + 36, 0);
		put16(frame.octets + 36, reference_checksum(frame.octets + 34, 8 + plan.data_octets));
		if (slot == RIG_SLOT_NUMBER)
			rig_check_punt(&frame, 0);
		else
			rig_check_handed(&frame, 0, (uint8_t)slot);
		rig_deliver(&frame, 0, HALO_DESCRIPTOR_HANDED);
		rig_poll();
		CHECK_EQUAL(rig.result.punt_count, 1);
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
	}
	rig_close();
}

static void icmp_truncated(void)
{
	uint32_t octets;

	open_plain();
	plan.data_octets = 0;
	for (octets = 0; octets < 8; octets++) {
		make();
		put16(frame.octets + 16, 20 + octets);
		frame_seal(&frame);
		check_drop(HALO_DROP_icmp_truncated);
		frame.length = 34 + octets;
		check_drop(HALO_DROP_icmp_truncated);
	}
	rig_close();
}

static void icmp_checksum(void)
{
	uint32_t bit, octets;

	open_plain();
	for (octets = 0; octets < 4; octets++) {
		plan.data_octets = octets;
		for (bit = 0; bit < (8 + octets) * 8; bit++) {
			make();
			frame.octets[34 + bit / 8] ^= (uint8_t)(1 << bit % 8);
			check_drop(HALO_DROP_icmp_checksum);
		}
	}
	rig_close();
}

/* ---- parse ---------------------------------------------------------------------------------------------------- */

/* What a sound IPv4 frame is at `length` of its octets. */
static enum halo_drop truncated_to(uint32_t length)
{
	uint32_t l3 = frame_l3(&frame);

	if (length < 14)
		return HALO_DROP_runt;
	if (length < l3)
		return HALO_DROP_vlan_truncated;
	if (length < l3 + 20)
		return HALO_DROP_ipv4_truncated;
	return HALO_DROP_ipv4_total_length;
}

static void check_each_truncation(void)
{
	struct frame whole;
	uint32_t length;

	plan.pad_to = 0;
	make();
	whole = frame;
	for (length = 0; length < whole.length; length++) {
		frame = whole;
		frame.length = length;
		check_drop(truncated_to(length));
	}
}

static void truncated_at_each_length(void)
{
	open_plain();
	check_each_truncation();
	plan.vlan = 0;
	check_each_truncation();
	plan.option_words = 10;
	check_each_truncation();
	plan.vlan = NO_VLAN;
	plan.protocol = UDP;
	check_each_truncation();
	rig_close();
}

/* ARP is Python's, but a tag and an Ethernet header are ours. */
static void arp_truncated_at_each_length(void)
{
	uint32_t length;

	open_plain();
	plan.ethertype = TYPE_ARP;
	plan.vlan = 0;
	plan.data_octets = 28;
	make();
	for (length = frame.length; length >= 18; length--) {
		frame.length = length;
		rig_check_punt(&frame, 0);
	}
	for (; length > 0; length--) {
		frame.length = length;
		check_drop(length < 14 ? HALO_DROP_runt : HALO_DROP_vlan_truncated);
	}
	rig_close();
}

static void ipv4_version(void)
{
	uint32_t version;

	open_plain();
	for (version = 0; version < 16; version++) {
		make();
		frame.octets[14] = (uint8_t)(version << 4 | 5);
		frame_seal(&frame);
		if (version == 4)
			rig_check_reply(&frame, 0);
		else
			check_drop(HALO_DROP_ipv4_version);
	}
	rig_close();
}

static void ipv4_header_length(void)
{
	uint32_t words;

	open_plain();
	for (words = 0; words < 5; words++) {
		make();
		frame.octets[14] = (uint8_t)(0x40 | words);
		check_drop(HALO_DROP_ipv4_header_length);
	}
	for (words = 6; words < 16; words++) { /* longer than the packet says it is */
		make();
		frame.octets[14] = (uint8_t)(0x40 | words);
		put16(frame.octets + 16, words * 4 - 1);
		check_drop(HALO_DROP_ipv4_total_length);
	}
	plan.pad_to = 0;
	plan.data_octets = 0;
	make();
	frame.octets[14] = 0x4f;
	check_drop(HALO_DROP_ipv4_total_length);
	rig_close();
}

static void ipv4_total_length_lies(void)
{
	static const uint32_t over[] = {1, 2, 100, 4096, 30000};
	uint32_t length, i;

	open_plain();
	for (length = 0; length < 20; length++) {
		make();
		put16(frame.octets + 16, length);
		frame_seal(&frame);
		check_drop(HALO_DROP_ipv4_total_length);
	}
	for (i = 0; i < sizeof(over) / sizeof(over[0]); i++) {
		make();
		put16(frame.octets + 16, frame.length - 14 + over[i]);
		frame_seal(&frame);
		check_drop(HALO_DROP_ipv4_total_length);
	}
	make();
	put16(frame.octets + 16, 0xffff);
	frame_seal(&frame);
	check_drop(HALO_DROP_ipv4_total_length);
	rig_close();
}

static enum halo_drop flipped(uint32_t bit)
{
	if (bit / 8 == 0 && bit % 8 >= 4)
		return HALO_DROP_ipv4_version;
	if (bit / 8 == 0 && bit % 8 != 1) /* 4, 1 and 13 words; 7 are a wrong checksum */
		return bit % 8 == 0 ? HALO_DROP_ipv4_header_length : HALO_DROP_ipv4_checksum;
	return HALO_DROP_ipv4_checksum;
}

/* Each single bit of the header is covered. A total length that still fits is caught by the checksum. */
static void ipv4_checksum(void)
{
	uint32_t bit;

	open_plain();
	for (bit = 0; bit < 20 * 8; bit++) {
		make();
		frame.octets[14 + bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (bit == 2) { /* IHL 1 */
			check_drop(HALO_DROP_ipv4_header_length);
		} else if (bit / 8 == 2 || bit / 8 == 3) {
			bool fits = frame_ip_length(&frame) >= 20 && frame_ip_length(&frame) <= frame.length - 14;

			check_drop(fits ? HALO_DROP_ipv4_checksum : HALO_DROP_ipv4_total_length);
		} else {
			check_drop(flipped(bit));
		}
	}
	rig_close();
}

static void run_with_metadata(uint32_t metadata_flags)
{
	uint32_t buffer = rig_deliver(&frame, 0, HALO_DESCRIPTOR_METADATA);
	struct halo_metadata metadata = {.flags = metadata_flags};

	memcpy(rig.pool + rig_buffer_offset(buffer) - HALO_HEADROOM_OCTETS - HALO_METADATA_OCTETS, &metadata,
	       sizeof(metadata));
	rig_poll();
	rig_collect();
}

/* A port's verdict on the checksum is believed when the descriptor says that there is one. */
static void ipv4_checksum_verified_by_port(void)
{
	open_plain();
	make();
	frame.octets[24] ^= 1;
	run_with_metadata(HALO_METADATA_IP_CHECKSUM_GOOD);
	CHECK_EQUAL(rig.slot->worker.tx_frames, 1);
	run_with_metadata(HALO_METADATA_IP_CHECKSUM_BAD | HALO_METADATA_RSS_HASH);
	CHECK_EQUAL(rig.slot->worker.tx_frames, 1);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_ipv4_checksum], 1);
	check_drop(HALO_DROP_ipv4_checksum);
	rig_close();
}

static void fragments(void)
{
	static const uint16_t fields[] = {0x2000, 0x0001, 0x1fff, 0x3fff, 0x6000, 0x4001};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		plan.fragment = fields[i];
		make();
		rig_check_punt(&frame, 0);
	}
	plan.fragment = 0x4000;
	make();
	rig_check_reply(&frame, 0);
	rig_close();
}

static void ipv4_options_are_punted(void)
{
	open_plain();
	for (plan.option_words = 1; plan.option_words <= 10; plan.option_words++) {
		make();
		rig_check_punt(&frame, 0);
	}
	rig_close();
}

/* ---- descriptors and bursts ----------------------------------------------------------------------------------- */

static void bad_descriptor(uint64_t offset, uint32_t length, uint8_t port)
{
	uint64_t before = rig.slot->worker.drops[HALO_DROP_bad_descriptor];
	struct halo_descriptor descriptor = {.offset = (uint32_t)offset, .length = (uint16_t)length, .port = port};

	rig_deliver_raw(descriptor);
	rig_poll();
	CHECK(rig.slot->worker.drops[HALO_DROP_bad_descriptor] == before + 1, "offset %u, %u octets, port %u",
	      descriptor.offset, length, port);
	/* It goes back as it came: what to make of it is the driver's business. */
	CHECK_EQUAL(halo_ring_peek(&rig.tx, 2), 1);
	CHECK_EQUAL(halo_ring_get(&rig.tx, 0).flags, HALO_ACTION_RELEASE);
	CHECK_EQUAL(halo_ring_get(&rig.tx, 0).offset, descriptor.offset);
	halo_ring_release(&rig.tx, 1);
}

static void bad_descriptors(void)
{
	open_plain();
	bad_descriptor(rig.pool_octets, 64, 0);
	bad_descriptor(rig.pool_octets - 63, 64, 0);
	bad_descriptor(rig.pool_octets - 1, 64, 0);
	bad_descriptor(UINT32_MAX, 64, 0);
	bad_descriptor(UINT32_MAX, 1, 0);
	bad_descriptor(UINT32_MAX - 63, 64, 0);
	bad_descriptor(UINT32_MAX, UINT16_MAX, 0);
	bad_descriptor(rig.pool_octets + 1, 0, 0);
	rig_expose(rig_buffer_offset(0), 64);
	memset(rig.pool + rig_buffer_offset(0), 0, 64);
	bad_descriptor(rig_buffer_offset(0), 64, HALO_MAX_PORTS);
	bad_descriptor(rig_buffer_offset(0), 64, 255);
	rig_close();
}

static void descriptor_longer_than_a_buffer(void)
{
	open_plain();
	rig_expose_all();
	make();
	memcpy(rig.pool + rig_buffer_offset(0), frame.octets, frame.length);
	bad_descriptor(rig_buffer_offset(0), RIG_STRIDE - HALO_METADATA_OCTETS + 1, 0);
	bad_descriptor(rig_buffer_offset(0), UINT16_MAX, 0);
	rig_close();
}

/* One bad frame at each place of a burst: it alone is dropped. */
static void one_bad_in_a_burst(void)
{
	static const uint32_t sizes[] = {1, 31, 32, 33, 63, 64};
	uint32_t size, bad, i;

	open_plain();
	make();
	for (size = 0; size < sizeof(sizes) / sizeof(sizes[0]); size++) {
		for (bad = 0; bad < sizes[size]; bad++) {
			for (i = 0; i < sizes[size]; i++) {
				frame.octets[24] ^= i == bad;
				rig_deliver(&frame, 0, 0);
				frame.octets[24] ^= i == bad;
			}
			rig_poll();
			rig_collect();
			CHECK_EQUAL(rig.returned_count, sizes[size]);
			for (i = 0; i < sizes[size]; i++)
				CHECK_EQUAL(rig.returned[i].descriptor.flags,
					    i == bad ? HALO_ACTION_RELEASE : HALO_ACTION_TRANSMIT);
		}
	}
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_ipv4_checksum], 1 + 31 + 32 + 33 + 63 + 64);
	rig_close();
}

static void each_kind_in_one_burst(void)
{
	uint32_t i;

	open_plain();
	for (i = 0; i < HALO_BURST; i++) {
		plan = echo;
		if (i % 4 == 1)
			plan.ethertype = TYPE_ARP;
		if (i % 4 == 2)
			plan.ttl = 0; /* of no matter to a local address */
		make();
		if (i % 4 == 3)
			frame.length = i % 14;
		rig_deliver(&frame, 0, i % 8 == 0 ? HALO_DESCRIPTOR_HANDED : 0);
	}
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, HALO_BURST / 4);
	CHECK_EQUAL(rig.slot->worker.tx_frames, HALO_BURST / 2);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_runt], HALO_BURST / 4);
	CHECK_EQUAL(rig.slot->worker.rx_handed, HALO_BURST / 8);
	CHECK_EQUAL(rig.slot->worker.rx_bursts, 1);
	rig_check_books();
	for (i = 0; i < HALO_BURST / 4; i++) {
		CHECK_EQUAL(rig.result.punts[i].ethertype, TYPE_ARP);
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, HALO_DROP_arp_malformed), 0);
	}
	rig_close();
}

/* ---- at random ------------------------------------------------------------------------------------------------ */

static void random_frame(uint64_t *seed)
{
	uint32_t flips, i;

	plan = echo;
	plan.vlan = random_below(seed, 3) ? NO_VLAN : (int32_t)random_below(seed, 0x10000);
	plan.ethertype = random_below(seed, 4) ? TYPE_IPV4 : TYPE_ARP;
	plan.protocol = (uint8_t)(random_below(seed, 2) ? ICMP : random_below(seed, 256));
	plan.option_words = random_below(seed, 4) ? 0 : random_below(seed, 11);
	plan.data_octets = random_below(seed, 200);
	plan.pad_to = random_below(seed, 2) ? 60 : 0;
	make();
	flips = random_below(seed, 4);
	for (i = 0; i < flips; i++)
		frame.octets[random_below(seed, frame.length)] ^= (uint8_t)(1 << random_below(seed, 8));
	if (frame_l3(&frame) + 20 <= frame.length && random_below(seed, 2) &&
	    (frame.octets[frame_l3(&frame)] & 15) * 4u <= 60)
		frame_seal(&frame);
	if (random_below(seed, 8) == 0)
		frame.length = random_below(seed, frame.length + 1);
}

static void end_punts(uint64_t *seed)
{
	uint32_t i;

	for (i = 0; i < rig.result.punt_count; i++)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, (int)random_below(seed, HALO_DROP_COUNT + 1) - 1),
			    0);
}

static void frames_at_random(void)
{
	uint64_t seed = 20260523;
	int round;
	uint32_t i;

	printf("    seed %" PRIu64 "\n", seed);
	open_plain();
	for (round = 0; round < 4000; round++) {
		for (i = random_below(&seed, 100); i; i--) {
			random_frame(&seed);
			rig_deliver(&frame, (uint8_t)random_below(&seed, 2), 0);
		}
		rig_poll();
		end_punts(&seed);
		rig_check_books();
	}
	CHECK(rig.slot->worker.tx_frames > 1000);
	rig_poll();
	end_punts(&seed);
	rig_close();
}

static uint32_t scribbling;

static void *scribble(void *argument)
{
	uint64_t seed = 99;

	(void)argument;
	while (__atomic_load_n(&scribbling, __ATOMIC_RELAXED)) {
		uint32_t offset = rig_buffer_offset(random_below(&seed, RIG_BUFFERS)) + random_below(&seed, 48);

		__atomic_store_n(rig.pool + offset, (uint8_t)random_next(&seed), __ATOMIC_RELAXED);
	}
	return NULL;
}

static bool all_lengths_are(uint32_t length)
{
	uint32_t i;

	for (i = 0; i < rig.returned_count; i++)
		if (rig.returned[i].descriptor.length != length)
			return false;
	return true;
}

static void run_burst_of_scribbled(void)
{
	uint32_t i;

	for (i = 0; i < HALO_BURST; i++)
		rig_deliver(&frame, 0, 0);
	rig_poll();
	for (i = 0; i < rig.result.punt_count; i++)
		halo_worker_finish_punt(rig.worker, i, -1);
	rig_collect();
}

/* Somebody writes into the frames while they are parsed: a length that was checked stays what it was. */
static void frames_scribbled_on(void)
{
	bool fine = true;
	pthread_t thread;
	int round;

	open_plain();
	rig_expose_all();
	__atomic_store_n(&scribbling, 1, __ATOMIC_RELAXED);
	CHECK(pthread_create(&thread, NULL, scribble, NULL) == 0);
	make();
	for (round = 0; fine && (round < 3000 || (rig_drops() == 0 && round < 1000000)); round++) {
		run_burst_of_scribbled();
		fine = all_lengths_are(frame.length);
	}
	__atomic_store_n(&scribbling, 0, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(fine);
	CHECK(rig_drops() > 0, "the scribbler never hit a frame");
	rig_close();
}

/* Runs last: each drop that says a frame is broken was seen by a row above. */
static void every_reason_was_seen(void)
{
	static const enum halo_drop reasons[] = {
		HALO_DROP_bad_descriptor,    HALO_DROP_runt,          HALO_DROP_vlan_truncated,
		HALO_DROP_ipv4_truncated,    HALO_DROP_ipv4_version,  HALO_DROP_ipv4_header_length,
		HALO_DROP_ipv4_total_length, HALO_DROP_ipv4_checksum, HALO_DROP_icmp_truncated,
		HALO_DROP_icmp_checksum,
	};
	unsigned int i;

	for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		CHECK(reason_seen[reasons[i]], "no row ended in %s", halo_drop_name(reasons[i]));
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"echo_of_each_length", echo_of_each_length},
		{"echo_of_any_header", echo_of_any_header},
		{"echo_of_each_checksum", echo_of_each_checksum},
		{"echo_reply_and_other_types", echo_reply_and_other_types},
		{"echo_reply_of_another_slot", echo_reply_of_another_slot},
		{"icmp_truncated", icmp_truncated},
		{"icmp_checksum", icmp_checksum},
		{"truncated_at_each_length", truncated_at_each_length},
		{"arp_truncated_at_each_length", arp_truncated_at_each_length},
		{"ipv4_version", ipv4_version},
		{"ipv4_header_length", ipv4_header_length},
		{"ipv4_total_length_lies", ipv4_total_length_lies},
		{"ipv4_checksum", ipv4_checksum},
		{"ipv4_checksum_verified_by_port", ipv4_checksum_verified_by_port},
		{"fragments", fragments},
		{"ipv4_options_are_punted", ipv4_options_are_punted},
		{"bad_descriptors", bad_descriptors},
		{"descriptor_longer_than_a_buffer", descriptor_longer_than_a_buffer},
		{"one_bad_in_a_burst", one_bad_in_a_burst},
		{"each_kind_in_one_burst", each_kind_in_one_burst},
		{"frames_at_random", frames_at_random},
		{"frames_scribbled_on", frames_scribbled_on},
		{"every_reason_was_seen", every_reason_was_seen},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
