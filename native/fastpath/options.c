/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPv4 options of packets that would be sent on (RFC 1812 5.3.13, RFC 791). Nearly none has any, and of those that do, most are
 * of no concern to a router: they go on as they are. Record route and timestamp want an entry of ours, and malformed ones an
 * ICMP error: Python does both, within the bound of errors. Source routes are refused.
 */
#include "octets.h"
#include "worker.h"

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_RECORD_ROUTE = 7,
	OPTION_TIMESTAMP = 68,
	OPTION_LOOSE_ROUTE = 131,
	OPTION_STRICT_ROUTE = 137,
};

enum judgement {
	HARMLESS,
	WANTS_AN_ENTRY,
	SOURCE_ROUTE,
	MALFORMED,
};

static enum judgement judge(const uint8_t *options, uint32_t octets)
{
	enum judgement found = HARMLESS;
	uint32_t i = 0;

	while (i < octets && options[i] != OPTION_END) {
		if (options[i] == OPTION_NOP) {
			i++;
			continue;
		}
		if (octets - i < 2 || options[i + 1] < 2 || options[i + 1] > octets - i)
			return MALFORMED;
		if (options[i] == OPTION_LOOSE_ROUTE || options[i] == OPTION_STRICT_ROUTE)
			return SOURCE_ROUTE;
		if (options[i] == OPTION_RECORD_ROUTE || options[i] == OPTION_TIMESTAMP)
			found = WANTS_AN_ENTRY;
		i += options[i + 1];
	}
	return found;
}

bool halo_options_let_pass(struct halo_worker *worker, struct halo_packet *packet)
{
	const uint8_t *ip = worker->pool + packet->offset + packet->l3_offset;
	uint8_t options[40]; /* a copy: what is judged is what was read once */
	uint32_t octets = packet->l4_offset - packet->l3_offset - 20u;

	memcpy(options, ip + 20, octets);
	switch (judge(options, octets)) {
	case HARMLESS:
		return true;
	case SOURCE_ROUTE:
		halo_punt_error(worker, packet, HALO_DROP_ipv4_source_route);
		return false;
	default:
		halo_punt_error(worker, packet, HALO_DROP_ipv4_options);
		return false;
	}
}
