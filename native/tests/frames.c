/* SPDX-License-Identifier: Apache-2.0 */
#include "frames.h"

const struct plan echo = {
	.dst_mac = OWN_MAC,
	.src_mac = PEER_MAC,
	.vlan = NO_VLAN,
	.ethertype = TYPE_IPV4,
	.tos = 0xb8,
	.ttl = 37,
	.protocol = ICMP,
	.id = 0x1234,
	.fragment = 0x4000,
	.src = PEER_ADDRESS,
	.dst = OWN_ADDRESS,
	.icmp_type = 8,
	.src_port = 1111,
	.dst_port = 2222,
	.data_octets = 32,
	.pad_to = 60,
};

/* RFC 1071, word by word. */
uint16_t reference_checksum(const uint8_t *octets, uint32_t length)
{
	uint32_t sum = 0;
	uint32_t i;

	for (i = 0; i < length; i++)
		sum += i % 2 ? octets[i] : (uint32_t)octets[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

void put16(uint8_t *octets, uint32_t value)
{
	octets[0] = (uint8_t)(value >> 8);
	octets[1] = (uint8_t)value;
}

void put32(uint8_t *octets, uint32_t value)
{
	put16(octets, value >> 16);
	put16(octets + 2, value);
}

static uint32_t get16(const uint8_t *octets)
{
	return (uint32_t)octets[0] << 8 | octets[1];
}

uint32_t frame_l3(const struct frame *frame)
{
	return get16(frame->octets + 12) == TYPE_VLAN ? 18 : 14;
}

uint32_t frame_ip_length(const struct frame *frame)
{
	return get16(frame->octets + frame_l3(frame) + 2);
}

void frame_seal(struct frame *frame)
{
	uint8_t *ip = frame->octets + frame_l3(frame);

	put16(ip + 10, 0);
	put16(ip + 10, reference_checksum(ip, (ip[0] & 15u) * 4));
}

static void put_data(uint8_t *octets, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++)
		octets[i] = (uint8_t)(i * 7 + 3);
}

/* Return how many octets the header of the transport has. */
static uint32_t put_transport(const struct plan *plan, uint8_t *octets)
{
	put_data(octets + 8, plan->data_octets);
	if (plan->protocol == ICMP) {
		octets[0] = plan->icmp_type;
		octets[1] = 0;
		put16(octets + 2, 0);
		put32(octets + 4, 0xbeef0001);
		put16(octets + 2, reference_checksum(octets, 8 + plan->data_octets));
		return 8;
	}
	put_data(octets, plan->data_octets);
	if (plan->protocol != UDP && plan->protocol != TCP)
		return 0;
	put_data(octets + 8, plan->data_octets);
	put16(octets, plan->src_port);
	put16(octets + 2, plan->dst_port);
	put16(octets + 4, 8 + plan->data_octets);
	put16(octets + 6, 0);
	return 8;
}

static uint32_t put_ipv4(const struct plan *plan, struct frame *frame, uint32_t l3)
{
	uint8_t *ip = frame->octets + l3;
	uint32_t header = 20 + plan->option_words * 4;
	uint32_t length = header + put_transport(plan, ip + header) + plan->data_octets;

	ip[0] = (uint8_t)(0x40 | header / 4);
	ip[1] = plan->tos;
	put16(ip + 2, length);
	put16(ip + 4, plan->id);
	put16(ip + 6, plan->fragment);
	ip[8] = plan->ttl;
	ip[9] = plan->protocol;
	put32(ip + 12, plan->src);
	put32(ip + 16, plan->dst);
	memset(ip + 20, 1, plan->option_words * 4); /* no operation */
	if (plan->options[0])
		memcpy(ip + 20, plan->options, plan->option_words * 4);
	frame_seal(frame);
	return length;
}

void frame_make(const struct plan *plan, struct frame *frame)
{
	uint32_t l3 = plan->vlan == NO_VLAN ? 14 : 18;

	memset(frame, 0, sizeof(*frame));
	memcpy(frame->octets, plan->dst_mac, 6);
	memcpy(frame->octets + 6, plan->src_mac, 6);
	if (plan->vlan != NO_VLAN) {
		put16(frame->octets + 12, TYPE_VLAN);
		put16(frame->octets + 14, (uint32_t)plan->vlan);
	}
	put16(frame->octets + l3 - 2, plan->ethertype);
	if (plan->ethertype == TYPE_IPV4) {
		frame->length = l3 + put_ipv4(plan, frame, l3);
	} else {
		put_data(frame->octets + l3, plan->data_octets);
		frame->length = l3 + plan->data_octets;
	}
	while (frame->length < plan->pad_to) /* padding that is no zeros would show in a checksum */
		frame->octets[frame->length++] = 0xee;
}

void frame_reply(const struct frame *request, struct frame *reply)
{
	uint8_t *ip;
	uint32_t header, length;

	*reply = *request;
	memcpy(reply->octets, request->octets + 6, 6);
	memcpy(reply->octets + 6, request->octets, 6);
	ip = reply->octets + frame_l3(reply);
	header = (ip[0] & 15u) * 4;
	length = frame_ip_length(reply);
	memcpy(ip + 12, request->octets + frame_l3(request) + 16, 4);
	memcpy(ip + 16, request->octets + frame_l3(request) + 12, 4);
	ip[8] = 64;
	frame_seal(reply);
	ip[header] = 0;
	put16(ip + header + 2, 0);
	put16(ip + header + 2, reference_checksum(ip + header, length - header));
}

void frame_forwarded(const struct frame *received, const uint8_t *dst, const uint8_t *src, int32_t vlan,
		     struct frame *sent)
{
	uint32_t from = frame_l3(received), to = vlan == NO_VLAN ? 14 : 18;
	uint32_t packet = frame_ip_length(received);

	memset(sent, 0, sizeof(*sent));
	memcpy(sent->octets, dst, 6);
	memcpy(sent->octets + 6, src, 6);
	if (vlan != NO_VLAN) {
		put16(sent->octets + 12, TYPE_VLAN);
		put16(sent->octets + 14, (uint32_t)vlan);
	}
	put16(sent->octets + to - 2, TYPE_IPV4);
	sent->length = received->length - from + to;
	memcpy(sent->octets + to, received->octets + from, received->length - from);
	if (sent->length < 60 && to < from)
		sent->length = 60;
	if (sent->length > 60 && sent->length > to + packet)
		sent->length = to + packet < 60 ? 60 : to + packet;
	sent->octets[to + 8]--;
	frame_seal(sent);
}
