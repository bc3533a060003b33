/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packets of a burst a filter may let through, in one call: nearly all are none that is looked for, and a call for each, with
 * a look at everything that a frame could be, is what a filter costs. So the steps are followed once, for the frames that
 * nine of ten are, untagged IPv4 without options: what is known of these is decided then, a load waits until it is compared, and what
 * is left becomes x86-64 code that goes over the whole burst. All other packets, and all that is not decided here, are found:
 * filter.c or filter_code.c says what is true of those. So a mistake of this file's could hide a packet, and show none.
 *
 * Registers: rdi the packet, rsi the end, rdx the pool, rcx what was found, r8d the last place of a frame; rax the frame, r9d A,
 * r10d X, r11d for a moment. Nothing is on the stack.
 */
#include "sift.h"

#include <errno.h>
#include <string.h>

#include <sys/mman.h>

#if defined(__x86_64__)

#include <stddef.h>
#include <stdlib.h>

enum {
	ROOM_OCTETS = 16384, /* of each of the two ways; what becomes longer is not sifted */
	STEP_OCTETS = 64,    /* the most that is written between two looks at the room */
	MAX_LABELS = 512,
	MAX_FIXUPS = 2 * MAX_LABELS,
	MOST_OFFSET = 2048,
	PLAIN_OCTETS = 34, /* that a plain packet has at least */
	FOUND = 0,         /* labels that there are always */
	NEXT = 1,
	/* the second octet of a jump on a condition; the last bit turns it around */
	IF_BELOW = 0x82,
	IF_EQUAL = 0x84,
	IF_ABOVE = 0x87,
	A = 0,
	X = 1,
};

static_assert(offsetof(struct halo_packet, offset) == 0 && offsetof(struct halo_packet, length) == 4 &&
		      offsetof(struct halo_packet, plain) < 128 && sizeof(struct halo_packet) == 128,
	      "as the code has it");

/* What a register of the filter holds. */
struct value {
	enum { IN_REGISTER, CONSTANT, OCTETS } kind;
	uint32_t k;    /* the constant, or where the octets of the frame are */
	uint32_t size; /* of these: 1, 2, 4 */
};

/* Where the filter is, and what it knows. */
struct state {
	uint32_t at; /* the step; with `decided` FOUND or NEXT */
	bool decided;
	struct value value[2];
};

struct label {
	struct state state;
	uint32_t start; /* 0: nowhere yet */
};

struct sifter {
	const struct halo_filter_step *step;
	uint8_t *octets;
	uint32_t length;
	uint32_t least;
	bool full;
	uint32_t label_count, fixup_count;
	struct label label[MAX_LABELS];
	struct {
		uint32_t place, label;
	} fixup[MAX_FIXUPS];
};

/* ---- octets --------------------------------------------------------------------------------------------------- */

static void put(struct sifter *to, const void *octets, uint32_t count)
{
	memcpy(to->octets + to->length, octets, count);
	to->length += count;
}

#define PUT(to, ...) put(to, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct sifter *to, uint32_t value)
{
	put(to, &value, sizeof(value));
}

/* A place to jump to, which is known at the end. */
static void put_target(struct sifter *to, uint32_t label)
{
	if (to->fixup_count == MAX_FIXUPS) {
		to->full = true;
		return;
	}
	to->fixup[to->fixup_count].place = to->length;
	to->fixup[to->fixup_count++].label = label;
	put32(to, 0);
}

static void put_jump(struct sifter *to, uint32_t label)
{
	PUT(to, 0xe9);
	put_target(to, label);
}

static void put_branch(struct sifter *to, uint32_t condition, uint32_t label)
{
	PUT(to, 0x0f, (uint8_t)condition);
	put_target(to, label);
}

/* [rax + offset], for an instruction whose register or digit is `digit`. */
static void put_frame(struct sifter *to, uint32_t digit, const struct value *value)
{
	uint32_t end = value->k + value->size;

	if (end > to->least)
		to->least = end;
	PUT(to, (uint8_t)(0x80 | digit << 3));
	put32(to, value->k);
}

/* The value in its register: r9d or r10d. */
static void settle(struct sifter *to, struct state *state, uint32_t which)
{
	struct value *value = &state->value[which];

	switch (value->kind) {
	case IN_REGISTER:
		return;
	case CONSTANT:
		PUT(to, 0x41, (uint8_t)(0xb9 + which)); /* mov r9d, k */
		put32(to, value->k);
		break;
	case OCTETS:
		if (value->size == 4)
			PUT(to, 0x44, 0x8b); /* mov r9d, [rax + k] */
		else
			PUT(to, 0x44, 0x0f, value->size == 2 ? 0xb7 : 0xb6); /* movzx */
		put_frame(to, 1 + which, value);
		if (value->size == 2)
			PUT(to, 0x66, 0x41, 0xc1, (uint8_t)(0xc1 + which), 8); /* rol r9w, 8 */
		else if (value->size == 4)
			PUT(to, 0x41, 0x0f, (uint8_t)(0xc9 + which)); /* bswap r9d */
		break;
	}
	value->kind = IN_REGISTER;
}

/* The number as it lies in memory, in so many octets. */
static void put_in_order(struct sifter *to, uint32_t value, uint32_t size)
{
	uint8_t octets[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};

	put(to, octets + 4 - size, size);
}

/* Compare A with k, or with `bits` the bits of it that k has. */
static void put_compare(struct sifter *to, struct state *state, uint32_t k, bool bits, bool order)
{
	struct value *value = &state->value[A];

	if (order && value->kind == OCTETS && value->size > 1)
		settle(to, state, A); /* which of two is more, octets in the wrong order do not say */
	if (value->kind == IN_REGISTER) {
		PUT(to, 0x41, bits ? 0xf7 : 0x81, bits ? 0xc1 : 0xf9);
		put32(to, k);
		return;
	}
	if (value->size == 2)
		PUT(to, 0x66);
	if (value->size == 1)
		PUT(to, bits ? 0xf6 : 0x80);
	else
		PUT(to, bits ? 0xf7 : 0x81);
	put_frame(to, bits ? 0 : 7, value);
	put_in_order(to, k, value->size);
}

/* ---- what is known -------------------------------------------------------------------------------------------- */

static uint32_t size_of(uint16_t code)
{
	return (code & 0x18) == 0x10 ? 1 : (code & 0x18) == 0x08 ? 2 : 4;
}

static struct value constant(uint32_t k)
{
	return (struct value){.kind = CONSTANT, .k = k};
}

static void decide(struct state *state, uint32_t label)
{
	*state = (struct state){.at = label, .decided = true};
}

/* A load from the frame; of a plain one some octets are known. */
static void load(struct state *state, uint64_t at, uint32_t size)
{
	struct value *a = &state->value[A];

	if (at > MOST_OFFSET)
		return decide(state, FOUND);
	state->at++;
	if (at == 12 && size == 2)
		*a = constant(0x0800);
	else if (at == 14 && size == 1)
		*a = constant(0x45);
	else
		*a = (struct value){.kind = OCTETS, .k = (uint32_t)at, .size = size};
}

/* The most that a value can be. */
static uint32_t limit(const struct value *value)
{
	if (value->kind == OCTETS && value->size < 4)
		return value->size == 2 ? UINT16_MAX : UINT8_MAX;
	return UINT32_MAX;
}

/* What a comparison must say whatever the frame has: 1 or 0; -1: it depends. */
static int foretell(uint16_t code, const struct value *a, uint32_t k)
{
	uint32_t most = limit(a);
	bool known = a->kind == CONSTANT;

	switch (code & 0xf0) {
	case 0x10:
		return known ? a->k == k : k > most ? 0 : -1;
	case 0x20:
		return known ? a->k > k : k >= most ? 0 : -1;
	case 0x30:
		return known ? a->k >= k : k > most ? 0 : -1;
	default:
		return known ? (a->k & k) != 0 : (k & most) == 0 ? 0 : -1;
	}
}

static bool compare_known(struct state *state, const struct halo_filter_step *step)
{
	const struct value *x = &state->value[X];
	int said;

	if ((step->code & 8) && x->kind != CONSTANT)
		return false;
	said = foretell(step->code, &state->value[A], step->code & 8 ? x->k : step->k);
	if (said >= 0)
		state->at += 1u + (said ? step->jt : step->jf);
	return said >= 0;
}

/* Arithmetic with two numbers. False: not here. */
static bool fold(uint16_t code, uint32_t *a, uint32_t k)
{
	switch (code & 0xf0) {
	case 0x00:
		*a += k;
		return true;
	case 0x10:
		*a -= k;
		return true;
	case 0x40:
		*a |= k;
		return true;
	case 0x50:
		*a &= k;
		return true;
	default:
		return false;
	}
}

static bool compute_known(struct state *state, const struct halo_filter_step *step)
{
	struct value *a = &state->value[A];
	const struct value *x = &state->value[X];

	if (a->kind != CONSTANT || ((step->code & 8) && x->kind != CONSTANT))
		return false;
	if (fold(step->code, &a->k, step->code & 8 ? x->k : step->k))
		state->at++;
	else
		decide(state, FOUND);
	return true;
}

/* Do a step that needs no code. False: it needs some. */
static bool advance(struct state *state, const struct halo_filter_step *all)
{
	const struct halo_filter_step *step = &all[state->at];
	struct value *a = &state->value[A], *x = &state->value[X];

	switch (step->code) {
	case 0x20: /* loads at k: a word, a half, an octet */
	case 0x28:
	case 0x30:
		load(state, step->k, size_of(step->code));
		return true;
	case 0x40: /* the same at X + k */
	case 0x48:
	case 0x50:
		if (x->kind == CONSTANT)
			load(state, (uint64_t)x->k + step->k, size_of(step->code));
		else
			decide(state, FOUND);
		return true;
	case 0xb1: /* the length of an IP header */
		if (step->k != 14) {
			decide(state, FOUND);
			return true;
		}
		*x = constant(20);
		break;
	case 0x00: /* A, X = k */
		*a = constant(step->k);
		break;
	case 0x01:
		*x = constant(step->k);
		break;
	case 0x07: /* X = A, A = X */
		if (a->kind == IN_REGISTER)
			return false;
		*x = *a;
		break;
	case 0x87:
		if (x->kind == IN_REGISTER)
			return false;
		*a = *x;
		break;
	case 0x06: /* return k */
		decide(state, step->k ? FOUND : NEXT);
		return true;
	case 0x05:
		state->at += 1 + step->k;
		return true;
	case 0x80: /* the frame's length */
		return false;
	default:
		if ((step->code & 7) == 5)
			return compare_known(state, step);
		if ((step->code & 7) == 4)
			return compute_known(state, step);
		decide(state, FOUND); /* whatever else there is */
		return true;
	}
	state->at++;
	return true;
}

/* ---- code ----------------------------------------------------------------------------------------------------- */

static bool is_same(const struct value *one, const struct value *other)
{
	return one->kind == other->kind && one->k == other->k && one->size == other->size;
}

/* Where it goes on from that state, everything done that needs no code. */
static uint32_t label_of(struct sifter *to, struct state state)
{
	uint32_t i;

	while (!state.decided && advance(&state, to->step))
		;
	if (state.decided)
		return state.at;
	for (i = 0; i < 2; i++) /* what a register holds, only it knows */
		if (state.value[i].kind == IN_REGISTER)
			state.value[i] = (struct value){.kind = IN_REGISTER};
	for (i = NEXT + 1; i < to->label_count; i++)
		if (to->label[i].state.at == state.at && is_same(&to->label[i].state.value[A], &state.value[A]) &&
		    is_same(&to->label[i].state.value[X], &state.value[X]))
			return i;
	if (to->label_count == MAX_LABELS) {
		to->full = true;
		return FOUND;
	}
	to->label[to->label_count] = (struct label){.state = state};
	return to->label_count++;
}

/* A op= k, or X. False: not here. */
static bool put_arithmetic(struct sifter *to, struct state *state, const struct halo_filter_step *step)
{
	static const uint8_t digits[16] = {[0x0] = 0xc1, [0x1] = 0xe9, [0x4] = 0xc9, [0x5] = 0xe1, [0xa] = 0xf1};
	uint32_t operation = step->code >> 4 & 15, k = step->k;

	if ((step->code & 8) && state->value[X].kind == CONSTANT)
		k = state->value[X].k;
	else if (step->code & 8)
		return false;
	if (operation == 6 || operation == 7 ? k > 31 : !digits[operation])
		return false;
	settle(to, state, A);
	if (operation == 6 || operation == 7) { /* shl, shr r9d, k */
		PUT(to, 0x41, 0xc1, operation == 6 ? 0xe1 : 0xe9, (uint8_t)k);
		return true;
	}
	PUT(to, 0x41, 0x81, digits[operation]); /* add, sub, or, and, xor r9d, k */
	put32(to, k);
	return true;
}

/* A step that is no comparison. False: not here. */
static bool put_plain_step(struct sifter *to, struct state *state, const struct halo_filter_step *step)
{
	state->at++;
	switch (step->code) {
	case 0x80: /* movzx r9d, word [rdi + 4] */
		PUT(to, 0x44, 0x0f, 0xb7, 0x4f, 4);
		state->value[A].kind = IN_REGISTER;
		return true;
	case 0x07: /* mov r10d, r9d */
		PUT(to, 0x45, 0x89, 0xca);
		state->value[X].kind = IN_REGISTER;
		return true;
	case 0x87: /* mov r9d, r10d */
		PUT(to, 0x45, 0x89, 0xd1);
		state->value[A].kind = IN_REGISTER;
		return true;
	default:
		return put_arithmetic(to, state, step);
	}
}

/* Compare, and return where it goes on; the other way is jumped to. */
static uint32_t put_condition(struct sifter *to, struct state *state, const struct halo_filter_step *step)
{
	static const uint8_t conditions[] = {0, IF_EQUAL, IF_ABOVE, IF_BELOW ^ 1, IF_EQUAL ^ 1};
	uint32_t kind = step->code >> 4 & 7, condition = conditions[kind], yes, no;
	bool bits = kind == 4;
	struct state other;

	if (!(step->code & 8) || state->value[X].kind == CONSTANT) {
		put_compare(to, state, step->code & 8 ? state->value[X].k : step->k, bits, kind == 2 || kind == 3);
	} else {
		settle(to, state, A);
		settle(to, state, X);
		PUT(to, 0x45, bits ? 0x85 : 0x39, 0xd1); /* test or cmp r9d, r10d */
	}
	other = *state;
	other.at += 1u + step->jt;
	yes = label_of(to, other);
	state->at += 1u + step->jf;
	no = label_of(to, *state);
	if (yes > NEXT && no <= NEXT) {
		put_branch(to, condition ^ 1, no);
		return yes;
	}
	put_branch(to, condition, yes);
	return no;
}

/* The code from a label on, up to where there is some already. */
static void put_from(struct sifter *to, uint32_t label)
{
	while (label > NEXT && !to->label[label].start && !to->full) {
		struct state state = to->label[label].state;
		const struct halo_filter_step *step = &to->step[state.at];

		if (to->length + STEP_OCTETS > ROOM_OCTETS) {
			to->full = true;
			return;
		}
		to->label[label].start = to->length;
		if ((step->code & 7) == 5)
			label = put_condition(to, &state, step);
		else
			label = put_plain_step(to, &state, step) ? label_of(to, state) : FOUND;
	}
	put_jump(to, label);
}

/* A packet that can be something else goes no further. */
static void put_head(struct sifter *to, bool fresh, uint32_t least)
{
	if (fresh) {
		PUT(to, 0x80, 0x7f, offsetof(struct halo_packet, plain), 0); /* cmp byte [rdi + plain], 0 */
		put_branch(to, IF_EQUAL, FOUND);
	}
	if (!fresh || least > PLAIN_OCTETS) {
		PUT(to, 0x66, 0x81, 0x7f, 4, (uint8_t)least, (uint8_t)(least >> 8)); /* cmp word [rdi + 4], least */
		put_branch(to, IF_BELOW, FOUND);
	}
	PUT(to, 0x8b, 0x07); /* mov eax, [rdi] */
	if (!fresh) {
		PUT(to, 0x44, 0x39, 0xc0); /* cmp eax, r8d */
		put_branch(to, IF_ABOVE, FOUND);
	}
	PUT(to, 0x48, 0x01, 0xd0); /* add rax, rdx */
	if (!fresh) {
		PUT(to, 0x44, 0x8b, 0x58, 12);                     /* mov r11d, [rax + 12] */
		PUT(to, 0x41, 0xc1, 0xe3, 8);                      /* shl r11d, 8 */
		PUT(to, 0x41, 0x81, 0xfb, 0x00, 0x08, 0x00, 0x45); /* cmp r11d: IPv4, a header of 20 octets */
		put_branch(to, IF_EQUAL ^ 1, FOUND);
	}
}

static void put_tail(struct sifter *to, uint32_t loop)
{
	to->label[FOUND].start = to->length;
	PUT(to, 0x48, 0x89, 0x39);    /* mov [rcx], rdi */
	PUT(to, 0x48, 0x83, 0xc1, 8); /* add rcx, 8 */
	to->label[NEXT].start = to->length;
	PUT(to, 0x48, 0x83, 0xef, 0x80); /* sub rdi, -128 */
	PUT(to, 0x48, 0x39, 0xf7);       /* cmp rdi, rsi */
	PUT(to, 0x0f, IF_BELOW);         /* jb loop */
	put32(to, loop - (to->length + 4));
	PUT(to, 0x48, 0x89, 0xc8, 0xc3); /* mov rax, rcx; ret */
}

/* All code at `octets`, of at most ROOM_OCTETS. False: there is no room. */
static bool put_all(struct sifter *to, uint8_t *octets, bool fresh, uint32_t least)
{
	const struct state start = {.value = {{.kind = CONSTANT}, {.kind = CONSTANT}}};
	uint32_t first, i;

	to->octets = octets;
	to->length = to->fixup_count = 0;
	to->full = false;
	to->label_count = NEXT + 1;
	to->least = 15; /* what is looked at to see whether it is plain */
	put_head(to, fresh, least);
	first = label_of(to, start);
	put_from(to, first);
	for (i = NEXT + 1; i < to->label_count; i++)
		if (!to->label[i].start)
			put_from(to, i);
	if (to->full || to->length + STEP_OCTETS > ROOM_OCTETS)
		return false;
	put_tail(to, 0);
	for (i = 0; i < to->fixup_count; i++) {
		uint32_t place = to->fixup[i].place, relative = to->label[to->fixup[i].label].start - (place + 4);

		memcpy(octets + place, &relative, sizeof(relative));
	}
	return true;
}

/* The first time it is found out how far it looks. */
static bool put_both(struct sifter *to, uint8_t *memory)
{
	return put_all(to, memory, false, 0) && put_all(to, memory, false, to->least) &&
	       put_all(to, memory + ROOM_OCTETS, true, to->least);
}

void halo_sift_translate(const struct halo_filter_step *step, uint32_t count, struct halo_sift *sift)
{
	struct sifter *sifter = calloc(1, sizeof(*sifter));
	uint8_t *memory = mmap(NULL, 2 * ROOM_OCTETS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *fresh;
	bool done = false;

	*sift = (struct halo_sift){0};
	if (sifter && memory != MAP_FAILED && count) {
		sifter->step = step;
		done = put_both(sifter, memory) && mprotect(memory, 2 * ROOM_OCTETS, PROT_READ | PROT_EXEC) == 0;
	}
	if (done) {
		memcpy(&sift->any, &memory, sizeof(sift->any));
		fresh = memory + ROOM_OCTETS;
		memcpy(&sift->fresh, &fresh, sizeof(sift->fresh));
		sift->least = sifter->least;
		sift->memory = memory;
		sift->octets = 2 * ROOM_OCTETS;
	} else if (memory != MAP_FAILED) {
		munmap(memory, 2 * ROOM_OCTETS);
	}
	free(sifter);
}

#else

void halo_sift_translate(const struct halo_filter_step *step, uint32_t count, struct halo_sift *sift)
{
	(void)step;
	(void)count;
	*sift = (struct halo_sift){0};
}

#endif

static void mark(halo_sift_function function, const struct halo_packet *packets, uint32_t count, const uint8_t *pool,
		 uint32_t last, uint8_t bit, uint8_t *found)
{
	const struct halo_packet *all[HALO_WIDE_BURST];
	const struct halo_packet **end = function(packets, packets + count, pool, all, last), **each;

	for (each = all; each < end; each++)
		found[*each - packets] |= bit;
}

int halo_filter_sift(const struct halo_filter_step *step, uint32_t count, const struct halo_packet *packets,
		     uint32_t packet_count, const uint8_t *pool, uint32_t pool_octets, uint8_t *found)
{
	struct halo_sift sift;

	halo_sift_translate(step, count, &sift);
	if (!sift.any || packet_count == 0 || packet_count > HALO_WIDE_BURST || pool_octets < sift.least) {
		halo_sift_discard(&sift);
		return -ENOTSUP;
	}
	memset(found, 0, packet_count);
	mark(sift.fresh, packets, packet_count, pool, pool_octets - sift.least, 1, found);
	mark(sift.any, packets, packet_count, pool, pool_octets - sift.least, 2, found);
	halo_sift_discard(&sift);
	return 0;
}

void halo_sift_discard(struct halo_sift *sift)
{
	if (sift->memory)
		munmap(sift->memory, sift->octets);
	*sift = (struct halo_sift){0};
}
