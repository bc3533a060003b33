/* SPDX-License-Identifier: Apache-2.0 */
/* Raw frames, from the claim of a port to the verdict of the application. After every row the books balance. */
#include <errno.h>

#include <halo/fastpath.h>

#include "rig.h"

enum { SIZE = 8, OUT = 5 };

static const struct link links[] = {
	{.port = 0,
	 .home_slot = RIG_SLOT_NUMBER,
	 .mac = OWN_MAC,
	 .mtu = 1500,
	 .flags = HALO_INTERFACE_UP,
	 .address = OWN_ADDRESS,
	 .prefix_length = 24},
	{.port = 1,
	 .home_slot = RIG_SLOT_NUMBER,
	 .mac = OWN_MAC,
	 .mtu = 1500,
	 .flags = HALO_INTERFACE_UP,
	 .address = IPV4(10, 0, 1, 1),
	 .prefix_length = 24},
};

static struct frame request; /* the stack would answer it */
static struct halo_packet *taken;
static struct halo_packet records[256];

static void open_claimed(uint32_t limit)
{
	frame_make(&echo, &request);
	rig_open(links, 2);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 0, limit, records), 0);
}

static void deliver(uint32_t count)
{
	for (; count; count--)
		rig_deliver(&request, 0, 0);
	rig_poll();
	CHECK_EQUAL(rig.result.punt_count, 0);
}

static int take(uint32_t limit)
{
	return halo_worker_raw_take(rig.worker, 0, limit, &taken);
}

static int settle(void)
{
	int count = halo_worker_raw_settle(rig.worker, 0);

	rig_collect();
	return count;
}

static uint64_t drops(enum halo_drop reason)
{
	return rig.slot->worker.drops[reason];
}

/* ---- what comes in -------------------------------------------------------------------------------------------- */

/* An echo request, ARP, IPv4 that parse calls broken, an EtherType that nobody speaks, a tag that is cut off. */
static void every_frame_as_it_came(void)
{
	struct frame frames[5];
	struct plan plan = echo;
	uint32_t i;

	open_claimed(SIZE);
	for (i = 0; i < 5; i++)
		frames[i] = request;
	plan.ethertype = TYPE_ARP;
	frame_make(&plan, &frames[1]);
	frames[2].octets[24] ^= 1;
	plan.ethertype = 0x88b5;
	frame_make(&plan, &frames[3]);
	put16(frames[4].octets + 12, TYPE_VLAN);
	frames[4].length = 16;
	for (i = 0; i < 5; i++)
		rig_deliver(&frames[i], 0, 0);
	rig_poll();
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 0);
	CHECK_EQUAL(rig.slot->worker.raw_frames, 5);
	CHECK_EQUAL(rig.slot->worker.held, 5);
	CHECK_EQUAL(halo_worker_held(rig.worker), 0); /* nothing that the next poll would wait for */
	CHECK_EQUAL(take(SIZE), 5);
	for (i = 0; i < 5; i++) {
		CHECK_EQUAL(taken[i].length, frames[i].length);
		CHECK_EQUAL(taken[i].port, 0);
		CHECK_EQUAL(taken[i].verdict, HALO_VERDICT_RAW);
		CHECK(memcmp(rig.pool + taken[i].offset, frames[i].octets, frames[i].length) == 0, "frame %u", i);
	}
	CHECK_EQUAL(settle(), 5);
	CHECK_EQUAL(drops(HALO_DROP_app_drop), 5);
	rig_close();
}

static void what_is_no_frame_is_dropped(void)
{
	struct frame runt;

	open_claimed(SIZE);
	runt = request;
	runt.length = HALO_MIN_FRAME_OCTETS - 1;
	rig_check_drop(&runt, 0, HALO_DROP_runt);
	rig_close();
}

static void other_ports_and_handed_frames_go_to_the_stack(void)
{
	open_claimed(SIZE);
	rig_check_reply(&request, 1);
	rig_deliver(&request, 0, HALO_DESCRIPTOR_HANDED);
	rig_poll();
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK_EQUAL(rig.slot->worker.echo_replies, 2);
	CHECK_EQUAL(rig.slot->worker.raw_frames, 0);
	rig_close();
}

static void a_claimed_port_is_not_the_twins(void)
{
	open_claimed(SIZE);
	CHECK_EQUAL(halo_worker_set_twin(rig.worker, 0, 2, 0), 0);
	request.octets[33] ^= 0x40; /* to an address of the kernel's */
	frame_seal(&request);
	deliver(1);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), 1);
	halo_worker_raw_release(rig.worker, 0);
	rig_collect();
	deliver(1);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK_EQUAL(rig.returned[0].descriptor.port, 2);
	rig_close();
}

static void a_full_queue(void)
{
	open_claimed(SIZE);
	deliver(SIZE + 3);
	CHECK_EQUAL(drops(HALO_DROP_raw_queue_full), 3);
	CHECK_EQUAL(take(2), 2);
	deliver(1); /* what is taken still has its place */
	CHECK_EQUAL(drops(HALO_DROP_raw_queue_full), 4);
	settle();
	deliver(2);
	CHECK_EQUAL(drops(HALO_DROP_raw_queue_full), 4);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), SIZE);
	rig_close();
}

static void bursts_end_where_the_ring_ends(void)
{
	open_claimed(SIZE);
	deliver(SIZE - 2);
	CHECK_EQUAL(take(SIZE), SIZE - 2);
	settle();
	deliver(5);
	CHECK_EQUAL(take(SIZE), 2);
	CHECK_EQUAL(take(SIZE), 3); /* and the two before have ended */
	CHECK_EQUAL(drops(HALO_DROP_app_drop), SIZE);
	CHECK_EQUAL(settle(), 3);
	CHECK_EQUAL(take(SIZE), 0);
	CHECK_EQUAL(settle(), 0);
	rig_close();
}

/* ---- when the poll comes back --------------------------------------------------------------------------------- */

static uint32_t poll_reasons(int64_t timeout_ns)
{
	CHECK(halo_worker_poll(rig.worker, timeout_ns, &rig.result) >= 0);
	return rig.result.reasons & (HALO_POLL_RAW | HALO_POLL_PUNTS);
}

static void only_who_wants_is_told(void)
{
	open_claimed(SIZE);
	rig_deliver(&request, 0, 0);
	CHECK_EQUAL(poll_reasons(0), 0);
	CHECK_EQUAL(halo_worker_raw_want(rig.worker, 0, 4), 0);
	CHECK_EQUAL(poll_reasons(-1), HALO_POLL_RAW); /* it waits already */
	CHECK_EQUAL(poll_reasons(0), 0);              /* once */
	take(SIZE);
	CHECK_EQUAL(halo_worker_raw_want(rig.worker, 0, 4), 0);
	CHECK_EQUAL(poll_reasons(0), 0);
	rig_deliver(&request, 0, 0);
	CHECK_EQUAL(poll_reasons(-1), HALO_POLL_RAW);
	CHECK_EQUAL(halo_worker_raw_want(rig.worker, 1, 1), -ENOENT);
	rig_close();
}

/* The poll goes on while the ring has more, until there are as many as are wanted. */
static void frames_are_gathered(void)
{
	uint32_t i;

	open_claimed(256);
	for (i = 0; i < HALO_BURST + 36; i++)
		rig_deliver(&request, 0, 0);
	halo_worker_raw_want(rig.worker, 0, 80);
	CHECK_EQUAL(poll_reasons(-1), HALO_POLL_RAW);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), HALO_BURST + 36);
	take(256);
	for (i = 0; i < HALO_BURST + 36; i++)
		rig_deliver(&request, 0, 0);
	halo_worker_raw_want(rig.worker, 0, 10);
	CHECK_EQUAL(poll_reasons(-1), HALO_POLL_RAW);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), HALO_BURST);
	rig_poll();
	rig_close();
}

/* ---- what becomes of them ------------------------------------------------------------------------------------- */

static void verdicts_by_mask(void)
{
	static const uint8_t odd[6] = {0, 1, 0, 1, 0, 7};
	static const uint8_t first[6] = {1};

	open_claimed(SIZE);
	deliver(6);
	CHECK_EQUAL(take(6), 6);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_CONSUME, 0, NULL), 6);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_TRANSMIT, OUT, odd), 3);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_DROP, 0, first), 1);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_HAND, 0, NULL), -EINVAL);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_TRANSMIT, 64, NULL), -EINVAL);
	CHECK_EQUAL(settle(), 6);
	CHECK_EQUAL(rig.returned_count, 6);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_RELEASE);
	CHECK_EQUAL(rig.returned[1].descriptor.flags, HALO_ACTION_TRANSMIT);
	CHECK_EQUAL(rig.returned[1].descriptor.port, OUT);
	CHECK_EQUAL(drops(HALO_DROP_app_drop), 1);
	CHECK_EQUAL(rig.slot->worker.consumed, 2);
	CHECK_EQUAL(rig.slot->worker.tx_frames, 3);
	rig_close();
}

static void a_reason_of_its_own(void)
{
	open_claimed(SIZE);
	deliver(2);
	take(2);
	taken[0].verdict = taken[1].verdict = HALO_VERDICT_DROP;
	taken[0].reason = HALO_DROP_hook_drop;
	taken[1].reason = 255;
	settle();
	CHECK_EQUAL(drops(HALO_DROP_hook_drop), 1);
	CHECK_EQUAL(drops(HALO_DROP_app_drop), 1);
	rig_close();
}

static void other_octets(void)
{
	uint8_t octets[RIG_STRIDE];
	uint32_t room = RIG_STRIDE - HALO_METADATA_OCTETS - HALO_HEADROOM_OCTETS;

	memset(octets, 0x5a, sizeof(octets));
	open_claimed(SIZE);
	rig_expose_all();
	deliver(3);
	take(3);
	taken[0].offset += 20; /* as a view that was moved: the octets start where the frame started */
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 0, octets, 14), 0);
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 1, octets, room), 0);
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 2, octets, room + 1), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 2, octets, 13), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 2, octets, UINT32_MAX), -EMSGSIZE);
	CHECK_EQUAL(halo_worker_raw_replace(rig.worker, 0, 3, octets, 14), -ENOENT);
	halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_TRANSMIT, OUT, NULL);
	settle();
	CHECK_EQUAL(rig.returned_count, 3);
	CHECK_EQUAL(rig.returned[0].descriptor.length, 14);
	CHECK_EQUAL(rig.returned[0].octets[13], 0x5a);
	CHECK_EQUAL(rig.returned[1].descriptor.length, room);
	CHECK_EQUAL(rig.returned[1].octets[room - 1], 0x5a);
	CHECK_EQUAL(rig.returned[2].descriptor.length, request.length);
	rig_close();
}

/* A record is the application's memory: whatever it says, the buffer that came in is the one that goes. */
static void records_that_were_scribbled_over(void)
{
	uint32_t i;

	open_claimed(SIZE);
	rig_expose_all();
	deliver(SIZE);
	CHECK_EQUAL(take(SIZE), SIZE);
	for (i = 0; i < SIZE; i++)
		taken[i].verdict = HALO_VERDICT_TRANSMIT;
	taken[0].offset += RIG_STRIDE;
	taken[1].offset = UINT32_MAX;
	taken[2].length = 13;
	taken[3].length = UINT16_MAX;
	taken[4].tx_port = 64;
	taken[5].verdict = HALO_VERDICT_HAND;
	taken[6].verdict = 77;
	taken[7].port = 200; /* says nothing */
	CHECK_EQUAL(settle(), SIZE);
	CHECK_EQUAL(drops(HALO_DROP_hook_error), 7);
	CHECK_EQUAL(rig.slot->worker.tx_frames, 1);
	rig_close();
}

/* ---- hooks, and frames that are put in ------------------------------------------------------------------------ */

static uint32_t shown; /* packets, to a hook */

static int64_t drop_long(struct halo_packet *packets, int64_t count, uint8_t *pool)
{
	int64_t i;

	(void)pool;
	shown += (uint32_t)count;
	for (i = 0; i < count; i++)
		if (packets[i].length > 100)
			packets[i].verdict = HALO_VERDICT_DROP;
	return 0;
}

static int add_hook(enum halo_stage stage)
{
	struct halo_hook_setup setup = {
		.name = "long", .stage = stage, .interface = HALO_NO_INTERFACE, .function = drop_long};

	shown = 0;
	return halo_worker_add_hook(rig.worker, &setup);
}

static void ingress_hooks_come_first(void)
{
	struct plan plan = echo;
	struct frame large;

	plan.data_octets = 200;
	frame_make(&plan, &large);
	open_claimed(SIZE);
	CHECK(add_hook(HALO_STAGE_INGRESS) >= 0);
	rig_deliver(&large, 0, 0);
	deliver(2);
	CHECK_EQUAL(shown, 3);
	CHECK_EQUAL(drops(HALO_DROP_hook_drop), 1);
	CHECK_EQUAL(take(SIZE), 2);
	settle();
	rig_close();
}

static void egress_hooks_see_what_is_sent(void)
{
	open_claimed(SIZE);
	CHECK(add_hook(HALO_STAGE_EGRESS) >= 0);
	deliver(2);
	take(2);
	halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_TRANSMIT, OUT, NULL);
	settle();
	rig_poll();
	rig_collect();
	CHECK_EQUAL(shown, 2);
	CHECK_EQUAL(rig.returned_count, 2);
	CHECK_EQUAL(rig.returned[0].descriptor.port, OUT);
	rig_close();
}

static void what_is_put_in_goes_to_the_stack(void)
{
	open_claimed(SIZE);
	rig_give_spares(1);
	CHECK_EQUAL(halo_worker_inject(rig.worker, HALO_STAGE_INGRESS, 0, request.octets, request.length), 0);
	rig_poll();
	rig_collect();
	CHECK_EQUAL(rig.slot->worker.echo_replies, 1);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), 0);
	rig_close();
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

static void released(void)
{
	open_claimed(SIZE);
	deliver(5);
	take(2);
	halo_worker_raw_release(rig.worker, 0);
	halo_worker_raw_release(rig.worker, 0);
	CHECK_EQUAL(drops(HALO_DROP_app_drop), 5);
	CHECK_EQUAL(rig.slot->worker.held, 0);
	CHECK_EQUAL(take(1), -ENOENT);
	CHECK_EQUAL(halo_worker_raw_settle(rig.worker, 0), -ENOENT);
	CHECK_EQUAL(halo_worker_raw_decide(rig.worker, 0, HALO_VERDICT_DROP, 0, NULL), -ENOENT);
	CHECK_EQUAL(halo_worker_raw_waiting(rig.worker, 0), 0);
	rig_collect();
	rig_check_reply(&request, 0);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 0, SIZE, records), 0);
	deliver(1);
	CHECK_EQUAL(take(SIZE), 1);
	rig_close();
}

static void rings_made_anew(void)
{
	open_claimed(SIZE);
	deliver(5);
	take(2);
	rig_reset_rings();
	rig_poll();
	rig_set_state(HALO_SLOT_ENABLED);
	rig_poll();
	CHECK_EQUAL(drops(HALO_DROP_punt_lost), 5);
	CHECK_EQUAL(settle(), 0);
	deliver(1);
	CHECK_EQUAL(take(SIZE), 1);
	CHECK_EQUAL(settle(), 1);
	rig_close();
}

static void detached_with_frames(void)
{
	open_claimed(SIZE);
	deliver(3);
	take(1);
	rig_close(); /* detaches, and looks at the books */
	CHECK_EQUAL(reason_seen[HALO_DROP_app_drop], true);
}

static void claims_that_make_no_sense(void)
{
	open_claimed(SIZE);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 0, SIZE, records), -EBUSY);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 64, SIZE, records), -EINVAL);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 1, 0, records), -EINVAL);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 1, 12, records), -EINVAL);
	CHECK_EQUAL(halo_worker_raw_claim(rig.worker, 1, HALO_RAW_QUEUE * 2, records), -EINVAL);
	rig_close();
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{"every_frame_as_it_came", every_frame_as_it_came},
		{"what_is_no_frame_is_dropped", what_is_no_frame_is_dropped},
		{"other_ports_and_handed_frames_go_to_the_stack", other_ports_and_handed_frames_go_to_the_stack},
		{"a_claimed_port_is_not_the_twins", a_claimed_port_is_not_the_twins},
		{"a_full_queue", a_full_queue},
		{"bursts_end_where_the_ring_ends", bursts_end_where_the_ring_ends},
		{"only_who_wants_is_told", only_who_wants_is_told},
		{"frames_are_gathered", frames_are_gathered},
		{"verdicts_by_mask", verdicts_by_mask},
		{"a_reason_of_its_own", a_reason_of_its_own},
		{"other_octets", other_octets},
		{"records_that_were_scribbled_over", records_that_were_scribbled_over},
		{"ingress_hooks_come_first", ingress_hooks_come_first},
		{"egress_hooks_see_what_is_sent", egress_hooks_see_what_is_sent},
		{"what_is_put_in_goes_to_the_stack", what_is_put_in_goes_to_the_stack},
		{"released", released},
		{"rings_made_anew", rings_made_anew},
		{"detached_with_frames", detached_with_frames},
		{"claims_that_make_no_sense", claims_that_make_no_sense},
	};

	return run_rows(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
}
