/* SPDX-License-Identifier: Apache-2.0 */
/* KCP's datagrams where they are parked in a worker, and as its socket sends them; see native/kcp/parked.c. */

/* What one poll has brought for one socket, until they are released; zeros at first. */
struct halo_kcp_parked {
	struct halo_kcp_incoming incoming[HALO_WIDE_BURST];
	struct halo_kcp_incoming control[HALO_WIDE_BURST];
	uint32_t count;
	uint32_t control_count;
};

/*
 * Find those of `socket` among `count` datagrams whose payloads are in `pool`; those of HALO_KCP_CONTROL_OCTETS stand
 * apart when `control` != 0.
 */
void halo_kcp_parked_find(struct halo_kcp_parked *parked, const struct halo_datagram *datagrams, uint32_t count,
			  uint32_t socket, const uint8_t *pool, uint32_t control);
/*
 * Say where the datagrams of `output` go: each to the peer of its session in `group`, if that is there and has an IPv4
 * address. There is room for output->count; returns how many stand in `outgoing`.
 */
uint32_t halo_kcp_outgoing_fill(struct halo_outgoing *outgoing, const struct halo_kcp_output *output,
				const struct halo_kcp_group *group);
