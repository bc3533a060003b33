/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A message is cut into segments of at most mss octets, or in stream mode appended to the last one that waits. A segment
 * gets its sn when it is written; it leaves when the windows (ours, the peer's, that of congestion) reach it, and again
 * each time that it is due until it is acknowledged, by its own ack or by a una beyond it. It is due when its time-out has
 * passed (lost), or when `resend` datagrams with acknowledgements of later ones have come (fast).
 *
 * The receiver acknowledges each segment within its window, keeps what is new, and lets the application read what has no
 * gap. Each header tells the window that is left. When that is none, the peer asks for it (WASK) after 7 s, and then ever
 * more rarely up to 120 s, and is told (WINS); who reads from a full window tells it without being asked.
 *
 * All that leaves, leaves in a flush: at each interval, or at the next poll when settings say that it is urgent.
 *
 *   send() ── slots ──► flush() ──► datagrams ··· input() ── slots ──► receive()
 *                          ▲                         │
 *                          └── acks, una, window ────┘
 *
 * Where the reference walks lists, there are two arrays here, indexed by sn: an acknowledgement, a segment that comes in,
 * and one that was there before, cost the same whatever the windows. `resend_ms` and `look` say when a flush has to go
 * through those in flight; else it touches the new ones only. What is acknowledged out of order leaves a hole.
 *
 *   out:  send_una ─ in flight, with holes ─ send_next ─ waiting ─ send_end
 *   in:   read_next ─ for the application ─ receive_next ─ with gaps ─ receive_end
 *
 * Arrays grow with what is in them, and are given back when they have been empty for a second.
 *
 * Octets, verdicts and times are the reference's (PyPI kcp 0.1.6) for the same settings and calls; docs/kcp.md lists
 * where we differ on purpose. Sequence numbers and times are compared as differences, so they may wrap at any moment.
 */
#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

void halo_kcp_settings_default(struct halo_kcp_settings *settings)
{
	*settings = (struct halo_kcp_settings){
		.format = HALO_KCP_CLASSIC,
		.check = HALO_KCP_CHECK_OFF,
		.mtu = 1400,
		.send_window = 32,
		.receive_window = 128,
		.interval_ms = 100,
		.fast_limit = 5,
		.congestion = HALO_KCP_CONGESTION_CLASSIC,
		.dead_link = 20,
		.most_fragments = HALO_KCP_MAX_FRAGMENTS,
		.write_delay = 1,
	};
}

const char *halo_kcp_settings_check(const struct halo_kcp_settings *settings)
{
	const struct {
		const char *name;
		uint32_t value, from, to;
	} limit[] = {
		{"format", settings->format, HALO_KCP_CLASSIC, HALO_KCP_HALO},
		{"check", settings->check, HALO_KCP_CHECK_OFF, HALO_KCP_CHECK_XXH3},
		{"mtu", settings->mtu, HALO_KCP_MIN_MTU, HALO_KCP_MAX_MTU},
		{"send_window", settings->send_window, 1, HALO_KCP_MAX_WINDOW},
		{"receive_window", settings->receive_window, 1, HALO_KCP_MAX_WINDOW},
		{"interval_ms", settings->interval_ms, 1, 5000},
		{"nodelay", settings->nodelay, 0, 2},
		{"min_rto_ms", settings->min_rto_ms, 0, RTO_MAX_MS},
		{"congestion", settings->congestion, 0, HALO_KCP_CONGESTION_COUNT - 1},
		{"dead_link", settings->dead_link, 1, UINT32_MAX},
		{"probe_ms", settings->probe_ms, 0, PROBE_MOST_MS},
		{"most_fragments", settings->most_fragments, 1, HALO_KCP_MAX_FRAGMENTS},
		{"reserved", settings->reserved, 0, 0},
	};
	uint32_t i;

	for (i = 0; i < sizeof(limit) / sizeof(limit[0]); i++)
		if (limit[i].value < limit[i].from || limit[i].value > limit[i].to)
			return limit[i].name;
	return NULL;
}

void halo_session_apply(struct halo_kcp *kcp, const struct halo_kcp_settings *settings)
{
	kcp->settings = *settings;
	kcp->header = wire_header_octets(settings->format, settings->check);
	kcp->mss = settings->mtu - kcp->header;
	kcp->min_rto_ms = settings->min_rto_ms;
	if (settings->min_rto_ms == 0)
		kcp->min_rto_ms = settings->nodelay ? RTO_NODELAY_MS : RTO_MIN_MS;
	kcp->congestion = halo_congestion_find(settings->congestion);
	kcp->look = true;
}

struct halo_kcp *halo_kcp_create(uint64_t conv, const struct halo_kcp_settings *settings)
{
	struct halo_kcp *kcp;

	if (halo_kcp_settings_check(settings) || (settings->format == HALO_KCP_CLASSIC && conv > UINT32_MAX))
		return NULL;
	kcp = calloc(1, sizeof(*kcp));
	if (!kcp)
		return NULL;
	kcp->conv = conv;
	kcp->pool = &kcp->own_pool;
	kcp->remote_window = REMOTE_WINDOW;
	kcp->rto_ms = RTO_DEFAULT_MS;
	kcp->threshold = 2;
	halo_session_apply(kcp, settings);
	return kcp;
}

int halo_kcp_start(struct halo_kcp *kcp, uint32_t send_next, uint32_t receive_next)
{
	if (kcp->out_slots || kcp->in_slots || kcp->timed)
		return -EBUSY;
	kcp->send_una = kcp->send_next = kcp->send_end = send_next;
	kcp->read_next = kcp->receive_next = kcp->receive_end = receive_next;
	return 0;
}

int halo_kcp_change(struct halo_kcp *kcp, const struct halo_kcp_settings *settings)
{
	if (halo_kcp_settings_check(settings) || settings->format != kcp->settings.format ||
	    settings->check != kcp->settings.check)
		return -EINVAL;
	halo_session_apply(kcp, settings);
	halo_kcp_allow(kcp, kcp->allowance);
	return 0;
}

void halo_kcp_settings_read(const struct halo_kcp *kcp, struct halo_kcp_settings *settings)
{
	*settings = kcp->settings;
}

static void release_all(struct halo_kcp *kcp)
{
	uint32_t i;

	for (i = 0; i < kcp->out_slots; i++)
		if (kcp->out[i].segment)
			pool_give(kcp->pool, kcp->out[i].segment);
	for (i = 0; i < kcp->in_slots; i++)
		if (kcp->in[i])
			pool_give(kcp->pool, kcp->in[i]);
}

void halo_kcp_free(struct halo_kcp *kcp)
{
	if (!kcp)
		return;
	release_all(kcp);
	halo_pool_clear(&kcp->own_pool);
	free(kcp->out);
	free(kcp->in);
	free(kcp->acks);
	free(kcp);
}

void halo_kcp_close(struct halo_kcp *kcp)
{
	if (kcp->end == HALO_KCP_ALIVE)
		kcp->end = HALO_KCP_CLOSED;
}

void halo_session_use_pool(struct halo_kcp *kcp, struct pool *pool)
{
	halo_pool_clear(&kcp->own_pool);
	kcp->pool = pool ? pool : &kcp->own_pool;
}

void halo_session_borrow(struct halo_kcp *kcp)
{
	kcp->borrows = true;
}

/* Of the segment behind this one, which is copied next: too short a run for the processor to see it coming. */
static void prefetch_copy(const struct segment *segment)
{
	uint32_t at;

	if (!segment || segment->octets == segment->payload)
		return;
	for (at = 0; at < segment->length; at += LINE) {
		__builtin_prefetch(segment->octets + at);
		__builtin_prefetch(segment->payload + at, 1);
	}
}

void halo_session_settle(struct halo_kcp *kcp)
{
	uint32_t sn = after(kcp->read_next, kcp->lent_from) > 0 ? kcp->read_next : kcp->lent_from;

	kcp->borrows = false;
	if (kcp->lent_from == kcp->lent_end)
		return;
	for (; after(kcp->lent_end, sn) > 0; sn++) {
		struct segment *segment = *in_slot(kcp, sn);

		if (!segment || segment->octets == segment->payload)
			continue;
		if (sn + 1 != kcp->lent_end)
			prefetch_copy(*in_slot(kcp, sn + 1));
		if (segment->length)
			memcpy(segment->payload, segment->octets, segment->length);
		segment->octets = segment->payload;
	}
	kcp->lent_from = kcp->lent_end;
}

static uint32_t slots_for(uint32_t slots, uint32_t wanted)
{
	slots = most(slots, FIRST_SLOTS);
	while (slots < wanted)
		slots *= 2;
	return slots;
}

int halo_session_grow_out(struct halo_kcp *kcp, uint32_t end)
{
	uint32_t slots = slots_for(kcp->out_slots, end - kcp->send_una), sn;
	struct out_slot *out;

	if (slots == kcp->out_slots)
		return 0;
	out = calloc(slots, sizeof(*out));
	if (!out)
		return -ENOMEM;
	for (sn = kcp->send_una; sn != kcp->send_end; sn++)
		out[sn & (slots - 1)] = *out_slot(kcp, sn);
	free(kcp->out);
	kcp->octets += (slots - kcp->out_slots) * sizeof(*out);
	kcp->out = out;
	kcp->out_slots = slots;
	return 0;
}

int halo_session_grow_in(struct halo_kcp *kcp, uint32_t end)
{
	uint32_t slots = slots_for(kcp->in_slots, end - kcp->read_next), sn;
	struct segment **in;

	if (slots == kcp->in_slots)
		return 0;
	in = calloc(slots, sizeof(*in));
	if (!in)
		return -ENOMEM;
	for (sn = kcp->read_next; sn != kcp->receive_end; sn++)
		in[sn & (slots - 1)] = *in_slot(kcp, sn);
	free(kcp->in);
	kcp->octets += (slots - kcp->in_slots) * sizeof(*in);
	kcp->in = in;
	kcp->in_slots = slots;
	return 0;
}

/* The last segment that waits, when stream mode can append to it. */
static struct segment *stream_tail(const struct halo_kcp *kcp, uint32_t *room)
{
	struct segment *tail;
	uint32_t limit;

	*room = 0;
	if (!kcp->settings.stream || kcp->send_end == kcp->send_next)
		return NULL;
	tail = out_slot(kcp, kcp->send_end - 1)->segment;
	limit = least(kcp->mss, tail->capacity);
	*room = tail->length < limit ? limit - tail->length : 0;
	return tail;
}

/* Put `count` empty segments behind those that wait, without counting them. */
static int add_segments(struct halo_kcp *kcp, uint32_t count, uint32_t capacity)
{
	uint32_t i;

	if (halo_session_grow_out(kcp, kcp->send_end + count))
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		struct segment *segment = take_segment(kcp, capacity);

		if (!segment)
			break;
		*out_slot(kcp, kcp->send_end + i) = (struct out_slot){.segment = segment};
	}
	if (i == count)
		return 0;
	while (i-- > 0) {
		struct out_slot *slot = out_slot(kcp, kcp->send_end + i);

		release_segment(kcp, slot->segment);
		slot->segment = NULL;
	}
	return -ENOMEM;
}

/* It was given back long ago. */
static void prefetch_payload(const struct segment *segment)
{
	uint32_t at;

	for (at = 0; at < segment->capacity && at < PAGE; at += LINE)
		__builtin_prefetch(segment->payload + at, 1);
}

static void fill_segments(struct halo_kcp *kcp, uint32_t count, const uint8_t *octets, uint64_t length)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct segment *segment = out_slot(kcp, kcp->send_end + i)->segment;

		if (i + 1 < count)
			prefetch_payload(out_slot(kcp, kcp->send_end + i + 1)->segment);
		segment->length = length < kcp->mss ? (uint32_t)length : kcp->mss;
		segment->frg = (uint8_t)(kcp->settings.stream ? 0 : count - i - 1);
		if (segment->length)
			memcpy(segment->payload, octets, segment->length);
		octets += segment->length;
		length -= segment->length;
	}
	kcp->send_end += count;
}

int64_t halo_kcp_send(struct halo_kcp *kcp, const uint8_t *octets, uint64_t length)
{
	bool stream = kcp->settings.stream;
	uint32_t room;
	struct segment *tail = stream_tail(kcp, &room);
	uint64_t rest = length > room ? length - room : 0;
	uint64_t count = (rest + kcp->mss - 1) / kcp->mss;

	if (kcp->end != HALO_KCP_ALIVE)
		return -EPIPE;
	if (!stream) {
		count += count == 0;
		if (count > kcp->settings.most_fragments)
			return -EMSGSIZE;
	}
	if (rest > INT32_MAX || kcp->send_end - kcp->send_una + count > HALO_KCP_MAX_QUEUE)
		return -ENOBUFS;
	/* What waits in stream mode will be appended to. */
	if (count && add_segments(kcp, (uint32_t)count, stream || count > 1 ? kcp->mss : (uint32_t)rest))
		return -ENOMEM;
	if (length > rest) {
		memcpy(tail->payload + tail->length, octets, length - rest);
		tail->length += (uint32_t)(length - rest);
	}
	fill_segments(kcp, (uint32_t)count, octets + (length - rest), rest);
	kcp->idle = false;
	kcp->counters.bytes_sent += length;
	if (!kcp->settings.write_delay)
		kcp->urgent |= URGENT_ALL;
	return (int64_t)length;
}

int64_t halo_kcp_peek(const struct halo_kcp *kcp)
{
	uint32_t unread = kcp->receive_next - kcp->read_next, sn;
	const struct segment *segment;
	int64_t length;

	if (unread == 0)
		return -EAGAIN;
	if (kcp->settings.stream)
		return kcp->unread_octets ? (int64_t)kcp->unread_octets : -EAGAIN;
	segment = *in_slot(kcp, kcp->read_next);
	if (unread < segment->frg + 1u)
		return -EAGAIN;
	length = -(int64_t)kcp->read_offset;
	for (sn = kcp->read_next; sn != kcp->receive_next; sn++) {
		segment = *in_slot(kcp, sn);
		length += segment->length;
		if (segment->frg == 0)
			break;
	}
	return length;
}

/* Read from the first segment; it goes when nothing of it is left. Returns how many octets. */
static uint32_t read_segment(struct halo_kcp *kcp, uint8_t *octets, uint64_t room)
{
	struct segment **slot = in_slot(kcp, kcp->read_next), *segment = *slot;
	uint32_t left = segment->length - kcp->read_offset;
	uint32_t length = left < room ? left : (uint32_t)room;

	__builtin_prefetch(*in_slot(kcp, kcp->read_next + 1));
	if (length)
		memcpy(octets, segment->octets + kcp->read_offset, length);
	kcp->unread_octets -= length;
	kcp->read_offset += length;
	if (length == left) {
		kcp->read_offset = 0;
		kcp->read_next++;
		*slot = NULL;
		release_segment(kcp, segment);
	}
	return length;
}

static uint64_t read_stream(struct halo_kcp *kcp, uint8_t *octets, uint64_t room)
{
	uint64_t length = 0;

	while (kcp->read_next != kcp->receive_next) {
		if (length == room && (*in_slot(kcp, kcp->read_next))->length > 0)
			break;
		length += read_segment(kcp, octets + length, room - length);
	}
	return length;
}

static uint64_t read_message(struct halo_kcp *kcp, uint8_t *octets)
{
	uint64_t length = 0;
	uint8_t frg = 1;

	while (frg && kcp->read_next != kcp->receive_next) {
		frg = (*in_slot(kcp, kcp->read_next))->frg;
		length += read_segment(kcp, octets + length, UINT32_MAX);
	}
	return length;
}

/* Move up what has come. Where there was no window and is one now the peer is told: it would ask only after a while. */
static void open_receive_window(struct halo_kcp *kcp, bool full)
{
	advance(kcp);
	if (!full || free_window(kcp) == 0)
		return;
	kcp->probe |= PROBE_TELL;
	if (kcp->settings.flush_on_ack)
		kcp->urgent |= URGENT_ALL;
}

int64_t halo_kcp_receive(struct halo_kcp *kcp, uint8_t *octets, uint64_t room)
{
	int64_t size = halo_kcp_peek(kcp);
	bool full = free_window(kcp) == 0;
	uint64_t length;

	if (size >= 0 && !kcp->settings.stream && (uint64_t)size > room)
		return -EMSGSIZE;
	if (size < 0 && !kcp->settings.stream)
		return size;
	length = kcp->settings.stream ? read_stream(kcp, octets, room) : read_message(kcp, octets);
	open_receive_window(kcp, full);
	kcp->counters.bytes_received += length;
	return size < 0 ? size : (int64_t)length;
}

void halo_kcp_probe(struct halo_kcp *kcp)
{
	kcp->probe |= PROBE_ASK;
	kcp->urgent |= URGENT_ALL;
}

void halo_kcp_allow(struct halo_kcp *kcp, uint32_t segments)
{
	bool full = free_window(kcp) == 0;

	kcp->allowance = least(segments, HALO_KCP_MAX_WINDOW - kcp->settings.receive_window);
	open_receive_window(kcp, full);
}

uint32_t halo_kcp_waiting(const struct halo_kcp *kcp)
{
	return kcp->in_flight + (kcp->send_end - kcp->send_next);
}

void halo_kcp_counters_read(const struct halo_kcp *kcp, struct halo_kcp_counters *counters)
{
	*counters = kcp->counters;
}

void halo_kcp_info_read(const struct halo_kcp *kcp, struct halo_kcp_info *info)
{
	*info = (struct halo_kcp_info){
		.conv = kcp->conv,
		.end = kcp->end,
		.srtt_ms = (uint32_t)kcp->srtt_ms,
		.rttvar_ms = (uint32_t)kcp->rttvar_ms,
		.rto_ms = kcp->rto_ms,
		.send_window = kcp->settings.send_window,
		.receive_window = kcp->settings.receive_window,
		.remote_window = kcp->remote_window,
		.congestion_window = kcp->congestion->window(kcp),
		.slow_start_threshold = kcp->threshold,
		.queued = kcp->send_end - kcp->send_next,
		.in_flight = kcp->in_flight,
		.unread = kcp->receive_next - kcp->read_next,
		.held = kcp->held,
		.mss = kcp->mss,
		.send_next = kcp->send_next,
		.send_una = kcp->send_una,
		.receive_next = kcp->receive_next,
		.octets = (uint32_t)(sizeof(*kcp) + kcp->octets + kcp->own_pool.octets),
	};
}
