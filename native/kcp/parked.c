/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KCP's datagrams on a socket of a worker (native/fastpath/datagram.c), by bursts.
 *
 * Theory of operation. What a poll brings lies parked in the buffers that it came in. Those of one socket are found here in
 * one pass, and KCP takes their octets from where they are; they end when the worker releases them, after its Python has had
 * its turn. What is to be sent is given to the worker as one list, whose octets it copies into frames. Per datagram
 * there is no Python, and no copy but these two.
 */
#include <string.h>

#include <halo/fastpath.h>
#include <halo/kcp.h>
#include <halo/kcp_batch_def.h>
#include <halo/kcp_parked_def.h>

enum { IPV4 = 4 };

static struct halo_kcp_peer peer_of(uint64_t src)
{
	struct halo_kcp_peer peer = {.family = IPV4, .port = (uint16_t)src};
	uint32_t address = __builtin_bswap32((uint32_t)(src >> 16));

	memcpy(peer.address, &address, sizeof(address));
	return peer;
}

void halo_kcp_parked_find(struct halo_kcp_parked *parked, const struct halo_datagram *datagrams, uint32_t count,
			  uint32_t socket, const uint8_t *pool, uint32_t control)
{
	parked->count = 0;
	parked->control_count = 0;
	if (count > HALO_WIDE_BURST)
		count = HALO_WIDE_BURST;
	for (uint32_t i = 0; i < count; i++) {
		const struct halo_datagram *datagram = &datagrams[i];
		struct halo_kcp_incoming *one;

		if (datagram->socket != socket)
			continue;
		if (control && datagram->length == HALO_KCP_CONTROL_OCTETS)
			one = &parked->control[parked->control_count++];
		else
			one = &parked->incoming[parked->count++];
		*one = (struct halo_kcp_incoming){
			.octets = pool + datagram->offset,
			.length = datagram->length,
			.peer = peer_of(datagram->src),
		};
	}
}

uint32_t halo_kcp_outgoing_fill(struct halo_outgoing *outgoing, const struct halo_kcp_output *output,
				const struct halo_kcp_group *group)
{
	struct halo_kcp_peer peer;
	uint32_t count = 0, session = 0;
	uint64_t to = 0;

	for (uint32_t i = 0; i < output->count; i++) {
		const struct halo_kcp_datagram *datagram = &output->datagram[i];

		if (i == 0 || datagram->session != session) {
			uint32_t address;

			session = datagram->session;
			to = 0;
			if (!halo_kcp_group_peer(group, session, &peer) && peer.family == IPV4) {
				memcpy(&address, peer.address, sizeof(address));
				to = (uint64_t)__builtin_bswap32(address) << 16 | peer.port;
			}
		}
		if (to)
			outgoing[count++] = (struct halo_outgoing){
				.octets = datagram->octets,
				.to = to,
				.length = datagram->length,
			};
	}
	return count;
}
