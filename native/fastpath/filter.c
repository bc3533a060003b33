/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters: the classic BPF, as pcap_compile makes it, checked before it runs as the kernel does it: known instructions, jumps
 * forward and within the program, a return at its end, words of memory that exist, no division by a constant zero. So it ends
 * after as many steps as it has, and reads nothing but the frame. A load behind the frame's end says no.
 */
#include <stdbool.h>

#include <halo/fastpath.h>
#include <halo/ring.h>

#include "octets.h"

/* What the codes are made of, as in <linux/bpf_common.h>. */
enum {
	LD = 0x00,
	LDX = 0x01,
	ST = 0x02,
	STX = 0x03,
	ALU = 0x04,
	JMP = 0x05,
	RET = 0x06,
	MISC = 0x07,

	W = 0x00,
	H = 0x08,
	B = 0x10,

	IMM = 0x00,
	ABS = 0x20,
	IND = 0x40,
	MEM = 0x60,
	LEN = 0x80,
	MSH = 0xa0,

	ADD = 0x00,
	SUB = 0x10,
	MUL = 0x20,
	DIV = 0x30,
	OR = 0x40,
	AND = 0x50,
	LSH = 0x60,
	RSH = 0x70,
	NEG = 0x80,
	MOD = 0x90,
	XOR = 0xa0,

	JA = 0x00,
	JEQ = 0x10,
	JGT = 0x20,
	JGE = 0x30,
	JSET = 0x40,

	K = 0x00,
	X = 0x08,
	A = 0x10,
	TAX = 0x00,
	TXA = 0x80,
};

static bool check_step(const struct halo_filter_step *step, uint32_t left)
{
	switch (step->code) {
	case LD | W | ABS:
	case LD | H | ABS:
	case LD | B | ABS:
	case LD | W | IND:
	case LD | H | IND:
	case LD | B | IND:
	case LD | W | LEN:
	case LD | IMM:
	case LDX | W | LEN:
	case LDX | IMM:
	case LDX | B | MSH:
	case ALU | ADD | K:
	case ALU | ADD | X:
	case ALU | SUB | K:
	case ALU | SUB | X:
	case ALU | MUL | K:
	case ALU | MUL | X:
	case ALU | DIV | X:
	case ALU | MOD | X:
	case ALU | OR | K:
	case ALU | OR | X:
	case ALU | AND | K:
	case ALU | AND | X:
	case ALU | XOR | K:
	case ALU | XOR | X:
	case ALU | LSH | X:
	case ALU | RSH | X:
	case ALU | NEG:
	case RET | K:
	case RET | A:
	case MISC | TAX:
	case MISC | TXA:
		return true;
	case ALU | DIV | K:
	case ALU | MOD | K:
		return step->k != 0;
	case ALU | LSH | K:
	case ALU | RSH | K:
		return step->k < 32;
	case LD | MEM:
	case LDX | MEM:
	case ST:
	case STX:
		return step->k < HALO_FILTER_WORDS;
	case JMP | JA:
		return step->k < left;
	case JMP | JEQ | K:
	case JMP | JEQ | X:
	case JMP | JGT | K:
	case JMP | JGT | X:
	case JMP | JGE | K:
	case JMP | JGE | X:
	case JMP | JSET | K:
	case JMP | JSET | X:
		return step->jt < left && step->jf < left;
	default:
		return false;
	}
}

uint32_t halo_filter_check(const struct halo_filter_step *step, uint32_t count)
{
	uint32_t i;

	if (count == 0 || count > HALO_MAX_FILTER_STEPS)
		return 1;
	for (i = 0; i < count; i++)
		if (!check_step(&step[i], count - 1 - i))
			return i + 1;
	return (step[count - 1].code & 7) == RET ? 0 : count;
}

/* Whether so many octets lie there. */
static inline bool reaches(uint32_t length, uint64_t at, uint32_t octets)
{
	return likely(at + octets <= length);
}

/* An arithmetic step. False: a division by zero, which says no. */
static bool compute(uint32_t *a, uint16_t code, uint32_t operand)
{
	switch (code & 0xf0) {
	case ADD:
		*a += operand;
		break;
	case SUB:
		*a -= operand;
		break;
	case MUL:
		*a *= operand;
		break;
	case OR:
		*a |= operand;
		break;
	case AND:
		*a &= operand;
		break;
	case XOR:
		*a ^= operand;
		break;
	case LSH:
		*a = operand < 32 ? *a << operand : 0;
		break;
	case RSH:
		*a = operand < 32 ? *a >> operand : 0;
		break;
	case NEG:
		*a = -*a;
		break;
	case DIV:
		if (operand == 0)
			return false;
		*a /= operand;
		break;
	default:
		if (operand == 0)
			return false;
		*a %= operand;
	}
	return true;
}

#define JUMP(condition) step += (condition) ? step->jt : step->jf

uint32_t halo_filter_run(const struct halo_filter_step *step, uint32_t count, const uint8_t *frame, uint32_t length)
{
	uint32_t memory[HALO_FILTER_WORDS] = {0};
	uint32_t a = 0, x = 0;

	if (count == 0)
		return UINT32_MAX;
	for (;; step++) {
		uint32_t k = step->k;
		uint64_t at = (uint64_t)x + k;

		switch (step->code) {
		case LD | H | ABS:
			if (!reaches(length, k, 2))
				return 0;
			a = load16(frame + k);
			break;
		case LD | B | ABS:
			if (!reaches(length, k, 1))
				return 0;
			a = frame[k];
			break;
		case LD | W | ABS:
			if (!reaches(length, k, 4))
				return 0;
			a = load32(frame + k);
			break;
		case JMP | JEQ | K:
			JUMP(a == k);
			break;
		case JMP | JSET | K:
			JUMP(a & k);
			break;
		case JMP | JGT | K:
			JUMP(a > k);
			break;
		case JMP | JGE | K:
			JUMP(a >= k);
			break;
		case LDX | B | MSH:
			if (!reaches(length, k, 1))
				return 0;
			x = (frame[k] & 0xfu) << 2;
			break;
		case LD | H | IND:
			if (!reaches(length, at, 2))
				return 0;
			a = load16(frame + at);
			break;
		case LD | B | IND:
			if (!reaches(length, at, 1))
				return 0;
			a = frame[at];
			break;
		case LD | W | IND:
			if (!reaches(length, at, 4))
				return 0;
			a = load32(frame + at);
			break;
		case RET | K:
			return k;
		case RET | A:
			return a;
		case JMP | JA:
			step += k;
			break;
		case JMP | JEQ | X:
			JUMP(a == x);
			break;
		case JMP | JGT | X:
			JUMP(a > x);
			break;
		case JMP | JGE | X:
			JUMP(a >= x);
			break;
		case JMP | JSET | X:
			JUMP(a & x);
			break;
		case LD | W | LEN:
			a = length;
			break;
		case LDX | W | LEN:
			x = length;
			break;
		case LD | IMM:
			a = k;
			break;
		case LDX | IMM:
			x = k;
			break;
		case LD | MEM:
			a = memory[k];
			break;
		case LDX | MEM:
			x = memory[k];
			break;
		case ST:
			memory[k] = a;
			break;
		case STX:
			memory[k] = x;
			break;
		case MISC | TAX:
			x = a;
			break;
		case MISC | TXA:
			a = x;
			break;
		default:
			if (!compute(&a, step->code, step->code & X ? x : k))
				return 0;
		}
	}
}
