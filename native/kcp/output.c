/* SPDX-License-Identifier: Apache-2.0 */
/* The batch that datagrams leave in. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

enum {
	FIRST_ROOM = 64 << 10,
	FIRST_DATAGRAMS = 64,
	MOST_ROOM = 1 << 30,
};

void halo_kcp_output_clear(struct halo_kcp_output *output)
{
	output->used = 0;
	output->count = 0;
}

void halo_kcp_output_free(struct halo_kcp_output *output)
{
	free(output->octets);
	free(output->datagram);
	*output = (struct halo_kcp_output){.by_reference = output->by_reference, .limit = output->limit};
}

/* Datagrams in the old octets are now in the new ones. */
static void rebase(struct halo_kcp_output *output, uint8_t *octets)
{
	uintptr_t from = (uintptr_t)output->octets;
	uint32_t i;

	for (i = 0; i < output->count; i++) {
		uintptr_t offset = (uintptr_t)output->datagram[i].octets - from;

		if (offset < output->used)
			output->datagram[i].octets = octets + offset;
	}
}

uint8_t *halo_output_reserve(struct halo_kcp_output *output, uint32_t octets)
{
	uint32_t room = most(output->room, FIRST_ROOM);
	uint8_t *grown;

	if (octets <= output->room - output->used)
		return output->octets + output->used;
	while (room - output->used < octets) {
		if (room >= MOST_ROOM)
			return NULL;
		room *= 2;
	}
	grown = malloc(room);
	if (!grown)
		return NULL;
	if (output->used)
		memcpy(grown, output->octets, output->used);
	rebase(output, grown);
	free(output->octets);
	output->octets = grown;
	output->room = room;
	return grown + output->used;
}

int halo_output_add(struct halo_kcp_output *output, const uint8_t *octets, uint32_t length)
{
	if (output->count == output->most) {
		uint32_t count = output->most ? 2 * output->most : FIRST_DATAGRAMS;
		struct halo_kcp_datagram *datagram = realloc(output->datagram, count * sizeof(*datagram));

		if (!datagram)
			return -ENOMEM;
		output->datagram = datagram;
		output->most = count;
	}
	output->datagram[output->count++] = (struct halo_kcp_datagram){octets, length, 0};
	return 0;
}

static bool is_inside(const struct halo_kcp_output *output, const uint8_t *octets)
{
	return (uintptr_t)octets - (uintptr_t)output->octets < output->used;
}

void halo_kcp_output_keep(struct halo_kcp_output *output, uint32_t from)
{
	uint32_t i;

	for (i = from; i < output->count; i++) {
		struct halo_kcp_datagram *datagram = &output->datagram[i];
		uint8_t *octets;

		if (is_inside(output, datagram->octets))
			continue;
		octets = halo_output_reserve(output, datagram->length);
		if (!octets) {
			output->count = i;
			return;
		}
		memcpy(octets, datagram->octets, datagram->length);
		datagram->octets = octets;
		output->used += datagram->length;
	}
}
