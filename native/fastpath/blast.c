/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bursts from templates: each frame is a copy of a template in a spare buffer, with numbers that go on from frame to frame, and
 * checksums mended by what those numbers add to them. A checksum is linear (RFC 1071), so a template's sum is taken once, without
 * its fields; per frame they are added.
 *
 * Pace is a token bucket that is filled by the clock. What it holds is exact: rounding would be an error that adds up.
 */
#include <errno.h>
#include <stdlib.h>

#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_VLAN = 0x8100,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	FRAGMENT_MASK = 0x3fff,
	NS_PER_S = 1000000000,
	STARVED_NS = 1000000, /* nobody wakes us when buffers come back */
};

static struct halo_blast *find(const struct halo_worker *worker, uint32_t number)
{
	return number < HALO_MAX_BLASTS ? worker->blasts.blast[number] : NULL;
}

/* ---- templates ------------------------------------------------------------------------------------------------ */

/* Of octets that start at an even distance from the start of what is summed; host order. */
static uint32_t sum_of(const uint8_t *octets, uint32_t length)
{
	uint32_t sum = 0;
	uint32_t i;

	for (i = 0; i + 1 < length; i += 2)
		sum += load16(octets + i);
	if (length & 1)
		sum += (uint32_t)octets[length - 1] << 8;
	return sum;
}

/*
 * Look for a checksum that covers `length` octets from `start`, and is right. The sum that is kept is without the field itself;
 * the fields that vary are cleared afterwards, and taken off.
 */
static struct halo_blast_checksum look_at_checksum(const uint8_t *frame, uint32_t start, uint32_t length, uint32_t at,
						   uint32_t pseudo)
{
	struct halo_blast_checksum none = {0};
	uint32_t sum = pseudo + sum_of(frame + start, length);

	if (at + 2 > start + length || fold(sum) != 0xffff)
		return none;
	return (struct halo_blast_checksum){.at = (uint16_t)at, .sum = sum - load16(frame + at)};
}

static struct halo_blast_checksum look_at_l4(const uint8_t *frame, uint32_t ip, uint32_t l4, uint32_t octets)
{
	uint32_t protocol = frame[ip + 9];
	uint32_t pseudo = sum_of(frame + ip + 12, 8) + protocol + octets;
	struct halo_blast_checksum found = {0};

	if (load16(frame + ip + 6) & FRAGMENT_MASK)
		return found;
	if (protocol == PROTOCOL_ICMP)
		return look_at_checksum(frame, l4, octets, l4 + 2, 0);
	if (protocol == PROTOCOL_TCP)
		return look_at_checksum(frame, l4, octets, l4 + 16, pseudo);
	if (protocol != PROTOCOL_UDP || octets < 8 || load16(frame + l4 + 6) == 0)
		return found;
	found = look_at_checksum(frame, l4, octets, l4 + 6, pseudo);
	found.udp = true;
	return found;
}

/* Where the two checksums of a template cover; 0 where there is none. */
struct cover {
	uint32_t ip;
	uint32_t l4;
	uint32_t end;
	bool addresses; /* the l4 checksum covers these too */
};

static struct cover look_at_checksums(struct halo_blast_template *template)
{
	const uint8_t *frame = template->octets;
	uint32_t ip = 14, header, total;
	struct cover none = {0};

	if (load16(frame + 12) == ETHERTYPE_VLAN && template->length >= 18) {
		template->vlan = load16(frame + 14) & 0xfff;
		ip = 18;
	}
	if (template->length < ip + 20 || load16(frame + ip - 2) != ETHERTYPE_IPV4 || frame[ip] >> 4 != 4)
		return none;
	header = (frame[ip] & 15u) * 4;
	total = load16(frame + ip + 2);
	if (header < 20 || total < header || ip + total > template->length)
		return none;
	template->ip = look_at_checksum(frame, ip, header, ip + 10, 0);
	template->l4 = look_at_l4(frame, ip, ip + header, total - header);
	return (struct cover){ip, ip + header, ip + total, frame[ip + 9] != PROTOCOL_ICMP};
}

static bool is_within(const struct halo_blast_field *field, uint32_t from, uint32_t to)
{
	return field->offset >= from && field->offset + field->octets <= to;
}

static bool touches(const struct halo_blast_field *field, uint32_t from, uint32_t to)
{
	return field->offset < to && field->offset + field->octets > from;
}

static bool straddles(const struct halo_blast_field *field, uint32_t from, uint32_t to)
{
	return touches(field, from, to) && !is_within(field, from, to);
}

/* What the field's octets in the template add to a checksum. */
static uint32_t sum_of_field(const uint8_t *frame, const struct halo_blast_field *field)
{
	const uint8_t *octets = frame + field->offset;

	if (field->offset & 1) /* the first octet is the low one of its word */
		return octets[0] + sum_of(octets + 1, field->octets - 1);
	return sum_of(octets, field->octets);
}

/* A field lies in one header, or in the pseudo header's addresses, or in neither: else it would count in parts. */
static int cover_field(struct halo_blast_template *template, const struct cover *cover,
		       const struct halo_blast_field *field, uint32_t i)
{
	uint32_t sum = sum_of_field(template->octets, field);
	uint32_t addresses = cover->ip + 12;

	if (cover->ip && (straddles(field, cover->ip, cover->l4) || straddles(field, cover->l4, cover->end) ||
			  straddles(field, addresses, addresses + 8)))
		return -EINVAL;
	template->in_ip[i] = template->ip.at &&is_within(field, cover->ip, cover->l4);
	template->in_l4[i] = template->l4.at && (is_within(field, cover->l4, cover->end) ||
						 (cover->addresses && is_within(field, addresses, addresses + 8)));
	template->ip.sum -= template->in_ip[i] ? sum : 0;
	template->l4.sum -= template->in_l4[i] ? sum : 0;
	return 0;
}

static int cover_fields(struct halo_blast *blast, struct halo_blast_template *template)
{
	struct cover cover = look_at_checksums(template);
	int error = 0;
	uint32_t i;

	for (i = 0; i < blast->field_count; i++) { /* who varies a checksum does not want it mended */
		const struct halo_blast_field *field = &blast->series[i].field;

		if ((uint64_t)field->offset + field->octets > template->length)
			return -EINVAL;
		if (touches(field, template->ip.at, template->ip.at + 2u))
			template->ip.at = 0;
		if (touches(field, template->l4.at, template->l4.at + 2u))
			template->l4.at = 0;
		blast->mixed |= touches(field, 12, 16);
	}
	for (i = 0; !error && i < blast->field_count; i++)
		error = cover_field(template, &cover, &blast->series[i].field, i);
	return error;
}

static uint32_t padded(uint32_t length)
{
	return (length + HALO_LINE - 1) / HALO_LINE * HALO_LINE;
}

static int copy_templates(struct halo_worker *worker, struct halo_blast *blast, const struct halo_blast_setup *setup)
{
	const uint8_t *octets = setup->octets;
	uint64_t size = 0;
	uint8_t *place;
	uint32_t i;

	for (i = 0; i < setup->template_count; i++) {
		if (setup->lengths[i] > worker->geometry.data_octets)
			return -EMSGSIZE;
		if (setup->lengths[i] < HALO_MIN_FRAME_OCTETS)
			return -EINVAL;
		size += padded(setup->lengths[i]);
	}
	blast->memory = place = aligned_alloc(HALO_LINE, size);
	blast->templates = calloc(setup->template_count, sizeof(*blast->templates));
	if (!blast->memory || !blast->templates)
		return -ENOMEM;
	memset(blast->memory, 0, size);
	blast->template_count = setup->template_count;
	for (i = 0; i < setup->template_count; i++) {
		blast->templates[i].octets = memcpy(place, octets, setup->lengths[i]);
		blast->templates[i].length = (uint16_t)setup->lengths[i];
		octets += setup->lengths[i];
		place += padded(setup->lengths[i]);
	}
	return 0;
}

/* ---- fields --------------------------------------------------------------------------------------------------- */

static int set_up_fields(struct halo_blast *blast, const struct halo_blast_setup *setup)
{
	uint32_t i, other;

	for (i = 0; i < setup->field_count; i++) {
		struct halo_blast_series *series = &blast->series[i];
		const struct halo_blast_field *field = &setup->fields[i];

		if (field->octets == 0 || field->octets > 8 || (field->random && field->count == 0))
			return -EINVAL;
		if (field->octets == 8 && (field->offset & 1)) /* would need 72 bits in the checksum */
			return -EINVAL;
		series->field = *field;
		series->value = field->first;
		series->random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1);
		series->shift = ((field->offset + field->octets) & 1) * 8;
		for (other = 0; other < i; other++)
			if (touches(field, setup->fields[other].offset,
				    setup->fields[other].offset + setup->fields[other].octets))
				return -EINVAL;
	}
	blast->field_count = setup->field_count;
	return 0;
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
	uint64_t value = *state += UINT64_C(0x9e3779b97f4a7c15);

	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

static inline uint64_t series_next(struct halo_blast_series *series)
{
	const struct halo_blast_field *field = &series->field;
	uint64_t value = series->value;

	if (field->random) {
		unsigned __int128 wide = (unsigned __int128)random_next(&series->random) * field->count;

		return field->first + (uint64_t)(wide >> 64) * field->step;
	}
	series->value += field->step;
	if (++series->index == field->count) {
		series->index = 0;
		series->value = field->first;
	}
	return value;
}

/* The number's share in a checksum: four 16-bit words at most, since 8 octets stand at an even place. */
static inline uint64_t words_of(uint64_t value, uint32_t shift)
{
	value <<= shift;
	return (value & 0xffff) + (value >> 16 & 0xffff) + (value >> 32 & 0xffff) + (value >> 48);
}

static inline uint64_t put_number(uint8_t *at, uint64_t value, uint32_t octets)
{
	uint64_t swapped;

	value &= UINT64_MAX >> (64 - 8 * octets);
	swapped = __builtin_bswap64(value << (64 - 8 * octets));
	switch (octets) {
	case 2:
		memcpy(at, &swapped, 2);
		break;
	case 4:
		memcpy(at, &swapped, 4);
		break;
	default:
		memcpy(at, &swapped, octets);
	}
	return value;
}

static inline void put_checksum(uint8_t *frame, const struct halo_blast_checksum *checksum, uint64_t sum)
{
	uint16_t value = (uint16_t)~fold(checksum->sum + sum);

	store16(frame + checksum->at, value == 0 && checksum->udp ? 0xffff : value);
}

static void vary(struct halo_blast *blast, const struct halo_blast_template *template, uint8_t *frame)
{
	uint64_t ip = 0, l4 = 0;
	uint32_t i;

	for (i = 0; i < blast->field_count; i++) {
		struct halo_blast_series *series = &blast->series[i];
		uint64_t value = put_number(frame + series->field.offset, series_next(series), series->field.octets);
		uint64_t words = words_of(value, series->shift);

		ip += template->in_ip[i] ? words : 0;
		l4 += template->in_l4[i] ? words : 0;
	}
	if (template->ip.at)
		put_checksum(frame, &template->ip, ip);
	if (template->l4.at)
		put_checksum(frame, &template->l4, l4);
}

/* ---- sending -------------------------------------------------------------------------------------------------- */

static inline const struct halo_blast_template *next_template(struct halo_blast *blast)
{
	const struct halo_blast_template *template = &blast->templates[blast->next_template];

	if (++blast->next_template == blast->template_count)
		blast->next_template = 0;
	return template;
}

/* Whole lines: the room behind a frame is there, and a copy of known size is quicker. */
static inline void copy_lines(uint8_t *to, const uint8_t *from, uint32_t length)
{
	do {
		memcpy(to, from, HALO_LINE);
		to += HALO_LINE;
		from += HALO_LINE;
		length -= length < HALO_LINE ? length : HALO_LINE;
	} while (length);
}

/* Returns the frame's octets, or 0 where a template did not get a buffer. */
static uint32_t send_one(struct halo_worker *worker, struct halo_blast *blast, uint32_t offset)
{
	const struct halo_blast_template *template = next_template(blast);
	uint8_t *frame = worker->pool + offset;
	struct halo_descriptor descriptor;

	copy_lines(frame, template->octets, template->length);
	if (blast->field_count)
		vary(blast, template, frame);
	descriptor = halo_descriptor_make(offset, template->length, blast->port, HALO_ACTION_TRANSMIT);
	if (!halo_tx_put(worker, descriptor))
		return 0;
	if (unlikely(blast->mixed))
		halo_tx_count_interface(worker, descriptor);
	return template->length;
}

/* What a burst adds up to, by the interface that it leaves by. */
static void count_burst(struct halo_worker *worker, struct halo_blast *blast, uint32_t frames, uint64_t octets)
{
	struct halo_worker_counters *count = &worker->slot->worker;
	uint16_t number = halo_vlan_find(worker, blast->port, blast->templates[0].vlan);

	halo_count(&count->originated, frames);
	halo_count(&count->tx_frames, frames);
	halo_count(&count->tx_octets, octets);
	if (number != HALO_NO_INTERFACE && !blast->mixed) {
		halo_count(&worker->slot->interface[number].tx_packets, frames);
		halo_count(&worker->slot->interface[number].tx_octets, octets);
	}
	blast->counters.frames += frames;
	blast->counters.octets += octets;
}

/* A burst of at most HALO_BURST frames, as far as there are buffers. Returns how many went. */
static uint32_t send_burst(struct halo_worker *worker, struct halo_blast *blast, uint32_t want)
{
	uint32_t ready = worker->enabled ? halo_ring_peek(&worker->spare, want) : 0;
	uint32_t offset[HALO_BURST];
	uint64_t octets = 0;
	uint32_t i, sent;

	if (ready == 0 || ready == HALO_RING_BROKEN) {
		blast->counters.starved++;
		return 0;
	}
	for (i = 0; i < ready; i++) {
		offset[i] = halo_ring_get(&worker->spare, i).offset;
		halo_prefetch_write(worker->pool + offset[i]);
	}
	for (sent = 0; sent < ready; sent++) {
		uint32_t length;

		if ((uint64_t)offset[sent] + worker->geometry.data_octets > worker->geometry.size_octets)
			break;
		length = send_one(worker, blast, offset[sent]);
		if (length == 0)
			break;
		octets += length;
	}
	halo_ring_release(&worker->spare, ready);
	halo_tx_submit(worker);
	count_burst(worker, blast, sent, octets);
	return sent;
}

/* ---- pace ----------------------------------------------------------------------------------------------------- */

static unsigned __int128 filled(unsigned __int128 tokens, uint64_t rate, uint64_t elapsed_ns, uint64_t catch_up_ns,
				uint64_t least)
{
	unsigned __int128 limit = (unsigned __int128)rate * catch_up_ns + (unsigned __int128)least * NS_PER_S;

	tokens += (unsigned __int128)rate * elapsed_ns;
	return tokens < limit ? tokens : limit;
}

static void fill(struct halo_blast *blast, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - blast->filled_ns;

	blast->filled_ns = now_ns;
	blast->frame_tokens =
		filled(blast->frame_tokens, blast->pace.frames_per_s, elapsed_ns, blast->pace.catch_up_ns, 1);
	blast->bit_tokens = filled(blast->bit_tokens, blast->pace.bits_per_s, elapsed_ns, blast->pace.catch_up_ns,
				   (uint64_t)blast->longest * 8);
}

static unsigned __int128 bits_from(const struct halo_blast *blast, uint32_t ahead)
{
	uint32_t place = (blast->next_template + ahead) % blast->template_count;

	return (unsigned __int128)blast->templates[place].length * 8 * NS_PER_S;
}

/* How many of the next frames may go now, at most `want`. */
static uint32_t allowed(const struct halo_blast *blast, uint32_t want)
{
	unsigned __int128 bits = 0;
	uint32_t count = 0;

	if (blast->pace.count && blast->left < want)
		want = (uint32_t)blast->left;
	if (blast->pace.frames_per_s && blast->frame_tokens / NS_PER_S < want)
		want = (uint32_t)(blast->frame_tokens / NS_PER_S);
	if (!blast->pace.bits_per_s)
		return want;
	while (count < want) {
		bits += bits_from(blast, count);
		if (bits > blast->bit_tokens)
			break;
		count++;
	}
	return count;
}

/* Pay for what has gone, by the octets that it was. */
static void pay(struct halo_worker *worker, struct halo_blast *blast, uint32_t frames, uint64_t octets)
{
	if (blast->pace.frames_per_s)
		blast->frame_tokens -= (unsigned __int128)frames * NS_PER_S;
	if (blast->pace.bits_per_s)
		blast->bit_tokens -= (unsigned __int128)octets * 8 * NS_PER_S;
	if (!blast->pace.count)
		return;
	blast->left -= frames;
	if (blast->left)
		return;
	blast->running = false;
	blast->ended = worker->blasts.ended = true;
	worker->blasts.running--;
}

static uint32_t serve(struct halo_worker *worker, struct halo_blast *blast)
{
	uint64_t before = blast->counters.octets;
	uint32_t sent, want;

	fill(blast, worker->now_ns);
	want = allowed(blast, HALO_BURST);
	if (want == 0)
		return 0;
	sent = send_burst(worker, blast, want);
	pay(worker, blast, sent, blast->counters.octets - before);
	return sent;
}

uint32_t halo_blast_serve(struct halo_worker *worker)
{
	uint32_t sent = 0;
	uint32_t i;

	for (i = 0; i < HALO_MAX_BLASTS; i++) {
		struct halo_blast *blast = worker->blasts.blast[i];

		if (blast && blast->running)
			sent += serve(worker, blast);
	}
	return sent;
}

/* Until `need` tokens are there; rounded up, so that there is something to do then. */
static int64_t wait_for(unsigned __int128 tokens, unsigned __int128 need, uint64_t rate)
{
	unsigned __int128 wait_ns;

	if (!rate || tokens >= need)
		return 0;
	wait_ns = (need - tokens + rate - 1) / rate;
	return wait_ns < INT64_MAX ? (int64_t)wait_ns : INT64_MAX;
}

static int64_t wait_of(const struct halo_blast *blast)
{
	int64_t frames = wait_for(blast->frame_tokens, NS_PER_S, blast->pace.frames_per_s);
	int64_t bits = wait_for(blast->bit_tokens, bits_from(blast, 0), blast->pace.bits_per_s);
	int64_t wait_ns = frames > bits ? frames : bits;

	return wait_ns ? wait_ns : STARVED_NS;
}

int64_t halo_blast_wait_ns(const struct halo_worker *worker)
{
	int64_t wait_ns = INT64_MAX;
	uint32_t i;

	for (i = 0; i < HALO_MAX_BLASTS; i++) {
		const struct halo_blast *blast = worker->blasts.blast[i];
		int64_t own_ns = blast && blast->running ? wait_of(blast) : INT64_MAX;

		wait_ns = own_ns < wait_ns ? own_ns : wait_ns;
	}
	return wait_ns;
}

/* ---- what Python asks for ------------------------------------------------------------------------------------- */

static void free_blast(struct halo_blast *blast)
{
	if (!blast)
		return;
	free(blast->memory);
	free(blast->templates);
	free(blast);
}

static int set_up(struct halo_worker *worker, struct halo_blast *blast, const struct halo_blast_setup *setup)
{
	int error = set_up_fields(blast, setup);
	uint32_t i;

	if (!error)
		error = copy_templates(worker, blast, setup);
	for (i = 0; !error && i < blast->template_count; i++) {
		error = cover_fields(blast, &blast->templates[i]);
		if (blast->templates[i].length > blast->longest)
			blast->longest = blast->templates[i].length;
		blast->mixed |= blast->templates[i].vlan != blast->templates[0].vlan;
	}
	blast->port = (uint8_t)setup->port;
	return error;
}

int halo_worker_blast_add(struct halo_worker *worker, const struct halo_blast_setup *setup)
{
	struct halo_blast *blast;
	uint32_t number;
	int error;

	if (setup->port >= HALO_MAX_PORTS || setup->template_count == 0 || setup->template_count > HALO_MAX_TEMPLATES ||
	    setup->field_count > HALO_MAX_BLAST_FIELDS)
		return -EINVAL;
	for (number = 0; find(worker, number); number++)
		;
	if (number == HALO_MAX_BLASTS)
		return -ENOSPC;
	blast = calloc(1, sizeof(*blast));
	if (!blast)
		return -ENOMEM;
	error = set_up(worker, blast, setup);
	if (error) {
		free_blast(blast);
		return error;
	}
	worker->blasts.blast[number] = blast;
	return (int)number;
}

void halo_worker_blast_remove(struct halo_worker *worker, uint32_t number)
{
	halo_worker_blast_stop(worker, number);
	if (find(worker, number)) {
		free_blast(worker->blasts.blast[number]);
		worker->blasts.blast[number] = NULL;
	}
}

int halo_worker_blast_send(struct halo_worker *worker, uint32_t number, uint32_t count)
{
	struct halo_blast *blast = find(worker, number);
	uint32_t sent = 0, some;

	if (!blast)
		return -ENOENT;
	while (sent < count) {
		some = send_burst(worker, blast, count - sent < HALO_BURST ? count - sent : HALO_BURST);
		if (some == 0)
			break;
		sent += some;
	}
	halo_worker_flush(worker);
	return (int)sent;
}

int halo_worker_blast_start(struct halo_worker *worker, uint32_t number, const struct halo_blast_pace *pace)
{
	struct halo_blast *blast = find(worker, number);

	if (!blast)
		return -ENOENT;
	worker->blasts.running += !blast->running;
	blast->running = true;
	blast->ended = false;
	blast->pace = *pace;
	blast->left = pace->count;
	blast->filled_ns = halo_now_ns();
	blast->frame_tokens = 0;
	blast->bit_tokens = 0;
	return 0;
}

void halo_worker_blast_stop(struct halo_worker *worker, uint32_t number)
{
	struct halo_blast *blast = find(worker, number);

	if (!blast || !blast->running)
		return;
	blast->running = false;
	worker->blasts.running--;
}

int halo_worker_blast_read(const struct halo_worker *worker, uint32_t number, struct halo_blast_counters *counters)
{
	const struct halo_blast *blast = find(worker, number);

	if (!blast)
		return -ENOENT;
	*counters = blast->counters;
	counters->running = blast->running;
	return 0;
}

void halo_blast_close(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_BLASTS; i++)
		halo_worker_blast_remove(worker, i);
}
