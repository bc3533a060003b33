/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settling: what a hook has done to a packet becomes true of its frame, and only that. Before the hook the packet's first line,
 * its addresses and the octets 12 to 43 of its frame are remembered. Whatever differs afterwards was the hook: fields that have
 * a meaning are written into the frame, a frame that it changed is parsed again, and the rest is put back. The stages behind
 * rely on offsets and numbers in the packet, so nothing that a hook wrote is taken unseen.
 */
#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	FRAGMENT_MASK = 0x3fff,   /* more-fragments and offset */
	FRAGMENT_OFFSET = 0x1fff, /* of the first one 0: it has the header of its protocol */
	HEADER_START = 12,        /* of what is remembered: EtherType or tag, IPv4 header, ports */
	HEADER_OCTETS = 32,
	UDP_CHECKSUM = 6,
	TCP_CHECKSUM = 16,
	ICMP_CHECKSUM = 2,
};

typedef uint64_t pair __attribute__((vector_size(16)));

struct shadow {
	uint8_t line[HALO_LINE];
	uint32_t src;
	uint32_t dst;
	uint8_t header[HEADER_OCTETS];
	uint32_t header_octets;
	uint8_t pad[20];
};

static_assert(sizeof(struct shadow) == sizeof(struct halo_shadow), "as the header says");

/* Of the first line, what may change without a word: verdict, reason, mark. */
static const struct halo_packet free_fields = {
	.verdict = 0xff,
	.reason = 0xff,
	.mark = UINT32_MAX,
};

/* And what changes nothing but itself and the header's checksum. */
static const struct halo_packet small_fields = {
	.ttl = 0xff,
	.tos = 0xff,
};
static_assert(offsetof(struct halo_packet, ttl) / 16 == 1 && offsetof(struct halo_packet, tos) / 16 == 1,
	      "both are in the second pair of words");

static inline struct shadow *inside(struct halo_shadow *shadow)
{
	return (struct shadow *)(void *)shadow;
}

/* Where the frame was: what the packet says now is the hook's. */
static inline uint32_t offset_before(const struct shadow *shadow)
{
	uint32_t offset;

	memcpy(&offset, shadow->line + offsetof(struct halo_packet, offset), sizeof(offset));
	return offset;
}

static inline pair load_pair(const void *octets)
{
	pair value;

	memcpy(&value, octets, sizeof(value));
	return value;
}

/* ---- before --------------------------------------------------------------------------------------------------- */

static inline void remember(const uint8_t *pool, const struct halo_packet *packet, struct shadow *shadow)
{
	const uint8_t *frame = pool + packet->offset;

	memcpy(shadow->line, packet, HALO_LINE);
	shadow->src = packet->src[0];
	shadow->dst = packet->dst[0];
	shadow->header_octets = HEADER_OCTETS;
	if (likely(packet->length >= HEADER_START + HEADER_OCTETS)) {
		memcpy(shadow->header, frame + HEADER_START, HEADER_OCTETS);
		return;
	}
	shadow->header_octets = packet->length > HEADER_START ? packet->length - (uint32_t)HEADER_START : 0;
	memcpy(shadow->header, frame + HEADER_START, shadow->header_octets);
}

void halo_remember_all(const uint8_t *pool, struct halo_packet *const *packets, uint32_t count,
		       const struct halo_packet *first, struct halo_shadow *shadows)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		remember(pool, packets[i], inside(&shadows[packets[i] - first]));
}

void halo_packets_remember(const uint8_t *pool, const struct halo_packet *packets, uint32_t count,
			   struct halo_shadow *shadows)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		remember(pool, &packets[i], inside(&shadows[i]));
}

/* ---- after ---------------------------------------------------------------------------------------------------- */

enum touched {
	UNTOUCHED,
	SMALL, /* TTL or type of service, and nothing else */
	TOUCHED,
};

/* How much was changed that settling is about, or decided. */
static inline enum touched how_touched(const uint8_t *pool, const struct halo_packet *packet,
				       const struct shadow *shadow)
{
	const uint8_t *frame = pool + offset_before(shadow);
	const uint8_t *line = (const uint8_t *)packet;
	pair differs, small;

	if (unlikely(packet->verdict != HALO_VERDICT_NONE || shadow->header_octets != HEADER_OCTETS))
		return TOUCHED;
	differs = (load_pair(line) ^ load_pair(shadow->line)) & ~load_pair(&free_fields);
	small = load_pair(line + 16) ^ load_pair(shadow->line + 16);
	differs |= small & ~load_pair((const uint8_t *)&small_fields + 16);
	differs |=
		(load_pair(line + 32) ^ load_pair(shadow->line + 32)) & ~load_pair((const uint8_t *)&free_fields + 32);
	differs |= load_pair(line + 48) ^ load_pair(shadow->line + 48);
	differs |= load_pair(frame + HEADER_START) ^ load_pair(shadow->header);
	differs |= load_pair(frame + HEADER_START + 16) ^ load_pair(shadow->header + 16);
	if (differs[0] | differs[1] | (packet->src[0] ^ shadow->src) | (packet->dst[0] ^ shadow->dst))
		return TOUCHED;
	return small[0] | small[1] ? SMALL : UNTOUCHED;
}

/* The packet as it was, but for its mark. */
static void put_back(struct halo_packet *packet, const struct shadow *shadow)
{
	uint32_t mark = packet->mark;

	memcpy(packet, shadow->line, HALO_LINE);
	packet->mark = mark;
	packet->src[0] = shadow->src;
	packet->dst[0] = shadow->dst;
}

static void drop_by(struct halo_packet *packet, enum halo_drop reason, struct halo_settled *settled)
{
	halo_drop(packet, reason);
	packet->hooked |= HALO_HOOKED_DECIDED;
	settled->dropped++;
	settled->decided++;
}

static bool is_octets_changed(const uint8_t *frame, const struct halo_packet *wish, const struct shadow *shadow)
{
	return wish->rewritten || memcmp(frame + HEADER_START, shadow->header, shadow->header_octets) != 0;
}

/* Take over what the hook wrote into the frame. False: it is no packet any more, and dropped. */
static bool take_octets(const uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packet,
			struct halo_settled *settled)
{
	bool was_broken = packet->ethertype == ETHERTYPE_IPV4 && packet->ip_version == 0;
	enum halo_drop reason;

	packet->flags &= (uint8_t)~HALO_DESCRIPTOR_METADATA; /* what a port has verified is no more */
	reason = halo_packet_parse_again(pool, geometry, packet);
	packet->hooked |= HALO_HOOKED_CHANGED;
	if (reason == HALO_DROP_COUNT || was_broken) /* it is somebody else's, and leaves as it is */
		return true;
	drop_by(packet, reason, settled);
	return false;
}

/* One's complement sums of what goes (as its complement) and what comes, in host order. */
struct mending {
	uint32_t ipv4;
	uint32_t transport;
};

/* Change 16 bits of the frame; `sum` is that of the checksum that covers them. */
static void put_word(uint8_t *octets, uint16_t word, uint32_t *sum)
{
	*sum += (uint16_t)~load16(octets) + (uint32_t)word;
	store16(octets, word);
}

static void put_address(uint8_t *octets, uint32_t address, struct mending *mending)
{
	uint32_t sum = 0;

	put_word(octets, (uint16_t)(address >> 16), &sum);
	put_word(octets + 2, (uint16_t)address, &sum);
	mending->ipv4 += sum;
	mending->transport += sum;
}

static uint16_t mend(uint16_t checksum, uint32_t sum)
{
	return (uint16_t)~fold((uint64_t)(uint16_t)~checksum + sum);
}

/* Addresses are in the checksum of UDP and TCP too, and ports only there. */
static void mend_transport(uint8_t *l4, const struct halo_packet *packet, uint32_t sum)
{
	uint32_t octets = (uint32_t)packet->ip_length + packet->l3_offset - packet->l4_offset;
	uint16_t checksum;

	if (packet->fragment & FRAGMENT_OFFSET)
		return;
	if (packet->ip_protocol == PROTOCOL_TCP && octets >= TCP_CHECKSUM + 2)
		store16(l4 + TCP_CHECKSUM, mend(load16(l4 + TCP_CHECKSUM), sum));
	if (packet->ip_protocol != PROTOCOL_UDP || octets < UDP_CHECKSUM + 2 || load16(l4 + UDP_CHECKSUM) == 0)
		return;
	checksum = mend(load16(l4 + UDP_CHECKSUM), sum);
	store16(l4 + UDP_CHECKSUM, checksum ? checksum : 0xffff);
}

static bool has_ports(const struct halo_packet *packet)
{
	return (packet->ip_protocol == PROTOCOL_TCP || packet->ip_protocol == PROTOCOL_UDP) &&
	       !(packet->fragment & FRAGMENT_MASK) && packet->ip_length + packet->l3_offset >= packet->l4_offset + 4u;
}

/* What most hooks change that change something. The packet is as the hook left it, which is as it was but for these two. */
static void settle_small(uint8_t *pool, struct halo_packet *packet, struct shadow *shadow, struct halo_settled *settled)
{
	uint8_t *ip = pool + packet->offset + packet->l3_offset;
	uint16_t first = (uint16_t)(ip[0] << 8 | packet->tos), ttl = (uint16_t)(packet->ttl << 8 | ip[9]);
	uint16_t checksum = load16(ip + 10);

	checksum = checksum_update(checksum, load16(ip), first);
	checksum = checksum_update(checksum, load16(ip + 8), ttl);
	store16(ip, first);
	store16(ip + 8, ttl);
	store16(ip + 10, checksum);
	packet->hooked |= packet->ttl <= 1 ? HALO_HOOKED_CHANGED : 0;
	settled->rewritten++;
	memcpy(shadow->line, packet, HALO_LINE);
	memcpy(shadow->header, pool + packet->offset + HEADER_START, HEADER_OCTETS);
}

/* Write the header fields that the hook changed. Returns whether there were any. */
static bool put_header_fields(uint8_t *ip, struct halo_packet *packet, const struct halo_packet *wish,
			      const struct halo_packet *before, struct mending *mending)
{
	bool changed = false;

	if (wish->tos != before->tos) {
		packet->tos = wish->tos;
		put_word(ip, (uint16_t)(ip[0] << 8 | wish->tos), &mending->ipv4);
		changed = true;
	}
	if (wish->ttl != before->ttl) {
		packet->ttl = wish->ttl;
		put_word(ip + 8, (uint16_t)(wish->ttl << 8 | ip[9]), &mending->ipv4);
		packet->hooked |= wish->ttl <= 1 ? HALO_HOOKED_CHANGED : 0;
		changed = true;
	}
	return changed;
}

static bool put_addresses(uint8_t *ip, struct halo_packet *packet, const struct halo_packet *wish,
			  const struct shadow *shadow, struct mending *mending)
{
	bool src = wish->src[0] != shadow->src, dst = wish->dst[0] != shadow->dst;

	if (src) {
		packet->src[0] = wish->src[0];
		put_address(ip + 12, wish->src[0], mending);
	}
	if (dst) {
		packet->dst[0] = wish->dst[0];
		put_address(ip + 16, wish->dst[0], mending);
	}
	packet->hooked |= src || dst ? HALO_HOOKED_CHANGED : 0;
	return src || dst;
}

static bool put_ports(uint8_t *l4, struct halo_packet *packet, const struct halo_packet *wish,
		      const struct halo_packet *before, struct mending *mending)
{
	bool src = wish->src_port != before->src_port, dst = wish->dst_port != before->dst_port;

	if (!(src || dst) || !has_ports(packet))
		return false;
	if (src) {
		packet->src_port = wish->src_port;
		put_word(l4, wish->src_port, &mending->transport);
	}
	if (dst) {
		packet->dst_port = wish->dst_port;
		put_word(l4 + 2, wish->dst_port, &mending->transport);
	}
	packet->hooked |= HALO_HOOKED_CHANGED;
	return true;
}

/* Write the fields of the packet that the hook changed into its frame. Returns whether there were any. */
static bool put_fields(uint8_t *frame, struct halo_packet *packet, const struct halo_packet *wish,
		       const struct shadow *shadow)
{
	uint8_t *ip = frame + packet->l3_offset, *l4 = frame + packet->l4_offset;
	struct mending mending = {0};
	struct halo_packet before;
	bool changed;

	if (packet->ip_version != 4)
		return false;
	memcpy(&before, shadow->line, HALO_LINE);
	changed = put_header_fields(ip, packet, wish, &before, &mending);
	changed |= put_addresses(ip, packet, wish, shadow, &mending);
	changed |= put_ports(l4, packet, wish, &before, &mending);
	if (mending.ipv4)
		store16(ip + 10, mend(load16(ip + 10), mending.ipv4));
	if (mending.transport)
		mend_transport(l4, packet, mending.transport);
	return changed;
}

/* What the hook has done to the frame and its fields. False: it is dropped. */
static bool take_changes(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packet,
			 const struct halo_packet *wish, const struct shadow *shadow, struct halo_settled *settled)
{
	bool moved = wish->offset != packet->offset || wish->length != packet->length;
	bool changed;

	if (moved && !halo_fits_buffer(geometry, packet->offset, wish->offset, wish->length)) {
		settled->errors++;
		drop_by(packet, HALO_DROP_hook_error, settled);
		return false;
	}
	changed = moved || is_octets_changed(pool + packet->offset, wish, shadow);
	settled->trimmed += (uint64_t)packet->length - wish->length;
	packet->offset = wish->offset;
	packet->length = wish->length;
	if (changed && !take_octets(pool, geometry, packet, settled))
		return false;
	changed |= put_fields(pool + packet->offset, packet, wish, shadow);
	settled->rewritten += changed;
	return true;
}

/* It failed on the packet, or said what there is not to say. */
static void fail(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packet,
		 const struct halo_packet *wish, const struct shadow *shadow, bool pass, struct halo_settled *settled)
{
	settled->errors++;
	if (!pass)
		return drop_by(packet, HALO_DROP_hook_error, settled);
	if (is_octets_changed(pool + packet->offset, wish, shadow)) /* it was half through */
		take_octets(pool, geometry, packet, settled);
}

static void settle_drop(struct halo_packet *packet, uint8_t reason, struct halo_settled *settled)
{
	settled->errors += reason >= HALO_DROP_COUNT;
	if (reason >= HALO_DROP_COUNT)
		return drop_by(packet, HALO_DROP_hook_error, settled);
	drop_by(packet, reason ? (enum halo_drop)reason : HALO_DROP_hook_drop, settled);
}

static void settle_other(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packet,
			 const struct shadow *shadow, uint32_t on_error, struct halo_settled *settled)
{
	struct halo_packet wish = *packet;

	put_back(packet, shadow);
	switch (wish.verdict) {
	case HALO_VERDICT_DROP:
		return settle_drop(packet, wish.reason, settled);
	case HALO_VERDICT_TRANSMIT:
		if (wish.tx_port >= HALO_MAX_PORTS)
			return fail(pool, geometry, packet, &wish, shadow, false, settled);
		break;
	case HALO_VERDICT_CONSUME:
		packet->verdict = HALO_VERDICT_CONSUME;
		packet->hooked |= HALO_HOOKED_DECIDED;
		settled->decided++;
		return;
	case HALO_VERDICT_NONE:
	case HALO_VERDICT_PUNT:
		break;
	default:
		return fail(pool, geometry, packet, &wish, shadow,
			    wish.verdict == HALO_VERDICT_ERROR && on_error == HALO_HOOK_PASS, settled);
	}
	if (!take_changes(pool, geometry, packet, &wish, shadow, settled) || wish.verdict == HALO_VERDICT_NONE)
		return;
	packet->verdict = wish.verdict;
	packet->hooked |= HALO_HOOKED_DECIDED;
	settled->decided++;
	if (wish.verdict == HALO_VERDICT_TRANSMIT)
		packet->tx_port = wish.tx_port;
}

/* And the shadow is for the next hook. */
static inline void settle_one(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packet,
			      struct shadow *shadow, uint32_t on_error, struct halo_settled *settled)
{
	enum touched touched = how_touched(pool, packet, shadow);

	if (likely(touched == UNTOUCHED))
		return;
	if (touched == SMALL && packet->ip_version == 4)
		return settle_small(pool, packet, shadow, settled);
	settle_other(pool, geometry, packet, shadow, on_error, settled);
	remember(pool, packet, shadow);
}

void halo_settle_all(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *const *packets,
		     uint32_t count, const struct halo_packet *first, struct halo_shadow *shadows, uint32_t on_error,
		     struct halo_settled *settled)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		settle_one(pool, geometry, packets[i], inside(&shadows[packets[i] - first]), on_error, settled);
}

void halo_packets_settle(uint8_t *pool, const struct halo_pool_geometry *geometry, struct halo_packet *packets,
			 uint32_t count, struct halo_shadow *shadows, uint32_t on_error, struct halo_settled *settled)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		settle_one(pool, geometry, &packets[i], inside(&shadows[i]), on_error, settled);
}

/* ---- checksums made anew -------------------------------------------------------------------------------------- */

/* The sum of what UDP and TCP cover besides themselves (RFC 768, RFC 9293), in memory order. */
static uint64_t pseudo_header(const uint8_t *ip, uint32_t octets)
{
	uint8_t rest[4] = {0, ip[9], (uint8_t)(octets >> 8), (uint8_t)octets};

	return (uint64_t)fold(sum_words(ip + 12, 8)) + fold(sum_words(rest, sizeof(rest)));
}

/* Of UDP, TCP or ICMP in `octets` octets behind the header; the checksum is `at`. */
static void renew_transport(const uint8_t *ip, uint8_t *l4, uint32_t octets, uint32_t at)
{
	uint16_t checksum;
	uint64_t sum;

	if (octets < at + 2)
		return;
	memset(l4 + at, 0, 2);
	sum = fold(sum_words(l4, octets));
	if (ip[9] != PROTOCOL_ICMP)
		sum += pseudo_header(ip, octets);
	checksum = (uint16_t)~fold(sum);
	if (checksum == 0 && ip[9] == PROTOCOL_UDP)
		checksum = 0xffff;
	memcpy(l4 + at, &checksum, sizeof(checksum));
}

static void renew(uint8_t *ip, uint32_t room)
{
	uint32_t header = (ip[0] & 15u) * 4, octets = load16(ip + 2);
	uint16_t checksum;
	uint8_t *l4 = ip + header;

	if (header < 20 || octets < header || octets > room) /* no header: settling finds out */
		return;
	memset(ip + 10, 0, 2);
	checksum = header_checksum(ip, header);
	memcpy(ip + 10, &checksum, sizeof(checksum));
	if (load16(ip + 6) & FRAGMENT_MASK)
		return;
	octets -= header;
	if (ip[9] == PROTOCOL_TCP)
		renew_transport(ip, l4, octets, TCP_CHECKSUM);
	else if (ip[9] == PROTOCOL_ICMP)
		renew_transport(ip, l4, octets, ICMP_CHECKSUM);
	else if (ip[9] == PROTOCOL_UDP && octets >= UDP_CHECKSUM + 2 && load16(l4 + UDP_CHECKSUM) != 0)
		renew_transport(ip, l4, octets, UDP_CHECKSUM);
}

void halo_packets_update_checksums(uint8_t *pool, const struct halo_pool_geometry *geometry,
				   struct halo_packet *packets, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &packets[i];

		if (packet->ip_version != 4 || packet->l3_offset + 20u > packet->length ||
		    (uint64_t)packet->offset + packet->length > geometry->size_octets)
			continue;
		packet->rewritten = 1;
		renew(pool + packet->offset + packet->l3_offset, (uint32_t)packet->length - packet->l3_offset);
	}
}
