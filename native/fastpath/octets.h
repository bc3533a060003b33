/* SPDX-License-Identifier: Apache-2.0 */
/* Loads, stores and the internet checksum on octets of any alignment. */
#ifndef HALO_OCTETS_H
#define HALO_OCTETS_H

#include <stdint.h>
#include <string.h>

static inline uint16_t load16(const uint8_t *octets)
{
	uint16_t value;

	memcpy(&value, octets, sizeof(value));
	return __builtin_bswap16(value);
}

static inline uint32_t load32(const uint8_t *octets)
{
	uint32_t value;

	memcpy(&value, octets, sizeof(value));
	return __builtin_bswap32(value);
}

static inline uint64_t load_mac(const uint8_t *octets) /* reads 8 octets */
{
	uint64_t value;

	memcpy(&value, octets, sizeof(value));
	return value & UINT64_C(0xffffffffffff);
}

static inline void store16(uint8_t *octets, uint16_t value)
{
	value = __builtin_bswap16(value);
	memcpy(octets, &value, sizeof(value));
}

/* One's complement sum of 16-bit words in memory order, not folded into 16 bits (RFC 1071: order does not matter). */
static inline uint64_t sum_words(const uint8_t *octets, uint32_t length)
{
	uint64_t sum = 0;

	for (; length >= 8; octets += 8, length -= 8) {
		uint64_t word;

		memcpy(&word, octets, sizeof(word));
		sum += word;
		sum += sum < word; /* end-around carry */
	}
	if (length >= 4) {
		uint32_t word;

		memcpy(&word, octets, sizeof(word));
		sum += word;
		sum += sum < word;
		octets += 4;
		length -= 4;
	}
	if (length > 0) {
		uint32_t word = 0;

		memcpy(&word, octets, length);
		sum += word;
		sum += sum < word;
	}
	return sum;
}

static inline uint16_t fold(uint64_t sum)
{
	sum = (sum & UINT64_C(0xffffffff)) + (sum >> 32);
	sum = (sum & UINT64_C(0xffffffff)) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Header of `words` 32-bit words: 0 when its checksum is right. */
static inline uint16_t header_checksum(const uint8_t *octets, uint32_t length)
{
	return (uint16_t)~fold(sum_words(octets, length));
}

/*
 * RFC 1624, equation 3: checksum after a 16-bit field changes from `old` to `new`. All three in memory order, or all three
 * in host order: the sum is indifferent as long as they agree.
 */
static inline uint16_t checksum_update(uint16_t checksum, uint16_t old, uint16_t new)
{
	uint32_t sum = (uint16_t)~checksum + (uint32_t)(uint16_t)~old + new;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Decrement the TTL of an IPv4 header and mend its checksum. */
static inline void decrement_ttl(uint8_t *ipv4)
{
	uint16_t old = load16(ipv4 + 8);

	store16(ipv4 + 8, (uint16_t)(old - 0x100));
	store16(ipv4 + 10, checksum_update(load16(ipv4 + 10), old, (uint16_t)(old - 0x100)));
}

#endif
