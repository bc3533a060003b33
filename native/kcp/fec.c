/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward error correction under KCP: a systematic Reed-Solomon code over datagrams, octet for octet kcp-go's.
 *
 * A datagram is a shard with a header in front, all little-endian:
 *
 *     number 4 | type 2: 0xf1 data, 0xf2 parity | shard
 *     shard of data: size 2 (of itself, these two octets among it) | what KCP sent
 *
 * Numbers count shards, from 0. A group is the `shards` = data + parity of them that begin at a multiple of that, data first;
 * so a number tells group and place. They wrap to 0 at the greatest multiple that 32 bits hold: groups stay whole.
 *
 * The code: the octets at one offset of a group's shards, shorter ones filled up with 0, are the values at 0, 1, 2, ... of one
 * polynomial over GF(2^8) of degree less than `data`. The data are its values at 0 .. data - 1; that fixes it, and
 * parity is its values at data .. shards - 1. Any `data` values fix it again. (A Vandermonde matrix times the inverse of its upper
 * square, as others have it, is the same code.) By Lagrange, the value at x from values v at places k of a set S of `data`:
 *
 *     sum over k of  v[k] * product over j != k of (x - j) / (k - j)          where minus is xor
 *
 * Encoder: each shard of data is sent at once, and its multiples are added to the parity that grows; the group's last brings the
 * parity with it. Parity of a group that was not sent in one go would come too late to be of use: `gap_ms` leaves it out, and its
 * numbers.
 *
 * Decoder: keeps the `groups` groups that were touched last, whatever their numbers are: one number that lies cannot
 * push the others out for good.
 *
 *     group: open ──(all data came, or as many shards as there are data: the missing are made)──► done ──► reused
 *               └──────────────────────── (the one touched longest ago) ─────────────────────────────────► reused
 *
 * What data carries goes on at once; nothing waits for a group. A shard is copied once; its buffer goes back to a list of spare
 * ones when its group is done. A peer with other numbers of shards is found out (`tune`) from a run of numbers without a hole
 * that holds one whole group: parity (or number 0), data, parity, data; its first number must be a multiple of its length.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <halo/kcp_fec_def.h>

#include "gf256.h"

enum {
	SIZE = 2, /* octets of the size in a shard of data */
	MOST = HALO_KCP_FEC_MAX_SHARDS,
	SIGHTED = 512, /* numbers remembered for tuning: a power of two, more than two groups of the longest */
};

struct shape {
	uint32_t data;
	uint32_t parity;
	uint32_t shards; /* of a group */
	uint32_t limit;  /* numbers are below */
};

static struct shape shape_of(uint32_t data, uint32_t parity)
{
	uint32_t shards = data + parity;

	return (struct shape){data, parity, shards, UINT32_MAX / shards * shards};
}

static uint32_t get16(const uint8_t *octets)
{
	return (uint32_t)octets[0] | (uint32_t)octets[1] << 8;
}

static uint32_t get32(const uint8_t *octets)
{
	return get16(octets) | get16(octets + 2) << 16;
}

static void put16(uint8_t *octets, uint32_t value)
{
	octets[0] = (uint8_t)value;
	octets[1] = (uint8_t)(value >> 8);
}

static void put_header(uint8_t *octets, uint32_t number, uint32_t type)
{
	put16(octets, number);
	put16(octets + 2, number >> 16);
	put16(octets + 4, type);
}

const char *halo_kcp_fec_check(const struct halo_kcp_fec_settings *settings)
{
	if (settings->data < 1 || settings->data >= MOST)
		return "data";
	if (settings->parity < 1 || settings->parity > MOST - settings->data)
		return "parity";
	if (settings->octets < HALO_KCP_FEC_OVERHEAD || settings->octets > HALO_KCP_FEC_MAX_OCTETS)
		return "octets";
	if (settings->groups < 1 || settings->groups > HALO_KCP_FEC_MAX_GROUPS)
		return "groups";
	return NULL;
}

/* own[i]: the product over all other places of (place[i] - place[j]). */
static void set_apart(uint8_t *own, const uint8_t *place, uint32_t count)
{
	uint32_t i, j;

	for (i = 0; i < count; i++) {
		own[i] = 1;
		for (j = 0; j < count; j++)
			if (j != i)
				own[i] = halo_gf_multiply(own[i], place[i] ^ place[j]);
	}
}

/* weight[i]: how much of the shard at place[i] is in the one at x, which is none of these places. */
static void weigh(uint8_t *weight, const uint8_t *place, const uint8_t *own, uint32_t count, uint8_t x)
{
	uint8_t all = 1;
	uint32_t i;

	for (i = 0; i < count; i++)
		all = halo_gf_multiply(all, x ^ place[i]);
	for (i = 0; i < count; i++)
		weight[i] = halo_gf_multiply(all, halo_gf_inverse(halo_gf_multiply(x ^ place[i], own[i])));
}

/* ---- Encoder ---- */

struct halo_kcp_fec_encoder {
	struct halo_kcp_fec_settings settings;
	struct shape shape;
	struct halo_kcp_fec_counters counters;
	uint32_t next;    /* number */
	uint32_t filled;  /* data of the group so far */
	uint32_t longest; /* of their shards */
	uint32_t last_ms;
	uint32_t count;    /* datagrams of the last call */
	uint32_t length;   /* of the first of them */
	uint8_t *weight;   /* parity rows of `data` factors */
	uint8_t *datagram; /* data, then each parity, settings.octets apart */
};

static uint8_t *datagram_of(const struct halo_kcp_fec_encoder *encoder, uint32_t i)
{
	return encoder->datagram + (size_t)i * encoder->settings.octets;
}

static uint32_t group_begin(const struct shape *shape, uint32_t number)
{
	uint64_t groups = ((uint64_t)number + shape->shards - 1) / shape->shards;

	return (uint32_t)(groups * shape->shards % shape->limit);
}

static void weigh_parity(struct halo_kcp_fec_encoder *encoder)
{
	uint32_t data = encoder->shape.data, i;
	uint8_t place[MOST], own[MOST];

	for (i = 0; i < data; i++)
		place[i] = (uint8_t)i;
	set_apart(own, place, data);
	for (i = 0; i < encoder->shape.parity; i++)
		weigh(encoder->weight + (size_t)i * data, place, own, data, (uint8_t)(data + i));
}

struct halo_kcp_fec_encoder *halo_kcp_fec_encoder_create(const struct halo_kcp_fec_settings *settings)
{
	struct halo_kcp_fec_encoder *encoder;

	if (halo_kcp_fec_check(settings))
		return NULL;
	encoder = calloc(1, sizeof(*encoder));
	if (!encoder)
		return NULL;
	encoder->settings = *settings;
	encoder->shape = shape_of(settings->data, settings->parity);
	encoder->next = group_begin(&encoder->shape, settings->first);
	encoder->weight = malloc((size_t)settings->parity * settings->data);
	encoder->datagram = malloc((size_t)(1 + settings->parity) * settings->octets);
	if (!encoder->weight || !encoder->datagram) {
		halo_kcp_fec_encoder_free(encoder);
		return NULL;
	}
	weigh_parity(encoder);
	return encoder;
}

void halo_kcp_fec_encoder_free(struct halo_kcp_fec_encoder *encoder)
{
	if (!encoder)
		return;
	free(encoder->weight);
	free(encoder->datagram);
	free(encoder);
}

static void skip(struct halo_kcp_fec_encoder *encoder, uint32_t count)
{
	encoder->next = (uint32_t)(((uint64_t)encoder->next + count) % encoder->shape.limit);
}

/* What a longer shard adds to the group's length is 0 in those before it. */
static void add_to_parity(struct halo_kcp_fec_encoder *encoder, const uint8_t *shard, uint32_t length)
{
	const uint8_t *weight = encoder->weight + encoder->filled;
	uint32_t i;

	for (i = 0; i < encoder->shape.parity; i++, weight += encoder->shape.data) {
		uint8_t *parity = datagram_of(encoder, 1 + i) + HALO_KCP_FEC_HEADER;

		if (length > encoder->longest)
			memset(parity + encoder->longest, 0, length - encoder->longest);
		halo_gf_add_multiple(parity, shard, length, *weight);
	}
	if (length > encoder->longest)
		encoder->longest = length;
}

static void finish_group(struct halo_kcp_fec_encoder *encoder, bool gap)
{
	uint32_t i;

	if (gap) {
		skip(encoder, encoder->shape.parity);
		encoder->counters.skipped++;
		return;
	}
	for (i = 0; i < encoder->shape.parity; i++) {
		put_header(datagram_of(encoder, 1 + i), encoder->next, HALO_KCP_FEC_PARITY);
		skip(encoder, 1);
	}
	encoder->count += encoder->shape.parity;
	encoder->counters.parity += encoder->shape.parity;
}

int64_t halo_kcp_fec_encode(struct halo_kcp_fec_encoder *encoder, const uint8_t *octets, uint64_t length,
			    uint32_t now_ms)
{
	uint8_t *datagram = encoder->datagram, *shard = datagram + HALO_KCP_FEC_HEADER;
	uint32_t gap_ms = encoder->settings.gap_ms;
	bool first = encoder->counters.data == 0;
	bool gap = gap_ms && !first && now_ms - encoder->last_ms >= gap_ms;

	encoder->count = 0;
	if (length > encoder->settings.octets - HALO_KCP_FEC_OVERHEAD)
		return -EMSGSIZE;
	if (encoder->filled == 0)
		encoder->longest = 0;
	put_header(datagram, encoder->next, HALO_KCP_FEC_DATA);
	put16(shard, (uint32_t)length + SIZE);
	if (length)
		memcpy(shard + SIZE, octets, length);
	skip(encoder, 1);
	encoder->length = (uint32_t)length + HALO_KCP_FEC_OVERHEAD;
	encoder->count = 1;
	encoder->counters.data++;
	encoder->last_ms = now_ms;
	add_to_parity(encoder, shard, (uint32_t)length + SIZE);
	if (++encoder->filled == encoder->shape.data) {
		finish_group(encoder, gap);
		encoder->filled = 0;
	}
	return encoder->count;
}

int64_t halo_kcp_fec_encoded(const struct halo_kcp_fec_encoder *encoder, uint32_t i, const uint8_t **octets)
{
	if (i >= encoder->count)
		return -ENOENT;
	*octets = datagram_of(encoder, i);
	return i == 0 ? encoder->length : encoder->longest + HALO_KCP_FEC_HEADER;
}

uint32_t halo_kcp_fec_encoder_next(const struct halo_kcp_fec_encoder *encoder)
{
	return group_begin(&encoder->shape, encoder->next);
}

void halo_kcp_fec_encoder_counters(const struct halo_kcp_fec_encoder *encoder, struct halo_kcp_fec_counters *counters)
{
	*counters = encoder->counters;
}

/* ---- Decoder ---- */

struct shard {
	struct shard *next; /* in a list: spare ones, or those made in the last call */
	uint32_t length;
	uint8_t octets[];
};

struct group {
	uint32_t number; /* of the group: that of its first shard / shards */
	uint32_t count;  /* shards that came */
	uint32_t data;   /* those of data */
	bool used;
	bool done;
	uint64_t touched;
	struct shard *shard[MOST]; /* by place */
};

struct carried {
	const uint8_t *octets;
	uint32_t length;
};

struct halo_kcp_fec_decoder {
	struct halo_kcp_fec_settings settings;
	struct shape shape;
	struct halo_kcp_fec_counters counters;
	struct shard *spare;
	struct shard *made;
	uint64_t clock; /* counts touches */
	bool suspect;   /* something was misplaced, and no whole group has been seen since */
	uint32_t count; /* of `carried` */
	struct carried carried[MOST];
	/* Where number % SIGHTED is: the number, and what it was. */
	uint32_t sighted[SIGHTED];
	uint8_t sighted_type[SIGHTED]; /* enum halo_kcp_fec_type; 0: nothing yet */
	struct group group[];          /* settings.groups of them */
};

struct halo_kcp_fec_decoder *halo_kcp_fec_decoder_create(const struct halo_kcp_fec_settings *settings)
{
	struct halo_kcp_fec_decoder *decoder;

	if (halo_kcp_fec_check(settings))
		return NULL;
	decoder = calloc(1, sizeof(*decoder) + settings->groups * sizeof(decoder->group[0]));
	if (!decoder)
		return NULL;
	decoder->settings = *settings;
	decoder->shape = shape_of(settings->data, settings->parity);
	return decoder;
}

static void put_back(struct halo_kcp_fec_decoder *decoder, struct shard *shard)
{
	shard->next = decoder->spare;
	decoder->spare = shard;
}

/* NULL: no memory. */
static struct shard *take_spare(struct halo_kcp_fec_decoder *decoder)
{
	struct shard *shard = decoder->spare;

	if (!shard)
		return malloc(sizeof(*shard) + decoder->settings.octets - HALO_KCP_FEC_HEADER);
	decoder->spare = shard->next;
	return shard;
}

static void empty(struct halo_kcp_fec_decoder *decoder, struct group *group)
{
	uint32_t i;

	for (i = 0; i < MOST && group->count; i++) {
		if (!group->shard[i])
			continue;
		put_back(decoder, group->shard[i]);
		group->shard[i] = NULL;
		group->count--;
	}
}

static void forget_made(struct halo_kcp_fec_decoder *decoder)
{
	while (decoder->made) {
		struct shard *shard = decoder->made;

		decoder->made = shard->next;
		put_back(decoder, shard);
	}
	decoder->count = 0;
}

void halo_kcp_fec_decoder_free(struct halo_kcp_fec_decoder *decoder)
{
	uint32_t i;

	if (!decoder)
		return;
	forget_made(decoder);
	for (i = 0; i < decoder->settings.groups; i++)
		empty(decoder, &decoder->group[i]);
	while (decoder->spare) {
		struct shard *shard = decoder->spare;

		decoder->spare = shard->next;
		free(shard);
	}
	free(decoder);
}

/* What a shard of data carries goes to KCP. False: its size can not be. */
static bool carry(struct halo_kcp_fec_decoder *decoder, const uint8_t *shard, uint32_t length)
{
	uint32_t size = length < SIZE ? 0 : get16(shard);

	if (size < SIZE || size > length)
		return false;
	decoder->carried[decoder->count++] = (struct carried){shard + SIZE, size - SIZE};
	return true;
}

static void reuse(struct halo_kcp_fec_decoder *decoder, struct group *group)
{
	if (group->used && !group->done)
		decoder->counters.incomplete++;
	empty(decoder, group);
	group->used = group->done = false;
	group->data = 0;
}

static struct group *group_of(struct halo_kcp_fec_decoder *decoder, uint32_t number)
{
	struct group *oldest = &decoder->group[0];
	uint32_t i;

	for (i = 0; i < decoder->settings.groups; i++) {
		struct group *group = &decoder->group[i];

		if (group->used && group->number == number)
			return group;
		if (group->touched < oldest->touched)
			oldest = group;
	}
	reuse(decoder, oldest);
	oldest->used = true;
	oldest->number = number;
	return oldest;
}

/* A shard from those at `place`. False: no memory, or what comes out can not be. */
static bool make(struct halo_kcp_fec_decoder *decoder, const struct group *group, const uint8_t *place,
		 const uint8_t *weight)
{
	uint32_t count = decoder->shape.data, longest = 0, i;
	struct shard *made = take_spare(decoder);

	if (!made)
		return false;
	made->next = decoder->made;
	decoder->made = made;
	for (i = 0; i < count; i++)
		if (group->shard[place[i]]->length > longest)
			longest = group->shard[place[i]]->length;
	memset(made->octets, 0, longest);
	for (i = 0; i < count; i++) {
		const struct shard *shard = group->shard[place[i]];

		halo_gf_add_multiple(made->octets, shard->octets, shard->length, weight[i]);
	}
	return carry(decoder, made->octets, longest);
}

/* As many shards are there as there are data. */
static void recover(struct halo_kcp_fec_decoder *decoder, const struct group *group)
{
	uint8_t place[MOST], own[MOST], weight[MOST];
	uint32_t count = 0, i;

	for (i = 0; i < decoder->shape.shards && count < decoder->shape.data; i++)
		if (group->shard[i])
			place[count++] = (uint8_t)i;
	set_apart(own, place, count);
	for (i = 0; i < decoder->shape.data; i++) {
		if (group->shard[i])
			continue;
		weigh(weight, place, own, count, (uint8_t)i);
		if (make(decoder, group, place, weight))
			decoder->counters.recovered++;
		else
			decoder->counters.errors++;
	}
}

static void finish(struct halo_kcp_fec_decoder *decoder, struct group *group)
{
	if (group->data == decoder->shape.data)
		decoder->counters.whole++;
	else
		recover(decoder, group);
	empty(decoder, group);
	group->done = true;
}

static void put_in(struct halo_kcp_fec_decoder *decoder, uint32_t number, const uint8_t *octets, uint32_t length)
{
	struct group *group = group_of(decoder, number / decoder->shape.shards);
	uint32_t place = number % decoder->shape.shards;
	struct shard *shard;

	group->touched = ++decoder->clock;
	if (group->done) {
		decoder->counters.late++;
		return;
	}
	if (group->shard[place]) {
		decoder->counters.repeated++;
		return;
	}
	shard = take_spare(decoder);
	if (!shard)
		return; /* as if it had been lost */
	shard->length = length;
	memcpy(shard->octets, octets, length);
	group->shard[place] = shard;
	group->count++;
	if (place < decoder->shape.data)
		group->data++;
	if (group->count == decoder->shape.data)
		finish(decoder, group);
}

static uint8_t type_of(const struct halo_kcp_fec_decoder *decoder, uint32_t number)
{
	return decoder->sighted[number % SIGHTED] == number ? decoder->sighted_type[number % SIGHTED] : 0;
}

/* How many numbers from there on downwards were of this type; at most `most`. */
static uint32_t run_down(const struct halo_kcp_fec_decoder *decoder, uint32_t from, uint8_t type, uint32_t most)
{
	uint32_t count;

	for (count = 0; count < most && count <= from && type_of(decoder, from - count) == type; count++)
		;
	return count;
}

/*
 * From data downwards: the rest of its group, the parity before it, and the data before that, which are a whole group. False:
 * they are not, or not all of them were seen.
 */
static bool find_shape(const struct halo_kcp_fec_decoder *decoder, uint32_t number, struct shape *shape)
{
	uint32_t rest = run_down(decoder, number, HALO_KCP_FEC_DATA, MOST), parity, data, begin;

	if (rest == 0 || rest > number)
		return false;
	number -= rest;
	parity = run_down(decoder, number, HALO_KCP_FEC_PARITY, MOST);
	if (parity == 0 || parity > number)
		return false;
	number -= parity;
	data = run_down(decoder, number, HALO_KCP_FEC_DATA, MOST);
	begin = number + 1 - data;
	if (data == 0 || data + parity > MOST || begin % (data + parity) != 0)
		return false;
	if (begin > 0 && type_of(decoder, begin - 1) != HALO_KCP_FEC_PARITY)
		return false;
	*shape = shape_of(data, parity);
	return true;
}

static void tune(struct halo_kcp_fec_decoder *decoder, uint32_t number)
{
	struct shape shape;
	uint32_t i;

	if (!find_shape(decoder, number, &shape))
		return;
	decoder->suspect = false;
	if (shape.data == decoder->shape.data && shape.parity == decoder->shape.parity)
		return;
	for (i = 0; i < decoder->settings.groups; i++)
		reuse(decoder, &decoder->group[i]);
	decoder->shape = shape;
	decoder->counters.tuned++;
}

static int64_t refuse(struct halo_kcp_fec_decoder *decoder, int error)
{
	decoder->counters.errors++;
	return error;
}

int64_t halo_kcp_fec_decode(struct halo_kcp_fec_decoder *decoder, const uint8_t *octets, uint64_t length)
{
	const uint8_t *shard = octets + HALO_KCP_FEC_HEADER;
	uint32_t number, type, shard_length = (uint32_t)length - HALO_KCP_FEC_HEADER;
	bool data;

	forget_made(decoder);
	if (length < HALO_KCP_FEC_OVERHEAD)
		return refuse(decoder, -EINVAL);
	if (length > decoder->settings.octets)
		return refuse(decoder, -EMSGSIZE);
	number = get32(octets);
	type = get16(octets + 4);
	data = type == HALO_KCP_FEC_DATA;
	if (!data && type != HALO_KCP_FEC_PARITY)
		return refuse(decoder, -EINVAL);
	if (data && !carry(decoder, shard, shard_length))
		return refuse(decoder, -EINVAL);
	if (data)
		decoder->counters.data++;
	else
		decoder->counters.parity++;
	decoder->sighted[number % SIGHTED] = number;
	decoder->sighted_type[number % SIGHTED] = (uint8_t)type;
	if (decoder->suspect && data)
		tune(decoder, number);
	if (number >= decoder->shape.limit) {
		decoder->counters.errors++;
	} else if (data != (number % decoder->shape.shards < decoder->shape.data)) {
		decoder->counters.misplaced++;
		decoder->suspect = decoder->settings.tune != 0;
	} else {
		put_in(decoder, number, shard, shard_length);
	}
	return decoder->count;
}

int64_t halo_kcp_fec_decoded(const struct halo_kcp_fec_decoder *decoder, uint32_t i, const uint8_t **octets)
{
	if (i >= decoder->count)
		return -ENOENT;
	*octets = decoder->carried[i].octets;
	return decoder->carried[i].length;
}

void halo_kcp_fec_decoder_shards(const struct halo_kcp_fec_decoder *decoder, uint32_t *data, uint32_t *parity)
{
	*data = decoder->shape.data;
	*parity = decoder->shape.parity;
}

void halo_kcp_fec_decoder_counters(const struct halo_kcp_fec_decoder *decoder, struct halo_kcp_fec_counters *counters)
{
	*counters = decoder->counters;
}
