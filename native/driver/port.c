/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: configure, queues, start, and what they tell of themselves.
 *
 * A port receives `direct` into the pool; where its PMD can not take external memory (net_af_xdp builds its UMEM from the
 * mempool), it gets a mempool of its own and each frame is copied once.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ether.h>
#include <rte_version.h>

#include "driver.h"

enum {
	DESCRIPTORS = 1024, /* of each hardware queue, before the PMD adjusts it */
	COPY_BUFFERS = 8192,
	COPY_CACHE = 256,
	XDP_HEADROOM = 256, /* the kernel keeps so much in front of a frame */
	MOST_DEVICE_XSTATS = 4096,
	FRAME_OVERHEAD = RTE_ETHER_HDR_LEN + 2 * RTE_VLAN_HLEN,
};

static int fail(struct halo_port_setup *setup, int error, const char *what)
{
	snprintf(setup->error, sizeof(setup->error), "port %u (%s): %s: %s", setup->port, setup->device, what,
		 rte_strerror(-error));
	return error;
}

static bool needs_copy(const char *driver_name)
{
	return strcmp(driver_name, "net_af_xdp") == 0;
}

static void choose_offloads(const struct halo_driver *driver, const struct rte_eth_dev_info *info,
			    struct rte_eth_conf *conf)
{
	if (driver->rx_checksum)
		conf->rxmode.offloads |= info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_CHECKSUM;
	if (driver->tx_checksum)
		conf->txmode.offloads |=
			info->tx_offload_capa &
			(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
}

/*
 * A transmit queue for each lcore where the PMD has as many; else as many as it takes, and frames are passed between lcores.
 * net_tap wants as many tx as rx queues. Rx interrupts are asked for first and done without where they are refused.
 */
static int configure(struct halo_driver *driver, struct halo_port *port, const struct rte_eth_dev_info *info)
{
	struct rte_eth_conf conf = {0};
	uint16_t wanted = (uint16_t)RTE_MIN(driver->lcore_count, (uint32_t)info->max_tx_queues);
	int error = -ENOTSUP;
	int attempt;

	choose_offloads(driver, info, &conf);
	halo_queues_rss(port, info, &conf);
	conf.intr_conf.rmv = (*info->dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
	for (attempt = 0; attempt < 4 && error; attempt++) {
		conf.intr_conf.rxq = attempt < 2;
		port->tx_queues = attempt % 2 ? port->rx_queues : wanted;
		if (port->tx_queues > info->max_tx_queues)
			continue;
		error = rte_eth_dev_configure(port->device, port->rx_queues, port->tx_queues, &conf);
	}
	port->rx_fd = !error && conf.intr_conf.rxq;
	return error;
}

static int make_copy_pool(struct halo_port *port, struct halo_port_setup *setup)
{
	uint32_t room = RTE_PKTMBUF_HEADROOM + XDP_HEADROOM + setup->mtu + FRAME_OVERHEAD;
	char name[RTE_MEMPOOL_NAMESIZE];

	snprintf(name, sizeof(name), "halo_copy_%u", setup->port);
	port->copy_pool = rte_pktmbuf_pool_create(name, COPY_BUFFERS * port->rx_queues, COPY_CACHE, 0,
						  (uint16_t)RTE_MAX(room, (uint32_t)RTE_MBUF_DEFAULT_BUF_SIZE),
						  (int)rte_socket_id());
	port->copy = true;
	return port->copy_pool ? 0 : fail(setup, -rte_errno, "making a mempool for copy mode");
}

static int set_up_queues(struct halo_driver *driver, struct halo_port *port, struct halo_port_setup *setup)
{
	struct rte_mempool *pool = port->copy ? port->copy_pool : driver->mempool;
	int socket = rte_eth_dev_socket_id(port->device);
	uint16_t rx_descriptors = DESCRIPTORS, tx_descriptors = DESCRIPTORS;
	uint16_t queue;
	int error = rte_eth_dev_adjust_nb_rx_tx_desc(port->device, &rx_descriptors, &tx_descriptors);

	for (queue = 0; queue < port->rx_queues && !error; queue++)
		error = rte_eth_rx_queue_setup(port->device, queue, rx_descriptors, (unsigned int)socket, NULL, pool);
	if (error)
		return error;
	for (queue = 0; queue < port->tx_queues && !error; queue++)
		error = rte_eth_tx_queue_setup(port->device, queue, tx_descriptors, (unsigned int)socket, NULL);
	return error ? fail(setup, error, "setting up a transmit queue") : 0;
}

/* Which tx queue of a port this lcore uses, or which lcore it passes frames to. */
void halo_port_assign_tx(struct halo_lcore *lcore, uint32_t number)
{
	struct halo_driver *driver = lcore->driver;
	const struct halo_port *port = &driver->port[number];

	lcore->tx_queue[number] = lcore->index < port->tx_queues ? (uint16_t)lcore->index : HALO_NO_PORT;
	lcore->tx_lcore[number] = driver->lcore[lcore->index % port->tx_queues];
}

/*
 * A slot's frames leave by the queue that has the number of the one it is fed from, where this lcore may use it: the kernel's
 * tun steers a flow to the queue that its last answer came by, and would pile all flows up on queue 0 otherwise. Queue q is
 * lcore q % lcore_count's, so no queue has two users.
 */
void halo_choose_tx_queues(struct halo_lcore *lcore)
{
	uint32_t i;

	for (i = 0; i < lcore->slot_count; i++)
		memcpy(lcore->slot[i]->tx_queue, lcore->tx_queue, sizeof(lcore->tx_queue));
	for (i = 0; i < lcore->feed_count; i++) {
		const struct halo_feed *feed = &lcore->feed[i];

		if (feed->slot && feed->queue < feed->port->tx_queues &&
		    feed->queue % lcore->driver->lcore_count == lcore->index)
			feed->slot->tx_queue[feed->port_number] = feed->queue;
	}
}

/* What ethdev itself allows: an MTU whose frame does not exceed max_rx_pktlen, which PMDs set more honestly than max_mtu. */
static uint32_t largest_mtu(const struct rte_eth_dev_info *info)
{
	uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;

	if (info->max_mtu != UINT16_MAX)
		return info->max_mtu;
	return info->max_rx_pktlen > overhead ? info->max_rx_pktlen - overhead : 0;
}

static int set_mtu(struct halo_port *port, const struct rte_eth_dev_info *info, struct halo_port_setup *setup)
{
	uint16_t mtu;
	int error;

	port->max_frame = setup->mtu + FRAME_OVERHEAD;
	if (rte_eth_dev_get_mtu(port->device, &mtu) == 0 && mtu == setup->mtu)
		return 0;
	error = rte_eth_dev_set_mtu(port->device, (uint16_t)setup->mtu);
	/* A PMD without the call (net_pcap, net_null, net_ring) has no limit of its own to change. */
	if (!error || error == -ENOTSUP)
		return 0;
	snprintf(setup->error, sizeof(setup->error),
		 "port %u (%s): MTU %u is refused (%s); the device takes %u to %u: change --mtu", setup->port,
		 setup->device, setup->mtu, rte_strerror(-error), info->min_mtu, largest_mtu(info));
	return error;
}

static bool has_rx_fds(const struct halo_port *port)
{
	uint16_t queue;

	for (queue = 0; queue < port->rx_queues; queue++)
		if (rte_eth_dev_rx_intr_ctl_q_get_fd(port->device, queue) < 0)
			return false;
	return true;
}

static int start(struct halo_port *port, struct halo_port_setup *setup)
{
	int error = rte_eth_dev_start(port->device);

	if (error)
		return fail(setup, error, "starting it");
	if (setup->promiscuous)
		error = rte_eth_promiscuous_enable(port->device);
	else
		error = rte_eth_promiscuous_disable(port->device);
	if (error && error != -ENOTSUP)
		return fail(setup, error, "setting promiscuous mode");
	port->rx_fd = port->rx_fd && has_rx_fds(port);
	return 0;
}

/*
 * Let the NIC reach the pool: memory that we brought ourselves is mapped for DMA by nobody else. Virtual devices have no such
 * call, and need none. IOVA=VA: one mapping. IOVA=PA: page by page, since only a page is contiguous.
 */
static int map_for_dma(struct halo_driver *driver, const struct rte_eth_dev_info *info, struct halo_port_setup *setup)
{
	uint64_t step = rte_eal_iova_mode() == RTE_IOVA_PA ? driver->page_octets : driver->geometry.size_octets;
	uint64_t offset;

	for (offset = 0; offset < driver->geometry.size_octets; offset += step) {
		uint8_t *start = driver->pool + offset;
		rte_iova_t iova =
			step == driver->geometry.size_octets ? (rte_iova_t)(uintptr_t)start : rte_mem_virt2iova(start);

		if (rte_dev_dma_map(info->device, start, iova, step) == 0)
			continue;
		if (rte_errno == ENOTSUP)
			return 0;
		/* The second NIC of one IOMMU group finds it mapped by the first. */
		if (rte_errno != EEXIST)
			return fail(setup, -rte_errno, "mapping the pool for DMA");
	}
	return 0;
}

static int open_queues(struct halo_driver *driver, struct halo_port *port, const struct rte_eth_dev_info *info,
		       struct halo_port_setup *setup)
{
	int error = needs_copy(info->driver_name) ? make_copy_pool(port, setup) : 0;

	if (!error)
		error = set_up_queues(driver, port, setup);
	if (error && !port->copy &&
	    setup->error[0] == '\0') { /* a PMD that we do not know of, and that refuses our pool */
		error = make_copy_pool(port, setup);
		if (!error)
			error = set_up_queues(driver, port, setup);
	}
	if (error && setup->error[0] == '\0')
		return fail(setup, error, "setting up a receive queue");
	return error;
}

static int find_device(struct halo_port *port, struct rte_eth_dev_info *info, struct halo_port_setup *setup)
{
	int error = rte_eth_dev_get_port_by_name(setup->device, &port->device);

	if (error) {
		snprintf(setup->error, sizeof(setup->error),
			 "there is no port %u: DPDK found no device %s; `dpdk-devbind.py --status` lists NICs, --vdev "
			 "adds a "
			 "virtual device",
			 setup->port, setup->device);
		return -ENODEV;
	}
	port->open = true;
	error = rte_eth_dev_info_get(port->device, info);
	if (error)
		return fail(setup, error, "asking for its capabilities");
	setup->if_index = info->if_index;
	return halo_queues_choose(port, info, setup);
}

/* From a device that was probed to one that runs; `started` is the caller's to set. What fails leaves it to be closed. */
int halo_port_open(struct halo_driver *driver, struct halo_port *port, struct halo_port_setup *setup)
{
	struct rte_eth_dev_info info;
	int error;

	setup->error[0] = '\0';
	error = find_device(port, &info, setup);
	if (error)
		return error;
	error = configure(driver, port, &info);
	if (error && halo_queues_fall_back(port, setup))
		error = configure(driver, port, &info);
	if (error)
		return fail(setup, error, "configuring its queues");
	error = set_mtu(port, &info, setup);
	if (!error)
		error = map_for_dma(driver, &info, setup);
	if (!error)
		error = open_queues(driver, port, &info, setup);
	if (!error)
		error = start(port, setup);
	if (!error)
		error = halo_port_watch(port);
	setup->spread = port->software ? HALO_SPREAD_SOFTWARE : HALO_SPREAD_HARDWARE;
	return error;
}

int halo_driver_add_port(struct halo_driver *driver, struct halo_port_setup *setup)
{
	struct halo_port *port;
	uint32_t i;
	int error;

	if (setup->port >= HALO_MAX_PORTS)
		return fail(setup, -EINVAL, "its number");
	port = &driver->port[setup->port];
	snprintf(port->name, sizeof(port->name), "%s", setup->device);
	error = halo_port_open(driver, port, setup);
	if (error)
		return error;
	for (i = 0; i < driver->lcore_count; i++)
		halo_port_assign_tx(driver->lcore[i], setup->port);
	port->present = true;
	port->started = true;
	return 0;
}

/* ---- status --------------------------------------------------------------------------------------------------- */

static void describe_link(const struct halo_port *port, struct halo_port_status *status)
{
	bool was_started = status->state == HALO_PORT_STARTED;
	uint32_t was_up = status->link_up;
	struct rte_eth_link link;

	if (rte_eth_link_get_nowait(port->device, &link) == 0) {
		status->link_up = link.link_status;
		status->speed_mbps = link.link_speed;
		status->full_duplex = link.link_duplex;
	}
	if (port->link != HALO_LINK_OF_PMD)
		status->link_up = port->link == HALO_LINK_UP;
	status->link_changes += was_started && status->link_up != was_up;
}

static void describe(struct halo_port *port, struct halo_port_status *status)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	uint16_t mtu;

	describe_link(port, status);
	if (rte_eth_dev_info_get(port->device, &info) == 0)
		snprintf(status->driver, sizeof(status->driver), "%s", info.driver_name);
	if (rte_eth_macaddr_get(port->device, &mac) == 0)
		memcpy(status->mac, mac.addr_bytes, sizeof(status->mac));
	if (rte_eth_dev_get_mtu(port->device, &mtu) == 0)
		status->mtu = mtu;
	rte_eth_dev_get_name_by_port(port->device, status->device);
	status->promiscuous = rte_eth_promiscuous_get(port->device) == 1;
	status->rx_queues = port->rx_queues;
	status->tx_queues = port->tx_queues;
	status->spread_queues = port->software ? port->queues : 0;
	status->mode = port->copy ? HALO_PORT_COPY : HALO_PORT_DIRECT;
	status->has_rx_fd = port->rx_fd;
	status->state = HALO_PORT_STARTED;
}

/* What the device counts, on top of what it had counted before it went away. */
static void copy_stats(const struct halo_port *port, struct halo_port_status *status)
{
	struct rte_eth_stats stats;

	if (rte_eth_stats_get(port->device, &stats) != 0)
		return;
	status->rx_frames = port->base.ipackets + stats.ipackets;
	status->tx_frames = port->base.opackets + stats.opackets;
	status->rx_octets = port->base.ibytes + stats.ibytes;
	status->tx_octets = port->base.obytes + stats.obytes;
	status->rx_missed = port->base.imissed + stats.imissed;
	status->rx_errors = port->base.ierrors + stats.ierrors;
	status->tx_errors = port->base.oerrors + stats.oerrors;
	status->rx_no_mbuf = port->base.rx_nombuf + stats.rx_nombuf;
}

/* All that there are, or of more than have room those that say something. */
static void copy_xstats(const struct halo_port *port, struct halo_port_status *status)
{
	static struct rte_eth_xstat_name names[MOST_DEVICE_XSTATS];
	static struct rte_eth_xstat values[MOST_DEVICE_XSTATS];
	int count = rte_eth_xstats_get_names(port->device, NULL, 0);
	uint32_t copied = 0;
	int i;

	if (count <= 0 || count > MOST_DEVICE_XSTATS)
		return;
	if (rte_eth_xstats_get_names(port->device, names, (unsigned int)count) != count ||
	    rte_eth_xstats_get(port->device, values, (unsigned int)count) != count)
		return;
	for (i = 0; i < count && copied < HALO_MAX_XSTATS; i++) {
		struct halo_xstat *xstat = &status->xstat[copied];

		if (values[i].id >= (uint64_t)count || (count > HALO_MAX_XSTATS && values[i].value == 0))
			continue;
		snprintf(xstat->name, sizeof(xstat->name), "%s", names[values[i].id].name);
		xstat->value = values[i].value;
		copied++;
	}
	status->xstat_count = copied;
}

/* Readers retry while `updates` is odd or has changed; the fences keep the fields between the two steps. */
void halo_port_update(struct halo_driver *driver, uint32_t number)
{
	struct halo_port *port = &driver->port[number];
	struct halo_port_status *status = &driver->ports->port[number];

	__atomic_store_n(&status->updates, status->updates | 1,
			 __ATOMIC_RELAXED); /* a dead driver may have left it odd */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (port->started) {
		describe(port, status);
		copy_stats(port, status);
		copy_xstats(port, status);
	} else {
		snprintf(status->device, sizeof(status->device), "%s", port->name);
		status->state = HALO_PORT_FAILED;
		status->link_up = 0;
	}
	__atomic_store_n(&status->updates, status->updates + 1, __ATOMIC_RELEASE);
}

void halo_driver_update_status(struct halo_driver *driver)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++)
		if (driver->port[i].present)
			halo_port_update(driver, i);
	__atomic_store_n(&driver->ports->pool_free, (uint64_t)halo_driver_free_buffers(driver), __ATOMIC_RELAXED);
}

void halo_driver_set_link(struct halo_driver *driver, uint32_t port, uint32_t up)
{
	if (port >= HALO_MAX_PORTS || !driver->port[port].present)
		return;
	driver->port[port].link = up ? HALO_LINK_UP : HALO_LINK_DOWN;
	halo_port_update(driver, port);
}
