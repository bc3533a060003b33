/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver, as its Python host sees it. One per process; all functions are called by the main thread, which is the EAL
 * main lcore. They return 0 or a count, or a negative errno, and put a sentence into `error` where the setup has room.
 */

enum halo_driver_limit {
	HALO_ERROR_OCTETS = 512,
};

struct halo_driver_setup {
	void *pool; /* mapped, shared */
	struct halo_owners *owners;
	struct halo_ports *ports;
	uint64_t page_octets; /* of the pool's memory */
	uint32_t slot_count;
	uint32_t lcore_count;
	struct halo_slot *slot[HALO_MAX_SLOTS]; /* in the order of the numbers below */
	uint64_t slot_octets[HALO_MAX_SLOTS];   /* of its file, as the kernel says */
	uint32_t slot_number[HALO_MAX_SLOTS];
	uint32_t slot_lcore[HALO_MAX_SLOTS]; /* index of the home lcore */
	int slot_doorbell[HALO_MAX_SLOTS];
	int lcore_doorbell[HALO_MAX_LCORES];
	uint32_t idle_policy; /* enum halo_idle_policy */
	uint32_t spin_ns;
	uint32_t rx_checksum;
	uint32_t tx_checksum;
	uint32_t tx_only;
	char error[HALO_ERROR_OCTETS];
};

enum halo_spread { /* who spreads a port's frames over its queues */
		   HALO_SPREAD_AUTO = 0,
		   HALO_SPREAD_HARDWARE = 1, /* the device, or the kernel behind it */
		   HALO_SPREAD_SOFTWARE = 2, /* the driver, over queues that only it knows */
};

struct halo_port_setup {
	uint32_t port;
	const char *device;    /* name of the DPDK device */
	const char *bus;       /* that it is on: vdev, pci */
	const char *arguments; /* of the device, for probing it again */
	uint32_t queues;       /* that feed slots */
	uint32_t spread;       /* enum halo_spread; out: who does it, unless there is one queue */
	uint32_t mtu;
	uint32_t promiscuous;
	uint32_t if_index; /* out: of the netdev below it; 0: none */
	char error[HALO_ERROR_OCTETS];
};

struct halo_driver;

int halo_eal_start(int argc, char **argv, int log_fd, char *error, uint32_t error_octets);
void halo_eal_stop(void);

int halo_driver_create(struct halo_driver_setup *setup, struct halo_driver **driver);
int halo_driver_add_port(struct halo_driver *driver, struct halo_port_setup *setup);
/* Instead of halo_driver_add_port: the port is known, and counts as lost until halo_driver_reopen_port finds its device. */
int halo_driver_expect_port(struct halo_driver *driver, const struct halo_port_setup *setup);
/*
 * The device of a port is gone: frames to it are tx_port_down from here on, no lcore touches it any more, it is closed and
 * removed from its bus, and its buffers are the pool's again. Feeds have to be set anew when it is back.
 */
int halo_driver_lose_port(struct halo_driver *driver, uint32_t port);
/* Probe the device of a lost port and open it as halo_driver_add_port did. What fails leaves the port lost. */
int halo_driver_reopen_port(struct halo_driver *driver, struct halo_port_setup *setup);
/* 1 when the PMD has said that the device of a port was removed, else 0. */
int halo_driver_port_removed(const struct halo_driver *driver, uint32_t port);
/* From here on the link state of a port is what we say (from its netdev), not what its PMD says. */
void halo_driver_set_link(struct halo_driver *driver, uint32_t port, uint32_t up);
/* Start the lcores. From here on the functions below act at a burst boundary of the lcore concerned. */
int halo_driver_launch(struct halo_driver *driver);
/*
 * Let queue `queue` of port `port` feed slot `slot`; slot HALO_MAX_SLOTS or above: nobody, it is drained. A port that the driver
 * spreads itself is read from once its queue 0 feeds: set the others before.
 */
int halo_driver_feed(struct halo_driver *driver, uint32_t port, uint32_t queue, uint32_t slot);
int halo_driver_enable_slot(struct halo_driver *driver, uint32_t slot);
/* Walk the life cycle: disable, reclaim by owner, indices to 0, generation + 1. Returns the buffers reclaimed. */
int64_t halo_driver_reset_slot(struct halo_driver *driver, uint32_t slot);
/* Copy link state, rte_eth_stats and xstats of every port into the ports region, and the gauges of the pool. */
void halo_driver_update_status(struct halo_driver *driver);
/* Stop the lcores, then the ports. */
void halo_driver_destroy(struct halo_driver *driver);
/* Buffers that the mempool and its caches hold now, and how many of the rest carry an owner. */
int64_t halo_driver_free_buffers(const struct halo_driver *driver);
