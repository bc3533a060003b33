/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment's header. Octets, least significant first:
 *
 *   classic: conv 4, cmd 1, frg 1, wnd 2, ts 4, sn 4, una 4, len 4
 *   halo:    conv 8, and the same; with a check, 4 octets of it behind len
 *
 * The check is over the payload of a PUSH; other segments carry 0.
 */
#ifndef HALO_KCP_WIRE_H
#define HALO_KCP_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include <halo/kcp.h>

enum command {
	CMD_PUSH = 81,
	CMD_ACK = 82,
	CMD_WASK = 83, /* asks for the window */
	CMD_WINS = 84, /* tells it */
};

struct header {
	uint64_t conv;
	uint8_t cmd;
	uint8_t frg;
	uint16_t wnd;
	uint32_t ts;
	uint32_t sn;
	uint32_t una;
	uint32_t len;
	uint32_t check;
};

/* What of a datagram is left to parse. */
struct wire {
	const uint8_t *at;
	uint64_t left;
};

static inline uint32_t wire_header_octets(uint32_t format, uint32_t check)
{
	return (format == HALO_KCP_HALO ? 28 : 24) + (check == HALO_KCP_CHECK_OFF ? 0 : 4);
}

static inline uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, 4);
	return le32toh(value);
}

static inline uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, 8);
	return le64toh(value);
}

static inline uint8_t *put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, 4);
	return at + 4;
}

static inline uint8_t *put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, 8);
	return at + 8;
}

/* Write header->check only where the format has one. Returns what follows. */
static inline uint8_t *wire_emit(uint8_t *at, uint32_t format, uint32_t check, const struct header *header)
{
	at = format == HALO_KCP_HALO ? put64(at, header->conv) : put32(at, (uint32_t)header->conv);
	at = put32(at, (uint32_t)header->cmd | (uint32_t)header->frg << 8 | (uint32_t)header->wnd << 16);
	at = put32(at, header->ts);
	at = put32(at, header->sn);
	at = put32(at, header->una);
	at = put32(at, header->len);
	return check == HALO_KCP_CHECK_OFF ? at : put32(at, header->check);
}

/* Parse the header at wire->at, which has room for it; the payload is what follows, and is there. Returns a verdict. */
static inline int wire_parse(struct wire *wire, uint32_t format, uint32_t check, uint64_t conv, struct header *header)
{
	const uint8_t *at = wire->at;
	uint32_t word;

	header->conv = format == HALO_KCP_HALO ? get64(at) : get32(at);
	if (header->conv != conv)
		return HALO_KCP_BAD_CONV;
	at += format == HALO_KCP_HALO ? 8 : 4;
	word = get32(at);
	header->cmd = (uint8_t)word;
	header->frg = (uint8_t)(word >> 8);
	header->wnd = (uint16_t)(word >> 16);
	header->ts = get32(at + 4);
	header->sn = get32(at + 8);
	header->una = get32(at + 12);
	header->len = get32(at + 16);
	at += 20;
	if (check != HALO_KCP_CHECK_OFF) {
		header->check = get32(at);
		at += 4;
	}
	wire->left -= (uint64_t)(at - wire->at);
	wire->at = at;
	if (header->len > wire->left || header->len > INT32_MAX)
		return HALO_KCP_BAD_LENGTH;
	if (header->cmd < CMD_PUSH || header->cmd > CMD_WINS)
		return HALO_KCP_BAD_COMMAND;
	return HALO_KCP_TAKEN;
}

/* Whether the payload at wire->at is what the header says it is. */
int halo_wire_check(const struct wire *wire, uint32_t check, const struct header *header);

#endif
