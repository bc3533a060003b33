/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session as octets, and back. Numbers are least significant octet first:
 *
 *   magic 4, version 4, length of all 8, CRC-32 of what follows 4
 *   settings, scalars, counters; acks that wait; segments out, by sn; segments in, by sn
 *
 * A segment is its length + 1 (0: a hole), then its fields, then its payload. What is read is checked field by field: the
 * CRC tells damage, not intent. Times are the clock's own, so the successor's must be the same clock.
 */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "wire.h"

enum {
	MAGIC = 0x50434b68, /* hKCP */
	VERSION = 2,
	PREFIX_OCTETS = 20,
	SETTINGS = sizeof(struct halo_kcp_settings) / 4,
	COUNTERS = sizeof(struct halo_kcp_counters) / 8,
};

/* Writes when there is room, counts in any case. */
struct writer {
	uint8_t *octets;
	uint64_t room;
	uint64_t used;
};

struct reader {
	const uint8_t *at;
	uint64_t left;
	bool bad;
};

static void write_octets(struct writer *writer, const void *octets, uint32_t length)
{
	if (length && writer->used + length <= writer->room)
		memcpy(writer->octets + writer->used, octets, length);
	writer->used += length;
}

static void write32(struct writer *writer, uint32_t value)
{
	value = htole32(value);
	write_octets(writer, &value, 4);
}

static void write64(struct writer *writer, uint64_t value)
{
	value = htole64(value);
	write_octets(writer, &value, 8);
}

static bool read_octets(struct reader *reader, void *octets, uint32_t length)
{
	if (reader->bad || length > reader->left) {
		reader->bad = true;
		return false;
	}
	if (length)
		memcpy(octets, reader->at, length);
	reader->at += length;
	reader->left -= length;
	return true;
}

static uint32_t read32(struct reader *reader)
{
	uint8_t octets[4];

	return read_octets(reader, octets, 4) ? get32(octets) : 0;
}

static uint64_t read64(struct reader *reader)
{
	uint8_t octets[8];

	return read_octets(reader, octets, 8) ? get64(octets) : 0;
}

/* The numbers of 32 bits of a session, in their order. */
static const uint16_t scalars[] = {
	offsetof(struct halo_kcp, end),           offsetof(struct halo_kcp, send_una),
	offsetof(struct halo_kcp, send_next),     offsetof(struct halo_kcp, send_end),
	offsetof(struct halo_kcp, remote_window), offsetof(struct halo_kcp, read_next),
	offsetof(struct halo_kcp, receive_next),  offsetof(struct halo_kcp, receive_end),
	offsetof(struct halo_kcp, read_offset),   offsetof(struct halo_kcp, srtt_ms),
	offsetof(struct halo_kcp, rttvar_ms),     offsetof(struct halo_kcp, rto_ms),
	offsetof(struct halo_kcp, window),        offsetof(struct halo_kcp, window_octets),
	offsetof(struct halo_kcp, threshold),     offsetof(struct halo_kcp, timed),
	offsetof(struct halo_kcp, urgent),        offsetof(struct halo_kcp, probe),
	offsetof(struct halo_kcp, flush_ms),      offsetof(struct halo_kcp, probe_ms),
	offsetof(struct halo_kcp, probe_wait_ms), offsetof(struct halo_kcp, pushed),
	offsetof(struct halo_kcp, newest_ts),
};

enum { SCALARS = sizeof(scalars) / sizeof(scalars[0]) };

static void write_scalars(struct writer *writer, const struct halo_kcp *kcp)
{
	const uint64_t *counter = (const uint64_t *)&kcp->counters;
	uint32_t i;

	write64(writer, kcp->conv);
	for (i = 0; i < SCALARS; i++)
		write32(writer, *(const uint32_t *)((const uint8_t *)kcp + scalars[i]));
	for (i = 0; i < COUNTERS; i++)
		write64(writer, counter[i]);
	write32(writer, kcp->ack_count);
	for (i = 0; i < kcp->ack_count; i++) {
		write32(writer, kcp->acks[i].sn);
		write32(writer, kcp->acks[i].ts);
	}
}

static void write_segment(struct writer *writer, const struct segment *segment)
{
	write32(writer, segment->length + 1);
	write32(writer, segment->frg);
	write_octets(writer, segment->octets, segment->length);
}

static void write_segments(struct writer *writer, const struct halo_kcp *kcp)
{
	uint32_t sn;

	for (sn = kcp->send_una; sn != kcp->send_end; sn++) {
		const struct out_slot *slot = out_slot(kcp, sn);

		if (!slot->segment) {
			write32(writer, 0);
			continue;
		}
		write_segment(writer, slot->segment);
		write32(writer, slot->ts);
		write32(writer, slot->resend_ms);
		write32(writer, slot->rto_ms);
		write32(writer, slot->skipped);
		write32(writer, slot->sends);
		write32(writer, slot->check);
	}
	for (sn = kcp->read_next; sn != kcp->receive_end; sn++) {
		if (*in_slot(kcp, sn))
			write_segment(writer, *in_slot(kcp, sn));
		else
			write32(writer, 0);
	}
}

uint64_t halo_kcp_export(const struct halo_kcp *kcp, uint8_t *octets, uint64_t room)
{
	const uint32_t *setting = (const uint32_t *)&kcp->settings;
	struct writer writer = {octets, room, PREFIX_OCTETS};
	uint32_t i;

	for (i = 0; i < SETTINGS; i++)
		write32(&writer, setting[i]);
	write_scalars(&writer, kcp);
	write_segments(&writer, kcp);
	if (writer.used > room || writer.used > UINT32_MAX)
		return writer.used;
	put32(octets, MAGIC);
	put32(octets + 4, VERSION);
	put64(octets + 8, writer.used);
	put32(octets + 16, halo_kcp_check_value(HALO_KCP_CHECK_CRC32, octets + PREFIX_OCTETS,
						(uint32_t)(writer.used - PREFIX_OCTETS)));
	return writer.used;
}

static bool read_prefix(struct reader *reader, uint64_t length)
{
	uint32_t magic = read32(reader), version = read32(reader);
	uint64_t told = read64(reader);
	uint32_t crc = read32(reader);

	return !reader->bad && magic == MAGIC && version == VERSION && told == length && length <= UINT32_MAX &&
	       crc == halo_kcp_check_value(HALO_KCP_CHECK_CRC32, reader->at, (uint32_t)reader->left);
}

static bool read_acks(struct reader *reader, struct halo_kcp *kcp)
{
	uint32_t count = read32(reader), i;

	if (reader->bad || count > reader->left / 8)
		return false;
	if (count == 0)
		return true;
	kcp->acks = calloc(count, sizeof(*kcp->acks));
	if (!kcp->acks)
		return false;
	for (i = 0; i < count; i++) {
		kcp->acks[i].sn = read32(reader);
		kcp->acks[i].ts = read32(reader);
	}
	kcp->ack_count = kcp->ack_room = count;
	kcp->octets += count * sizeof(*kcp->acks);
	return true;
}

/* Everything that other fields are measured against. */
static bool are_sane(const struct halo_kcp *kcp)
{
	return kcp->end <= HALO_KCP_CLOSED && kcp->send_next - kcp->send_una <= HALO_KCP_MAX_WINDOW &&
	       kcp->send_end - kcp->send_next <= HALO_KCP_MAX_QUEUE &&
	       kcp->send_end - kcp->send_una <= HALO_KCP_MAX_QUEUE && kcp->remote_window <= HALO_KCP_MAX_WINDOW &&
	       kcp->receive_next - kcp->read_next <= HALO_KCP_MAX_WINDOW &&
	       kcp->receive_end - kcp->receive_next <= HALO_KCP_MAX_WINDOW && kcp->srtt_ms >= 0 &&
	       kcp->rttvar_ms >= 0 && kcp->rto_ms <= RTO_MAX_MS && kcp->probe_wait_ms <= PROBE_MOST_MS;
}

static bool read_scalars(struct reader *reader, struct halo_kcp *kcp)
{
	uint64_t *counter = (uint64_t *)&kcp->counters;
	uint32_t i;

	for (i = 0; i < SCALARS; i++)
		*(uint32_t *)((uint8_t *)kcp + scalars[i]) = read32(reader);
	for (i = 0; i < COUNTERS; i++)
		counter[i] = read64(reader);
	return !reader->bad && are_sane(kcp) && read_acks(reader, kcp);
}

/* The next segment, NULL where there is a hole, or when reader->bad. */
static struct segment *read_segment(struct reader *reader, struct halo_kcp *kcp)
{
	uint32_t length = read32(reader), capacity;
	struct segment *segment;

	if (length-- == 0)
		return NULL;
	/* Stream mode appends up to the mss. */
	capacity = kcp->settings.stream ? most(length, kcp->mss) : length;
	segment = length <= reader->left ? take_segment(kcp, capacity) : NULL;
	if (!segment) {
		reader->bad = true;
		return NULL;
	}
	segment->length = length;
	segment->frg = (uint8_t)read32(reader);
	read_octets(reader, segment->payload, length);
	return segment;
}

static bool read_out(struct reader *reader, struct halo_kcp *kcp)
{
	uint32_t end = kcp->send_end, sn;

	/* Not more slots than there are octets to fill them. */
	if (end - kcp->send_una > reader->left / 4)
		return false;
	kcp->send_end = kcp->send_una;
	if (end != kcp->send_una && halo_session_grow_out(kcp, end))
		return false;
	for (sn = kcp->send_una; sn != end; sn++) {
		bool waits = after(sn, kcp->send_next) >= 0;
		struct out_slot *slot = out_slot(kcp, sn);

		slot->segment = read_segment(reader, kcp);
		if (!slot->segment) {
			if (reader->bad || waits || sn == kcp->send_una)
				return false;
			continue;
		}
		slot->ts = read32(reader);
		slot->resend_ms = read32(reader);
		slot->rto_ms = read32(reader);
		slot->skipped = read32(reader);
		slot->sends = read32(reader);
		slot->check = read32(reader);
		if (reader->bad || slot->rto_ms > RTO_MAX_MS || (slot->sends == 0) != waits)
			return false;
		kcp->in_flight += !waits;
	}
	kcp->send_end = end;
	return true;
}

static bool read_in(struct reader *reader, struct halo_kcp *kcp)
{
	uint32_t end = kcp->receive_end, sn;

	if (end - kcp->read_next > reader->left / 4)
		return false;
	kcp->receive_end = kcp->read_next;
	if (end != kcp->read_next && halo_session_grow_in(kcp, end))
		return false;
	for (sn = kcp->read_next; sn != end; sn++) {
		bool unread = after(sn, kcp->receive_next) < 0;
		struct segment *segment = read_segment(reader, kcp);

		*in_slot(kcp, sn) = segment;
		if (reader->bad || (unread && !segment))
			return false;
		if (unread)
			kcp->unread_octets += segment->length;
		else
			kcp->held += segment != NULL;
	}
	/* The end is where the last one that came ends: who has nothing behind a gap forgets where that was. */
	if (end != kcp->read_next && !*in_slot(kcp, end - 1))
		return false;
	kcp->receive_end = end;
	if (kcp->read_offset == 0)
		return true;
	if (kcp->read_next == kcp->receive_next || kcp->read_offset >= (*in_slot(kcp, kcp->read_next))->length)
		return false;
	kcp->unread_octets -= kcp->read_offset;
	return true;
}

struct halo_kcp *halo_kcp_import(const uint8_t *octets, uint64_t length)
{
	struct reader reader = {octets, length, false};
	struct halo_kcp_settings settings;
	uint32_t *setting = (uint32_t *)&settings, i;
	struct halo_kcp *kcp;

	if (!read_prefix(&reader, length))
		return NULL;
	for (i = 0; i < SETTINGS; i++)
		setting[i] = read32(&reader);
	kcp = halo_kcp_create(read64(&reader), &settings);
	if (!kcp)
		return NULL;
	if (!read_scalars(&reader, kcp) || !read_out(&reader, kcp) || !read_in(&reader, kcp) || reader.left > 0) {
		halo_kcp_free(kcp);
		return NULL;
	}
	advance(kcp);
	kcp->look = true;
	return kcp;
}
