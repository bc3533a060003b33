/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that runs whenever the worker's event loop would block: bursts from the rx ring through the stages, until
 * Python has something to do. Rules: whole bursts; no logging, no allocation; time is read once a turn; sockets of the
 * event loop are looked at each millisecond under load, and slept on together with the doorbell when idle.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"
#include "worker.h"

enum {
	FD_LOOK_NS = 1000000,
	SLEEP_SLICE_MS = 250, /* a sleeper shows that it lives at least this often */
	EVENTS = 8,
	SPIN_PAUSES = 16, /* under a microsecond */
	TOUCHED_NS = 1000000,
	MS_NS = 1000000,
};

static void set_place(struct halo_worker *worker, enum halo_place place)
{
	__atomic_store_n(&worker->slot->status.place, place, __ATOMIC_RELAXED);
}

static void show_progress(struct halo_worker *worker)
{
	halo_count(&worker->slot->status.progress, 1);
}

/* Wait on the event loop's fds; return true when one of them is not our doorbell. */
static bool look_at_fds(struct halo_worker *worker, int timeout_ms)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(worker->epoll_fd, events, EVENTS, timeout_ms);
	bool others = false;
	uint64_t rings;
	int i;

	for (i = 0; i < count; i++) {
		if (events[i].data.fd != worker->doorbell_fd)
			others = true;
		else if (read(worker->doorbell_fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN)
			others = true; /* a doorbell that can not be read: let Python see it */
	}
	return others || count == EVENTS;
}

/* The life cycle is the driver's; we follow. Returns the poll reasons that this change means. */
static uint32_t follow_life(struct halo_worker *worker)
{
	const struct halo_slot_life *life = &worker->slot->life;
	bool enabled = __atomic_load_n(&life->state, __ATOMIC_ACQUIRE) == HALO_SLOT_ENABLED;

	if (enabled == worker->enabled && (!enabled || life->generation == worker->generation))
		return 0;
	if (enabled)
		halo_attach_rings(worker);
	else
		halo_chain_abandon(worker);
	worker->enabled = enabled;
	return enabled ? HALO_POLL_ENABLED : HALO_POLL_DISABLED;
}

/* One burst through the line. Returns how many frames it had, or HALO_RING_BROKEN. */
static uint32_t run_burst(struct halo_worker *worker)
{
	struct halo_laps laps;
	uint32_t count;

	if (unlikely(worker->chain.busy)) {
		count = halo_chain_run(worker);
		if (count && count != HALO_RING_BROKEN)
			__atomic_store_n(&worker->slot->status.last_burst_ns, worker->now_ns, __ATOMIC_RELAXED);
		return count;
	}
	laps = halo_laps_start(worker);
	count = halo_stage_receive(worker);
	if (count == 0 || count == HALO_RING_BROKEN)
		return count;
	halo_load_burst(worker, count, &laps);
	halo_lap(&laps, HALO_TIMED_RECEIVE);
	halo_stage_parse(worker, count);
	if (unlikely(worker->debug))
		halo_debug_keep(worker, count);
	if (unlikely(worker->captures.points) && unlikely(halo_capture_received(worker, count))) {
		halo_chain_follow(worker, count); /* what is left of it is not timed */
		__atomic_store_n(&worker->slot->status.last_burst_ns, worker->now_ns, __ATOMIC_RELAXED);
		return count;
	}
	halo_lap(&laps, HALO_TIMED_PARSE);
	halo_stage_input(worker, count);
	halo_lap(&laps, HALO_TIMED_INPUT);
	halo_stage_route(worker);
	halo_lap(&laps, HALO_TIMED_ROUTE);
	halo_stage_forward(worker);
	if (unlikely(worker->debug))
		halo_debug_conclude(worker);
	halo_lap(&laps, HALO_TIMED_FORWARD);
	halo_stage_finish(worker, count);
	halo_lap(&laps, HALO_TIMED_FINISH);
	__atomic_store_n(&worker->slot->status.last_burst_ns, worker->now_ns, __ATOMIC_RELAXED);
	return count;
}

static bool life_changed(const struct halo_worker *worker)
{
	const struct halo_slot_life *life = &worker->slot->life;

	return (__atomic_load_n(&life->state, __ATOMIC_ACQUIRE) == HALO_SLOT_ENABLED) != worker->enabled;
}

static bool rx_waits(const struct halo_worker *worker)
{
	return worker->enabled && __atomic_load_n(&worker->slot->rx.producer, __ATOMIC_ACQUIRE) != worker->rx.tail;
}

/* Wait for a frame without taking the clock, or the other thread of our core, more time than needed. */
static void spin_briefly(const struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < SPIN_PAUSES && !rx_waits(worker); i++)
		halo_pause();
}

/* Sleep until the doorbell, another fd, the deadline or the slice. Returns poll reasons. */
static uint32_t sleep_once(struct halo_worker *worker, int64_t left_ns)
{
	uint32_t *flag = &worker->slot->doorbell.worker_sleeping;
	uint32_t reasons = 0;
	int timeout_ms = SLEEP_SLICE_MS;

	if (left_ns >= 0 && left_ns < (int64_t)SLEEP_SLICE_MS * 1000000)
		timeout_ms = (int)((left_ns + 999999) / 1000000);
	__atomic_store_n(&worker->slot->status.epoch, 0, __ATOMIC_RELEASE);
	set_place(worker, HALO_PLACE_ASLEEP);
	halo_fall_asleep(flag); /* pairs with halo_must_ring in the driver */
	HALO_HOOK("worker.asleep");
	if (!rx_waits(worker) && !life_changed(worker) && look_at_fds(worker, timeout_ms))
		reasons = HALO_POLL_FDS;
	HALO_HOOK("worker.awake");
	__atomic_store_n(flag, 0, __ATOMIC_RELAXED);
	set_place(worker, HALO_PLACE_NATIVE);
	__atomic_store_n(&worker->slot->status.epoch, worker->epoch, __ATOMIC_SEQ_CST);
	halo_count(&worker->slot->worker.wakeups, 1);
	return reasons;
}

/*
 * Python hears of used neighbors when there is nothing else to do, when they are many, or after a while: each return to it
 * costs more than many bursts.
 */
static bool touches_wait(const struct halo_worker *worker, uint32_t burst)
{
	return worker->touched_count && (burst == 0 || worker->touched_count > HALO_MAX_TOUCHED - HALO_BURST ||
					 worker->now_ns - worker->touched_since_ns > TOUCHED_NS);
}

/* What Python waits for, of raw frames and of blasts. */
static uint32_t look_at_raw(struct halo_worker *worker, uint32_t burst)
{
	uint32_t reasons = 0;

	if (unlikely(halo_raw_is_due(worker, burst)))
		reasons |= HALO_POLL_RAW;
	if (unlikely(worker->blasts.ended))
		reasons |= HALO_POLL_BLAST;
	return reasons;
}

/* How long a worker that has found nothing since then may sleep: -1 for ever, 0 not at all. */
static int64_t time_to_sleep(const struct halo_worker *worker, int64_t deadline_ns, int64_t now, int64_t idle_since_ns)
{
	int64_t left_ns = deadline_ns - now;
	int64_t wait_ns;

	if (left_ns <= 0 || worker->idle_policy == HALO_IDLE_POLL || now - idle_since_ns < worker->spin_ns)
		return 0;
	if (likely(!worker->blasts.running))
		return deadline_ns == INT64_MAX ? -1 : left_ns;
	/* Sleep is in milliseconds: of a paced one the last part is spent awake, unless that is never to be. */
	wait_ns = halo_blast_wait_ns(worker);
	if (worker->idle_policy != HALO_IDLE_SLEEP)
		wait_ns -= MS_NS - 1;
	if (wait_ns <= 0)
		return 0;
	return wait_ns < left_ns ? wait_ns : left_ns;
}

/* One turn. Returns the reasons to go back to Python, 0 for none. */
static uint32_t turn(struct halo_worker *worker, int64_t deadline_ns, int64_t *idle_since_ns)
{
	int64_t now = (int64_t)halo_now_ns();
	uint32_t count = 0, sent = 0;
	uint32_t reasons;
	int64_t sleep_ns;

	worker->now_ns = (uint64_t)now;
	show_progress(worker);
	reasons = follow_life(worker);
	if (likely(!worker->chain.parked) && halo_interfaces_refresh(worker)) /* a parked burst has them as they were */
		reasons |= HALO_POLL_EPOCH;
	if (worker->enabled)
		count = run_burst(worker);
	if (unlikely(worker->blasts.running))
		sent = halo_blast_serve(worker);
	if (count == HALO_RING_BROKEN) {
		worker->enabled = false;
		return reasons | HALO_POLL_BROKEN;
	}
	halo_ring_doorbell(worker);
	if (unlikely(worker->chain.parked))
		reasons |= HALO_POLL_HOOK;
	else if (worker->punt_count || worker->debug_count)
		reasons |= HALO_POLL_PUNTS;
	if (worker->datagrams->count)
		reasons |= HALO_POLL_DATAGRAMS;
	if (unlikely(touches_wait(worker, count)))
		reasons |= HALO_POLL_TOUCHED;
	reasons |= look_at_raw(worker, count);
	if (count | sent) {
		*idle_since_ns = now;
	} else {
		sleep_ns = reasons ? 0 : time_to_sleep(worker, deadline_ns, now, *idle_since_ns);
		if (sleep_ns)
			return sleep_once(worker, sleep_ns);
		spin_briefly(worker);
	}
	if (now >= worker->next_fd_look_ns) {
		worker->next_fd_look_ns = now + FD_LOOK_NS;
		if (look_at_fds(worker, 0))
			reasons |= HALO_POLL_FDS;
	}
	if (now >= deadline_ns)
		reasons |= HALO_POLL_DEADLINE;
	return reasons;
}

/* Python has heard of those that the last poll told of; those that its own frames have used since are still to be told. */
static void forget_touched(struct halo_worker *worker)
{
	worker->touched_count -= worker->touched_told;
	memmove(worker->touched, worker->touched + worker->touched_told,
		worker->touched_count * sizeof(worker->touched[0]));
	worker->touched_told = 0;
}

static void start_poll(struct halo_worker *worker)
{
	worker->punt_count = 0;
	if (!worker->chain.parked) { /* else they are of the burst that is under way */
		worker->debug_count = 0;
		worker->debug_missed = 0;
	}
	worker->datagrams->count = 0;
	forget_touched(worker);
	set_place(worker, HALO_PLACE_NATIVE);
	__atomic_store_n(&worker->slot->status.epoch, worker->epoch, __ATOMIC_SEQ_CST);
	__atomic_store_n(&worker->slot->worker.neighbors, halo_worker_neighbor_count(worker), __ATOMIC_RELAXED);
	halo_worker_flush(worker);
}

int halo_worker_poll(struct halo_worker *worker, int64_t timeout_ns, struct halo_poll_result *result)
{
	int64_t start = (int64_t)halo_now_ns();
	int64_t deadline = timeout_ns < 0 || timeout_ns > INT64_MAX - start ? INT64_MAX : start + timeout_ns;
	int64_t idle_since = start;
	uint64_t turns = 0;

	if (halo_worker_held(worker)) /* Python owes us an answer to each punt before the next burst */
		return -EBUSY;
	start_poll(worker);
	halo_load_lag(worker, (uint64_t)start);
	halo_share_settle(&worker->share, (uint64_t)start);
	do {
		turns++;
		result->reasons = turn(worker, deadline, &idle_since);
	} while (result->reasons == 0);
	halo_count(&worker->slot->worker.polls, turns);
	__atomic_store_n(&worker->slot->status.epoch, 0, __ATOMIC_RELEASE);
	set_place(worker, HALO_PLACE_PYTHON);
	result->burst_ns = worker->now_ns;
	result->punts = worker->punts;
	result->punt_count = worker->punt_count;
	result->debug = worker->debug_frames;
	result->debug_count = worker->chain.parked ? 0 : worker->debug_count;
	result->debug_missed = worker->chain.parked ? 0 : worker->debug_missed;
	result->touched = worker->touched;
	result->touched_count = worker->touched_count;
	worker->touched_told = worker->touched_count;
	halo_chain_show(worker, result);
	if (worker->touched_count)
		result->reasons |= HALO_POLL_TOUCHED;
	if (worker->raw.ready)
		result->reasons |= HALO_POLL_RAW;
	halo_raw_told(worker);
	worker->blasts.ended = false;
	if (worker->punt_count)
		halo_share_start(&worker->share);
	worker->left_ns = halo_now_ns();
	return (int)worker->punt_count;
}
