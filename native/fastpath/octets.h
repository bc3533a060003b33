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

static inline void store32(uint8_t *octets, uint32_t value)
{
	value = __builtin_bswap32(value);
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

/*
 * Whether the checksum of a header without options is right. Five 32-bit words never overflow 64 bits, and the folded sum of a
 * number is 0xffff exactly when the number is a multiple of 0xffff (0 is no header: its version would be 0).
 */
static inline int plain_header_is_right(const uint8_t *ipv4)
{
	uint32_t word[5];

	memcpy(word, ipv4, sizeof(word));
	return ((uint64_t)word[0] + word[1] + word[2] + word[3] + word[4]) % 0xffff == 0;
}

/*
 * Decrement the TTL of an IPv4 header and mend its checksum: RFC 1624's equation 3 for a field that falls by 0x0100, in memory
 * order, where the end-around carry is all that is left of it.
 */
static inline void decrement_ttl(uint8_t *ipv4)
{
	uint16_t checksum;
	uint32_t sum;

	memcpy(&checksum, ipv4 + 10, sizeof(checksum));
	sum = (uint32_t)checksum + __builtin_bswap16(0x0100);
	checksum = (uint16_t)(sum + (sum >= 0xffff));
	memcpy(ipv4 + 10, &checksum, sizeof(checksum));
	ipv4[8]--;
}

/* Exchange the two MAC addresses at the start of a frame: twelve octets in two loads and two stores. */
static inline void swap_macs(uint8_t *frame)
{
	uint64_t low, swapped_low;
	uint32_t high, swapped_high;

	memcpy(&low, frame, sizeof(low));
	memcpy(&high, frame + 8, sizeof(high));
	swapped_low = low >> 48 | (uint64_t)high << 16 | low << 48;
	swapped_high = (uint32_t)(low >> 16);
	memcpy(frame, &swapped_low, sizeof(swapped_low));
	memcpy(frame + 8, &swapped_high, sizeof(swapped_high));
}

#endif
