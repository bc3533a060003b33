/* SPDX-License-Identifier: Apache-2.0 */
/* Captures and traces: each drop is there with its reason, and what is told of a packet is what became of it. */
#include <stdlib.h>

#include <halo/fastpath.h>

#include "rig.h"

enum { RING_OCTETS = HALO_CAPTURE_HEADER_OCTETS + HALO_CAPTURE_MIN_OCTETS, TWIN = 9, UDP_PORT = 4000 };

static struct halo_capture_ring *ring;
static struct frame frame;
static struct plan plan;

static void capture(uint32_t points)
{
	free(ring);
	ring = calloc(1, RING_OCTETS);
	CHECK(ring);
	ring->magic = HALO_CAPTURE_MAGIC;
	ring->version = HALO_CAPTURE_VERSION;
	ring->size_octets = HALO_CAPTURE_MIN_OCTETS;
	CHECK(halo_worker_add_capture(rig.worker, ring, RING_OCTETS, NULL, 0, points, 0, HALO_MAX_SNAP_OCTETS) >= 0);
}

static void open_capture(uint32_t points)
{
	plan = echo;
	rig_open(&rig_interface, 1);
	capture(points);
	frame_make(&plan, &frame);
}

/* The records that were written since the last call, which must be one. */
static const struct halo_capture_record *only_record(void)
{
	const uint8_t *records = (const uint8_t *)ring + HALO_CAPTURE_HEADER_OCTETS;
	const struct halo_capture_record *record = (const void *)(records + ring->consumer);

	CHECK_EQUAL(ring->lost, 0);
	CHECK(ring->consumer < ring->producer, "nothing was written");
	CHECK_EQUAL(ring->producer - ring->consumer, record->size);
	ring->consumer = ring->producer;
	return record;
}

static const uint8_t *octets_of(const struct halo_capture_record *record)
{
	return (const uint8_t *)(record + 1) + record->events * sizeof(struct halo_trace_event);
}

static void check_frame(const struct halo_capture_record *record)
{
	CHECK_EQUAL(record->length, frame.length);
	CHECK_EQUAL(record->captured, frame.length);
	CHECK(memcmp(octets_of(record), frame.octets, frame.length) == 0);
}

static void check_drop(enum halo_drop reason, uint32_t port)
{
	const struct halo_capture_record *record = only_record();

	CHECK_EQUAL(rig.slot->worker.drops[reason], 1);
	CHECK_EQUAL(record->point, HALO_POINT_DROP);
	CHECK_EQUAL(record->verdict, HALO_VERDICT_DROP);
	CHECK_EQUAL(record->reason, reason);
	CHECK_EQUAL(record->port, port);
	check_frame(record);
}

/* ---- rx ------------------------------------------------------------------------------------------------------- */

/* The kernel gets it as it is. */
static void rx_of_a_broken_packet_is_no_drop(void)
{
	const struct halo_capture_record *record;

	open_capture(HALO_POINT_RX);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, TWIN, 0), 0);
	frame.octets[24] ^= 1;
	rig_deliver(&frame, TWIN, 0);
	rig_poll();
	rig_collect();
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_TRANSMIT);
	record = only_record();
	CHECK_EQUAL(record->point, HALO_POINT_RX);
	CHECK_EQUAL(record->verdict, HALO_VERDICT_NONE);
	CHECK_EQUAL(record->reason, 0);
	check_frame(record);
	rig_close();
}

/* ---- drops that no burst sees --------------------------------------------------------------------------------- */

static void drop_of_a_datagram_by_python(void)
{
	const struct halo_socket wanted = {.port = UDP_PORT, .protocol = UDP};

	open_capture(HALO_POINT_DROP);
	CHECK(halo_worker_open_socket(rig.worker, &wanted) >= 0);
	plan.protocol = UDP;
	plan.dst_port = UDP_PORT;
	frame_make(&plan, &frame);
	put16(frame.octets + frame_l3(&frame) + 26, 0); /* no checksum */
	rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(halo_worker_datagram_count(rig.worker), 1);
	CHECK_EQUAL(halo_worker_drop_datagram(rig.worker, 0, HALO_DROP_app_drop), 0);
	check_drop(HALO_DROP_app_drop, 0);
	halo_worker_flush(rig.worker);
	rig_close();
}

static void drop_of_a_raw_frame(void)
{
	static struct halo_packet records[8], *taken;

	open_capture(HALO_POINT_DROP);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 0, 8, records), 0);
	rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(halo_worker_raw_take(rig.worker, 0, 8, &taken), 1);
	CHECK_EQUAL(halo_worker_raw_settle(rig.worker, 0), 1);
	check_drop(HALO_DROP_app_drop, 0);
	rig_close();
}

/* From PEER to OWN: for us and for the kernel. */
static void make_arp_reply(void)
{
	uint8_t *arp = frame.octets + 14;

	plan.ethertype = TYPE_ARP;
	plan.data_octets = 28;
	frame_make(&plan, &frame);
	put16(arp, 1);
	put16(arp + 2, TYPE_IPV4);
	put16(arp + 4, 6 << 8 | 4);
	put16(arp + 6, 2);
	memcpy(arp + 8, plan.src_mac, 6);
	put32(arp + 14, PEER_ADDRESS);
	memcpy(arp + 18, plan.dst_mac, 6);
	put32(arp + 24, OWN_ADDRESS);
}

static void drop_of_a_copy(void)
{
	open_capture(HALO_POINT_DROP);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, TWIN, 0), 0);
	make_arp_reply();
	rig_deliver(&frame, 0, 0);
	rig_poll();
	CHECK_EQUAL(rig.slot->worker.drops[HALO_DROP_copy_no_buffer], 1);
	CHECK_EQUAL(only_record()->point, HALO_POINT_DROP);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_close();
}

/* ---- traces --------------------------------------------------------------------------------------------------- */

/* What was parked at a hook when the rings went away is lost, and so it is told; the next burst has a story of its own. */
static void trace_of_what_was_parked_ends_with_the_rings(void)
{
	const struct halo_hook_setup hook = {
		.name = "a hook", .stage = HALO_STAGE_INGRESS, .interface = HALO_NO_INTERFACE};
	const struct halo_capture_record *record;

	open_capture(HALO_POINT_TRACE);
	CHECK_EQUAL(halo_worker_add_hook(rig.worker, &hook), 0);
	rig_deliver(&frame, 0, 0);
	CHECK(rig_poll() & HALO_POLL_HOOK);
	rig_reset_rings();
	CHECK(rig_poll() & HALO_POLL_DISABLED);
	record = only_record();
	CHECK_EQUAL(record->verdict, HALO_VERDICT_DROP);
	CHECK_EQUAL(record->reason, HALO_DROP_punt_lost);
	check_frame(record);
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
	CHECK_EQUAL(halo_worker_remove_hook(rig.worker, 0), 0);
	rig_deliver(&frame, 0, 0);
	rig_poll();
	rig_collect();
	record = only_record();
	CHECK_EQUAL(record->verdict, HALO_VERDICT_TRANSMIT);
	check_frame(record);
	rig_close();
}

static const struct row rows[] = {
	{"rx_of_a_broken_packet_is_no_drop", rx_of_a_broken_packet_is_no_drop},
	{"drop_of_a_datagram_by_python", drop_of_a_datagram_by_python},
	{"drop_of_a_raw_frame", drop_of_a_raw_frame},
	{"drop_of_a_copy", drop_of_a_copy},
	{"trace_of_what_was_parked_ends_with_the_rings", trace_of_what_was_parked_ends_with_the_rings},
};

int main(int argc, char **argv)
{
	int failed = run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);

	free(ring);
	return failed;
}
