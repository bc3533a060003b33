/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves, and when. Segments of one flush share datagrams, in this order: acks, WASK, WINS, data by sn. */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "wire.h"

/* One flush. `header` is what all its segments have in common. */
struct flush {
	struct halo_kcp *kcp;
	struct halo_kcp_output *output;
	struct header header;
	uint32_t now_ms;
	uint32_t size; /* octets of the datagram that is being filled: the last ones used in the output */
	bool fresh;    /* segments are sent for the first time */
	bool resent;
	bool lost;
	bool dead;
};

static void count_datagram(struct flush *flush, uint32_t octets)
{
	flush->kcp->counters.out_packets++;
	flush->kcp->counters.out_bytes += octets;
}

static void end_datagram(struct flush *flush)
{
	struct halo_kcp_output *output = flush->output;

	if (flush->size == 0)
		return;
	if (halo_output_add(output, output->octets + output->used - flush->size, flush->size))
		output->used -= flush->size;
	else
		count_datagram(flush, flush->size);
	flush->size = 0;
}

/* Where a segment of so many octets goes; NULL: no memory, it is as good as lost. */
static uint8_t *place(struct flush *flush, uint32_t octets)
{
	uint8_t *at;

	if (flush->size + octets > flush->kcp->settings.mtu)
		end_datagram(flush);
	at = halo_output_reserve(flush->output, octets);
	if (!at)
		return NULL;
	flush->output->used += octets;
	flush->size += octets;
	return at;
}

static uint8_t *put_header(const struct flush *flush, uint8_t *at)
{
	const struct halo_kcp_settings *settings = &flush->kcp->settings;

	flush->kcp->counters.out_segments++;
	return wire_emit(at, settings->format, settings->check, &flush->header);
}

static void put_control(struct flush *flush, uint8_t command)
{
	uint8_t *at = place(flush, flush->kcp->header);

	flush->header.cmd = command;
	if (at)
		put_header(flush, at);
}

static void put_acks(struct flush *flush)
{
	struct halo_kcp *kcp = flush->kcp;
	uint32_t i;

	for (i = 0; i < kcp->ack_count; i++) {
		flush->header.sn = kcp->acks[i].sn;
		flush->header.ts = kcp->acks[i].ts;
		put_control(flush, CMD_ACK);
	}
	kcp->ack_count = 0;
}

/* While the peer has no window it is asked for it, ever more rarely. */
static void probe_window(struct halo_kcp *kcp, uint32_t now_ms)
{
	if (kcp->remote_window > 0) {
		kcp->probe_wait_ms = 0;
		return;
	}
	if (kcp->probe_wait_ms == 0) {
		kcp->probe_wait_ms = kcp->settings.probe_ms ? kcp->settings.probe_ms : PROBE_FIRST_MS;
	} else {
		if (after(now_ms, kcp->probe_ms) < 0)
			return;
		kcp->probe_wait_ms = least(kcp->probe_wait_ms + most(kcp->probe_wait_ms / 2, 1), PROBE_MOST_MS);
		kcp->probe |= PROBE_ASK;
	}
	kcp->probe_ms = now_ms + kcp->probe_wait_ms;
}

static void put_probes(struct flush *flush)
{
	struct halo_kcp *kcp = flush->kcp;

	if (kcp->probe & PROBE_ASK)
		put_control(flush, CMD_WASK);
	if (kcp->probe & PROBE_TELL)
		put_control(flush, CMD_WINS);
	kcp->probe = 0;
}

/* A full segment is a datagram where it lies. True: it went that way. */
static bool put_reference(struct flush *flush, struct segment *segment, uint32_t octets)
{
	struct halo_kcp *kcp = flush->kcp;
	uint8_t *at = segment->header + HEADER_ROOM - kcp->header;

	if (!flush->output->by_reference || octets + kcp->header <= kcp->settings.mtu ||
	    (flush->size && flush->size + octets <= kcp->settings.mtu))
		return false;
	end_datagram(flush);
	put_header(flush, at);
	if (halo_output_add(flush->output, at, octets) == 0)
		count_datagram(flush, octets);
	return true;
}

static void put_data(struct flush *flush, uint32_t sn, struct out_slot *slot)
{
	struct halo_kcp *kcp = flush->kcp;
	struct segment *segment = slot->segment;
	uint32_t octets = kcp->header + segment->length;
	uint8_t *at;

	if (kcp->settings.check != HALO_KCP_CHECK_OFF && slot->sends == 1)
		slot->check = halo_kcp_check_value(kcp->settings.check, segment->payload, segment->length);
	slot->ts = flush->now_ms;
	flush->header.cmd = CMD_PUSH;
	flush->header.frg = segment->frg;
	flush->header.ts = flush->now_ms;
	flush->header.sn = sn;
	flush->header.len = segment->length;
	flush->header.check = slot->check;
	flush->dead |= slot->sends >= kcp->settings.dead_link;
	if (put_reference(flush, segment, octets))
		return;
	at = place(flush, octets);
	if (!at)
		return;
	at = put_header(flush, at);
	if (segment->length)
		memcpy(at, segment->payload, segment->length);
}

/* Let the windows reach further. Returns the first sn that was not in flight. */
static uint32_t open_window(struct halo_kcp *kcp, uint32_t window)
{
	uint32_t first = kcp->send_next, end = kcp->send_una + window;

	if (after(end, kcp->send_end) > 0)
		end = kcp->send_end;
	if (after(end, first) <= 0)
		return first;
	kcp->in_flight += end - first;
	kcp->send_next = end;
	return first;
}

static void send_first(struct flush *flush, uint32_t sn, struct out_slot *slot)
{
	struct halo_kcp *kcp = flush->kcp;

	slot->sends = 1;
	slot->rto_ms = kcp->rto_ms;
	slot->resend_ms = flush->now_ms + slot->rto_ms + (kcp->settings.nodelay ? 0 : kcp->rto_ms >> 3);
	put_data(flush, sn, slot);
}

static uint32_t longer_rto(const struct halo_kcp *kcp, uint32_t rto_ms)
{
	if (kcp->settings.nodelay == 0)
		rto_ms += most(rto_ms, kcp->rto_ms);
	else
		rto_ms += (kcp->settings.nodelay == 1 ? rto_ms : kcp->rto_ms) / 2;
	return least(rto_ms, RTO_MAX_MS);
}

/* Enough later ones were acknowledged, and it was not sent too often. */
static bool skipped_enough(const struct halo_kcp *kcp, const struct out_slot *slot, bool early)
{
	const struct halo_kcp_settings *settings = &kcp->settings;
	uint32_t enough = early ? 1 : settings->resend;

	if (enough == 0 || slot->skipped < enough)
		return false;
	return settings->fast_limit == 0 || slot->sends <= settings->fast_limit;
}

static void send_lost(struct flush *flush, uint32_t sn, struct out_slot *slot)
{
	slot->rto_ms = longer_rto(flush->kcp, slot->rto_ms);
	flush->lost = true;
	flush->kcp->counters.lost++;
	flush->kcp->counters.retransmitted++;
	slot->sends++;
	slot->resend_ms = flush->now_ms + slot->rto_ms;
	put_data(flush, sn, slot);
}

static void send_skipped(struct flush *flush, uint32_t sn, struct out_slot *slot)
{
	struct halo_kcp_counters *counters = &flush->kcp->counters;
	bool fast = skipped_enough(flush->kcp, slot, false);

	counters->fast += fast;
	counters->early += !fast;
	counters->retransmitted++;
	flush->resent = true;
	slot->skipped = 0;
	slot->sends++;
	slot->resend_ms = flush->now_ms + slot->rto_ms;
	put_data(flush, sn, slot);
}

/* Go through those in flight, and know afterwards when that is needed again. */
static void send_again(struct flush *flush, uint32_t end)
{
	struct halo_kcp *kcp = flush->kcp;
	bool early = kcp->settings.early && !flush->fresh;
	uint32_t sn;

	kcp->look = false;
	kcp->resend_ms = flush->now_ms + RTO_MAX_MS + (RTO_MAX_MS >> 3);
	for (sn = kcp->send_una; sn != end; sn++) {
		struct out_slot *slot = out_slot(kcp, sn);

		if (!slot->segment)
			continue;
		if (after(flush->now_ms, slot->resend_ms) >= 0)
			send_lost(flush, sn, slot);
		else if (skipped_enough(kcp, slot, false) || (early && skipped_enough(kcp, slot, true)))
			send_skipped(flush, sn, slot);
		kcp->look |= skipped_enough(kcp, slot, kcp->settings.early);
		if (after(slot->resend_ms, kcp->resend_ms) < 0)
			kcp->resend_ms = slot->resend_ms;
	}
}

static void send_data(struct flush *flush)
{
	struct halo_kcp *kcp = flush->kcp;
	bool none = kcp->in_flight == 0;
	uint32_t window = send_window(kcp), first = open_window(kcp, window), sn;

	flush->fresh = first != kcp->send_next;
	if (!none && (kcp->look || after(flush->now_ms, kcp->resend_ms) >= 0))
		send_again(flush, first);
	for (sn = first; sn != kcp->send_next; sn++)
		send_first(flush, sn, out_slot(kcp, sn));
	if (flush->fresh) {
		uint32_t resend_ms = out_slot(kcp, first)->resend_ms;

		if (none || after(resend_ms, kcp->resend_ms) < 0)
			kcp->resend_ms = resend_ms;
	}
	end_datagram(flush);
	if (flush->resent)
		kcp->congestion->resent(kcp);
	if (flush->lost)
		kcp->congestion->lost(kcp, window);
	kcp->congestion->flushed(kcp);
}

void halo_session_flush(struct halo_kcp *kcp, uint32_t now_ms, bool all, struct halo_kcp_output *output)
{
	struct flush flush = {
		.kcp = kcp,
		.output = output,
		.now_ms = now_ms,
		.header = {.conv = kcp->conv, .wnd = (uint16_t)free_window(kcp), .una = kcp->receive_next},
	};

	put_acks(&flush);
	if (!all) {
		end_datagram(&flush);
		return;
	}
	probe_window(kcp, now_ms);
	put_probes(&flush);
	send_data(&flush);
	if (flush.dead)
		kcp->end = HALO_KCP_DEAD_LINK;
}

static bool is_empty(const struct halo_kcp *kcp)
{
	return kcp->send_una == kcp->send_end && kcp->read_next == kcp->receive_next && kcp->held == 0 &&
	       kcp->ack_count == 0;
}

static bool has_room(const struct halo_kcp *kcp)
{
	return kcp->out_slots > 0 || kcp->in_slots > 0 || kcp->ack_room > 0 || kcp->own_pool.octets > 0;
}

/* Give the memory of queues back that were empty for a while. */
static void rest(struct halo_kcp *kcp, uint32_t now_ms)
{
	if (!is_empty(kcp) || !has_room(kcp)) {
		kcp->idle = false;
		return;
	}
	if (!kcp->idle) {
		kcp->idle = true;
		kcp->idle_ms = now_ms;
	}
	if (now_ms - kcp->idle_ms < IDLE_MS)
		return;
	free(kcp->out);
	free(kcp->in);
	free(kcp->acks);
	kcp->out = NULL;
	kcp->in = NULL;
	kcp->acks = NULL;
	kcp->out_slots = kcp->in_slots = kcp->ack_room = 0;
	kcp->octets = 0;
	halo_pool_clear(&kcp->own_pool);
}

/* Whether an interval has begun; the next one begins then. */
static bool begin_interval(struct halo_kcp *kcp, uint32_t now_ms)
{
	int32_t late;

	if (!kcp->timed) {
		kcp->timed = true;
		kcp->flush_ms = now_ms;
	}
	late = after(now_ms, kcp->flush_ms);
	if (late >= CLOCK_JUMP_MS || late < -CLOCK_JUMP_MS) {
		kcp->flush_ms = now_ms;
		late = 0;
	}
	if (late < 0)
		return false;
	kcp->flush_ms += kcp->settings.interval_ms;
	if (after(now_ms, kcp->flush_ms) >= 0)
		kcp->flush_ms = now_ms + kcp->settings.interval_ms;
	return true;
}

uint32_t halo_kcp_poll(struct halo_kcp *kcp, uint32_t now_ms, struct halo_kcp_output *output)
{
	uint32_t count = output->count;
	bool all;

	if (kcp->end != HALO_KCP_ALIVE)
		return 0;
	all = begin_interval(kcp, now_ms) || (kcp->urgent & URGENT_ALL);
	if (all || kcp->urgent)
		halo_session_flush(kcp, now_ms, all, output);
	kcp->urgent = 0;
	rest(kcp, now_ms);
	return output->count - count;
}

static uint32_t until(uint32_t then_ms, uint32_t now_ms)
{
	return after(then_ms, now_ms) > 0 ? then_ms - now_ms : 0;
}

/* Something leaves at the next flush, whenever that is. */
static bool is_pending(const struct halo_kcp *kcp)
{
	uint32_t window;

	if (kcp->ack_count || kcp->probe || (kcp->look && kcp->in_flight) ||
	    (kcp->remote_window == 0) != (kcp->probe_wait_ms > 0))
		return true;
	/* A window of congestion that was not opened yet opens at a flush. */
	window = least(least(kcp->settings.send_window, kcp->remote_window), most(kcp->congestion->window(kcp), 1));
	return kcp->send_next != kcp->send_end && after(kcp->send_una + window, kcp->send_next) > 0;
}

uint32_t halo_kcp_next(const struct halo_kcp *kcp, uint32_t now_ms)
{
	uint32_t flush_ms = 0, next = HALO_KCP_NO_DEADLINE;

	if (kcp->end != HALO_KCP_ALIVE)
		return next;
	if (kcp->urgent)
		return 0;
	if (kcp->timed) {
		flush_ms = until(kcp->flush_ms, now_ms);
		if (flush_ms > CLOCK_JUMP_MS)
			flush_ms = 0;
	}
	if (is_pending(kcp))
		return flush_ms;
	if (kcp->in_flight)
		next = until(kcp->resend_ms, now_ms);
	if (kcp->probe_wait_ms)
		next = least(next, until(kcp->probe_ms, now_ms));
	if (has_room(kcp) && is_empty(kcp))
		next = least(next, kcp->idle ? until(kcp->idle_ms + IDLE_MS, now_ms) : 0);
	return next == HALO_KCP_NO_DEADLINE ? next : most(next, flush_ms);
}
