/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who spreads a port's frames over the queues that feed slots: the device, by RSS; the kernel or another program behind it,
 * which fills as many queues as the device has; or we (spread.c), who then open one queue only.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"

enum {
	KEY_LIMIT = 64,   /* octets of an RSS key; 40 and 52 are usual */
	DEFAULT_KEY = 40, /* of a device that does not say */
};

/*
 * Toeplitz's hash with a key of one repeated pair of octets gives both directions of a flow the same number: exchanging addresses and
 * ports exchanges 16 or 32 bits that meet the same part of the key.
 */
static uint8_t symmetric_key[KEY_LIMIT];

/* By addresses, and by ports of TCP and UDP. Fragments by addresses alone, so all of a datagram's meet. */
static const uint64_t WANTED = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_TCP |
			       RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV4_OTHER;

/* Whether somebody behind the device fills its queues: the kernel, or whoever has named them one by one. */
static bool queues_are_filled(const char *driver_name)
{
	static const char *const names[] = {"net_tap",  "net_af_packet", "net_af_xdp", "net_pcap",
					    "net_ring", "net_memif",     "net_vhost"};
	size_t i;

	for (i = 0; i < RTE_DIM(names); i++)
		if (strcmp(driver_name, names[i]) == 0)
			return true;
	return false;
}

static bool device_spreads(const struct rte_eth_dev_info *info)
{
	return (info->flow_type_rss_offloads & WANTED) || queues_are_filled(info->driver_name);
}

static void use_software(struct halo_port *port)
{
	port->software = true;
	port->rx_queues = 1;
}

static int refuse(const struct rte_eth_dev_info *info, struct halo_port_setup *setup)
{
	int written = snprintf(setup->error, sizeof(setup->error),
			       "port %u (%s) can not spread frames over %u queues: ", setup->port, setup->device,
			       setup->queues);
	char *rest = setup->error + written;
	size_t room = sizeof(setup->error) - (size_t)written;

	if (setup->queues > info->max_rx_queues)
		snprintf(rest, room, "it has %u; write --spread software, or --queues %u", info->max_rx_queues,
			 info->max_rx_queues);
	else
		snprintf(rest, room, "it has no RSS for IPv4; write --spread software, or --queues 1");
	return -ENOTSUP;
}

/* Decide who spreads, and with how many queues the device is opened. */
int halo_queues_choose(struct halo_port *port, const struct rte_eth_dev_info *info, struct halo_port_setup *setup)
{
	bool able = setup->queues <= info->max_rx_queues && (setup->queues == 1 || device_spreads(info));

	if (setup->queues == 0 || setup->queues > HALO_MAX_QUEUES)
		return -EINVAL;
	port->queues = (uint16_t)setup->queues;
	port->rx_queues = (uint16_t)setup->queues;
	port->software = false;
	if (setup->queues > 1 &&
	    (setup->spread == HALO_SPREAD_SOFTWARE || (setup->spread == HALO_SPREAD_AUTO && !able)))
		use_software(port);
	else if (!able)
		return refuse(info, setup);
	return 0;
}

/* A device that promised queues and then refused them: true when we spread instead. */
bool halo_queues_fall_back(struct halo_port *port, const struct halo_port_setup *setup)
{
	if (port->software || setup->queues == 1 || setup->spread != HALO_SPREAD_AUTO)
		return false;
	use_software(port);
	return true;
}

void halo_queues_rss(const struct halo_port *port, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
	uint8_t length = info->hash_key_size ? info->hash_key_size : DEFAULT_KEY;
	size_t i;

	if (port->rx_queues < 2 || !(info->flow_type_rss_offloads & WANTED))
		return;
	for (i = 0; i < KEY_LIMIT; i++)
		symmetric_key[i] = i % 2 ? 0x5a : 0x6d;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	conf->rx_adv_conf.rss_conf.rss_hf = info->flow_type_rss_offloads & WANTED;
	if (length > KEY_LIMIT)
		return;
	conf->rx_adv_conf.rss_conf.rss_key = symmetric_key;
	conf->rx_adv_conf.rss_conf.rss_key_len = length;
}
