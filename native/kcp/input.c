/* SPDX-License-Identifier: Apache-2.0 */
/* What comes in: each datagram is one segment or several. Every length is somebody else's. */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "wire.h"

enum { FIRST_ACKS = 8 };

/* The newest acknowledgement of a datagram: the one that older segments are measured against. */
struct newest {
	bool any;
	uint32_t sn;
	uint32_t ts;
};

static void measure_rtt(struct halo_kcp *kcp, int32_t rtt)
{
	int64_t srtt = kcp->srtt_ms, var = kcp->rttvar_ms, delta = rtt - srtt, rto;

	if (srtt == 0) {
		srtt = rtt;
		var = rtt / 2;
	} else {
		var = (3 * var + (delta < 0 ? -delta : delta)) / 4;
		srtt = (7 * srtt + rtt) / 8;
		srtt = srtt < 1 ? 1 : srtt;
	}
	kcp->srtt_ms = (int32_t)srtt;
	kcp->rttvar_ms = (int32_t)var;
	rto = srtt + (4 * var > kcp->settings.interval_ms ? 4 * var : kcp->settings.interval_ms);
	rto = rto > kcp->min_rto_ms ? rto : kcp->min_rto_ms;
	kcp->rto_ms = rto < RTO_MAX_MS ? (uint32_t)rto : RTO_MAX_MS;
}

static void acknowledge(struct halo_kcp *kcp, uint32_t sn)
{
	struct out_slot *slot = out_slot(kcp, sn);

	if (!slot->segment)
		return;
	release_segment(kcp, slot->segment);
	slot->segment = NULL;
	kcp->in_flight--;
}

static bool in_flight(const struct halo_kcp *kcp, uint32_t sn)
{
	return after(sn, kcp->send_una) >= 0 && after(sn, kcp->send_next) < 0;
}

/* Everything before `una` has arrived. */
static void take_una(struct halo_kcp *kcp, uint32_t una)
{
	uint32_t count = after(una, kcp->send_una) > 0 ? una - kcp->send_una : 0;

	for (count = least(count, kcp->send_next - kcp->send_una); count > 0; count--)
		acknowledge(kcp, kcp->send_una++);
	while (kcp->send_una != kcp->send_next && !out_slot(kcp, kcp->send_una)->segment)
		kcp->send_una++;
}

static void take_ack(struct halo_kcp *kcp, const struct header *header, uint32_t now_ms, struct newest *newest)
{
	int32_t rtt = after(now_ms, header->ts);

	if (rtt >= 0)
		measure_rtt(kcp, rtt);
	if (in_flight(kcp, header->sn)) {
		acknowledge(kcp, header->sn);
		take_una(kcp, kcp->send_una);
	}
	if (newest->any &&
	    (after(header->sn, newest->sn) <= 0 || (kcp->settings.conserve && after(header->ts, newest->ts) <= 0)))
		return;
	*newest = (struct newest){true, header->sn, header->ts};
}

/* Segments before the newest acknowledged one were skipped once more. */
static void count_skipped(struct halo_kcp *kcp, const struct newest *newest)
{
	const struct halo_kcp_settings *settings = &kcp->settings;
	uint32_t enough = settings->early ? 1 : settings->resend, sn;

	if (!newest->any || enough == 0 || !in_flight(kcp, newest->sn))
		return;
	for (sn = kcp->send_una; sn != newest->sn; sn++) {
		struct out_slot *slot = out_slot(kcp, sn);

		if (!slot->segment || (settings->conserve && after(newest->ts, slot->ts) < 0))
			continue;
		if (++slot->skipped >= enough)
			kcp->look = true;
	}
}

static bool push_ack(struct halo_kcp *kcp, uint32_t sn, uint32_t ts)
{
	uint32_t limit = most(2 * kcp->settings.receive_window, 1024);

	if (kcp->ack_count == kcp->ack_room) {
		uint32_t room = kcp->ack_room ? 2 * kcp->ack_room : FIRST_ACKS;
		struct ack *acks;

		/* Who sends the same segments again and again gets no more acknowledgements than this at once. */
		if (kcp->ack_count >= limit)
			return false;
		acks = realloc(kcp->acks, room * sizeof(*acks));
		if (!acks)
			return false;
		kcp->octets += (room - kcp->ack_room) * sizeof(*acks);
		kcp->acks = acks;
		kcp->ack_room = room;
	}
	kcp->idle = false;
	kcp->acks[kcp->ack_count++] = (struct ack){sn, ts};
	return true;
}

static void borrow(struct halo_kcp *kcp, uint32_t sn, struct segment *segment, const uint8_t *payload)
{
	bool none = kcp->lent_from == kcp->lent_end;

	segment->octets = payload;
	if (none || after(kcp->lent_from, sn) > 0)
		kcp->lent_from = sn;
	if (none || after(sn, kcp->lent_end) >= 0)
		kcp->lent_end = sn + 1;
}

/* Keep a segment that is new. False: there was no memory, and it will come again. */
static bool keep(struct halo_kcp *kcp, const struct header *header, const uint8_t *payload)
{
	uint32_t end = header->sn + 1;
	struct segment *segment, **slot;

	if (halo_session_grow_in(kcp, after(end, kcp->receive_end) > 0 ? end : kcp->receive_end))
		return false;
	slot = in_slot(kcp, header->sn);
	if (*slot) {
		kcp->counters.repeated++;
		return true;
	}
	segment = take_segment(kcp, header->len);
	if (!segment)
		return false;
	segment->length = header->len;
	segment->frg = header->frg;
	if (kcp->borrows)
		borrow(kcp, header->sn, segment, payload);
	else if (header->len)
		memcpy(segment->payload, payload, header->len);
	*slot = segment;
	kcp->held++;
	if (after(end, kcp->receive_end) > 0)
		kcp->receive_end = end;
	return true;
}

static void take_push(struct halo_kcp *kcp, const struct header *header, const uint8_t *payload)
{
	if (after(header->sn, kcp->receive_next + kcp->settings.receive_window) >= 0)
		return;
	if (!kcp->pushed || after(header->ts, kcp->newest_ts) > 0) {
		kcp->pushed = 1;
		kcp->newest_ts = header->ts;
	}
	if (after(header->sn, kcp->receive_next) < 0) {
		kcp->counters.repeated++;
		push_ack(kcp, header->sn, header->ts);
		return;
	}
	if (!keep(kcp, header, payload))
		return;
	push_ack(kcp, header->sn, header->ts);
	advance(kcp);
}

static void take_one(struct halo_kcp *kcp, const struct header *header, const uint8_t *payload, uint32_t now_ms,
		     struct newest *newest)
{
	kcp->counters.in_segments++;
	kcp->remote_window = header->wnd;
	take_una(kcp, header->una);
	if (header->cmd == CMD_PUSH)
		take_push(kcp, header, payload);
	else if (header->cmd == CMD_ACK)
		take_ack(kcp, header, now_ms, newest);
	else if (header->cmd == CMD_WASK)
		kcp->probe |= PROBE_TELL;
}

/* What settings make urgent after a datagram. */
static void hurry(struct halo_kcp *kcp, bool moved)
{
	const struct halo_kcp_settings *settings = &kcp->settings;

	if (settings->flush_on_ack && (moved || kcp->look))
		kcp->urgent |= URGENT_ALL;
	if (kcp->ack_count &&
	    (settings->ack_no_delay || (settings->flush_on_ack && kcp->ack_count >= settings->mtu / kcp->header)))
		kcp->urgent |= URGENT_ACKS;
}

/* A datagram with a check is right as a whole, or nothing of it is taken. */
static int check_all(const struct halo_kcp *kcp, struct wire wire)
{
	const struct halo_kcp_settings *settings = &kcp->settings;
	struct header header;

	while (wire.left >= kcp->header) {
		int verdict = wire_parse(&wire, settings->format, settings->check, kcp->conv, &header);

		if (verdict == HALO_KCP_TAKEN && settings->check != HALO_KCP_CHECK_OFF)
			verdict = halo_wire_check(&wire, settings->check, &header);
		if (verdict != HALO_KCP_TAKEN)
			return verdict;
		wire.at += header.len;
		wire.left -= header.len;
	}
	return HALO_KCP_TAKEN;
}

static int take_all(struct halo_kcp *kcp, struct wire wire, uint32_t now_ms)
{
	uint32_t una = kcp->send_una;
	struct newest newest = {.any = false};
	struct header header;

	while (wire.left >= kcp->header) {
		int verdict = wire_parse(&wire, kcp->settings.format, kcp->settings.check, kcp->conv, &header);

		/* As the reference: what stands before has been taken. */
		if (verdict != HALO_KCP_TAKEN)
			return verdict;
		take_one(kcp, &header, wire.at, now_ms, &newest);
		wire.at += header.len;
		wire.left -= header.len;
	}
	count_skipped(kcp, &newest);
	if (after(kcp->send_una, una) > 0)
		kcp->congestion->acknowledged(kcp);
	hurry(kcp, after(kcp->send_una, una) > 0);
	return HALO_KCP_TAKEN;
}

int halo_kcp_input(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length, uint32_t now_ms)
{
	struct wire wire = {octets, length};
	int verdict = HALO_KCP_TAKEN;

	if (kcp->end != HALO_KCP_ALIVE)
		return HALO_KCP_ENDED;
	kcp->counters.in_packets++;
	kcp->counters.in_bytes += length;
	if (length < kcp->header)
		verdict = HALO_KCP_BAD_CONV;
	else if (kcp->settings.check != HALO_KCP_CHECK_OFF)
		verdict = check_all(kcp, wire);
	if (verdict == HALO_KCP_TAKEN)
		verdict = take_all(kcp, wire, now_ms);
	kcp->counters.in_errors += verdict != HALO_KCP_TAKEN;
	kcp->counters.check_errors += verdict == HALO_KCP_BAD_CHECK;
	return verdict;
}

/*
 * Whether only who takes part in the session can say this now. A copy of what was said before is no proof: what is new to
 * us must not be older than what we know, and what is not new (its acknowledgement may have gone to the old address) must
 * be newer.
 */
static bool is_new(const struct halo_kcp *kcp, const struct header *header)
{
	uint32_t window = kcp->settings.receive_window, ahead = header->sn - kcp->receive_next;
	int32_t newer = kcp->pushed ? after(header->ts, kcp->newest_ts) : 1;

	if (after(header->una, kcp->send_una) < 0 || after(header->una, kcp->send_next) > 0)
		return false;
	if (header->cmd == CMD_ACK)
		return in_flight(kcp, header->sn) && out_slot(kcp, header->sn)->segment;
	if (header->cmd != CMD_PUSH)
		return false;
	if (ahead < window && (after(header->sn, kcp->receive_end) >= 0 || !*in_slot(kcp, header->sn)))
		return newer >= 0;
	return newer > 0 && header->sn - (kcp->receive_next - window) < 2 * window;
}

bool halo_session_proves(const struct halo_kcp *kcp, const uint8_t *octets, uint64_t length)
{
	const struct halo_kcp_settings *settings = &kcp->settings;
	struct wire wire = {octets, length};
	struct header header;
	bool proof = false;

	if (check_all(kcp, wire) != HALO_KCP_TAKEN)
		return false;
	while (wire.left >= kcp->header) {
		if (wire_parse(&wire, settings->format, settings->check, kcp->conv, &header) != HALO_KCP_TAKEN)
			return false;
		proof = proof || is_new(kcp, &header);
		wire.at += header.len;
		wire.left -= header.len;
	}
	return proof;
}
