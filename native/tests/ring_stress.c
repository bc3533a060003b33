/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stress test of a ring and its doorbell: a producer and a consumer, each pinned to its core, as two processes over shared
 * memory, or with `threads` as two threads (ThreadSanitizer sees one process only). The consumer checks every descriptor
 * in order, and sleeps on an eventfd whenever it has found nothing for a moment. A wake-up is lost when the consumer
 * sleeps for WAKE_LIMIT_MS while a descriptor waits and no doorbell rings.
 *
 *   ring_stress processes|threads count
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <halo/ring.h>

enum {
	SIZE = 256,
	BURST = 64,
	PAUSE_EVERY = 16,
	WAKE_LIMIT_MS = 2000,
	TOTAL_LIMIT_S = 120,
	LOOK_AT_CLOCK = 4096, /* turns */
};

struct shared {
	struct halo_ring_index index;
	struct halo_descriptor entry[SIZE];
	uint32_t sleeping; /* writer: the consumer */
	uint32_t failed;   /* either side gave up: the other one shall too */
};

static struct shared *shared;
static int doorbell_fd;
static uint64_t total;
static time_t deadline_s;

struct side {
	const char *name;
	uint64_t moved;
	uint64_t rings;  /* producer: doorbells; consumer: sleeps */
	uint64_t waited; /* producer: full ring; consumer: found a frame when it looked again before sleeping */
	uint32_t turns;
	uint32_t random;
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static bool give_up(struct side *side, const char *why)
{
	fprintf(stderr, "%s: %s after %" PRIu64 " descriptors\n", side->name, why, side->moved);
	__atomic_store_n(&shared->failed, 1, __ATOMIC_RELAXED);
	return false;
}

static bool goes_on(struct side *side)
{
	if (side->moved == total)
		return false;
	if (++side->turns % LOOK_AT_CLOCK)
		return true;
	if (__atomic_load_n(&shared->failed, __ATOMIC_RELAXED))
		return false;
	return now_s() < deadline_s || give_up(side, "too slow");
}

static uint32_t random_below(struct side *side, uint32_t limit)
{
	side->random ^= side->random << 13; /* xorshift32 */
	side->random ^= side->random >> 17;
	side->random ^= side->random << 5;
	return side->random % limit;
}

static void pause_for(uint32_t turns)
{
	for (; turns; turns--)
		halo_pause();
}

static struct halo_descriptor numbered(uint64_t number)
{
	struct halo_descriptor descriptor = {
		.offset = (uint32_t)number,
		.length = (uint16_t)(number * 7),
		.port = (uint8_t)(number >> 5),
		.flags = (uint8_t)~number,
	};

	return descriptor;
}

static void ring_doorbell(struct side *side)
{
	static const uint64_t one = 1;

	if (!halo_must_ring(&shared->sleeping))
		return;
	if (write(doorbell_fd, &one, sizeof(one)) == sizeof(one))
		side->rings++;
}

/* One burst in PAUSE_EVERY is the last one for a while: nobody rings again for a wake-up that was lost. */
static bool wait_until_taken(struct side *side, const struct halo_producer *ring)
{
	uint32_t turns;

	for (turns = 1; __atomic_load_n(&shared->index.consumer, __ATOMIC_ACQUIRE) != ring->head; turns++) {
		halo_pause();
		if (turns % LOOK_AT_CLOCK)
			continue;
		if (__atomic_load_n(&shared->failed, __ATOMIC_RELAXED))
			return false;
		if (now_s() >= deadline_s)
			return give_up(side, "too slow");
		sched_yield();
	}
	pause_for(random_below(side, 40));
	return true;
}

static void produce(struct side *side)
{
	struct halo_producer ring;

	halo_producer_attach(&ring, &shared->index, shared->entry, SIZE);
	while (goes_on(side)) {
		uint32_t want = 1 + random_below(side, BURST);
		uint32_t room =
			halo_ring_reserve(&ring, want < total - side->moved ? want : (uint32_t)(total - side->moved));
		uint32_t i;

		if (room == HALO_RING_BROKEN) {
			give_up(side, "the ring is broken");
			return;
		}
		if (room == 0) {
			side->waited++;
			sched_yield();
			continue;
		}
		for (i = 0; i < room; i++)
			halo_ring_put(&ring, i, numbered(side->moved + i));
		halo_ring_submit(&ring, room);
		side->moved += room;
		ring_doorbell(side);
		if (random_below(side, PAUSE_EVERY) == 0 && !wait_until_taken(side, &ring))
			return;
	}
}

static bool frame_waits(const struct halo_consumer *ring)
{
	return __atomic_load_n(&shared->index.producer, __ATOMIC_ACQUIRE) != ring->tail;
}

static bool wait_for_doorbell(struct side *side, const struct halo_consumer *ring)
{
	struct pollfd doorbell = {.fd = doorbell_fd, .events = POLLIN};
	int in_vain = 0;
	uint64_t rings;

	while (poll(&doorbell, 1, WAKE_LIMIT_MS) == 0) {
		if (__atomic_load_n(&shared->failed, __ATOMIC_RELAXED))
			return false;
		if (now_s() >= deadline_s)
			return give_up(side, "too slow");
		/* The producer may be about to ring; it has until the next time. */
		in_vain = frame_waits(ring) ? in_vain + 1 : 0;
		if (in_vain == 2)
			return give_up(side, "a wake-up was lost");
	}
	return read(doorbell_fd, &rings, sizeof(rings)) == sizeof(rings) || errno == EAGAIN;
}

static bool sleep_until_rung(struct side *side, const struct halo_consumer *ring)
{
	bool fine = true;

	pause_for(random_below(side, 40));
	halo_fall_asleep(&shared->sleeping);
	if (frame_waits(ring)) {
		side->waited++;
	} else {
		side->rings++;
		fine = wait_for_doorbell(side, ring);
	}
	__atomic_store_n(&shared->sleeping, 0, __ATOMIC_RELAXED);
	return fine;
}

static void consume(struct side *side)
{
	struct halo_consumer ring;

	halo_consumer_attach(&ring, &shared->index, shared->entry, SIZE);
	while (goes_on(side)) {
		uint32_t ready = halo_ring_peek(&ring, 1 + random_below(side, BURST));
		uint32_t i;

		if (ready == HALO_RING_BROKEN) {
			give_up(side, "the ring is broken");
			return;
		}
		if (ready == 0 && !sleep_until_rung(side, &ring))
			return;
		for (i = 0; i < ready; i++) {
			struct halo_descriptor found = halo_ring_get(&ring, i), right = numbered(side->moved + i);

			if (memcmp(&found, &right, sizeof(found)) != 0) {
				give_up(side, "another descriptor than the next one");
				return;
			}
		}
		if (ready)
			halo_ring_release(&ring, ready);
		side->moved += ready;
	}
}

/* On the first or second core that we may use. */
static void pin(int which)
{
	cpu_set_t allowed, one;
	int core, found = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return;
	for (core = 0; core < CPU_SETSIZE; core++) {
		if (!CPU_ISSET(core, &allowed) || found++ != which)
			continue;
		CPU_ZERO(&one);
		CPU_SET(core, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static bool run_side(bool producing)
{
	struct side side = {.name = producing ? "producer" : "consumer", .random = producing ? 2463534242u : 88172645u};

	pin(producing);
	if (producing)
		produce(&side);
	else
		consume(&side);
	printf("%s: %" PRIu64 " descriptors, %" PRIu64 " %s, %" PRIu64 " %s\n", side.name, side.moved, side.rings,
	       producing ? "doorbells" : "sleeps", side.waited,
	       producing ? "times full" : "times a frame came just then");
	fflush(stdout);
	return side.moved == total;
}

static void *consumer_thread(void *argument)
{
	*(bool *)argument = run_side(false);
	return NULL;
}

static bool run_threads(void)
{
	bool produced, consumed = false;
	pthread_t thread;

	if (pthread_create(&thread, NULL, consumer_thread, &consumed) != 0)
		return false;
	produced = run_side(true);
	pthread_join(thread, NULL);
	return produced && consumed;
}

static bool run_processes(void)
{
	int status = 1;
	bool produced;
	pid_t child = fork();

	if (child < 0)
		return false;
	if (child == 0)
		_exit(run_side(false) ? 0 : 1);
	produced = run_side(true);
	return waitpid(child, &status, 0) == child && status == 0 && produced;
}

int main(int argc, char **argv)
{
	bool threads = argc == 3 && strcmp(argv[1], "threads") == 0;

	if (argc != 3 || (!threads && strcmp(argv[1], "processes") != 0)) {
		fprintf(stderr, "usage: ring_stress processes|threads count\n");
		return 2;
	}
	total = strtoull(argv[2], NULL, 10);
	deadline_s = now_s() + TOTAL_LIMIT_S;
	doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (doorbell_fd < 0 || shared == MAP_FAILED)
		return 2;
	return (threads ? run_threads() : run_processes()) ? 0 : 1;
}
