/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker around the stages: attaching, what a poll comes back for, punts, frames of its own, doorbells, and the life
 * cycle that the driver walks. After every row the books balance.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <halo/fastpath.h>

#include "rig.h"

static struct frame request; /* is answered */
static struct frame arp;     /* is punted */

static void open_plain(void)
{
	struct plan plan = echo;

	frame_make(&plan, &request);
	plan.ethertype = TYPE_ARP;
	frame_make(&plan, &arp);
	rig_open(&rig_interface, 1);
}

static void punt(uint32_t count)
{
	for (; count; count--)
		rig_deliver(&arp, 0, 0);
	CHECK(rig_poll() & HALO_POLL_PUNTS);
}

static void flush_and_collect(uint32_t count)
{
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, count);
}

static uint64_t drawn(int fd) /* how often a doorbell rang */
{
	uint64_t rings = 0;

	return read(fd, &rings, sizeof(rings)) == sizeof(rings) ? rings : 0;
}

/* ---- attaching ------------------------------------------------------------------------------------------------ */

#define REFUSE(field, value)                                                                               \
	do {                                                                                               \
		__typeof__(field) right = field;                                                           \
		struct halo_worker *made = NULL;                                                           \
                                                                                                           \
		field = value;                                                                             \
		CHECK(halo_worker_create(&rig.setup, &made) < 0 && !made, #field " " #value " was taken"); \
		field = right;                                                                             \
	} while (0)

static void attach_to_something_else(void)
{
	struct halo_slot_geometry *geometry;
	struct halo_region_header *header;

	open_plain();
	geometry = &rig.slot->geometry;
	header = &rig.slot->header;
	REFUSE(header->magic, 0);
	REFUSE(header->layout_version, HALO_LAYOUT_VERSION + 1);
	REFUSE(header->kind, HALO_REGION_OWNERS);
	REFUSE(header->size_octets, 4096);
	REFUSE(geometry->ring_size, 0);
	REFUSE(geometry->ring_size, RIG_RING + 1);
	REFUSE(geometry->ring_size, UINT32_C(0x80000000));
	REFUSE(geometry->tx_size, RIG_TX - 1);
	REFUSE(geometry->tx_size, RIG_TX / 2); /* less than the bound: could overflow */
	REFUSE(geometry->spare_size, 3);
	REFUSE(geometry->rx_offset, UINT32_MAX - 7);
	REFUSE(geometry->tx_offset, (uint32_t)header->size_octets);
	REFUSE(geometry->spare_offset, (uint32_t)header->size_octets - RIG_SPARE * 8 + 8);
	REFUSE(geometry->buffer_bound, RIG_TX + 1);
	REFUSE(geometry->pool.stride_octets, 0);
	rig_close();
}

static void attach_at_the_indices_found(void)
{
	uint32_t start = UINT32_MAX - 40;
	uint32_t i;

	open_plain();
	rig_reset_rings();
	rig.slot->rx.producer = rig.slot->rx.consumer = rig.rx.head = rig.rx.peer = start;
	rig.slot->tx.producer = rig.slot->tx.consumer = rig.tx.tail = rig.tx.peer = start;
	rig.slot->spare.producer = rig.slot->spare.consumer = rig.spare.head = rig.spare.peer = start;
	rig_set_state(HALO_SLOT_ENABLED);
	rig_poll();
	rig_give_spares(RIG_SPARE);
	for (i = 0; i < 64; i++) {
		rig_check_reply(&request, 0);
		CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, request.length), 0);
		flush_and_collect(1);
	}
	CHECK_EQUAL(rig.slot->rx.consumer, start + 64);
	CHECK_EQUAL(rig.slot->spare.consumer, start + 64);
	CHECK_EQUAL(rig.slot->tx.producer, start + 128);
	rig_close();
}

/* ---- what a poll comes back for ------------------------------------------------------------------------------- */

static void poll_reasons(void)
{
	int other = eventfd(1, EFD_NONBLOCK);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = other};

	open_plain();
	CHECK_EQUAL(rig_poll() & ~(uint32_t)HALO_POLL_FDS, HALO_POLL_DEADLINE);
	rig_set_state(HALO_SLOT_DISABLED);
	CHECK(rig_poll() & HALO_POLL_DISABLED);
	CHECK(!(rig_poll() & HALO_POLL_DISABLED));
	rig_set_state(HALO_SLOT_BROKEN);
	CHECK(!(rig_poll() & (HALO_POLL_ENABLED | HALO_POLL_DISABLED)));
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK(!(rig_poll() & HALO_POLL_ENABLED));
	rig_set_interfaces(&rig_interface, 1);
	CHECK(rig_poll() & HALO_POLL_EPOCH);
	CHECK(!(rig_poll() & HALO_POLL_EPOCH));
	CHECK_EQUAL(epoll_ctl(rig.setup.epoll_fd, EPOLL_CTL_ADD, other, &event), 0);
	CHECK_EQUAL(halo_worker_poll(rig.worker, INT64_C(10000000000), &rig.result), 0);
	CHECK_EQUAL(rig.result.reasons, HALO_POLL_FDS);
	CHECK_EQUAL(drawn(other), 1); /* left for its reader */
	close(other);
	rig_close();
}

static void poll_leaves_a_place_and_no_epoch(void)
{
	struct halo_slot_status *status;
	uint64_t progress;

	open_plain();
	status = &rig.slot->status;
	progress = status->progress;
	rig_poll();
	CHECK_EQUAL(status->progress, progress + 1);
	CHECK_EQUAL(status->place, HALO_PLACE_PYTHON);
	CHECK_EQUAL(status->epoch, 0);
	CHECK_EQUAL(status->ring_generation, rig.slot->life.generation);
	CHECK_EQUAL(status->last_burst_ns, 0);
	rig_check_reply(&request, 0);
	CHECK(status->last_burst_ns > 0);
	rig_close();
}

static void poll_while_disabled(void)
{
	open_plain();
	rig_set_state(HALO_SLOT_DISABLED);
	rig_poll();
	rig_deliver(&request, 0, 0);
	rig_give_spares(1);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.rx_frames, 0);
	CHECK_EQUAL(rig.slot->rx.consumer, 0);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, request.length), -ENOBUFS);
	CHECK_EQUAL(rig.slot->spare.consumer, 0);
	rig_set_state(HALO_SLOT_ENABLED);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.tx_frames, 1);
	rig_close();
}

static void poll_takes_one_burst_a_turn(void)
{
	uint32_t i;

	open_plain();
	for (i = 0; i < HALO_BURST + 1; i++)
		rig_deliver(&arp, 0, 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, HALO_BURST);
	CHECK_EQUAL(rig.slot->rx.consumer, HALO_BURST);
	for (i = 0; i < HALO_BURST; i++)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	rig_close();
}

static void broken_rx(uint32_t index)
{
	open_plain();
	rig_check_reply(&request, 0);
	rig_give_spares(1);
	rig.slot->rx.producer = index;
	CHECK(rig_poll() & HALO_POLL_BROKEN, "producer %u, consumer %u", index, rig.slot->rx.consumer);
	CHECK_EQUAL(rig.slot->worker.rx_frames, 1);
	CHECK_EQUAL(rig.slot->rx.consumer, 1);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60),
		    -ENOBUFS); /* no ring is touched any more */
	CHECK(rig_poll() & HALO_POLL_BROKEN);
	rig.slot->rx.producer = 1;
	rig_close();
}

static void rx_ring_broken(void)
{
	broken_rx(0);
	broken_rx(1 + RIG_RING + 1);
	broken_rx((uint32_t)(1 - RIG_RING));
	broken_rx(UINT32_C(0x80000000));
	broken_rx(UINT32_C(0xdeadbeef));
}

/* ---- punts ---------------------------------------------------------------------------------------------------- */

static void poll_while_python_owes_answers(void)
{
	open_plain();
	punt(2);
	CHECK_EQUAL(halo_worker_held(rig.worker), 2);
	CHECK_EQUAL(halo_worker_poll(rig.worker, 0, &rig.result), -EBUSY);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 1, -1), 0);
	CHECK_EQUAL(halo_worker_poll(rig.worker, 0, &rig.result), -EBUSY);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	CHECK_EQUAL(halo_worker_held(rig.worker), 0);
	rig_poll();
	rig_close();
}

static void punts_end_in_each_way(void)
{
	const struct halo_worker_counters *count;
	struct halo_packet packet[4];

	open_plain();
	count = &rig.slot->worker;
	punt(4);
	memcpy(packet, rig.result.punts, sizeof(packet));
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 3, HALO_DROP_no_listener), 0);
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 1, packet[1].offset - 4, packet[1].length + 4, 9), 0);
	CHECK_EQUAL(halo_worker_hand_punt(rig.worker, 2, 5), 0);
	CHECK_EQUAL(count->consumed, 1);
	CHECK_EQUAL(count->drops[HALO_DROP_no_listener], 1);
	CHECK_EQUAL(count->tx_frames, 1);
	CHECK_EQUAL(count->tx_octets, arp.length + 4);
	CHECK_EQUAL(count->tx_handed, 1);
	CHECK_EQUAL(count->punted, 4);
	CHECK_EQUAL(rig.slot->tx.producer, 0); /* not before the flush */
	flush_and_collect(4);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_RELEASE);
	CHECK_EQUAL(rig.returned[0].descriptor.offset, packet[0].offset);
	CHECK_EQUAL(rig.returned[1].descriptor.flags, HALO_ACTION_RELEASE);
	CHECK_EQUAL(rig.returned[1].descriptor.offset, packet[3].offset);
	CHECK_EQUAL(rig.returned[2].descriptor.flags, HALO_ACTION_TRANSMIT);
	CHECK_EQUAL(rig.returned[2].descriptor.offset, packet[1].offset - 4);
	CHECK_EQUAL(rig.returned[2].descriptor.length, arp.length + 4);
	CHECK_EQUAL(rig.returned[2].descriptor.port, 9);
	CHECK_EQUAL(rig.returned[3].descriptor.flags, HALO_ACTION_HAND);
	CHECK_EQUAL(rig.returned[3].descriptor.port, 5);
	CHECK_EQUAL(rig.returned[3].descriptor.offset, packet[2].offset);
	rig_close();
}

static void spend(int64_t time_ns)
{
	struct timespec now;
	int64_t end_ns;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	end_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + time_ns;
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while (now.tv_sec * INT64_C(1000000000) + now.tv_nsec < end_ns);
}

/* Deliver one frame; whether it was punted, which is ended. */
static bool is_punted(const struct frame *frame)
{
	bool punted;

	rig_deliver(frame, 0, 0);
	punted = rig_poll() & HALO_POLL_PUNTS;
	if (punted)
		CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	return punted;
}

/* 200 ms of Python at once, 50 more for ARP; behind that half of the time. Forwarding and echoes go on. */
static void python_spends_its_share(void)
{
	struct plan plan = echo;
	struct frame datagram;
	uint32_t turns = 0;

	open_plain();
	halo_worker_detach(rig.worker);
	rig.setup.python_percent = 50;
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	plan.protocol = 99;
	frame_make(&plan, &datagram);
	CHECK(is_punted(&datagram));
	spend(100000000);
	CHECK(is_punted(&datagram)); /* there is credit left */
	spend(240000000);            /* of at most 200: overdrawn by 40 */
	CHECK(!is_punted(&datagram));
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_python_busy], 1);
	CHECK(is_punted(&arp));
	rig_check_reply(&request, 0);
	while (!is_punted(&datagram)) { /* time alone makes it good */
		CHECK(++turns < 10000);
		usleep(1000);
	}
	rig_close();
}

static void check_refusals(uint32_t i)
{
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, -1), -EINVAL);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, i, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, i, 0, 60, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_hand_punt(rig.worker, i, 0), -EINVAL);
}

static void punt_bad_arguments(void)
{
	open_plain();
	check_refusals(0);
	punt(1);
	check_refusals(1);
	check_refusals(HALO_MAX_PUNTS);
	check_refusals(UINT32_MAX);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, HALO_DROP_COUNT), -EINVAL);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, INT32_MAX), -EINVAL);
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 0, 0, 60, HALO_MAX_PORTS), -EINVAL);
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 0, 0, UINT16_MAX + 1, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_hand_punt(rig.worker, 0, HALO_MAX_SLOTS), -EINVAL);
	CHECK_EQUAL(halo_worker_held(rig.worker), 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	check_refusals(0);
	CHECK_EQUAL(rig.slot->worker.consumed, 1);
	CHECK_EQUAL(rig_drops(), 0);
	rig_close();
}

static void detached_with_punts_open(void)
{
	struct halo_slot *slot;

	open_plain();
	slot = rig.slot;
	punt(3);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 1, -1), 0);
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(slot->worker.held, 0);
	CHECK_EQUAL(slot->worker.consumed, 1);
	CHECK_EQUAL(slot->worker.drops[HALO_DROP_punt_lost], 2);
	CHECK_EQUAL(slot->status.state, HALO_WORKER_ABSENT);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 3);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	halo_worker_detach(NULL);
	rig_close();
}

/* ---- frames of our own ---------------------------------------------------------------------------------------- */

static void originate_each_length(void)
{
	static uint8_t octets[HALO_DATA_OCTETS];
	uint32_t length, i;

	open_plain();
	for (i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 5);
	for (length = HALO_MIN_FRAME_OCTETS; length <= HALO_DATA_OCTETS; length += length < 70 ? 1 : 43) {
		rig_give_spares(1);
		CHECK_EQUAL(halo_worker_originate(rig.worker, 63, octets, length), 0);
		flush_and_collect(1);
		CHECK_EQUAL(rig.returned[0].descriptor.length, length);
		CHECK_EQUAL(rig.returned[0].descriptor.port, 63);
		CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_TRANSMIT);
		CHECK(memcmp(rig.returned[0].octets, octets, length) == 0);
	}
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, octets, HALO_DATA_OCTETS), 0);
	rig_close();
}

static void originate_bad_arguments(void)
{
	const struct halo_worker_counters *count;

	open_plain();
	count = &rig.slot->worker;
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 0), -EINVAL);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, HALO_MIN_FRAME_OCTETS - 1), -EINVAL);
	CHECK_EQUAL(halo_worker_originate(rig.worker, HALO_MAX_PORTS, request.octets, 60), -EINVAL);
	CHECK_EQUAL(count->originated, 0);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, HALO_DATA_OCTETS + 1), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, UINT32_MAX), -EMSGSIZE);
	CHECK_EQUAL(count->drops[HALO_DROP_originate_too_long], 2);
	CHECK_EQUAL(count->originated, 2);
	CHECK_EQUAL(rig.slot->spare.consumer, 0);
	rig_close();
}

static void originate_without_spares(void)
{
	uint32_t i;

	open_plain();
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), -ENOBUFS);
	rig_give_spares(RIG_SPARE);
	for (i = 0; i < RIG_SPARE; i++)
		CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), 0);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), -ENOBUFS);
	flush_and_collect(RIG_SPARE);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_no_spare_buffer], 2);
	CHECK_EQUAL(rig.slot->worker.originated, RIG_SPARE + 2);
	rig_close();
}

static void spare_that_cannot_be(void)
{
	static const uint32_t offsets[] = {UINT32_MAX, HALO_CHUNK_OCTETS, HALO_CHUNK_OCTETS - HALO_DATA_OCTETS + 1};
	unsigned int i;

	open_plain();
	for (i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		halo_ring_put(&rig.spare, 0, (struct halo_descriptor){.offset = offsets[i]});
		halo_ring_submit(&rig.spare, 1);
		CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), -ENOBUFS);
	}
	flush_and_collect(0);
	rig_close();
}

static void spare_ring_broken(void)
{
	int i;

	open_plain();
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), 0);
	rig.slot->spare.producer = RIG_SPARE + 2;
	for (i = 0; i < 3; i++)
		CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), -ENOBUFS);
	flush_and_collect(1);
	rig.slot->spare.producer = 1;
	rig_close();
}

static void drop_of_a_frame_without_buffer(void)
{
	open_plain();
	halo_worker_count_drop(rig.worker, HALO_DROP_neighbor_unresolved);
	halo_worker_count_drop(rig.worker, HALO_DROP_COUNT);
	halo_worker_count_drop(rig.worker, UINT32_MAX);
	CHECK_EQUAL(rig.slot->worker.originated, 1);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_neighbor_unresolved], 1);
	CHECK_EQUAL(rig_drops(), 1);
	rig_close();
}

static void errors_that_python_suppressed(void)
{
	open_plain();
	halo_worker_count_suppressed(rig.worker, 3);
	halo_worker_count_suppressed(rig.worker, 2);
	CHECK_EQUAL(rig.slot->worker.icmp_suppressed, 5);
	CHECK_EQUAL(rig_drops(), 0);
	rig_close();
}

/* ---- a tx ring that takes nothing ----------------------------------------------------------------------------- */

/* A worker's every way to put a descriptor, while the driver's index says `consumer`. Nothing may be written. */
static void put_nothing(uint32_t consumer)
{
	struct halo_descriptor *entry;
	int i;

	open_plain();
	rig_give_spares(2);
	punt(3);
	entry = (struct halo_descriptor *)(void *)((uint8_t *)rig.slot + rig.slot->geometry.tx_offset);
	memset(entry, 0xa5, RIG_TX * sizeof(*entry));
	rig.slot->tx.consumer = consumer;
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 0, rig.result.punts[0].offset, 60, 0), 0);
	CHECK_EQUAL(halo_worker_hand_punt(rig.worker, 1, 1), 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 2, -1), 0);
	for (i = 0; i < 2; i++)
		CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), 0);
	rig_deliver(&request, 0, 0);
	rig_poll();
	CHECK_EQUAL(rig.slot->tx.producer, 0);
	CHECK_EQUAL(rig.slot->worker.tx_frames, 0);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_tx_ring_full], 5);
	for (i = 0; i < RIG_TX * 8; i++)
		CHECK(((uint8_t *)entry)[i] == 0xa5, "tx entry %d was written", i / 8);
	rig.slot->tx.consumer = 0;
	rig.lost = 6;
	rig_close();
}

static void tx_ring_full(void)
{
	put_nothing((uint32_t)-RIG_TX);
}

static void tx_ring_broken(void)
{
	put_nothing(1);
	put_nothing((uint32_t)(-RIG_TX - 1));
	put_nothing(RIG_TX);
	put_nothing(UINT32_C(0x80000000));
}

/* ---- doorbells ------------------------------------------------------------------------------------------------ */

static void driver_is_rung_when_it_sleeps(void)
{
	open_plain();
	rig_check_reply(&request, 0);
	CHECK_EQUAL(drawn(rig.setup.driver_doorbell_fd), 0);
	rig.slot->life.driver_sleeping = 1;
	rig_poll();
	CHECK_EQUAL(drawn(rig.setup.driver_doorbell_fd), 0); /* nothing to say */
	rig_deliver(&request, 0, 0);
	rig_deliver(&request, 0, 0);
	rig_poll();
	CHECK_EQUAL(drawn(rig.setup.driver_doorbell_fd), 1); /* once a burst */
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), 0);
	CHECK_EQUAL(drawn(rig.setup.driver_doorbell_fd), 0);
	halo_worker_flush(rig.worker);
	CHECK_EQUAL(drawn(rig.setup.driver_doorbell_fd), 1);
	CHECK_EQUAL(rig.slot->worker.doorbells, 2);
	rig_close();
}

struct sleeper {
	struct halo_descriptor descriptor;
	uint32_t place;
	uint64_t epoch;
};

/* Waits until the worker sleeps, notes what it shows then, and delivers a frame. No CHECK here: rows end on their thread. */
static void *wake_with_a_frame(void *argument)
{
	static const uint64_t one = 1;
	struct sleeper *sleeper = argument;
	ssize_t rung;

	while (!halo_must_ring(&rig.slot->doorbell.worker_sleeping))
		halo_pause();
	sleeper->place = __atomic_load_n(&rig.slot->status.place, __ATOMIC_RELAXED);
	sleeper->epoch = __atomic_load_n(&rig.slot->status.epoch, __ATOMIC_ACQUIRE);
	halo_ring_reserve(&rig.rx, 1);
	halo_ring_put(&rig.rx, 0, sleeper->descriptor);
	halo_ring_submit(&rig.rx, 1);
	rung = write(rig.setup.doorbell_fd, &one, sizeof(one));
	(void)rung;
	return NULL;
}

static void sleeper_is_woken(uint32_t idle_policy)
{
	struct sleeper sleeper;
	pthread_t thread;

	open_plain();
	rig_close();
	rig_open_idle(&rig_interface, 1, idle_policy);
	sleeper.descriptor = rig_fill(&arp, 0, 0);
	CHECK(pthread_create(&thread, NULL, wake_with_a_frame, &sleeper) == 0);
	CHECK_EQUAL(halo_worker_poll(rig.worker, -1, &rig.result), 1);
	pthread_join(thread, NULL);
	CHECK(rig.result.reasons & HALO_POLL_PUNTS);
	CHECK_EQUAL(sleeper.place, HALO_PLACE_ASLEEP);
	CHECK_EQUAL(sleeper.epoch, 0);
	CHECK_EQUAL(rig.slot->doorbell.worker_sleeping, 0);
	CHECK(rig.slot->worker.wakeups > 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	/* A doorbell that rang into a worker awake is drained when it next looks. */
	halo_worker_poll(rig.worker, 2000000, &rig.result);
	CHECK_EQUAL(drawn(rig.setup.doorbell_fd), 0);
	rig_close();
}

static void sleep_ends_with_a_frame(void)
{
	sleeper_is_woken(HALO_IDLE_SLEEP);
	sleeper_is_woken(HALO_IDLE_ADAPTIVE);
}

static void sleep_ends_with_the_deadline(void)
{
	open_plain();
	rig_close();
	rig_open_idle(&rig_interface, 1, HALO_IDLE_SLEEP);
	CHECK_EQUAL(halo_worker_poll(rig.worker, 3000000, &rig.result), 0);
	CHECK_EQUAL(rig.result.reasons, HALO_POLL_DEADLINE);
	CHECK(rig.slot->worker.wakeups > 0);
	CHECK_EQUAL(rig.slot->doorbell.worker_sleeping, 0);
	rig_close();
}

/* ---- the life cycle, walked under a live worker ---------------------------------------------------------------- */

static void reset_and_enable(void)
{
	rig_reset_rings();
	rig_set_state(HALO_SLOT_ENABLED);
}

/* Geometry is read once, at the first attach; what somebody makes of it later must not become wild pointers. */
static void reset_with_scribbled_geometry(void)
{
	struct halo_slot_geometry right;

	open_plain();
	rig_check_reply(&request, 0);
	rig_reset_rings();
	CHECK(rig_poll() & HALO_POLL_DISABLED);
	right = rig.slot->geometry;
	memset(&rig.slot->geometry, 0xff, sizeof(right));
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	rig.slot->geometry = right; /* the rig looks there too */
	rig_check_reply(&request, 0);
	CHECK_EQUAL(rig.slot->tx.producer, 1);
	rig_close();
}

static void reset_while_idle(void)
{
	open_plain();
	rig_give_spares(RIG_SPARE);
	rig_check_reply(&request, 0);
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), 0);
	flush_and_collect(1);
	rig_reset_rings();
	CHECK(rig_poll() & HALO_POLL_DISABLED);
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK_EQUAL(rig.slot->status.ring_generation, 1);
	/* Nothing of the old rings is remembered: neither spares nor room. */
	CHECK_EQUAL(halo_worker_originate(rig.worker, 0, request.octets, 60), -ENOBUFS);
	rig_check_reply(&request, 0);
	CHECK_EQUAL(rig.slot->tx.producer, 1);
	rig_close();
}

static void reset_unseen(void)
{
	open_plain();
	rig_check_reply(&request, 0);
	reset_and_enable();
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	rig_check_reply(&request, 0);
	CHECK_EQUAL(rig.slot->rx.consumer, 1);
	CHECK_EQUAL(rig.slot->tx.producer, 1);
	rig_close();
}

/* Whatever Python still puts on the old ring, the new one starts empty. */
static void reset_while_tx_pending(void)
{
	open_plain();
	rig_give_spares(4);
	rig_check_reply(&request, 0);
	punt(2);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	reset_and_enable();
	CHECK_EQUAL(halo_worker_transmit_punt(rig.worker, 1, rig.result.punts[1].offset, 60, 0), 0);
	halo_worker_originate(rig.worker, 0, request.octets, 60);
	halo_worker_flush(rig.worker);
	CHECK_EQUAL(rig.slot->tx.producer, 0);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK_EQUAL(rig.slot->tx.producer, 0);
	CHECK_EQUAL(rig.slot->spare.consumer, 0);
	rig_check_reply(&request, 0);
	CHECK_EQUAL(rig.slot->tx.producer, 1);
	rig_close();
}

static void detached_after_a_reset(void)
{
	struct halo_slot *slot;

	open_plain();
	slot = rig.slot;
	punt(2);
	reset_and_enable();
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(slot->tx.producer, 0);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_poll();
	rig_close();
}

struct halo_worker *gone; /* whose memory would have gone with it, too */

/* A worker was killed with punts open. Its successor goes on counting where it stopped, and the books still balance. */
static void predecessor_held_punts(void)
{
	open_plain();
	punt(3);
	gone = rig.worker;
	rig_reset_rings();
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_set_state(HALO_SLOT_ENABLED);
	rig_poll();
	CHECK_EQUAL(halo_worker_held(rig.worker), 0);
	rig_check_reply(&request, 0);
	rig_close();
}

/* ---- tables --------------------------------------------------------------------------------------------------- */

static void tables_beyond_their_limits(void)
{
	static struct link many[HALO_MAX_INTERFACES];
	const struct halo_interface_block *seen;
	uint32_t i;

	open_plain();
	for (i = 0; i < HALO_MAX_INTERFACES; i++) {
		many[i] = rig_interface;
		many[i].address = IPV4(10, 1, i, 1);
		many[i].port = (uint8_t)(i / 4);
	}
	many[HALO_MAX_INTERFACES - 1].port = 255;
	rig_set_interfaces(many, HALO_MAX_INTERFACES);
	rig.tables->interfaces[rig.tables->active].count = UINT32_MAX;
	rig_poll();
	seen = halo_worker_interfaces(rig.worker);
	CHECK_EQUAL(seen->count, HALO_MAX_INTERFACES);
	CHECK_EQUAL(seen->address[seen->entry[17].first_address].address, many[17].address);
	put32(request.octets + 30, IPV4(10, 1, 2, 1));
	frame_seal(&request);
	rig_check_reply(&request, 0);
	rig_set_interfaces(many, 0);
	rig_poll();
	CHECK_EQUAL(seen->count, 0);
	rig_close();
}

/* A number is given again when its interface has gone: who has it next did not receive what that one did. */
static void interface_counts_from_zero(void)
{
	struct link links[2] = {rig_interface, rig_interface};

	open_plain();
	links[1].vlan = 100;
	links[1].address = IPV4(10, 1, 1, 1);
	rig_set_interfaces(links, 2);
	rig_poll();
	rig.slot->interface[0].rx_packets = rig.slot->interface[1].rx_packets = 7;
	rig_set_interfaces(links, 1);
	rig_poll();
	links[0].flags = 0; /* down */
	rig_set_interfaces(links, 1);
	rig_poll();
	CHECK_EQUAL(rig.slot->interface[1].rx_packets, 7);
	links[1].vlan = 200;
	rig_set_interfaces(links, 2);
	rig_poll();
	CHECK_EQUAL(rig.slot->interface[1].rx_packets, 0);
	rig.slot->interface[1].rx_packets = 5;
	links[1].vlan = 300;
	rig_set_interfaces(links, 2);
	rig_poll();
	CHECK_EQUAL(rig.slot->interface[1].rx_packets, 0);
	rig.slot->interface[1].rx_packets = 3;
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_poll();
	CHECK_EQUAL(rig.slot->interface[1].rx_packets, 3); /* of its predecessor */
	CHECK_EQUAL(rig.slot->interface[0].rx_packets, 7);
	rig_close();
}

/* ---- the debug log -------------------------------------------------------------------------------------------- */

static void debug_keeps_first_octets(void)
{
	struct plan plan = echo;
	struct frame large;
	uint32_t i;

	open_plain();
	rig.setup.debug = 1;
	halo_worker_detach(rig.worker);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_poll();
	plan.data_octets = 500;
	frame_make(&plan, &large);
	rig_deliver(&large, 0, 0);
	rig_deliver(&arp, 0, 0);
	request.length = 13;
	rig_deliver(&request, 1, 0);
	CHECK(rig_poll() & HALO_POLL_PUNTS);
	CHECK_EQUAL(rig.result.debug_count, 3);
	CHECK_EQUAL(rig.result.debug[0].length, large.length);
	CHECK_EQUAL(rig.result.debug[0].captured, HALO_DEBUG_OCTETS);
	CHECK_EQUAL(rig.result.debug[0].verdict, HALO_VERDICT_TRANSMIT);
	CHECK_EQUAL(rig.result.debug[1].verdict, HALO_VERDICT_PUNT);
	CHECK_EQUAL(rig.result.debug[1].captured, arp.length);
	CHECK(memcmp(rig.result.debug[1].octets, arp.octets, arp.length) == 0);
	CHECK_EQUAL(rig.result.debug[2].reason, HALO_DROP_runt);
	CHECK_EQUAL(rig.result.debug[2].captured, 13);
	CHECK_EQUAL(rig.result.debug[2].port, 1);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	for (i = 0; i < HALO_BURST; i++)
		rig_deliver_raw((struct halo_descriptor){.offset = UINT32_MAX, .length = 60});
	rig_poll();
	CHECK_EQUAL(rig.result.debug_count, HALO_BURST);
	for (i = 0; i < HALO_BURST; i++) /* nothing is read of a frame that cannot be */
		CHECK(rig.result.debug[i].captured == 0 && rig.result.debug[i].reason == HALO_DROP_bad_descriptor);
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_bad_descriptor], HALO_BURST);
	halo_ring_peek(&rig.tx, RIG_TX);
	rig.tx.tail = rig.tx.peer - HALO_BURST;
	for (i = 0; i < HALO_BURST; i++)
		CHECK_EQUAL(halo_ring_get(&rig.tx, i).offset, UINT32_MAX);
	halo_ring_release(&rig.tx, HALO_BURST);
	for (i = 0; i < 4; i++)
		rig.lost += rig.worker_owns[i];
	rig_close();
}

/* ---- names and sums ------------------------------------------------------------------------------------------- */

static void names_of_drops(void)
{
	unsigned int i;

	for (i = 0; i < HALO_DROP_COUNT; i++)
		CHECK(halo_drop_name(i)[0] && halo_drop_text(i)[0]);
	CHECK(strcmp(halo_drop_name(HALO_DROP_rx_ring_full), "rx_ring_full") == 0);
	CHECK(strcmp(halo_drop_name(HALO_DROP_stack_error), "stack_error") == 0);
	CHECK(!halo_drop_name(HALO_DROP_COUNT) && !halo_drop_text(HALO_DROP_COUNT));
	CHECK(!halo_drop_name(UINT32_MAX) && !halo_drop_text(UINT32_MAX));
}

static void checksums(void)
{
	static uint8_t octets[600];
	uint64_t seed = 5;
	uint32_t round, i;

	for (round = 0; round < 20000; round++) {
		uint32_t start = random_below(&seed, 16);
		uint32_t length = random_below(&seed, round % 2 ? 64 : 580);

		for (i = 0; i < length; i++)
			octets[start + i] = (uint8_t)(random_below(&seed, 4) ? 0xff : random_next(&seed));
		CHECK_EQUAL(halo_checksum(octets + start, length), reference_checksum(octets + start, length));
	}
}

/* Runs last: the drops that only a worker's own acts end in. */
static void every_reason_was_seen(void)
{
	CHECK(reason_seen[HALO_DROP_tx_ring_full]);
	CHECK(reason_seen[HALO_DROP_no_spare_buffer]);
	CHECK(reason_seen[HALO_DROP_originate_too_long]);
}

/* ---- how the worker gets along -------------------------------------------------------------------------------- */

static void bursts_are_counted_by_size(void)
{
	static const uint32_t sizes[] = {1, 2, 3, 4, 63, 64};
	static const uint64_t expected[HALO_BURST_BUCKETS] = {[1] = 1, [2] = 2, [3] = 1, [6] = 1, [7] = 1};
	const struct halo_worker_load *load;
	uint32_t i, count;

	open_plain();
	load = &rig.slot->load;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (count = 0; count < sizes[i]; count++)
			rig_deliver(&request, 0, 0);
		rig_poll();
		rig_collect();
	}
	for (i = 0; i < HALO_BURST_BUCKETS; i++)
		CHECK_EQUAL(load->burst[i], expected[i]);
	CHECK_EQUAL(load->rx_depth_max, 64);
	rig_close();
}

static void one_burst_of_many_is_timed(void)
{
	const struct halo_worker_load *load;
	uint32_t i;

	open_plain();
	load = &rig.slot->load;
	for (i = 0; i < 2 * HALO_TIMED_EVERY + 1; i++) {
		rig_deliver(&request, 0, 0);
		rig_poll();
		rig_collect();
		CHECK_EQUAL(load->timed_bursts, 1 + i / HALO_TIMED_EVERY);
		CHECK_EQUAL(load->timed_frames, load->timed_bursts);
	}
	for (i = 0; i < HALO_TIMED_STAGES; i++)
		CHECK((load->cycles[i] != 0) == (i < HALO_TIMED_COUNT), "cycles of stage %u", i);
	rig_close();
}

static void time_that_python_keeps_us(void)
{
	const struct timespec pause = {.tv_nsec = 5000000};
	struct halo_worker_load before;
	const struct halo_worker_load *load;
	uint64_t times = 0;
	uint32_t i;

	open_plain();
	load = &rig.slot->load;
	rig_poll();
	before = *load;
	nanosleep(&pause, NULL);
	rig_poll();
	CHECK_EQUAL(load->lag_max_ns, load->lag_ns - before.lag_ns);
	CHECK(load->lag_max_ns >= 5000000, "5 ms are %lu ns", (unsigned long)load->lag_max_ns);
	for (i = 13; i < HALO_LAG_BUCKETS; i++) /* 5 ms are 4,882 units, which are 13 bits */
		times += load->lag[i] - before.lag[i];
	CHECK_EQUAL(times, 1);
	rig_poll();
	CHECK(load->lag_ns > before.lag_ns + load->lag_max_ns, "the next one is not added");
	rig_close();
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"bursts_are_counted_by_size", bursts_are_counted_by_size},
		{"one_burst_of_many_is_timed", one_burst_of_many_is_timed},
		{"time_that_python_keeps_us", time_that_python_keeps_us},
		{"attach_to_something_else", attach_to_something_else},
		{"attach_at_the_indices_found", attach_at_the_indices_found},
		{"poll_reasons", poll_reasons},
		{"poll_leaves_a_place_and_no_epoch", poll_leaves_a_place_and_no_epoch},
		{"poll_while_disabled", poll_while_disabled},
		{"poll_takes_one_burst_a_turn", poll_takes_one_burst_a_turn},
		{"rx_ring_broken", rx_ring_broken},
		{"poll_while_python_owes_answers", poll_while_python_owes_answers},
		{"punts_end_in_each_way", punts_end_in_each_way},
		{"python_spends_its_share", python_spends_its_share},
		{"punt_bad_arguments", punt_bad_arguments},
		{"detached_with_punts_open", detached_with_punts_open},
		{"originate_each_length", originate_each_length},
		{"originate_bad_arguments", originate_bad_arguments},
		{"originate_without_spares", originate_without_spares},
		{"spare_that_cannot_be", spare_that_cannot_be},
		{"spare_ring_broken", spare_ring_broken},
		{"drop_of_a_frame_without_buffer", drop_of_a_frame_without_buffer},
		{"errors_that_python_suppressed", errors_that_python_suppressed},
		{"tx_ring_full", tx_ring_full},
		{"tx_ring_broken", tx_ring_broken},
		{"driver_is_rung_when_it_sleeps", driver_is_rung_when_it_sleeps},
		{"sleep_ends_with_a_frame", sleep_ends_with_a_frame},
		{"sleep_ends_with_the_deadline", sleep_ends_with_the_deadline},
		{"reset_with_scribbled_geometry", reset_with_scribbled_geometry},
		{"reset_while_idle", reset_while_idle},
		{"reset_unseen", reset_unseen},
		{"reset_while_tx_pending", reset_while_tx_pending},
		{"detached_after_a_reset", detached_after_a_reset},
		{"predecessor_held_punts", predecessor_held_punts},
		{"tables_beyond_their_limits", tables_beyond_their_limits},
		{"interface_counts_from_zero", interface_counts_from_zero},
		{"debug_keeps_first_octets", debug_keeps_first_octets},
		{"names_of_drops", names_of_drops},
		{"checksums", checksums},
		{"every_reason_was_seen", every_reason_was_seen},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
