/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters as machine code. The interpreter takes some 20 to 50 ns for a packet, more than its way through all stages; the same steps
 * as x86-64 code a few. Only steps that pcap_compile makes of usual expressions are translated; a filter with any other, another
 * machine, or a kernel that lets nobody make code, has the interpreter. Loads at fixed places are not checked one by one: a frame
 * that is shorter than the furthest of them is the interpreter's too.
 *
 * Registers: rdi the frame, rsi its length, eax A, ecx X, rdx and r8 for loads relative to X. Nothing is on the stack.
 */
#include "filter_code.h"

#include <sys/mman.h>

#if defined(__x86_64__)

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
	STEP_OCTETS = 40, /* the most that one step becomes */
	MOST_OFFSET = 4096,
	JUMP = 0xe9,
	RETURN = 0xc3,
	/* the second octet of a jump on a condition; the last bit turns it around */
	IF_BELOW = 0x82,
	IF_EQUAL = 0x84,
	IF_ABOVE = 0x87,
};

struct writer {
	uint8_t *octets;
	uint32_t length;
	const uint32_t *start; /* of each step; the last one is that of `no` */
	uint32_t count;
};

static void put(struct writer *writer, const void *octets, uint32_t count)
{
	memcpy(writer->octets + writer->length, octets, count);
	writer->length += count;
}

static void put8(struct writer *writer, uint32_t value)
{
	writer->octets[writer->length++] = (uint8_t)value;
}

static void put32(struct writer *writer, uint32_t value)
{
	put(writer, &value, sizeof(value));
}

#define PUT(writer, ...) put(writer, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put_target(struct writer *writer, uint32_t step)
{
	put32(writer, writer->start[step] - (writer->length + 4));
}

static void put_jump(struct writer *writer, uint32_t step)
{
	put8(writer, JUMP);
	put_target(writer, step);
}

static void put_branch(struct writer *writer, uint32_t condition, uint32_t step)
{
	PUT(writer, 0x0f, (uint8_t)condition);
	put_target(writer, step);
}

/* The octets at the address that was loaded from, in host order. */
static void put_order(struct writer *writer, uint32_t size)
{
	if (size == 2)
		PUT(writer, 0x66, 0xc1, 0xc0, 8); /* rol ax, 8 */
	else if (size == 4)
		PUT(writer, 0x0f, 0xc8); /* bswap eax */
}

static uint32_t size_of(uint16_t code)
{
	return (code & 0x18) == 0x10 ? 1 : (code & 0x18) == 0x08 ? 2 : 4;
}

static void put_load(struct writer *writer, uint16_t code, uint32_t k)
{
	uint32_t size = size_of(code);

	if (size == 4)
		PUT(writer, 0x8b, 0x87); /* mov eax, [rdi + k] */
	else
		PUT(writer, 0x0f, size == 2 ? 0xb7 : 0xb6, 0x87); /* movzx eax, [rdi + k] */
	put32(writer, k);
	put_order(writer, size);
}

static void put_indirect_load(struct writer *writer, uint16_t code, uint32_t k)
{
	uint32_t size = size_of(code);

	PUT(writer, 0x48, 0x8d, 0x91); /* lea rdx, [rcx + k] */
	put32(writer, k);
	PUT(writer, 0x4c, 0x8d, 0x42, (uint8_t)size); /* lea r8, [rdx + size] */
	PUT(writer, 0x49, 0x39, 0xf0);                /* cmp r8, rsi */
	put_branch(writer, IF_ABOVE, writer->count);
	if (size == 4)
		PUT(writer, 0x8b, 0x04, 0x17); /* mov eax, [rdi + rdx] */
	else
		PUT(writer, 0x0f, size == 2 ? 0xb7 : 0xb6, 0x04, 0x17);
	put_order(writer, size);
}

static void put_condition(struct writer *writer, const struct halo_filter_step *step, uint32_t next)
{
	static const uint8_t conditions[] = {0, IF_EQUAL, IF_ABOVE, IF_BELOW ^ 1, IF_EQUAL ^ 1};
	uint32_t condition = conditions[step->code >> 4 & 7];
	bool bits = (step->code & 0xf0) == 0x40, with_x = step->code & 8;

	if (with_x) {
		PUT(writer, bits ? 0x85 : 0x39, 0xc8); /* test or cmp eax, ecx */
	} else {
		put8(writer, bits ? 0xa9 : 0x3d);
		put32(writer, step->k);
	}
	if (step->jt)
		put_branch(writer, condition, next + step->jt);
	if (step->jf && step->jt)
		put_jump(writer, next + step->jf);
	else if (step->jf)
		put_branch(writer, condition ^ 1, next + step->jf);
}

static bool put_arithmetic(struct writer *writer, const struct halo_filter_step *step)
{
	switch (step->code) {
	case 0x04: /* add, sub, or, and, xor of k */
		put8(writer, 0x05);
		break;
	case 0x14:
		put8(writer, 0x2d);
		break;
	case 0x44:
		put8(writer, 0x0d);
		break;
	case 0x54:
		put8(writer, 0x25);
		break;
	case 0xa4:
		put8(writer, 0x35);
		break;
	case 0x64: /* shifts by k */
		PUT(writer, 0xc1, 0xe0, (uint8_t)step->k);
		return true;
	case 0x74:
		PUT(writer, 0xc1, 0xe8, (uint8_t)step->k);
		return true;
	case 0x0c: /* add, sub, or, and of X */
		PUT(writer, 0x01, 0xc8);
		return true;
	case 0x1c:
		PUT(writer, 0x29, 0xc8);
		return true;
	case 0x4c:
		PUT(writer, 0x09, 0xc8);
		return true;
	case 0x5c:
		PUT(writer, 0x21, 0xc8);
		return true;
	default:
		return false;
	}
	put32(writer, step->k);
	return true;
}

/* False: a step that is the interpreter's. */
static bool put_step(struct writer *writer, const struct halo_filter_step *step, uint32_t next)
{
	switch (step->code) {
	case 0x20: /* loads at k: a word, a half, an octet */
	case 0x28:
	case 0x30:
		put_load(writer, step->code, step->k);
		return step->k < MOST_OFFSET;
	case 0x40: /* the same at X + k */
	case 0x48:
	case 0x50:
		put_indirect_load(writer, step->code, step->k);
		return step->k < MOST_OFFSET;
	case 0xb1: /* the length of an IP header, from k */
		PUT(writer, 0x0f, 0xb6, 0x8f);
		put32(writer, step->k);
		PUT(writer, 0x83, 0xe1, 0x0f, 0xc1, 0xe1, 2);
		return step->k < MOST_OFFSET;
	case 0x80: /* the frame's length */
		PUT(writer, 0x89, 0xf0);
		return true;
	case 0x00: /* A, X = k */
	case 0x01:
		put8(writer, step->code == 0 ? 0xb8 : 0xb9);
		put32(writer, step->k);
		return true;
	case 0x07: /* X = A, A = X */
		PUT(writer, 0x89, 0xc1);
		return true;
	case 0x87:
		PUT(writer, 0x89, 0xc8);
		return true;
	case 0x06: /* return k, A */
		put8(writer, 0xb8);
		put32(writer, step->k);
		put8(writer, RETURN);
		return true;
	case 0x16:
		put8(writer, RETURN);
		return true;
	case 0x05:
		put_jump(writer, next + step->k);
		return true;
	default:
		break;
	}
	if ((step->code & 7) == 5)
		put_condition(writer, step, next);
	return (step->code & 7) == 5 || put_arithmetic(writer, step);
}

/* The code of all steps; `start` is where each begins, as found the last time. */
static bool put_all(struct writer *writer, const struct halo_filter_step *step, uint32_t *start)
{
	uint32_t i;

	writer->length = 0;
	PUT(writer, 0x89, 0xf6, 0x31, 0xc0, 0x31, 0xc9); /* the length in all of rsi; A = X = 0 */
	for (i = 0; i < writer->count; i++) {
		start[i] = writer->length;
		if (!put_step(writer, &step[i], i + 1))
			return false;
	}
	start[i] = writer->length;
	PUT(writer, 0x31, 0xc0, RETURN); /* no */
	return true;
}

static uint32_t furthest(const struct halo_filter_step *step, uint32_t count)
{
	uint32_t most = 0, end, i;

	for (i = 0; i < count; i++) {
		if ((step[i].code & 0xe6) != 0x20 && step[i].code != 0xb1)
			continue;
		end = step[i].k + (step[i].code == 0xb1 ? 1 : size_of(step[i].code));
		most = end > most ? end : most;
	}
	return most;
}

void halo_filter_translate(const struct halo_filter_step *step, uint32_t count, struct halo_filter_code *code)
{
	uint64_t octets = ((uint64_t)count * STEP_OCTETS + STEP_OCTETS + 4095) & ~UINT64_C(4095);
	uint32_t *start = calloc(count + 1, sizeof(*start));
	uint8_t *memory = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct writer writer = {.octets = memory, .start = start, .count = count};
	bool done = false;

	memset(code, 0, sizeof(*code));
	if (start && memory != MAP_FAILED) /* the second time with every target known; no length changes */
		done = put_all(&writer, step, start) && put_all(&writer, step, start) &&
		       mprotect(memory, octets, PROT_READ | PROT_EXEC) == 0;
	free(start);
	if (done) {
		memcpy(&code->run, &memory, sizeof(code->run));
		code->least = furthest(step, count);
		code->memory = memory;
		code->octets = octets;
	} else if (memory != MAP_FAILED) {
		munmap(memory, octets);
	}
}

#else

void halo_filter_translate(const struct halo_filter_step *step, uint32_t count, struct halo_filter_code *code)
{
	(void)step;
	(void)count;
	*code = (struct halo_filter_code){0};
}

#endif

void halo_filter_discard(struct halo_filter_code *code)
{
	if (code->memory)
		munmap(code->memory, code->octets);
	*code = (struct halo_filter_code){0};
}

int halo_filter_run_translated(const struct halo_filter_step *step, uint32_t count, const uint8_t *frame,
			       uint32_t length, uint32_t *said)
{
	struct halo_filter_code code;
	int ran = 0;

	halo_filter_translate(step, count, &code);
	if (count && code.run && length >= code.least) {
		*said = code.run(frame, length);
		ran = 1;
	}
	halo_filter_discard(&code);
	return ran;
}
