/* SPDX-License-Identifier: Apache-2.0 */
/* Bursts from templates: what varies, checksums by their definition, and that no pace is ever exceeded. */
#include <errno.h>
#include <time.h>

#include <halo/fastpath.h>

#include "rig.h"

enum { PORT = 2, NS_PER_S = 1000000000 };

static struct frame frame;
static uint32_t lengths[2];
static struct halo_blast_field field[HALO_MAX_BLAST_FIELDS];
static struct halo_blast_setup setup;

/* The transport's checksum by its definition, with the pseudo header in front; over `octets` from IPv4's start. */
static uint16_t transport_checksum(const uint8_t *ip)
{
	uint32_t header = (ip[0] & 15u) * 4;
	uint32_t octets = ((uint32_t)ip[2] << 8 | ip[3]) - header;
	uint8_t all[12 + FRAME_ROOM] = {0};

	memcpy(all + 12, ip + header, octets);
	if (ip[9] == ICMP)
		return reference_checksum(all + 12, octets);
	memcpy(all, ip + 12, 8);
	all[9] = ip[9];
	put16(all + 10, octets);
	return reference_checksum(all, 12 + octets);
}

static uint32_t checksum_place(const uint8_t *ip)
{
	return (ip[0] & 15u) * 4 + (ip[9] == UDP ? 6 : ip[9] == TCP ? 16 : 2);
}

static void make(const struct plan *plan)
{
	uint8_t *ip;

	frame_make(plan, &frame);
	ip = frame.octets + frame_l3(&frame);
	put16(ip + checksum_place(ip), 0);
	put16(ip + checksum_place(ip), transport_checksum(ip));
	lengths[0] = frame.length;
	memset(field, 0, sizeof(field));
	setup = (struct halo_blast_setup){
		.port = PORT, .template_count = 1, .octets = frame.octets, .lengths = lengths, .fields = field};
}

static struct plan udp_plan(void)
{
	struct plan plan = echo;

	plan.protocol = UDP;
	plan.data_octets = 25;
	return plan;
}

static void open_udp(void)
{
	struct plan plan = udp_plan();

	make(&plan);
	rig_open(&rig_interface, 1);
	rig_give_spares(RIG_SPARE);
}

static uint32_t add(void)
{
	int number = halo_worker_blast_add(rig.worker, &setup);

	CHECK(number >= 0, "%d", number);
	return (uint32_t)number;
}

static void vary(uint32_t offset, uint32_t octets, uint64_t first, uint64_t step, uint64_t count)
{
	field[setup.field_count++] = (struct halo_blast_field){
		.offset = offset, .octets = octets, .first = first, .step = step, .count = count};
}

static uint64_t number_at(const uint8_t *octets, uint32_t count)
{
	uint64_t value = 0;

	for (; count; count--)
		value = value << 8 | *octets++;
	return value;
}

static void check_checksums(const uint8_t *octets, uint32_t l3)
{
	CHECK_EQUAL(reference_checksum(octets + l3, (octets[l3] & 15u) * 4), 0);
	CHECK_EQUAL(transport_checksum(octets + l3), 0);
}

/* ---- frames --------------------------------------------------------------------------------------------------- */

static void copies_of_a_template(void)
{
	struct halo_blast_counters counters;
	uint32_t number, i;

	open_udp();
	number = add();
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, 10), 10);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 10);
	for (i = 0; i < 10; i++) {
		CHECK_EQUAL(rig.returned[i].descriptor.port, PORT);
		CHECK_EQUAL(rig.returned[i].descriptor.length, frame.length);
		CHECK(memcmp(rig.returned[i].octets, frame.octets, frame.length) == 0);
	}
	CHECK_EQUAL(halo_worker_blast_read(rig.worker, number, &counters), 0);
	CHECK_EQUAL(counters.frames, 10);
	CHECK_EQUAL(counters.octets, 10 * frame.length);
	CHECK_EQUAL(counters.running, 0);
	CHECK_EQUAL(rig.slot->worker.originated, 10);
	CHECK_EQUAL(rig.slot->worker.tx_octets, 10 * frame.length);
	rig_close();
}

static void templates_in_turn(void)
{
	uint8_t both[2 * FRAME_ROOM];
	uint32_t number, i;

	open_udp();
	memcpy(both, frame.octets, frame.length);
	memset(both + frame.length, 0x77, 1500);
	lengths[1] = 1500;
	setup.octets = both;
	setup.template_count = 2;
	number = add();
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, 3), 3);
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, 2), 2);
	rig_collect();
	for (i = 0; i < 5; i++)
		CHECK_EQUAL(rig.returned[i].descriptor.length, i % 2 ? 1500 : frame.length);
	CHECK(memcmp(rig.returned[3].octets, both + frame.length, 1500) == 0);
	rig_close();
}

static void numbers_that_go_on(void)
{
	uint32_t number, i;

	open_udp();
	vary(34, 2, 65534, 1, 0);      /* passes the end, and starts from 0 */
	vary(26, 4, 0x0a000064, 5, 3); /* three values */
	vary(6, 6, 0x020000000000, 1, 0);
	vary(42, 1, 255, 0, 1);
	number = add();
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, 7), 7);
	rig_collect();
	for (i = 0; i < 7; i++) {
		const uint8_t *octets = rig.returned[i].octets;

		CHECK_EQUAL(number_at(octets + 34, 2), (65534 + i) & 0xffff);
		CHECK_EQUAL(number_at(octets + 26, 4), 0x0a000064 + 5 * (i % 3));
		CHECK_EQUAL(number_at(octets + 6, 6), 0x020000000000 + i);
		CHECK_EQUAL(octets[42], 255);
		CHECK(memcmp(octets + 43, frame.octets + 43, frame.length - 43) == 0);
		check_checksums(octets, 14);
	}
	rig_close();
}

static void numbers_in_no_order(void)
{
	bool seen[16] = {false};
	uint32_t number, i, values = 0;

	open_udp();
	vary(36, 2, 1000, 2, 16);
	field[0].random = 1;
	number = add();
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, RIG_SPARE), RIG_SPARE);
	rig_collect();
	for (i = 0; i < RIG_SPARE; i++) {
		uint64_t value = number_at(rig.returned[i].octets + 36, 2) - 1000;

		CHECK(value < 32 && value % 2 == 0);
		values += !seen[value / 2];
		seen[value / 2] = true;
		check_checksums(rig.returned[i].octets, 14);
	}
	CHECK(values > 8, "%u of 16 values", values);
	rig_close();
}

static bool overlap(uint32_t at, uint32_t octets, uint32_t from, uint32_t to)
{
	return at < to && at + octets > from;
}

/* A field that makes it another kind of packet, or that is a checksum itself: nothing is promised. */
static bool decides_more(const uint8_t *sent, uint32_t l3, uint32_t at, uint32_t octets)
{
	uint32_t transport = l3 + checksum_place(sent + l3);

	return overlap(at, octets, 12, l3 + 1) || overlap(at, octets, l3 + 2, l3 + 4) ||
	       overlap(at, octets, l3 + 6, l3 + 8) || overlap(at, octets, l3 + 9, l3 + 12) ||
	       overlap(at, octets, transport, transport + 2);
}

/* Any field anywhere: what is covered stays right, by the definition. */
static void checksums_of_every_kind(void)
{
	static const uint8_t protocols[] = {UDP, TCP, ICMP};
	uint64_t seed = 20261123;
	uint32_t tries, made = 0;

	for (tries = 0; tries < 3000; tries++) {
		struct plan plan = echo;
		uint32_t l3, octets, i;
		int number;

		plan.protocol = protocols[random_below(&seed, 3)];
		plan.vlan = random_below(&seed, 3) ? NO_VLAN : 100;
		plan.option_words = random_below(&seed, 4) ? 0 : random_below(&seed, 11);
		plan.data_octets = 12 + random_below(&seed, 60);
		make(&plan);
		if (tries % 64 == 0) {
			rig_open(&rig_interface, 1);
			rig_give_spares(RIG_SPARE);
		}
		l3 = frame_l3(&frame);
		octets = 1 + random_below(&seed, 8);
		vary(random_below(&seed, frame.length - octets + 1), octets,
		     random_next(&seed) >> random_below(&seed, 64), random_next(&seed), random_below(&seed, 3));
		number = halo_worker_blast_add(rig.worker, &setup);
		if (number >= 0) {
			CHECK_EQUAL(halo_worker_blast_send(rig.worker, (uint32_t)number, 3), 3);
			rig_collect();
			for (i = 0; i < 3; i++) {
				const uint8_t *sent = rig.returned[i].octets;

				if (decides_more(sent, l3, field[0].offset, octets))
					continue;
				check_checksums(sent, l3);
				made++;
			}
			rig_give_spares(3);
			halo_worker_blast_remove(rig.worker, (uint32_t)number);
		} else {
			CHECK_EQUAL(number, -EINVAL);
		}
		if (tries % 64 == 63 || tries == 2999)
			rig_close();
	}
	CHECK(made > 3000, "%u frames were looked at", made);
}

/* What is wrong in a template is meant to be. */
static void checksums_that_are_wrong_stay(void)
{
	const uint8_t *sent;

	open_udp();
	frame.octets[24] ^= 0x55;
	put16(frame.octets + 40, 0);
	vary(26, 4, 1, 1, 0);
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, add(), 1), 1);
	frame.octets[24] ^= 0x55;
	setup.field_count = 0;
	vary(24, 2, 0xabcd, 0, 0); /* who varies it wants it so */
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, add(), 1), 1);
	rig_collect();
	sent = rig.returned[0].octets;
	CHECK(memcmp(sent + 24, frame.octets + 24, 2) != 0);
	CHECK_EQUAL(sent[24], frame.octets[24] ^ 0x55);
	CHECK_EQUAL(number_at(sent + 40, 2), 0);
	CHECK_EQUAL(number_at(rig.returned[1].octets + 24, 2), 0xabcd);
	rig_close();
}

/* A sum that comes out as 0 is written as 0xffff: 0 would say that there is none. */
static void udp_checksum_of_zero(void)
{
	uint32_t number, i, zeros = 0;

	open_udp();
	vary(34, 2, 0, 1, 0);
	number = add();
	for (i = 0; i < 65536; i++) {
		if (i % RIG_SPARE == 0) {
			CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, RIG_SPARE), RIG_SPARE);
			rig_collect();
			rig_give_spares(RIG_SPARE);
		}
		CHECK(number_at(rig.returned[i % RIG_SPARE].octets + 40, 2) != 0);
		zeros += number_at(rig.returned[i % RIG_SPARE].octets + 40, 2) == 0xffff;
	}
	CHECK(zeros > 0); /* ones' complement: at least one of 65,536 sums is 0 */
	rig_close();
}

/* ---- pace ----------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Run to the end with a driver that gives back what it gets; return how long that took. */
static uint64_t run(uint32_t number, const struct halo_blast_pace *pace, uint64_t *sent)
{
	uint64_t begin = now_ns();

	*sent = 0;
	CHECK_EQUAL(halo_worker_blast_start(rig.worker, number, pace), 0);
	do {
		CHECK(halo_worker_poll(rig.worker, 100000, &rig.result) >= 0);
		rig_collect();
		*sent += rig.returned_count;
		rig_give_spares(rig.returned_count);
	} while (!(rig.result.reasons & HALO_POLL_BLAST));
	return now_ns() - begin;
}

static void frames_at_a_pace(void)
{
	struct halo_blast_pace pace = {.frames_per_s = 200000, .count = 4000, .catch_up_ns = 50000000};
	uint64_t sent, elapsed_ns;

	open_udp();
	elapsed_ns = run(add(), &pace, &sent);
	CHECK_EQUAL(sent, 4000);
	CHECK(elapsed_ns >= 20000000, "4,000 frames at 200,000 a second took %" PRIu64 " ns", elapsed_ns);
	rig_close();
}

static void bits_at_a_pace(void)
{
	struct halo_blast_pace pace = {.count = 500, .catch_up_ns = 1000000};
	uint64_t sent, elapsed_ns;

	open_udp();
	pace.bits_per_s = (uint64_t)frame.length * 8 * 50000;
	elapsed_ns = run(add(), &pace, &sent);
	CHECK_EQUAL(sent, 500);
	CHECK(elapsed_ns >= 10000000 - 20000, "%" PRIu64 " ns", elapsed_ns);
	pace.frames_per_s = 10000; /* the stricter one holds */
	pace.count = 100;
	elapsed_ns = run(add(), &pace, &sent);
	CHECK(elapsed_ns >= 10000000, "%" PRIu64 " ns", elapsed_ns);
	rig_close();
}

/* An idle one sleeps; what it may not send is not what keeps it awake. */
static void a_slow_pace_sleeps(void)
{
	struct halo_blast_pace pace = {.frames_per_s = 100, .count = 3};
	uint64_t sent, elapsed_ns;

	struct plan plan = udp_plan();

	make(&plan);
	rig_open_idle(&rig_interface, 1, HALO_IDLE_SLEEP);
	rig_give_spares(RIG_SPARE);
	elapsed_ns = run(add(), &pace, &sent);
	CHECK_EQUAL(sent, 3);
	CHECK(elapsed_ns >= 30000000);
	CHECK(rig.slot->worker.wakeups > 0);
	rig_close();
}

static void no_buffers(void)
{
	struct halo_blast_pace pace = {.count = 5};
	struct halo_blast_counters counters;
	uint32_t number;

	open_udp();
	number = add();
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, RIG_SPARE + 5), RIG_SPARE);
	CHECK_EQUAL(halo_worker_blast_start(rig.worker, number, &pace), 0);
	rig_poll();
	halo_worker_blast_read(rig.worker, number, &counters);
	CHECK_EQUAL(counters.frames, RIG_SPARE);
	CHECK(counters.starved >= 2);
	CHECK_EQUAL(counters.running, 1);
	rig_collect();
	rig_give_spares(5);
	CHECK(rig_poll() & HALO_POLL_BLAST);
	CHECK(!(rig_poll() & HALO_POLL_BLAST)); /* once */
	rig_close();
}

static void stopped_and_gone(void)
{
	struct halo_blast_pace pace = {0};
	uint32_t number;

	open_udp();
	number = add();
	halo_worker_blast_start(rig.worker, number, &pace);
	halo_worker_blast_stop(rig.worker, number);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.originated, 0);
	halo_worker_blast_start(rig.worker, number, &pace);
	halo_worker_blast_start(rig.worker, number, &pace);
	halo_worker_blast_remove(rig.worker, number);
	halo_worker_blast_remove(rig.worker, number);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.originated, 0);
	CHECK_EQUAL(halo_worker_blast_send(rig.worker, number, 1), -ENOENT);
	CHECK_EQUAL(halo_worker_blast_start(rig.worker, number, &pace), -ENOENT);
	CHECK_EQUAL(halo_worker_blast_read(rig.worker, number, NULL), -ENOENT);
	rig_close();
}

static void rings_made_anew(void)
{
	struct halo_blast_pace pace = {0};

	open_udp();
	halo_worker_blast_start(rig.worker, add(), &pace);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.originated, RIG_SPARE);
	rig_reset_rings();
	rig_poll();
	rig_set_state(HALO_SLOT_ENABLED);
	rig_give_spares(3);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.originated, RIG_SPARE + 3);
	rig_close();
}

/* ---- what can not be ------------------------------------------------------------------------------------------ */

static void refuse(uint32_t offset, uint32_t octets)
{
	setup.field_count = 0;
	vary(offset, octets, 0, 1, 0);
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EINVAL);
}

static void setups_that_make_no_sense(void)
{
	uint32_t i;

	open_udp();
	refuse(12, 4);               /* EtherType and IPv4 */
	refuse(24, 4);               /* checksum and source */
	refuse(32, 4);               /* IPv4 and UDP */
	refuse(frame.length - 1, 2); /* behind the end */
	refuse(UINT32_MAX, 1);
	refuse(40, 0);
	refuse(42, 9);
	refuse(43, 8);
	vary(42, 2, 0, 1, 0);
	field[0] = field[1];
	field[1].offset = 43; /* one over the other */
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EINVAL);
	setup.field_count = 1;
	field[0].random = 1;
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EINVAL);
	setup.field_count = 0;
	setup.port = 64;
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EINVAL);
	setup.port = PORT;
	lengths[0] = 13;
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EINVAL);
	lengths[0] = HALO_DATA_OCTETS + 1;
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -EMSGSIZE);
	lengths[0] = frame.length;
	for (i = 0; i < HALO_MAX_BLASTS; i++)
		add();
	CHECK_EQUAL(halo_worker_blast_add(rig.worker, &setup), -ENOSPC);
	halo_worker_blast_remove(rig.worker, 3);
	CHECK_EQUAL(add(), 3);
	rig_close();
}

/* By which interface they leave: one look for all, or at each where it differs. */
static void counted_by_interface(void)
{
	static const struct link links[] = {
		{.port = PORT, .mac = OWN_MAC, .mtu = 1500, .flags = HALO_INTERFACE_UP},
		{.port = PORT, .vlan = 7, .mac = OWN_MAC, .mtu = 1500, .flags = HALO_INTERFACE_UP},
	};
	struct plan plan = udp_plan();
	uint32_t number;

	plan.vlan = 7;
	make(&plan);
	rig_open(links, 2);
	rig_give_spares(RIG_SPARE);
	halo_worker_blast_send(rig.worker, add(), 5);
	CHECK_EQUAL(rig.slot->interface[1].tx_packets, 5);
	CHECK_EQUAL(rig.slot->interface[1].tx_octets, 5 * frame.length);
	vary(14, 2, 7, 1, 2); /* VLAN 7 and 8, which is nobody's */
	number = add();
	halo_worker_blast_send(rig.worker, number, 4);
	CHECK_EQUAL(rig.slot->interface[1].tx_packets, 7);
	CHECK_EQUAL(rig.slot->interface[0].tx_packets, 0);
	rig_close();
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"copies_of_a_template", copies_of_a_template},
		{"templates_in_turn", templates_in_turn},
		{"numbers_that_go_on", numbers_that_go_on},
		{"numbers_in_no_order", numbers_in_no_order},
		{"checksums_of_every_kind", checksums_of_every_kind},
		{"checksums_that_are_wrong_stay", checksums_that_are_wrong_stay},
		{"udp_checksum_of_zero", udp_checksum_of_zero},
		{"frames_at_a_pace", frames_at_a_pace},
		{"bits_at_a_pace", bits_at_a_pace},
		{"a_slow_pace_sleeps", a_slow_pace_sleeps},
		{"no_buffers", no_buffers},
		{"stopped_and_gone", stopped_and_gone},
		{"rings_made_anew", rings_made_anew},
		{"setups_that_make_no_sense", setups_that_make_no_sense},
		{"counted_by_interface", counted_by_interface},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
