/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port whose device does not spread its frames over queues: we do, over queues that only we know. One lcore reads the device's
 * only queue, hashes each frame, and puts the frames of a queue into the slot that it feeds. Where that slot's home is another lcore,
 * they go through its inbox, because only the home lcore may produce on a slot's ring. The rules of rx.c hold.
 *
 *   spread_out of all lcores == spread_in of all lcores + what is in inboxes
 *   spread_in == what slots got (rx_frames) and what they had no room for, by name; a full inbox is rx_lcore_full
 */
#include <string.h>

#include <halo/flow.h>

#include "driver.h"

/* A burst in the order of its queues; within one, as it came. */
struct sorted {
	uint32_t first[HALO_MAX_QUEUES + 1]; /* index of a queue's first frame; the next one's is its end */
	struct rte_mbuf *frame[HALO_BURST];
};

static void sort(const struct halo_port *port, struct rte_mbuf **frame, uint32_t count, struct sorted *sorted)
{
	uint32_t next[HALO_MAX_QUEUES];
	uint8_t queue[HALO_BURST];
	uint32_t i;

	for (i = 0; i < count; i++)
		rte_prefetch0(rte_pktmbuf_mtod(frame[i], void *));
	memset(sorted->first, 0, sizeof(sorted->first[0]) * (port->queues + 1u));
	for (i = 0; i < count; i++) {
		uint32_t hash = halo_spread_hash(rte_pktmbuf_mtod(frame[i], uint8_t *), frame[i]->data_len);

		queue[i] = (uint8_t)halo_flow_share(hash, port->queues);
		sorted->first[queue[i] + 1]++;
	}
	for (i = 0; i < port->queues; i++) {
		sorted->first[i + 1] += sorted->first[i];
		next[i] = sorted->first[i];
	}
	for (i = 0; i < count; i++)
		sorted->frame[next[queue[i]]++] = frame[i];
}

static void pass(struct halo_lcore *lcore, struct halo_slot_home *slot, uint8_t port, struct rte_mbuf **frame,
		 uint32_t count)
{
	struct halo_lcore *home = slot->home;
	uint32_t passed, i;

	for (i = 0; i < count; i++) {
		struct halo_note *note = halo_note_of(lcore->driver, frame[i]);

		note->kind = HALO_NOTE_SPREAD;
		note->target = (uint8_t)slot->number;
		frame[i]->port = port;
	}
	passed = rte_ring_mp_enqueue_burst(home->inbox, (void **)frame, count, NULL);
	halo_rx_drop(lcore, slot, frame + passed, count - passed, HALO_DROP_rx_lcore_full);
	halo_count(&lcore->status->spread_out, passed);
	halo_lcore_wake(home);
}

/* What a queue got. Frames of a device with buffers of its own are copied before they leave this lcore: it may close. */
static void serve_queue(struct halo_lcore *lcore, const struct halo_feed *feed, struct halo_slot_home *slot,
			struct rte_mbuf **frame, uint32_t count)
{
	if (unlikely(!slot)) {
		rte_pktmbuf_free_bulk(frame, count);
		halo_count(&lcore->status->unclaimed_frames, count);
		return;
	}
	if (feed->port->copy)
		count = halo_rx_copy(lcore, slot, frame, count);
	if (slot->home == lcore)
		halo_rx_give(lcore, slot, feed->port_number, frame, count);
	else if (count)
		pass(lcore, slot, feed->port_number, frame, count);
}

void halo_spread_serve(struct halo_lcore *lcore, const struct halo_feed *feed, struct rte_mbuf **frame, uint32_t count)
{
	const struct halo_port *port = feed->port;
	struct sorted sorted;
	uint32_t queue;

	sort(port, frame, count, &sorted);
	for (queue = 0; queue < port->queues; queue++) {
		uint32_t first = sorted.first[queue];
		uint32_t end = sorted.first[queue + 1];

		if (first < end)
			serve_queue(lcore, feed, port->spread[queue], sorted.frame + first, end - first);
	}
}

/* The first frames from an inbox that another lcore spread, all for one slot from one port. Returns how many; 0: none is. */
uint32_t halo_spread_take(struct halo_lcore *lcore, struct rte_mbuf **frame, uint32_t count)
{
	struct halo_driver *driver = lcore->driver;
	uint8_t target = halo_note_of(driver, frame[0])->target;
	uint32_t taken = 0;

	while (taken < count && halo_note_of(driver, frame[taken])->kind == HALO_NOTE_SPREAD &&
	       halo_note_of(driver, frame[taken])->target == target && frame[taken]->port == frame[0]->port)
		taken++;
	if (taken == 0)
		return 0;
	halo_count(&lcore->status->spread_in, taken);
	halo_rx_give(lcore, driver->by_number[target], (uint8_t)frame[0]->port, frame, taken);
	return taken;
}

/* Add to a slot's counters what other lcores have dropped of its frames. Runs on its home lcore. */
void halo_spread_count_missed(struct halo_slot_home *slot)
{
	uint32_t reason;

	__atomic_store_n(&slot->missed_any, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* who counts after this look sets missed_any after this store */
	for (reason = 0; reason < HALO_DROP_COUNT; reason++) {
		uint32_t missed = __atomic_exchange_n(&slot->missed[reason], 0, __ATOMIC_RELAXED);

		if (missed)
			halo_count(&slot->count->drops[reason], missed);
	}
}
