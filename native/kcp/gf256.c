/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic in GF(2^8). Adding is xor. A product is a sum of logarithms; a product of a whole buffer by one factor is, octet by
 * octet, the sum of two entries of 16: one for the low half of the octet, one for the high. Sixteen entries fit a vector
 * register, and a shuffle looks all octets of another up in it at once.
 */
#include "gf256.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
	ORDER = 255, /* of the multiplicative group */
	FIELD = 0x11d,
};

static uint8_t power[2 * ORDER]; /* x^n; twice, so that a sum of two logarithms needs no modulo */
static uint8_t logarithm[256];
static uint8_t by_half[256][32]; /* of each factor: its products with 0..15, and with 16 * 0..15 */

__attribute__((constructor)) static void fill_tables(void)
{
	uint32_t value = 1, n;

	for (n = 0; n < ORDER; n++) {
		power[n] = power[n + ORDER] = (uint8_t)value;
		logarithm[value] = (uint8_t)n;
		value <<= 1;
		if (value & 0x100)
			value ^= FIELD;
	}
	for (value = 0; value < 256; value++)
		for (n = 0; n < 16; n++) {
			by_half[value][n] = halo_gf_multiply((uint8_t)value, (uint8_t)n);
			by_half[value][16 + n] = halo_gf_multiply((uint8_t)value, (uint8_t)(n << 4));
		}
}

uint8_t halo_gf_multiply(uint8_t a, uint8_t b)
{
	return a && b ? power[logarithm[a] + logarithm[b]] : 0;
}

uint8_t halo_gf_inverse(uint8_t a)
{
	return power[ORDER - logarithm[a]];
}

#if defined(__x86_64__)

/* Returns how many octets are done: all but the last few. */
__attribute__((target("avx2"))) static uint32_t add_by_shuffle(uint8_t *sum, const uint8_t *octets, uint32_t length,
							       const uint8_t *half)
{
	const __m128i *table = (const __m128i *)(const void *)half;
	const __m256i low = _mm256_broadcastsi128_si256(_mm_loadu_si128(table));
	const __m256i high = _mm256_broadcastsi128_si256(_mm_loadu_si128(table + 1));
	const __m256i mask = _mm256_set1_epi8(0x0f);
	uint32_t done;

	for (done = 0; length - done >= sizeof(__m256i); done += sizeof(__m256i)) {
		__m256i *to = (__m256i *)(void *)(sum + done);
		__m256i in = _mm256_loadu_si256((const __m256i *)(const void *)(octets + done));
		__m256i low_half = _mm256_and_si256(in, mask);
		__m256i high_half = _mm256_and_si256(_mm256_srli_epi64(in, 4), mask);
		__m256i product =
			_mm256_xor_si256(_mm256_shuffle_epi8(low, low_half), _mm256_shuffle_epi8(high, high_half));

		_mm256_storeu_si256(to, _mm256_xor_si256(_mm256_loadu_si256(to), product));
	}
	return done;
}

#endif

void halo_gf_add_multiple(uint8_t *sum, const uint8_t *octets, uint32_t length, uint8_t factor)
{
	const uint8_t *half = by_half[factor];
	uint32_t i = 0;

	if (factor == 0)
		return;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		i = add_by_shuffle(sum, octets, length, half);
#endif
	for (; i < length; i++)
		sum[i] ^= half[octets[i] & 15] ^ half[16 + (octets[i] >> 4)];
}
