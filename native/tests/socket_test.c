/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets: who gets a datagram; and what becomes of datagrams, in and out, at every length. After every row the books balance. */
#include <errno.h>
#include <stdlib.h>

#include "rig.h"

enum {
	PORT = 4000,
	OTHER_SLOT = 9,
	WIDE = 400,       /* with sockets, a burst is as wide as what waits */
	DATA_ROOM = 1472, /* in a packet of 1500 */
	L3 = 14,
	L4 = 34,
	DATA = 42,
};

static const uint8_t own_mac[6] = OWN_MAC, peer_mac[6] = PEER_MAC;
static struct plan plan;
static struct frame frame;

static uint32_t get16(const uint8_t *octets)
{
	return (uint32_t)octets[0] << 8 | octets[1];
}

/* The checksum over a datagram and its pseudo header: 0 when the one in the header is right. */
static uint16_t datagram_checksum(const uint8_t *octets, uint32_t length)
{
	uint8_t all[FRAME_ROOM + 12];

	memcpy(all, octets + L3 + 12, 8);
	put16(all + 8, UDP);
	put16(all + 10, length);
	memcpy(all + 12, octets + L4, length);
	return reference_checksum(all, 12 + length);
}

static void seal(void)
{
	uint32_t length = get16(frame.octets + L4 + 4);
	uint16_t checksum;

	put16(frame.octets + L4 + 6, 0);
	checksum = datagram_checksum(frame.octets, length);
	put16(frame.octets + L4 + 6, checksum ? checksum : 0xffff);
	frame_seal(&frame);
}

static void open_plain(void)
{
	plan = echo;
	plan.protocol = UDP;
	plan.dst_port = PORT;
	plan.src_port = 5000;
	plan.data_octets = 32;
	plan.pad_to = 0;
	rig_open(&rig_interface, 1);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, 0, PEER_ADDRESS, peer_mac, HALO_NEIGHBOR_REACHABLE), 0);
}

static void make(void)
{
	frame_make(&plan, &frame);
	seal();
}

static struct halo_socket place(uint32_t address, uint16_t port, uint32_t peer, uint16_t peer_port, uint8_t flags)
{
	return (struct halo_socket){.address = address,
				    .port = port,
				    .peer = peer,
				    .peer_port = peer_port,
				    .protocol = UDP,
				    .flags = flags};
}

static int open_socket(uint32_t address, uint16_t port, uint32_t peer, uint16_t peer_port, uint8_t flags)
{
	struct halo_socket wanted = place(address, port, peer, peer_port, flags);

	return halo_worker_open_socket(rig.worker, &wanted);
}

static int found(uint32_t address, uint16_t port, uint32_t peer, uint16_t peer_port, int to_all)
{
	struct halo_socket datagram = place(address, port, peer, peer_port, 0);
	uint32_t number = UINT32_MAX;
	int slot = halo_worker_find_socket(rig.worker, &datagram, to_all, &number);

	return slot == RIG_SLOT_NUMBER ? (int)number : slot < 0 ? slot : 100000 + slot;
}

/* Deliver the frame, and return how many datagrams are parked then. */
static uint32_t deliver(uint8_t flags)
{
	rig_deliver(&frame, 0, flags);
	rig_poll();
	return halo_worker_datagram_count(rig.worker);
}

static void release(void)
{
	halo_worker_release_datagrams(rig.worker);
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(halo_worker_held(rig.worker), 0);
}

/* ---- who gets it ---------------------------------------------------------------------------------------------- */

static void most_specific_socket_is_found(void)
{
	int any, own, connected;

	open_plain();
	any = open_socket(0, PORT, 0, 0, HALO_SOCKET_SHARED);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 0), any);
	own = open_socket(OWN_ADDRESS, PORT, 0, 0, HALO_SOCKET_SHARED);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 0), own);
	connected = open_socket(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, HALO_SOCKET_SHARED);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 0), connected);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 2, 0), own);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS + 1, 1, 0), own);
	CHECK_EQUAL(found(OWN_ADDRESS + 1, PORT, PEER_ADDRESS, 1, 0), any);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 1), any); /* to all: as bind(2) has it */
	CHECK_EQUAL(found(OWN_ADDRESS, PORT + 1, PEER_ADDRESS, 1, 0), -ENOENT);
	CHECK_EQUAL(halo_worker_close_socket(rig.worker, (uint32_t)connected), 0);
	CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 0), own);
	rig_close();
}

static void places_conflict_as_with_bind(void)
{
	open_plain();
	CHECK(open_socket(OWN_ADDRESS, PORT, 0, 0, 0) >= 0);
	CHECK_EQUAL(open_socket(OWN_ADDRESS, PORT, 0, 0, 0), -EADDRINUSE);
	CHECK_EQUAL(open_socket(0, PORT, 0, 0, 0), -EADDRINUSE);
	CHECK_EQUAL(open_socket(OWN_ADDRESS, PORT, 0, 0, HALO_SOCKET_SHARED), -EADDRINUSE);
	CHECK_EQUAL(open_socket(OWN_ADDRESS, PORT, PEER_ADDRESS, 1, 0), -EADDRINUSE);
	CHECK(open_socket(OWN_ADDRESS + 1, PORT, 0, 0, 0) >= 0);
	CHECK(open_socket(0, PORT + 1, 0, 0, HALO_SOCKET_SHARED) >= 0);
	CHECK(open_socket(0, PORT + 1, 0, 0, HALO_SOCKET_SHARED) >= 0);
	CHECK(open_socket(OWN_ADDRESS, PORT + 1, 0, 0, HALO_SOCKET_SHARED) >= 0);
	CHECK_EQUAL(open_socket(0, PORT + 1, 0, 0, 0), -EADDRINUSE);
	CHECK_EQUAL(open_socket(0, 0, 0, 0, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_close_socket(rig.worker, HALO_MAX_OWN_SOCKETS), -EBADF);
	CHECK_EQUAL(halo_worker_close_socket(rig.worker, UINT32_MAX), -EBADF);
	CHECK_EQUAL(halo_worker_set_socket(rig.worker, UINT32_MAX, 64, 0), -EBADF);
	CHECK_EQUAL(rig.slot->worker.sockets, 5);
	rig_close();
}

/* Against a model: which numbers are open, and where. */
static void random_opens_and_closes(void)
{
	static struct halo_socket model[HALO_MAX_OWN_SOCKETS];
	uint32_t seed = 20, i, live = 0;

	open_plain();
	memset(model, 0, sizeof(model));
	for (i = 0; i < 20000; i++) {
		uint32_t number;

		seed = seed * 1664525 + 1013904223;
		number = seed >> 20 & (HALO_MAX_OWN_SOCKETS - 1);
		if (model[number].port) {
			CHECK_EQUAL(halo_worker_close_socket(rig.worker, number), 0);
			CHECK_EQUAL(found(model[number].address, model[number].port, 1, 1, 0), -ENOENT);
			model[number].port = 0;
			live--;
		} else {
			uint16_t port = (uint16_t)(1024 + i % 60000);
			int opened = open_socket(OWN_ADDRESS + (seed & 7), port, 0, 0, 0);

			if (opened == -EADDRINUSE)
				continue;
			CHECK(opened >= 0 && opened < HALO_MAX_OWN_SOCKETS && model[opened].port == 0);
			model[opened] = place(OWN_ADDRESS + (seed & 7), port, 0, 0, 0);
			live++;
		}
		CHECK_EQUAL(rig.slot->worker.sockets, live);
	}
	for (i = 0; i < HALO_MAX_OWN_SOCKETS; i++)
		if (model[i].port)
			CHECK_EQUAL(found(model[i].address, model[i].port, 1, 1, 0), i);
	rig_close();
}

static void sockets_are_bounded_and_numbers_come_late_again(void)
{
	uint32_t i;
	int first;

	open_plain();
	first = open_socket(0, 1, 0, 0, 0);
	CHECK_EQUAL(halo_worker_close_socket(rig.worker, (uint32_t)first), 0);
	CHECK(open_socket(0, 1, 0, 0, 0) != first, "a datagram that is parked for the old one would be the new one's");
	for (i = 2; i <= HALO_MAX_OWN_SOCKETS; i++)
		CHECK(open_socket(0, (uint16_t)i, 0, 0, 0) >= 0);
	CHECK_EQUAL(open_socket(0, 60000, 0, 0, 0), -ENFILE);
	rig_close();
}

/* ---- of other workers ----------------------------------------------------------------------------------------- */

static void publish(const struct halo_socket *sockets, uint32_t count)
{
	uint32_t inactive = 1 - rig.tables->active_sockets;

	memset(&rig.tables->sockets[inactive], 0, sizeof(rig.tables->sockets[inactive]));
	rig.tables->sockets[inactive].count = count;
	memcpy(rig.tables->sockets[inactive].entry, sockets,
	       (count < HALO_MAX_SOCKETS ? count : HALO_MAX_SOCKETS) * sizeof(*sockets));
	rig.tables->active_sockets = inactive;
	rig.tables->socket_generation++;
	rig.tables->epoch++;
	rig_poll();
}

static struct halo_socket others(uint32_t address, uint16_t port, uint8_t slot, uint8_t flags)
{
	struct halo_socket socket = place(address, port, 0, 0, flags);

	socket.slot = slot;
	return socket;
}

static void datagram_of_another_worker_is_handed_once(void)
{
	struct halo_socket published[] = {others(OWN_ADDRESS, PORT, OTHER_SLOT, 0)};

	open_plain();
	make();
	rig_check_punt(&frame, 0);
	publish(published, 1);
	rig_check_handed(&frame, 0, OTHER_SLOT);
	CHECK_EQUAL(deliver(HALO_DESCRIPTOR_HANDED), 0);
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	release();
	publish(published, 0);
	rig_check_punt(&frame, 0);
	rig_close();
}

static void what_stands_in_the_tables_harms_nobody(void)
{
	struct halo_socket *published = calloc(HALO_MAX_SOCKETS, sizeof(*published));
	uint32_t i;

	open_plain();
	make();
	published[0] = others(0, PORT, HALO_MAX_SLOTS, 0);
	published[1] = others(0, PORT, 255, 0);
	published[2] = others(0, PORT, RIG_SLOT_NUMBER, 0);
	published[3] = others(0, PORT, OTHER_SLOT, 0);
	published[3].protocol = TCP;
	published[4] = others(0, 0, OTHER_SLOT, 0);
	publish(published, 5);
	rig_check_punt(&frame, 0);
	for (i = 0; i < HALO_MAX_SOCKETS; i++)
		published[i] = others(0, PORT, OTHER_SLOT, (uint8_t)i);
	publish(published, UINT32_MAX);
	rig_check_handed(&frame, 0, OTHER_SLOT);
	free(published);
	rig_close();
}

static void shared_place_goes_to_ours_and_else_by_flow(void)
{
	struct halo_socket published[] = {others(0, PORT, 8, HALO_SOCKET_SHARED),
					  others(0, PORT, OTHER_SLOT, HALO_SOCKET_SHARED)};
	uint32_t seen[2] = {0, 0}, i;
	int own[2];

	open_plain();
	publish(published, 2);
	for (i = 0; i < 256; i++)
		seen[found(OWN_ADDRESS, PORT, PEER_ADDRESS, (uint16_t)(1000 + i), 0) - 100008]++;
	CHECK(seen[0] > 64 && seen[1] > 64, "%u and %u of 256", seen[0], seen[1]);
	own[0] = open_socket(0, PORT, 0, 0, HALO_SOCKET_SHARED);
	own[1] = open_socket(0, PORT, 0, 0, HALO_SOCKET_SHARED);
	seen[0] = seen[1] = 0;
	for (i = 0; i < 256; i++) {
		int number = found(OWN_ADDRESS, PORT, PEER_ADDRESS, (uint16_t)(1000 + i), 0);

		CHECK(number == own[0] || number == own[1]);
		CHECK_EQUAL(found(OWN_ADDRESS, PORT, PEER_ADDRESS, (uint16_t)(1000 + i), 0), number);
		seen[number == own[1]]++;
	}
	CHECK(seen[0] > 64 && seen[1] > 64, "%u and %u of 256", seen[0], seen[1]);
	rig_close();
}

/* ---- what comes in -------------------------------------------------------------------------------------------- */

static void parked_datagram_says_what_it_is(void)
{
	const struct halo_datagram *told;
	int number;

	open_plain();
	number = open_socket(0, PORT, 0, 0, 0);
	make();
	CHECK_EQUAL(deliver(0), 1);
	CHECK(rig.result.reasons & HALO_POLL_DATAGRAMS);
	told = halo_worker_datagrams(rig.worker);
	CHECK_EQUAL(told->src, (uint64_t)PEER_ADDRESS << 16 | 5000);
	CHECK_EQUAL(told->dst, OWN_ADDRESS);
	CHECK_EQUAL(told->socket, number);
	CHECK_EQUAL(told->length, 32);
	CHECK_EQUAL(told->interface, 0);
	CHECK(memcmp(rig.pool + told->offset, frame.octets + DATA, 32) == 0);
	CHECK_EQUAL(halo_worker_held(rig.worker), 1);
	CHECK_EQUAL(halo_worker_poll(rig.worker, 0, &rig.result), -EBUSY);
	release();
	CHECK_EQUAL(rig.slot->worker.consumed, 1);
	CHECK_EQUAL(rig.slot->worker.datagrams_in, 1);
	CHECK_EQUAL(halo_worker_drop_datagram(rig.worker, 0, HALO_DROP_app_drop), -EINVAL);
	rig_poll();
	CHECK_EQUAL(halo_worker_datagram_count(rig.worker), 0);
	rig_close();
}

static void check_in(enum halo_drop reason)
{
	if (reason != HALO_DROP_COUNT)
		return rig_check_drop(&frame, 0, reason);
	CHECK_EQUAL(deliver(0), 1);
	release();
}

static void lengths_that_lie(void)
{
	uint32_t ip_octets, length;

	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	for (ip_octets = 24; ip_octets <= 60; ip_octets++) {
		for (length = 0; length <= 48; length++) {
			make();
			put16(frame.octets + L4 + 4, length);
			put16(frame.octets + L4 + 6, 0);
			put16(frame.octets + L3 + 2, ip_octets);
			frame_seal(&frame);
			check_in(ip_octets < 28                          ? HALO_DROP_udp_truncated
				 : length < 8 || length > ip_octets - 20 ? HALO_DROP_udp_length
									 : HALO_DROP_COUNT);
		}
	}
	rig_close();
}

static void checksums(void)
{
	uint32_t i;

	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	for (i = 0; i < 300; i++) { /* odd and even lengths, and among them one whose sum is 0 */
		plan.data_octets = i % 64;
		plan.src_port = (uint16_t)(1 + i * 219);
		make();
		check_in(HALO_DROP_COUNT);
		put16(frame.octets + L4 + 6, get16(frame.octets + L4 + 6) ^ 0x100);
		if (get16(frame.octets + L4 + 6) != 0)
			check_in(HALO_DROP_udp_checksum);
	}
	plan.data_octets = 33;
	for (i = 0; i < 33; i++) {
		make();
		frame.octets[DATA + i] ^= 0x10;
		check_in(HALO_DROP_udp_checksum);
	}
	make();
	put16(frame.octets + L4 + 6, 0); /* RFC 768: none */
	check_in(HALO_DROP_COUNT);
	rig_close();
}

static void parked_for_one_socket_is_told(void)
{
	int one, other;

	open_plain();
	one = open_socket(0, PORT, 0, 0, 0);
	other = open_socket(0, PORT + 1, 0, 0, 0);
	CHECK_EQUAL(halo_worker_datagrams_socket(rig.worker), -1);
	make();
	rig_deliver(&frame, 0, 0);
	CHECK_EQUAL(deliver(0), 2);
	CHECK_EQUAL(halo_worker_datagrams_socket(rig.worker), one);
	release();
	rig_deliver(&frame, 0, 0);
	put16(frame.octets + L4 + 2, PORT + 1);
	put16(frame.octets + L4 + 6, 0);
	CHECK_EQUAL(deliver(0), 2);
	CHECK_EQUAL(halo_worker_datagrams_socket(rig.worker), -1);
	release();
	CHECK_EQUAL(deliver(0), 1);
	CHECK_EQUAL(halo_worker_datagrams_socket(rig.worker), other);
	release();
	rig_close();
}

static void a_whole_burst_is_parked(void)
{
	uint32_t i;

	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	make();
	for (i = 0; i < WIDE; i++)
		rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(halo_worker_datagram_count(rig.worker), WIDE);
	for (i = 0; i < WIDE; i += 2)
		CHECK_EQUAL(halo_worker_drop_datagram(rig.worker, i, HALO_DROP_app_drop), 0);
	release();
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_app_drop], WIDE / 2);
	CHECK_EQUAL(rig.slot->worker.consumed, WIDE / 2);
	rig_close();
}

/* ---- what goes out -------------------------------------------------------------------------------------------- */

static void check_datagram(const struct returned *sent, const uint8_t *dst_mac, uint16_t src_port, uint16_t dst_port,
			   const uint8_t *data, uint32_t length)
{
	const uint8_t *octets = sent->octets;
	uint32_t total = DATA + length;

	CHECK_EQUAL(sent->descriptor.flags, HALO_ACTION_TRANSMIT);
	CHECK_EQUAL(sent->descriptor.length, total < 60 ? 60 : total);
	CHECK(memcmp(octets, dst_mac, 6) == 0 && memcmp(octets + 6, own_mac, 6) == 0);
	CHECK_EQUAL(get16(octets + L3 + 2), 28 + length);
	CHECK_EQUAL(reference_checksum(octets + L3, 20), 0);
	CHECK_EQUAL(octets[L3 + 8], 64);
	CHECK_EQUAL(get16(octets + L4), src_port);
	CHECK_EQUAL(get16(octets + L4 + 2), dst_port);
	CHECK_EQUAL(get16(octets + L4 + 4), 8 + length);
	CHECK(get16(octets + L4 + 6) != 0, "0 would say that there is no checksum");
	CHECK_EQUAL(datagram_checksum(octets, 8 + length), 0);
	CHECK(memcmp(octets + DATA, data, length) == 0);
	for (; total < 60; total++)
		CHECK_EQUAL(octets[total], 0);
}

static uint8_t *random_octets(void)
{
	static uint8_t octets[DATA_ROOM];
	uint32_t i;

	for (i = 0; i < DATA_ROOM; i++)
		octets[i] = (uint8_t)(i * 167 + (i >> 3));
	return octets;
}

static void reply_goes_back_in_its_buffer(void)
{
	const uint8_t *data = random_octets();
	uint32_t length;

	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	rig.room_behind = HALO_DATA_OCTETS - 74;
	for (length = 0; length <= DATA_ROOM; length += length < 64 ? 1 : 44) {
		make();
		CHECK_EQUAL(deliver(0), 1);
		CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, data, length), 0);
		CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, data, length), -EINVAL);
		release();
		CHECK_EQUAL(rig.returned_count, 1);
		check_datagram(&rig.returned[0], peer_mac, PORT, 5000, data, length);
	}
	make();
	CHECK_EQUAL(deliver(0), 1);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, data, DATA_ROOM + 1), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, data, UINT32_MAX), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 1, data, 1), -EINVAL);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, NULL, 0), 0);
	release();
	check_datagram(&rig.returned[0], peer_mac, PORT, 5000, frame.octets + DATA, 32);
	rig_close();
}

static void reply_to_a_broadcast_comes_from_our_address(void)
{
	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	plan.dst = IPV4(10, 0, 0, 255);
	memset(plan.dst_mac, 0xff, 6);
	make();
	CHECK_EQUAL(deliver(0), 1);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, NULL, 0), 0);
	release();
	check_datagram(&rig.returned[0], peer_mac, PORT, 5000, frame.octets + DATA, 32);
	CHECK_EQUAL(get16(rig.returned[0].octets + L3 + 12) << 16 | get16(rig.returned[0].octets + L3 + 14),
		    OWN_ADDRESS);
	rig_close();
}

static void replies_of_a_burst(void)
{
	uint32_t which[] = {0, 2, 5, 5, 99, UINT32_MAX};
	uint16_t length[] = {32, 0, 5, 5, 5, 5};

	open_plain();
	open_socket(0, PORT, 0, 0, 0);
	make();
	for (uint32_t i = 0; i < 6; i++)
		rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(halo_worker_reply_datagrams(rig.worker, which, length, 6), 3);
	release();
	CHECK_EQUAL(rig.returned_count, 6);
	check_datagram(&rig.returned[0], peer_mac, PORT, 5000, frame.octets + DATA, 32);
	check_datagram(&rig.returned[1], peer_mac, PORT, 5000, frame.octets + DATA, 0);
	check_datagram(&rig.returned[2], peer_mac, PORT, 5000, frame.octets + DATA, 5);
	CHECK_EQUAL(rig.slot->worker.datagrams_out, 3);
	rig_close();
}

static void datagram_of_ours_leaves_at_every_length(void)
{
	const uint64_t to = (uint64_t)PEER_ADDRESS << 16 | 7777;
	const uint8_t *data = random_octets();
	uint32_t length, number;

	open_plain();
	number = (uint32_t)open_socket(0, PORT, 0, 0, 0);
	for (length = 0; length <= DATA_ROOM; length += length < 64 ? 1 : 44) {
		rig_give_spares(1);
		CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, length), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
		CHECK_EQUAL(rig.returned_count, 1);
		check_datagram(&rig.returned[0], peer_mac, PORT, 7777, data, length);
	}
	rig_close();
}

static void what_is_not_as_usual_is_left_to_the_stack(void)
{
	static const uint32_t elsewhere[] = {
		OWN_ADDRESS,          IPV4(10, 0, 0, 255), UINT32_MAX, IPV4(127, 0, 0, 1), IPV4(224, 0, 0, 1), 0,
		IPV4(169, 254, 0, 1), IPV4(10, 0, 0, 77), /* a neighbor that is not known */
		IPV4(192, 0, 2, 1),                       /* no route */
	};
	const uint8_t *data = random_octets();
	uint64_t to = (uint64_t)PEER_ADDRESS << 16 | 1;
	uint32_t number, i;

	open_plain();
	number = (uint32_t)open_socket(0, PORT, 0, 0, 0);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, 1), -ENOBUFS);
	rig_give_spares(1);
	for (i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
		CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, (uint64_t)elsewhere[i] << 16 | 1, data, 1),
			    -EAGAIN);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, DATA_ROOM + 1), -EAGAIN);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, UINT32_MAX - 40), -EAGAIN);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number + 1, to, data, 1), -EBADF);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, UINT32_MAX, to, data, 1), -EBADF);
	CHECK_EQUAL(halo_worker_send_datagram(NULL, number, to, data, 1), -EBADF);
	CHECK_EQUAL(rig.slot->worker.originated, 0);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, 1), 0);
	rig_close();
}

/* What was handed: the frame that an interface would have sent to itself, without a checksum where it is our own. */
static void check_across(const struct returned *returned, uint16_t src_port, uint16_t dst_port, const uint8_t *data,
			 uint32_t length, bool summed)
{
	CHECK_EQUAL(returned->descriptor.flags, HALO_ACTION_HAND);
	CHECK_EQUAL(returned->descriptor.port, OTHER_SLOT);
	CHECK(memcmp(returned->octets, own_mac, 6) == 0 && memcmp(returned->octets + 6, own_mac, 6) == 0, "MACs");
	CHECK_EQUAL(get16(returned->octets + 12), 0x0800);
	CHECK_EQUAL(get16(returned->octets + L4), src_port);
	CHECK_EQUAL(get16(returned->octets + L4 + 2), dst_port);
	CHECK_EQUAL(get16(returned->octets + L4 + 4), 8 + length);
	CHECK_EQUAL(reference_checksum(returned->octets + L3, 20), 0);
	if (summed)
		CHECK_EQUAL(datagram_checksum(returned->octets, 8 + length), 0);
	else
		CHECK_EQUAL(get16(returned->octets + L4 + 6), 0);
	CHECK(memcmp(returned->octets + DATA, data, length) == 0, "data");
}

static void burst_of_ours_leaves_in_order_each_by_its_way(void)
{
	struct halo_socket published[] = {others(OWN_ADDRESS, 7777, OTHER_SLOT, 0)};
	const uint8_t *data = random_octets();
	const uint64_t out = (uint64_t)PEER_ADDRESS << 16 | 1, across = (uint64_t)OWN_ADDRESS << 16 | 7777;
	const struct halo_outgoing burst[] = {
		{data, out, 5, 0},         {data + 5, out, 0, 0},     {data, across, 7, 0},
		{data + 1, across, 8, 0},  {data + 2, out + 1, 9, 0}, {data, out + 1, DATA_ROOM + 1, 0},
		{data + 3, out + 1, 6, 0},
	};
	uint32_t number, i;
	int32_t error = 1;

	open_plain();
	publish(published, 1);
	number = (uint32_t)open_socket(0, PORT, 0, 0, 0);
	rig_give_spares(2);
	CHECK_EQUAL(halo_worker_send_datagrams(rig.worker, number, burst, 7, &error), 2);
	CHECK_EQUAL(error, -ENOBUFS);
	rig_give_spares(4);
	CHECK_EQUAL(halo_worker_send_datagrams(rig.worker, number, burst + 2, 5, &error), 3);
	CHECK_EQUAL(error, -EAGAIN); /* too long for a frame */
	CHECK_EQUAL(halo_worker_send_datagrams(rig.worker, number, burst + 6, 1, &error), 1);
	CHECK_EQUAL(error, 0);
	CHECK_EQUAL(halo_worker_send_datagrams(rig.worker, number, burst, 0, &error), 0);
	CHECK_EQUAL(error, 0);
	CHECK_EQUAL(halo_worker_send_datagrams(rig.worker, number + 1, burst, 1, &error), 0);
	CHECK_EQUAL(error, -EBADF);
	CHECK_EQUAL(halo_worker_send_datagrams(NULL, number, burst, 1, &error), 0);
	CHECK_EQUAL(error, -EBADF);
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 6);
	CHECK_EQUAL(rig.slot->worker.originated, 6);
	for (i = 0; i < 6; i++) {
		const struct halo_outgoing *one = &burst[i < 5 ? i : 6];

		if (one->to == across)
			check_across(&rig.returned[i], PORT, 7777, one->octets, one->length, false);
		else
			check_datagram(&rig.returned[i], peer_mac, PORT, (uint16_t)one->to, one->octets, one->length);
	}
	rig_close();
}

static void datagram_to_a_socket_of_another_worker_is_handed(void)
{
	const uint64_t to = (uint64_t)OWN_ADDRESS << 16 | 7777;
	struct halo_socket published[] = {others(OWN_ADDRESS, 7777, OTHER_SLOT, 0)};
	const uint8_t *data = random_octets();
	uint32_t length, number;

	open_plain();
	publish(published, 1);
	number = (uint32_t)open_socket(0, PORT, 0, 0, 0);
	for (length = 0; length <= DATA_ROOM; length += length < 64 ? 1 : 44) {
		rig_give_spares(1);
		CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, length), 0);
		halo_worker_flush(rig.worker);
		rig_collect();
		CHECK_EQUAL(rig.returned_count, 1);
		check_across(&rig.returned[0], PORT, 7777, data, length, false);
	}
	CHECK_EQUAL(rig.slot->worker.tx_handed, rig.slot->worker.originated);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, data, DATA_ROOM + 1), -EAGAIN);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to + 1, data, 1), -EAGAIN); /* nobody's */
	rig_close();
}

/* Only another worker may speak from an address of ours. */
static void datagram_from_a_socket_of_another_worker_is_answered_there(void)
{
	struct halo_socket published[] = {others(0, 5000, OTHER_SLOT, 0)};
	uint64_t forged;

	open_plain();
	plan.src = OWN_ADDRESS;
	memcpy(plan.src_mac, own_mac, 6);
	publish(published, 1);
	open_socket(0, PORT, 0, 0, 0);
	make();
	forged = rig.slot->worker.drops[HALO_DROP_ethernet_source];
	CHECK_EQUAL(deliver(0), 0);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_ethernet_source], forged + 1);
	release();
	CHECK_EQUAL(deliver(HALO_DESCRIPTOR_HANDED), 1);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, NULL, 0), 0);
	release();
	CHECK_EQUAL(rig.returned_count, 1);
	check_across(&rig.returned[0], PORT, 5000, frame.octets + DATA, 32, true);
	publish(published, 0); /* closed meanwhile */
	CHECK_EQUAL(deliver(HALO_DESCRIPTOR_HANDED), 1);
	CHECK_EQUAL(halo_worker_reply_datagram(rig.worker, 0, NULL, 0), 0);
	release();
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_no_listener], 1);
	rig_close();
}

static void use_of_a_stale_neighbor_between_polls_is_told(void)
{
	const uint64_t to = (uint64_t)PEER_ADDRESS << 16 | 1;
	uint32_t number;

	open_plain();
	number = (uint32_t)open_socket(0, PORT, 0, 0, 0);
	CHECK_EQUAL(halo_worker_set_neighbor(rig.worker, 0, PEER_ADDRESS, peer_mac, HALO_NEIGHBOR_STALE), 0);
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_send_datagram(rig.worker, number, to, peer_mac, 6), 0);
	rig_poll();
	CHECK_EQUAL(rig.result.touched_count, 1);
	CHECK_EQUAL(rig.result.touched[0].address, PEER_ADDRESS);
	rig_poll();
	CHECK_EQUAL(rig.result.touched_count, 0);
	rig_close();
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"most_specific_socket_is_found", most_specific_socket_is_found},
		{"places_conflict_as_with_bind", places_conflict_as_with_bind},
		{"random_opens_and_closes", random_opens_and_closes},
		{"sockets_are_bounded_and_numbers_come_late_again", sockets_are_bounded_and_numbers_come_late_again},
		{"datagram_of_another_worker_is_handed_once", datagram_of_another_worker_is_handed_once},
		{"what_stands_in_the_tables_harms_nobody", what_stands_in_the_tables_harms_nobody},
		{"shared_place_goes_to_ours_and_else_by_flow", shared_place_goes_to_ours_and_else_by_flow},
		{"parked_datagram_says_what_it_is", parked_datagram_says_what_it_is},
		{"lengths_that_lie", lengths_that_lie},
		{"checksums", checksums},
		{"parked_for_one_socket_is_told", parked_for_one_socket_is_told},
		{"a_whole_burst_is_parked", a_whole_burst_is_parked},
		{"reply_goes_back_in_its_buffer", reply_goes_back_in_its_buffer},
		{"reply_to_a_broadcast_comes_from_our_address", reply_to_a_broadcast_comes_from_our_address},
		{"replies_of_a_burst", replies_of_a_burst},
		{"datagram_of_ours_leaves_at_every_length", datagram_of_ours_leaves_at_every_length},
		{"what_is_not_as_usual_is_left_to_the_stack", what_is_not_as_usual_is_left_to_the_stack},
		{"burst_of_ours_leaves_in_order_each_by_its_way", burst_of_ours_leaves_in_order_each_by_its_way},
		{"datagram_to_a_socket_of_another_worker_is_handed", datagram_to_a_socket_of_another_worker_is_handed},
		{"datagram_from_a_socket_of_another_worker_is_answered_there",
		 datagram_from_a_socket_of_another_worker_is_answered_there},
		{"use_of_a_stale_neighbor_between_polls_is_told", use_of_a_stale_neighbor_between_polls_is_told},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
