/* SPDX-License-Identifier: Apache-2.0 */
/* The driver as a whole: EAL, lcores, slots, feeds; what the Python host calls. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>

#include "driver.h"

int halo_eal_start(int argc, char **argv, int log_fd, char *error, uint32_t error_octets)
{
	FILE *log = log_fd >= 0 ? fdopen(log_fd, "w") : NULL;

	if (log) {
		setvbuf(log, NULL, _IOLBF, 0);
		rte_openlog_stream(log);
	}
	if (rte_eal_init(argc, argv) >= 0)
		return 0;
	snprintf(error, error_octets, "EAL did not start: %s", rte_strerror(rte_errno));
	return rte_errno ? -rte_errno : -EINVAL;
}

void halo_eal_stop(void)
{
	rte_eal_cleanup();
}

static int fail(struct halo_driver_setup *setup, int error, const char *what)
{
	if (setup->error[0] == '\0')
		snprintf(setup->error, sizeof(setup->error), "%s: %s", what, rte_strerror(-error));
	return error;
}

static int make_lcore(struct halo_driver *driver, struct halo_driver_setup *setup, uint32_t index, unsigned int id)
{
	struct halo_lcore *lcore = rte_zmalloc("halo_lcore", sizeof(*lcore), RTE_CACHE_LINE_SIZE);
	char name[RTE_RING_NAMESIZE];

	if (!lcore)
		return -ENOMEM;
	driver->lcore[index] = lcore;
	lcore->driver = driver;
	lcore->index = index;
	lcore->id = id;
	lcore->status = &driver->ports->lcore[index];
	lcore->doorbell_fd = setup->lcore_doorbell[index];
	lcore->epoll_fd = -1;
	memset(lcore->tx_queue, 0xff, sizeof(lcore->tx_queue));
	snprintf(name, sizeof(name), "halo_inbox_%u", index);
	lcore->inbox = rte_ring_create(name, HALO_INBOX_SIZE, (int)rte_socket_id(), RING_F_SC_DEQ);
	return lcore->inbox ? 0 : -rte_errno;
}

static int make_lcores(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	uint32_t index = 0;
	unsigned int id;

	RTE_LCORE_FOREACH_WORKER (id) {
		int error = index < setup->lcore_count ? make_lcore(driver, setup, index, id) : 0;

		if (error)
			return error;
		index++;
	}
	if (index != setup->lcore_count)
		return -ENODEV;
	driver->lcore_count = index;
	return 0;
}

static int make_slots(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	uint32_t i;

	for (i = 0; i < setup->slot_count; i++) {
		struct halo_slot_home *home = &driver->slot[i];
		struct halo_lcore *lcore;
		int error;

		if (setup->slot_number[i] >= HALO_MAX_SLOTS || setup->slot_lcore[i] >= driver->lcore_count)
			return -EINVAL;
		error = halo_slot_home_set_up(driver, home, setup->slot[i], setup->slot_octets[i],
					      setup->slot_number[i], setup->slot_doorbell[i]);
		if (error)
			return error;
		lcore = driver->lcore[setup->slot_lcore[i]];
		home->home = lcore;
		home->shared->life.home_lcore = lcore->index;
		lcore->slot[lcore->slot_count++] = home;
		driver->by_number[home->number] = home;
	}
	driver->slot_count = setup->slot_count;
	return 0;
}

static int register_note(struct halo_driver *driver)
{
	static const struct rte_mbuf_dynfield note = {
		.name = "halo_note",
		.size = sizeof(struct halo_note),
		.align = __alignof__(struct halo_note),
	};

	driver->note_offset = rte_mbuf_dynfield_register(&note);
	return driver->note_offset < 0 ? -rte_errno : 0;
}

static void take_setup(struct halo_driver *driver, const struct halo_driver_setup *setup)
{
	driver->pool = setup->pool;
	driver->geometry = setup->owners->pool;
	driver->owner = (uint8_t *)(setup->owners + 1);
	driver->ports = setup->ports;
	driver->idle_policy = setup->idle_policy;
	driver->page_octets = setup->page_octets;
	driver->spin_ns = setup->spin_ns;
	driver->rx_checksum = setup->rx_checksum;
	driver->tx_checksum = setup->tx_checksum;
	driver->tx_only = setup->tx_only;
	driver->ports->driver_pid = (uint64_t)getpid();
}

int halo_driver_create(struct halo_driver_setup *setup, struct halo_driver **out)
{
	struct halo_driver *driver = calloc(1, sizeof(*driver));
	int error;

	setup->error[0] = '\0';
	if (!driver)
		return fail(setup, -ENOMEM, "the driver's state");
	*out = driver;
	take_setup(driver, setup);
	error = halo_pool_measure(driver, setup);
	if (error)
		return error;
	error = register_note(driver);
	if (!error)
		error = make_lcores(driver, setup);
	if (error)
		return fail(setup, error, "setting up the lcores");
	error = make_slots(driver, setup); /* before the pool: it settles what a predecessor had only claimed */
	if (error)
		return fail(setup, error, "attaching the slots");
	return halo_pool_create(driver, setup);
}

int halo_driver_launch(struct halo_driver *driver)
{
	uint32_t i;
	int error = 0;

	for (i = 0; i < driver->lcore_count && !error; i++) {
		halo_choose_tx_queues(driver->lcore[i]);
		error = halo_lcore_watch(driver->lcore[i]);
	}
	for (i = 0; i < driver->lcore_count && !error; i++)
		error = rte_eal_remote_launch(halo_lcore_main, driver->lcore[i], driver->lcore[i]->id);
	driver->running = !error;
	return error;
}

/* ---- commands ------------------------------------------------------------------------------------------------- */

struct feed_argument {
	uint32_t port;
	uint32_t queue;
	struct halo_slot_home *slot;
};

/* Returns 1 when this lcore had it. */
static int64_t remove_feed(struct halo_lcore *lcore, void *argument)
{
	const struct feed_argument *wanted = argument;
	int error;
	uint32_t i;

	for (i = 0; i < lcore->feed_count; i++) {
		if (lcore->feed[i].port_number != wanted->port || lcore->feed[i].queue != wanted->queue)
			continue;
		lcore->feed[i] = lcore->feed[--lcore->feed_count];
		halo_choose_tx_queues(lcore);
		error = halo_lcore_watch(lcore);
		return error ? error : 1;
	}
	return 0;
}

static int64_t add_feed(struct halo_lcore *lcore, void *argument)
{
	const struct feed_argument *wanted = argument;
	struct halo_feed *feed = &lcore->feed[lcore->feed_count];

	if (lcore->feed_count == RTE_DIM(lcore->feed))
		return -ENOSPC;
	feed->port = &lcore->driver->port[wanted->port];
	feed->port_number = (uint8_t)wanted->port;
	feed->queue = (uint16_t)wanted->queue;
	feed->slot = wanted->slot;
	lcore->feed_count++;
	halo_choose_tx_queues(lcore);
	return halo_lcore_watch(lcore);
}

/* A queue is polled by the home lcore of its slot; of those that we make ourselves, by the home lcore of the first one's. */
static struct halo_lcore *choose_home(const struct halo_driver *driver, const struct feed_argument *wanted)
{
	return wanted->slot ? wanted->slot->home : driver->lcore[wanted->queue % driver->lcore_count];
}

int halo_driver_feed(struct halo_driver *driver, uint32_t port, uint32_t queue, uint32_t slot)
{
	struct feed_argument argument = {.port = port, .queue = queue};
	bool polled = false;
	uint32_t i;

	if (port >= HALO_MAX_PORTS || !driver->port[port].present || queue >= driver->port[port].queues)
		return -ENODEV;
	if (!driver->port[port].started)
		return -ENETDOWN;
	if (driver->tx_only)
		return 0;
	argument.slot = slot < HALO_MAX_SLOTS ? driver->by_number[slot] : NULL;
	if (slot < HALO_MAX_SLOTS && !argument.slot)
		return -EINVAL;
	if (driver->port[port].software)
		argument.queue = 0;
	/* Off first, everywhere, so that a queue is never polled by two lcores. */
	for (i = 0; i < driver->lcore_count; i++) {
		int64_t removed = halo_lcore_call(driver->lcore[i], remove_feed, &argument);

		if (removed < 0)
			return (int)removed;
		polled |= removed;
	}
	if (driver->port[port].software) { /* nobody polls it now, so the table is ours to write */
		driver->port[port].spread[queue] = argument.slot;
		argument.slot = driver->port[port].spread[0];
		if (queue && !polled) /* it is polled as soon as its first queue is fed, which comes last */
			return 0;
	}
	return (int)halo_lcore_call(choose_home(driver, &argument), add_feed, &argument);
}

int halo_driver_enable_slot(struct halo_driver *driver, uint32_t slot)
{
	struct halo_slot_home *home = slot < HALO_MAX_SLOTS ? driver->by_number[slot] : NULL;

	return home ? (int)halo_lcore_call(home->home, halo_slot_enable, home) : -EINVAL;
}

int64_t halo_driver_reset_slot(struct halo_driver *driver, uint32_t slot)
{
	struct halo_slot_home *home = slot < HALO_MAX_SLOTS ? driver->by_number[slot] : NULL;

	return home ? halo_lcore_call(home->home, halo_slot_reset, home) : -EINVAL;
}

int64_t halo_driver_free_buffers(const struct halo_driver *driver)
{
	return driver->mempool ? rte_mempool_avail_count(driver->mempool) : 0;
}

static void close_ports(struct halo_driver *driver)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++) {
		if (!driver->port[i].open)
			continue;
		driver->port[i].started = false;
		rte_eth_dev_stop(driver->port[i].device);
		rte_eth_dev_close(driver->port[i].device);
	}
}

void halo_driver_destroy(struct halo_driver *driver)
{
	uint32_t i;

	__atomic_store_n(&driver->quit, 1, __ATOMIC_RELEASE);
	for (i = 0; i < driver->lcore_count; i++) {
		halo_lcore_wake(driver->lcore[i]);
		rte_eal_wait_lcore(driver->lcore[i]->id);
	}
	close_ports(driver);
	for (i = 0; i < driver->lcore_count; i++) {
		rte_ring_free(driver->lcore[i]->inbox);
		if (driver->lcore[i]->epoll_fd >= 0)
			close(driver->lcore[i]->epoll_fd);
		rte_free(driver->lcore[i]);
	}
	halo_pool_destroy(driver);
	free(driver);
}
