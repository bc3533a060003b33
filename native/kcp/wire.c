/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>

int halo_wire_check(const struct wire *wire, uint32_t check, const struct header *header)
{
	uint32_t right = header->cmd == CMD_PUSH ? halo_kcp_check_value(check, wire->at, header->len) : 0;

	return header->check == right ? HALO_KCP_TAKEN : HALO_KCP_BAD_CHECK;
}

int halo_kcp_conv(uint32_t format, const uint8_t *octets, uint64_t length, uint64_t *conv)
{
	if (length < wire_header_octets(format, HALO_KCP_CHECK_OFF))
		return -EINVAL;
	*conv = format == HALO_KCP_HALO ? get64(octets) : get32(octets);
	return 0;
}
