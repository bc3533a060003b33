/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that goes away, and comes back:
 *
 *   started --lose--> lost --reopen--> started
 *
 * Losing: `started` is cleared, then every lcore leaves the port at a burst boundary, and only then the main thread closes
 * the device, which gives back the buffers in its queues. Coming back is the same in reverse. A port that was never there
 * since this driver started (expected) is lost, too.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_lcore.h>

#include "driver.h"

static void set_started(struct halo_port *port, bool started)
{
	__atomic_store_n(&port->started, started, __ATOMIC_RELEASE); /* pairs with halo_port_is_started */
}

/*
 * The lcore polls no queue of the port any more, and between two bursts it has no frame for it. What workers send there
 * from now on ends in this lcore's own hands, as tx_port_down.
 */
static int64_t leave(struct halo_lcore *lcore, void *argument)
{
	uint32_t number = *(uint32_t *)argument;
	uint32_t i = 0;

	while (i < lcore->feed_count) {
		if (lcore->feed[i].port_number == number)
			lcore->feed[i] = lcore->feed[--lcore->feed_count];
		else
			i++;
	}
	lcore->tx_queue[number] = 0;
	lcore->tx_lcore[number] = lcore;
	halo_choose_tx_queues(lcore);
	return halo_lcore_watch(lcore);
}

static int64_t join(struct halo_lcore *lcore, void *argument)
{
	halo_port_assign_tx(lcore, *(uint32_t *)argument);
	halo_choose_tx_queues(lcore);
	return 0;
}

static int have_all(struct halo_driver *driver, halo_command_fn command, uint32_t number)
{
	uint32_t i;
	int error = 0;

	for (i = 0; i < driver->lcore_count && !error; i++)
		error = (int)halo_lcore_call(driver->lcore[i], command, &number);
	return error;
}

/* Its successor counts from zero, and totals shall not go backwards. */
static void keep_stats(struct halo_port *port, const struct halo_port_status *status)
{
	port->base.ipackets = status->rx_frames;
	port->base.opackets = status->tx_frames;
	port->base.ibytes = status->rx_octets;
	port->base.obytes = status->tx_octets;
	port->base.imissed = status->rx_missed;
	port->base.ierrors = status->rx_errors;
	port->base.oerrors = status->tx_errors;
	port->base.rx_nombuf = status->rx_no_mbuf;
}

/* The queues' buffers have come back to this thread's cache, where no lcore would find them. */
static void flush_cache(struct halo_driver *driver)
{
	struct rte_mempool_cache *cache = rte_mempool_default_cache(driver->mempool, rte_lcore_id());

	if (cache)
		rte_mempool_cache_flush(cache, driver->mempool);
}

/* Runs in EAL's interrupt thread; the main thread looks at the flag. */
static int on_removed(uint16_t device, enum rte_eth_event_type event, void *argument, void *unused)
{
	struct halo_port *port = argument;

	(void)device;
	(void)event;
	(void)unused;
	__atomic_store_n(&port->removed, 1, __ATOMIC_RELEASE); /* pairs with halo_driver_port_removed */
	return 0;
}

int halo_port_watch(struct halo_port *port)
{
	__atomic_store_n(&port->removed, 0, __ATOMIC_RELAXED);
	return rte_eth_dev_callback_register(port->device, RTE_ETH_EVENT_INTR_RMV, on_removed, port);
}

int halo_driver_port_removed(const struct halo_driver *driver, uint32_t port)
{
	return port < HALO_MAX_PORTS && __atomic_load_n(&driver->port[port].removed, __ATOMIC_ACQUIRE);
}

/*
 * No lcore uses the port. The device may be gone, so that what it answers does not matter. Removing it from its bus closes
 * it; closing it first would hide it from the PMD's own removal, which has more to do in some.
 */
static void close_device(struct halo_port *port)
{
	struct rte_eth_dev_info info;

	if (!port->open)
		return;
	rte_eth_dev_callback_unregister(port->device, RTE_ETH_EVENT_INTR_RMV, on_removed, port);
	rte_eth_dev_stop(port->device);
	if (rte_eth_dev_info_get(port->device, &info) != 0 || rte_dev_remove(info.device) != 0)
		rte_eth_dev_close(port->device);
	rte_mempool_free(port->copy_pool);
	port->copy_pool = NULL;
	port->copy = false;
	port->rx_fd = false;
	port->open = false;
}

int halo_driver_expect_port(struct halo_driver *driver, const struct halo_port_setup *setup)
{
	struct halo_port *port;

	if (setup->port >= HALO_MAX_PORTS)
		return -EINVAL;
	port = &driver->port[setup->port];
	snprintf(port->name, sizeof(port->name), "%s", setup->device);
	close_device(port); /* what a failed attempt to open it has left */
	flush_cache(driver);
	port->max_frame = UINT16_MAX; /* too long or not, it will be tx_port_down */
	port->present = true;
	return have_all(driver, leave, setup->port);
}

int halo_driver_lose_port(struct halo_driver *driver, uint32_t number)
{
	struct halo_port *port = number < HALO_MAX_PORTS ? &driver->port[number] : NULL;
	struct halo_port_status *status;
	int error;

	if (!port || !port->present)
		return -ENODEV;
	if (port->started)
		halo_port_update(driver, number);
	status = &driver->ports->port[number];
	if (port->started) {
		keep_stats(port, status);
		status->losses++;
	}
	set_started(port, false);
	error = have_all(driver, leave, number);
	if (!error) {
		close_device(port);
		flush_cache(driver);
	}
	halo_port_update(driver, number);
	return error;
}

int halo_driver_reopen_port(struct halo_driver *driver, struct halo_port_setup *setup)
{
	struct halo_port *port = setup->port < HALO_MAX_PORTS ? &driver->port[setup->port] : NULL;
	int error = port && port->present && !port->started ? 0 : -EINVAL;

	setup->error[0] = '\0';
	if (!error && port->open) /* an lcore did not leave in time */
		error = halo_driver_lose_port(driver, setup->port);
	if (!error)
		error = rte_eal_hotplug_add(setup->bus, setup->device, setup->arguments);
	if (error) {
		snprintf(setup->error, sizeof(setup->error), "port %u (%s): probing it: %s", setup->port, setup->device,
			 rte_strerror(-error));
		return error;
	}
	error = halo_port_open(driver, port, setup);
	if (!error)
		error = have_all(driver, join, setup->port);
	if (error) {
		have_all(driver, leave, setup->port);
		close_device(port);
		flush_cache(driver);
		return error;
	}
	port->link = HALO_LINK_OF_PMD;
	set_started(port, true);
	driver->ports->port[setup->port].returns++;
	halo_port_update(driver, setup->port);
	return 0;
}
