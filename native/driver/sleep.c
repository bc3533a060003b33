/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an idle lcore waits. Where each of its queues has an rx fd, it blocks on those and its doorbell, at most 250 ms at a
 * time. Where one has not (af_packet, af_xdp, ...) nobody would wake it for a frame: it naps on its doorbell, in steps that
 * grow to 200 us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

enum {
	SLEEP_SLICE_MS = 250,
	FIRST_NAP_NS = 20000,
	LONGEST_NAP_NS = 200000,
	EVENTS = 16,
};

static bool work_waits(const struct halo_lcore *lcore)
{
	uint32_t i;

	if (__atomic_load_n(&lcore->command, __ATOMIC_ACQUIRE) || !rte_ring_empty(lcore->inbox))
		return true;
	for (i = 0; i < lcore->slot_count; i++) {
		const struct halo_slot_home *slot = lcore->slot[i];

		if (slot->enabled && __atomic_load_n(&slot->shared->tx.producer, __ATOMIC_ACQUIRE) != slot->tx.tail)
			return true;
	}
	return false;
}

static void set_flags(struct halo_lcore *lcore, uint32_t value)
{
	uint32_t i;

	for (i = 0; i < lcore->slot_count; i++)
		__atomic_store_n(&lcore->slot[i]->shared->life.driver_sleeping, value, __ATOMIC_RELAXED);
}

static void drain_doorbell(struct halo_lcore *lcore)
{
	uint64_t rings;

	if (read(lcore->doorbell_fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN)
		return;
}

/* A device that went away leaves an fd that is always ready: without it we nap, and go on serving the others. */
static void forget_dead_fd(struct halo_lcore *lcore, const struct epoll_event *event)
{
	if (!(event->events & (EPOLLERR | EPOLLHUP)) || event->data.fd == lcore->doorbell_fd)
		return;
	if (epoll_ctl(lcore->epoll_fd, EPOLL_CTL_DEL, event->data.fd, NULL) == 0)
		lcore->fds_complete = false;
}

static void block(struct halo_lcore *lcore)
{
	struct epoll_event events[EVENTS];
	int count = epoll_wait(lcore->epoll_fd, events, EVENTS, SLEEP_SLICE_MS);
	int i;

	for (i = 0; i < count; i++)
		forget_dead_fd(lcore, &events[i]);
	if (count > 0)
		drain_doorbell(lcore);
	halo_count(&lcore->status->sleeps, 1);
}

static void nap(struct halo_lcore *lcore)
{
	struct pollfd doorbell = {.fd = lcore->doorbell_fd, .events = POLLIN};
	struct timespec timeout = {0};

	lcore->nap_ns = lcore->nap_ns ? RTE_MIN(lcore->nap_ns * 2, (uint32_t)LONGEST_NAP_NS) : FIRST_NAP_NS;
	timeout.tv_nsec = lcore->nap_ns;
	if (ppoll(&doorbell, 1, &timeout, NULL) > 0)
		drain_doorbell(lcore);
	halo_count(&lcore->status->naps, 1);
}

void halo_lcore_sleep(struct halo_lcore *lcore)
{
	set_flags(lcore, 1);
	halo_fall_asleep(
		&lcore->sleeping); /* its fence covers the slots' flags too; pairs with halo_must_ring in the workers */
	if (!work_waits(lcore)) {
		if (lcore->fds_complete)
			block(lcore);
		else
			nap(lcore);
	}
	__atomic_store_n(&lcore->sleeping, 0, __ATOMIC_RELAXED);
	set_flags(lcore, 0);
}

static int watch_fd(struct halo_lcore *lcore, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(lcore->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

/* Make the set of fds that this lcore may block on; called again when its feeds change. */
int halo_lcore_watch(struct halo_lcore *lcore)
{
	uint32_t i;
	int error;

	if (lcore->epoll_fd >= 0)
		close(lcore->epoll_fd);
	lcore->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (lcore->epoll_fd < 0)
		return -errno;
	error = watch_fd(lcore, lcore->doorbell_fd);
	lcore->fds_complete = true;
	for (i = 0; i < lcore->feed_count && !error; i++) {
		struct halo_feed *feed = &lcore->feed[i];
		int fd = feed->port->rx_fd ? rte_eth_dev_rx_intr_ctl_q_get_fd(feed->port->device, feed->queue) : -1;

		if (fd < 0)
			lcore->fds_complete = false;
		else
			error = watch_fd(lcore, fd);
	}
	return error;
}
