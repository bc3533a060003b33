/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check that halo puts behind the header of a PUSH: CRC-32 of the payload (IEEE 802.3, as zlib's), or the low half of
 * XXH3-64 with the default secret and seed 0. No payload, no check: segments without one carry 0 by the caller's rule.
 *
 * CRC-32 is the remainder of the message, as a polynomial over GF(2) and its bits reflected, divided by P. A block that lies
 * n bits further from the end may be put in the place of its product with x^n mod P: so 64 octets at a time are folded onto
 * the 64 that follow by four carry-less multiplications each way, then 16 onto 16, until 16 remain, whose remainder the
 * tables give. Without that instruction (PCLMULQDQ) tables do it all, eight octets at a time.
 *
 * XXH3 is Debian's libxxhash-dev: a header, nothing to link.
 */
#include <stdint.h>

#include <halo/kcp_def.h>

#if !__has_include(<xxhash.h>)
#error "xxhash.h is missing: type `apt-get install libxxhash-dev`, or `make setup`, which installs what the build needs"
#endif
#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL UINT32_C(0xedb88320) /* 0x04c11db7 with its bits reflected */

enum {
	SLICES = 8,
	FOLD_FROM = 64, /* octets: with fewer there is nothing to fold */
};

/* slice[n][octet]: the remainder of an octet that n octets follow. */
static uint32_t slice[SLICES][256];

__attribute__((constructor)) static void fill_slices(void)
{
	uint32_t octet, n, bit;

	for (octet = 0; octet < 256; octet++) {
		uint32_t crc = octet;

		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		slice[0][octet] = crc;
	}
	for (octet = 0; octet < 256; octet++)
		for (n = 1; n < SLICES; n++)
			slice[n][octet] = slice[n - 1][octet] >> 8 ^ slice[0][slice[n - 1][octet] & 0xff];
}

static uint32_t crc32_by_tables(uint32_t crc, const uint8_t *octets, uint32_t length)
{
	for (; length >= SLICES; octets += SLICES, length -= SLICES) {
		uint32_t low = crc ^ ((uint32_t)octets[0] | (uint32_t)octets[1] << 8 | (uint32_t)octets[2] << 16 |
				      (uint32_t)octets[3] << 24);

		crc = slice[7][low & 0xff] ^ slice[6][low >> 8 & 0xff] ^ slice[5][low >> 16 & 0xff] ^
		      slice[4][low >> 24] ^ slice[3][octets[4]] ^ slice[2][octets[5]] ^ slice[1][octets[6]] ^
		      slice[0][octets[7]];
	}
	for (; length > 0; octets++, length--)
		crc = crc >> 8 ^ slice[0][(crc ^ *octets) & 0xff];
	return crc;
}

#if defined(__x86_64__)

/* x^(distance + 32) and x^(distance - 32) mod P, reflected and one bit further: for the block's two halves. */
#define FOLD_512_LOW 0x154442bd4
#define FOLD_512_HIGH 0x1c6e41596
#define FOLD_128_LOW 0x1751997d0
#define FOLD_128_HIGH 0x0ccaa009e

__attribute__((target("pclmul,sse2"))) static __m128i fold(__m128i block, __m128i by, __m128i onto)
{
	__m128i low = _mm_clmulepi64_si128(block, by, 0x00);
	__m128i high = _mm_clmulepi64_si128(block, by, 0x11);

	return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

static __m128i load(const uint8_t *octets, uint32_t block)
{
	return _mm_loadu_si128((const __m128i *)(const void *)(octets + sizeof(__m128i) * block));
}

/* At least FOLD_FROM octets. */
__attribute__((target("pclmul,sse2"))) static uint32_t crc32_by_folding(uint32_t crc, const uint8_t *octets,
									uint32_t length)
{
	const __m128i by_512 = _mm_set_epi64x(FOLD_512_HIGH, FOLD_512_LOW);
	const __m128i by_128 = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
	__m128i part[4];
	uint8_t rest[sizeof(__m128i)];
	uint32_t i;

	for (i = 0; i < 4; i++)
		part[i] = load(octets, i);
	part[0] = _mm_xor_si128(part[0], _mm_cvtsi32_si128((int)crc));
	for (octets += 64, length -= 64; length >= 64; octets += 64, length -= 64)
		for (i = 0; i < 4; i++)
			part[i] = fold(part[i], by_512, load(octets, i));
	for (i = 1; i < 4; i++)
		part[0] = fold(part[0], by_128, part[i]);
	for (; length >= 16; octets += 16, length -= 16)
		part[0] = fold(part[0], by_128, load(octets, 0));
	_mm_storeu_si128((__m128i *)(void *)rest, part[0]);
	return crc32_by_tables(crc32_by_tables(0, rest, sizeof(rest)), octets, length);
}

static uint32_t crc32(const uint8_t *octets, uint32_t length)
{
	if (length >= FOLD_FROM && __builtin_cpu_supports("pclmul"))
		return ~crc32_by_folding(UINT32_MAX, octets, length);
	return ~crc32_by_tables(UINT32_MAX, octets, length);
}

#else

static uint32_t crc32(const uint8_t *octets, uint32_t length)
{
	return ~crc32_by_tables(UINT32_MAX, octets, length);
}

#endif

uint32_t halo_kcp_check_value(uint32_t check, const uint8_t *octets, uint32_t length)
{
	switch (check) {
	case HALO_KCP_CHECK_CRC32:
		return crc32(octets, length);
	case HALO_KCP_CHECK_XXH3:
		return (uint32_t)XXH3_64bits(octets, length);
	default:
		return 0;
	}
}
