/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a forwarding lcore: a burst of each of its slots towards the ports, a burst of each of its queues towards the
 * slots, what other lcores passed on, spare buffers, and the main thread's command, at a burst boundary.
 */
#include <errno.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_lcore.h>

#include "driver.h"

enum {
	COMMAND_TIMEOUT_MS = 5000,
	IDLE_TURNS = 64, /* turns without a frame before the clock is looked at */
	TX_BURSTS = 16,  /* of one slot in a turn */
};

static void run_command(struct halo_lcore *lcore)
{
	halo_command_fn command;

	if (likely(!__atomic_load_n(&lcore->command, __ATOMIC_RELAXED)))
		return;
	command = __atomic_exchange_n(&lcore->command, NULL, __ATOMIC_ACQUIRE); /* pairs with halo_lcore_call */
	if (!command) /* taken back: the main thread has waited for too long */
		return;
	lcore->result = command(lcore, lcore->argument);
	__atomic_store_n(&lcore->answered, 1, __ATOMIC_RELEASE); /* pairs with wait_for_answer */
}

/*
 * Frames leave before frames enter: a backlog on tx is buffers that fall out of the caches before they are used again. Up to
 * TX_BURSTS, so that one slot can not keep the others waiting.
 */
static uint32_t drain_slot(struct halo_lcore *lcore, struct halo_slot_home *slot)
{
	uint32_t moved = 0;
	uint32_t bursts, count;

	for (bursts = 0; bursts < TX_BURSTS; bursts++) {
		count = halo_tx_serve(lcore, slot);
		moved += count;
		if (count < HALO_BURST)
			break;
	}
	return moved;
}

static uint32_t turn(struct halo_lcore *lcore)
{
	uint32_t moved = 0;
	uint32_t i;

	run_command(lcore);
	for (i = 0; i < lcore->slot_count; i++) {
		struct halo_slot_home *slot = lcore->slot[i];

		if (unlikely(!halo_slot_life_is_ours(slot)))
			halo_slot_life_scribbled(slot);
		if (unlikely(__atomic_load_n(&slot->missed_any, __ATOMIC_RELAXED)))
			halo_spread_count_missed(slot);
		if (!slot->enabled)
			continue;
		moved += drain_slot(lcore, slot);
		halo_slot_refill(lcore, slot);
	}
	for (i = 0; i < lcore->feed_count; i++)
		moved += halo_rx_serve(lcore, &lcore->feed[i]);
	if (lcore->driver->lcore_count > 1)
		moved += halo_inbox_serve(lcore);
	halo_count(&lcore->status->progress, 1);
	return moved;
}

static void set_place(struct halo_lcore *lcore, enum halo_place place)
{
	__atomic_store_n(&lcore->status->place, place, __ATOMIC_RELAXED);
}

/* Spin for spin_ns without a frame, then sleep until something happens. */
static void idle(struct halo_lcore *lcore, uint32_t idle_turns, uint64_t *idle_since)
{
	struct halo_driver *driver = lcore->driver;
	uint64_t now;

	if (driver->idle_policy == HALO_IDLE_POLL || idle_turns % IDLE_TURNS) {
		halo_pause();
		return;
	}
	now = rte_rdtsc();
	if (idle_turns == IDLE_TURNS)
		*idle_since = now;
	if (driver->idle_policy == HALO_IDLE_ADAPTIVE &&
	    now - *idle_since < driver->spin_ns * (rte_get_tsc_hz() / 1000000) / 1000)
		return;
	set_place(lcore, HALO_PLACE_ASLEEP);
	halo_lcore_sleep(lcore);
	set_place(lcore, HALO_PLACE_NATIVE);
}

int halo_lcore_main(void *argument)
{
	struct halo_lcore *lcore = argument;
	uint32_t idle_turns = 0;
	uint64_t idle_since = 0;

	prctl(PR_SET_TIMERSLACK, 1UL); /* naps of 20 us shall not become 70 */
	__atomic_store_n(&lcore->status->running, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&lcore->driver->quit, __ATOMIC_ACQUIRE)) {
		uint32_t moved = turn(lcore);

		halo_count(&lcore->status->turns, 1);
		if (moved) {
			halo_count(&lcore->status->busy_turns, 1);
			idle_turns = 0;
			lcore->nap_ns = 0;
			continue;
		}
		idle(lcore, ++idle_turns, &idle_since);
	}
	__atomic_store_n(&lcore->status->running, 0, __ATOMIC_RELEASE);
	return 0;
}

void halo_lcore_wake(struct halo_lcore *lcore)
{
	static const uint64_t one = 1;

	if (!halo_must_ring(&lcore->sleeping)) /* pairs with halo_fall_asleep in sleep.c */
		return;
	if (write(lcore->doorbell_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return;
}

/* Wait until the lcore has answered, at most that long. */
static bool wait_for_answer(struct halo_lcore *lcore, uint32_t timeout_ms)
{
	struct timespec pause = {.tv_nsec = 20000};
	uint32_t waited_us;

	for (waited_us = 0; waited_us < timeout_ms * 1000; waited_us += 20) {
		if (__atomic_load_n(&lcore->answered, __ATOMIC_ACQUIRE))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/*
 * Have `command` run on the lcore at its next burst boundary, and wait for what it returns. `argument` may be on our stack: on
 * time-out the command is taken back, and if the lcore was quicker, it is waited for.
 */
int64_t halo_lcore_call(struct halo_lcore *lcore, halo_command_fn command, void *argument)
{
	if (!lcore->driver->running)
		return command(lcore, argument);
	lcore->argument = argument;
	__atomic_store_n(&lcore->answered, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&lcore->command, command, __ATOMIC_RELEASE);
	halo_lcore_wake(lcore);
	if (wait_for_answer(lcore, COMMAND_TIMEOUT_MS))
		return lcore->result;
	if (__atomic_exchange_n(&lcore->command, NULL, __ATOMIC_ACQ_REL))
		return -ETIMEDOUT;
	while (!wait_for_answer(lcore, COMMAND_TIMEOUT_MS))
		;
	return lcore->result;
}
