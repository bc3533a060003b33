/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP (RFC 768, RFC 1122 section 4.1). Datagrams for sockets of this worker are parked until its Python has seen them; those of
 * others are handed over, and what nobody wants is Python's to refuse. Datagrams of ours leave as soon as their neighbor is
 * known: with a checksum, unfragmented, DF clear. Whatever is not as usual goes through the Python stack.
 */
#include <errno.h>

#include <halo/fib.h>
#include <halo/flow.h>

#include "octets.h"
#include "worker.h"

enum {
	PROTOCOL_UDP = 17,
	IP_OCTETS = 20,
	UDP_OCTETS = 8,
	SHORTEST_FRAME = 60,
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_VLAN = 0x8100,
	OWN_HEADER_OCTETS = 18,
};

/* The sum of a datagram with its pseudo header, in memory order; `ip` has addresses, `length` is the UDP length. */
static uint16_t datagram_sum(const uint8_t *ip, const uint8_t *udp, uint32_t length)
{
	uint64_t sum = sum_words(udp, length);
	uint64_t pseudo = sum_words(ip + 12, 8) + ((uint64_t)PROTOCOL_UDP << 8) + __builtin_bswap16((uint16_t)length);

	return fold((uint64_t)fold(sum) + fold(pseudo));
}

/* ---- in ------------------------------------------------------------------------------------------------------- */

/* RFC 1122 4.1.3.4. HALO_DROP_COUNT: nothing is wrong. */
static enum halo_drop check(const uint8_t *ip, const uint8_t *udp, uint32_t octets)
{
	uint32_t length;

	if (octets < UDP_OCTETS)
		return HALO_DROP_udp_truncated;
	length = load16(udp + 4);
	if (length < UDP_OCTETS || length > octets)
		return HALO_DROP_udp_length;
	if (load16(udp + 6) != 0 && datagram_sum(ip, udp, length) != 0xffff)
		return HALO_DROP_udp_checksum;
	return HALO_DROP_COUNT;
}

void halo_local_udp(struct halo_worker *worker, struct halo_packet *packet, bool to_all)
{
	const uint8_t *frame = worker->pool + packet->offset;
	const struct halo_socket_place *place;
	struct halo_socket datagram = {
		.address = packet->dst[0],
		.port = packet->dst_port,
		.peer = packet->src[0],
		.peer_port = packet->src_port,
	};
	enum halo_drop wrong =
		check(frame + packet->l3_offset, frame + packet->l4_offset, packet->ip_length - (uint32_t)IP_OCTETS);

	if (wrong != HALO_DROP_COUNT)
		return halo_drop(packet, wrong);
	place = halo_sockets_find(worker->sockets, &datagram, to_all);
	if (!place)
		return halo_punt_error(worker, packet, HALO_DROP_no_listener); /* Python tells the sender */
	if (halo_socket_is_own(worker->sockets, place)) {
		packet->verdict = HALO_VERDICT_DELIVER;
		packet->socket = (uint32_t)(place - worker->sockets->place);
	} else if (packet->flags & HALO_DESCRIPTOR_HANDED) {
		/* The two workers disagree for a moment: nobody asks a third. */
		halo_punt_error(worker, packet, HALO_DROP_no_listener);
	} else {
		halo_hand(packet, place->socket.slot);
	}
}

bool halo_park_datagram(struct halo_worker *worker, const struct halo_packet *packet)
{
	struct halo_datagrams *datagrams = worker->datagrams;
	uint32_t i = datagrams->count;
	struct halo_datagram *told = &datagrams->told[i];

	if (unlikely(i == HALO_WIDE_BURST))
		return false;
	datagrams->packet[i] = *packet;
	datagrams->open[i] = true;
	told->src = (uint64_t)packet->src[0] << 16 | packet->src_port;
	told->offset = packet->offset + packet->l4_offset + UDP_OCTETS;
	told->socket = packet->socket;
	told->dst = packet->dst[0];
	told->length = (uint16_t)(load16(worker->pool + packet->offset + packet->l4_offset + 4) - UDP_OCTETS);
	told->interface = packet->interface;
	datagrams->count++;
	datagrams->parked++;
	return true;
}

const struct halo_datagram *halo_worker_datagrams(const struct halo_worker *worker)
{
	return worker->datagrams->told;
}

uint32_t halo_worker_datagram_count(const struct halo_worker *worker)
{
	return worker->datagrams->count;
}

int64_t halo_worker_datagrams_socket(const struct halo_worker *worker)
{
	const struct halo_datagrams *datagrams = worker->datagrams;
	uint32_t i;

	for (i = 1; i < datagrams->count; i++)
		if (datagrams->told[i].socket != datagrams->told[0].socket)
			return -1;
	return datagrams->count ? (int64_t)datagrams->told[0].socket : -1;
}

static bool is_parked(const struct halo_worker *worker, uint32_t i)
{
	return i < worker->datagrams->count && worker->datagrams->open[i];
}

static void unpark(struct halo_worker *worker, uint32_t i)
{
	worker->datagrams->open[i] = false;
	worker->datagrams->parked--;
	halo_count(&worker->slot->worker.held, UINT64_MAX); /* - 1 */
}

static void release(struct halo_worker *worker, uint32_t i)
{
	const struct halo_packet *packet = &worker->datagrams->packet[i];

	halo_release(worker, halo_descriptor_make(packet->offset, packet->length, 0, HALO_ACTION_RELEASE));
}

void halo_worker_release_datagrams(struct halo_worker *worker)
{
	struct halo_datagrams *datagrams = worker->datagrams;
	uint64_t released = 0;
	uint32_t i;

	for (i = 0; i < datagrams->count; i++) {
		if (!datagrams->open[i])
			continue;
		datagrams->open[i] = false;
		release(worker, i);
		released++;
	}
	datagrams->parked = 0;
	halo_count(&worker->slot->worker.held, -released);
	halo_count(&worker->slot->worker.consumed, released);
}

int halo_worker_drop_datagram(struct halo_worker *worker, uint32_t i, uint32_t reason)
{
	if (!is_parked(worker, i) || reason >= HALO_DROP_COUNT)
		return -EINVAL;
	if (unlikely(worker->captures.points))
		halo_capture_dropped(worker, &worker->datagrams->packet[i], reason);
	unpark(worker, i);
	release(worker, i);
	halo_count(&worker->slot->worker.drops[reason], 1);
	return 0;
}

void halo_worker_count_datagrams(struct halo_worker *worker, uint32_t in, uint32_t out)
{
	halo_count(&worker->slot->worker.datagrams_in, in);
	halo_count(&worker->slot->worker.datagrams_out, out);
}

/* ---- out ------------------------------------------------------------------------------------------------------ */

static bool contains(const struct halo_address *own, uint32_t address)
{
	return own->prefix_length == 0 || ((own->address ^ address) >> (32 - own->prefix_length)) == 0;
}

/* From which address to speak on an interface: the one whose subnet has `towards`, else the primary; 0: it has none. */
static uint32_t source_on(const struct halo_worker *worker, uint16_t number, uint32_t towards)
{
	const struct halo_interface *interface = &worker->interfaces.entry[number];
	const struct halo_address *own = &worker->interfaces.address[interface->first_address];
	const struct halo_address *best = NULL;
	uint32_t i;

	for (i = 0; i < interface->address_count; i++)
		if (contains(&own[i], towards) && (!best || own[i].prefix_length > best->prefix_length))
			best = &own[i];
	if (best)
		return best->address;
	return interface->address_count ? own->address : 0;
}

struct heading {
	uint32_t src;
	uint32_t dst;
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t ttl;
	uint8_t tos;
	bool unsummed; /* it stays in this machine's memory, as on a kernel's loopback */
	uint16_t identification;
};

/* Everything between the Ethernet header and the payload, which stands there already. */
static void write_headers(uint8_t *ip, const struct heading *heading, uint32_t length)
{
	uint8_t *udp = ip + IP_OCTETS;
	uint16_t sum;

	ip[0] = 4 << 4 | IP_OCTETS / 4;
	ip[1] = heading->tos;
	store16(ip + 2, (uint16_t)(IP_OCTETS + UDP_OCTETS + length));
	store16(ip + 4, heading->identification);
	store16(ip + 6, 0);
	ip[8] = heading->ttl;
	ip[9] = PROTOCOL_UDP;
	memset(ip + 10, 0, 2);
	store32(ip + 12, heading->src);
	store32(ip + 16, heading->dst);
	sum = header_checksum(ip, IP_OCTETS);
	memcpy(ip + 10, &sum, sizeof(sum));
	store16(udp, heading->src_port);
	store16(udp + 2, heading->dst_port);
	store16(udp + 4, (uint16_t)(UDP_OCTETS + length));
	memset(udp + 6, 0, 2); /* RFC 768: none */
	if (heading->unsummed)
		return;
	sum = (uint16_t)~datagram_sum(ip, udp, UDP_OCTETS + length);
	sum = sum ? sum : 0xffff;
	memcpy(udp + 6, &sum, sizeof(sum));
}

/* A short frame is filled up; octets that were somebody else's must not fill it. Returns its length. */
static uint16_t fill_up(uint8_t *frame, uint32_t length)
{
	if (length >= SHORTEST_FRAME)
		return (uint16_t)length;
	memset(frame + length, 0, SHORTEST_FRAME - length);
	return SHORTEST_FRAME;
}

/* ---- replies in place ----------------------------------------------------------------------------------------- */

static bool reply_fits(const struct halo_worker *worker, const struct halo_packet *packet, uint32_t length)
{
	uint32_t ip_octets = IP_OCTETS + UDP_OCTETS + length;
	uint32_t room = halo_room_in_buffer(&worker->geometry, packet->offset);

	return length <= UINT16_MAX && ip_octets <= worker->interfaces.entry[packet->interface].mtu &&
	       packet->l3_offset + ip_octets <= room && room >= SHORTEST_FRAME;
}

/* What was sent to all stations is answered from an address of ours. */
static uint32_t reply_source(const struct halo_worker *worker, const struct halo_packet *packet)
{
	const struct halo_own_address *own = halo_own_find(&worker->own, packet->dst[0]);

	if (own && own->kind == HALO_TARGET_LOCAL)
		return packet->dst[0];
	return source_on(worker, packet->interface, packet->src[0]);
}

/* What an address is to us, nearly always nothing (NULL). */
static inline const struct halo_own_address *find_own(const struct halo_worker *worker, uint32_t address)
{
	return unlikely(halo_own_suspected(&worker->own, address)) ? halo_own_find(&worker->own, address) : NULL;
}

/* The slot whose socket a datagram of ours is for; a negative errno: it is ours, or nobody's. */
static int slot_across(const struct halo_worker *worker, const struct heading *heading)
{
	const struct halo_socket_place *place;
	struct halo_socket datagram = {
		.address = heading->dst,
		.port = heading->dst_port,
		.peer = heading->src,
		.peer_port = heading->src_port,
	};

	place = halo_sockets_find(worker->sockets, &datagram, false);
	return !place || halo_socket_is_own(worker->sockets, place) ? -ENOENT : place->socket.slot;
}

/* It came from a socket of another worker, which has a place for the answer unless it was closed. */
static void reply_across(struct halo_worker *worker, struct halo_descriptor descriptor, const struct heading *heading)
{
	int slot = slot_across(worker, heading);

	if (slot >= 0)
		return halo_hand_over(worker, descriptor, (uint8_t)slot);
	halo_count(&worker->slot->worker.drops[HALO_DROP_no_listener], 1);
	halo_release(worker, descriptor);
}

static void reply(struct halo_worker *worker, uint32_t i, uint32_t length)
{
	struct halo_packet *packet = &worker->datagrams->packet[i];
	const struct halo_socket_place *place = &worker->sockets->place[packet->socket];
	uint8_t *frame = worker->pool + packet->offset;
	struct heading heading = {
		.src = reply_source(worker, packet),
		.dst = packet->src[0],
		.src_port = packet->dst_port,
		.dst_port = packet->src_port,
		.ttl = place->ttl ? place->ttl : SOCKET_DEFAULT_TTL, /* the socket may be closed by now */
		.tos = place->tos,
		.identification = ++worker->sockets->identification,
	};
	struct halo_descriptor descriptor;

	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, worker->interfaces.entry[packet->interface].mac, 6);
	write_headers(frame + packet->l3_offset, &heading, length);
	packet->length = fill_up(frame, packet->l3_offset + IP_OCTETS + UDP_OCTETS + length);
	unpark(worker, i);
	descriptor = halo_descriptor_make(packet->offset, packet->length, packet->port, HALO_ACTION_TRANSMIT);
	if (unlikely(find_own(worker, heading.dst)))
		return reply_across(worker, descriptor, &heading);
	halo_send_frame(worker, descriptor);
}

int halo_worker_reply_datagram(struct halo_worker *worker, uint32_t i, const uint8_t *payload, uint32_t length)
{
	const struct halo_datagram *told;

	if (!is_parked(worker, i))
		return -EINVAL;
	told = &worker->datagrams->told[i];
	if (!payload)
		length = told->length;
	if (!reply_fits(worker, &worker->datagrams->packet[i], length))
		return -EMSGSIZE;
	if (payload)
		memmove(worker->pool + told->offset, payload, length);
	reply(worker, i, length);
	halo_count(&worker->slot->worker.datagrams_out, 1);
	return 0;
}

uint32_t halo_worker_reply_datagrams(struct halo_worker *worker, const uint32_t *which, const uint16_t *length,
				     uint32_t count)
{
	uint32_t sent = 0;
	uint32_t i;

	for (i = 0; i < count; i++) {
		if (!is_parked(worker, which[i]) ||
		    !reply_fits(worker, &worker->datagrams->packet[which[i]], length[i]))
			continue;
		reply(worker, which[i], length[i]);
		sent++;
	}
	halo_count(&worker->slot->worker.datagrams_out, sent);
	return sent;
}

/* ---- datagrams of our own ------------------------------------------------------------------------------------- */

/* First octets of addresses that the Python stack sends to: nobody's, loopback, link-local's, groups, 240/4. */
static bool is_unusual(uint32_t dst)
{
	uint32_t first = dst >> 24;

	return first == 0 || first == 127 || first == 169 || first >= 224;
}

/* The interface and next hop that a flow takes. False: there is none of the usual kinds. */
static bool find_way(struct halo_worker *worker, const struct heading *heading, struct halo_route_found *found)
{
	struct halo_flow flow = {
		.src = heading->src,
		.dst = heading->dst,
		.src_port = heading->src_port,
		.dst_port = heading->dst_port,
		.protocol = PROTOCOL_UDP,
	};

	halo_worker_route(worker, &flow, found);
	if (found->kind == HALO_TARGET_CONNECTED)
		found->address = heading->dst;
	else if (found->kind != HALO_TARGET_GATEWAY)
		return false;
	return found->interface < HALO_MAX_INTERFACES;
}

static struct halo_neighbor *find_neighbor(struct halo_worker *worker, struct heading *heading)
{
	struct halo_route_found found;
	struct halo_neighbor *neighbor;

	if (is_unusual(heading->dst) || !find_way(worker, heading, &found))
		return NULL;
	neighbor = halo_neighbor_find(&worker->neighbors, halo_neighbor_key((uint16_t)found.interface, found.address));
	if (!neighbor || !halo_neighbor_use(worker, neighbor))
		return NULL;
	if (!heading->src)
		heading->src = source_on(worker, (uint16_t)found.interface, found.address);
	return heading->src ? neighbor : NULL;
}

/* A datagram in a spare buffer, behind the octets of a link's header. */
static int make(struct halo_worker *worker, const uint8_t *link, uint32_t header, const struct heading *heading,
		const uint8_t *payload, uint32_t length, struct halo_descriptor *descriptor)
{
	uint8_t *frame;

	if (!halo_take_spare(worker, descriptor))
		return -ENOBUFS;
	frame = worker->pool + descriptor->offset;
	memcpy(frame, link, header);
	memcpy(frame + header + IP_OCTETS + UDP_OCTETS, payload, length);
	write_headers(frame + header, heading, length);
	descriptor->length = fill_up(frame, header + IP_OCTETS + UDP_OCTETS + length);
	descriptor->flags = HALO_ACTION_TRANSMIT;
	halo_count(&worker->slot->worker.originated, 1);
	halo_count(&worker->slot->worker.datagrams_out, 1);
	return 0;
}

/* The header of a frame that an interface sends to itself; returns its octets. */
static uint32_t write_own_header(uint8_t *frame, const struct halo_interface *interface)
{
	uint32_t at = 12;

	memcpy(frame, interface->mac, 6);
	memcpy(frame + 6, interface->mac, 6);
	if (interface->vlan) {
		store16(frame + at, ETHERTYPE_VLAN);
		store16(frame + at + 2, interface->vlan);
		at += 4;
	}
	store16(frame + at, ETHERTYPE_IPV4);
	return at + 2;
}

/* How datagrams from one socket get to one destination. */
struct way {
	struct heading heading;
	const struct halo_neighbor *neighbor;   /* NULL: to a socket of another worker, */
	const struct halo_interface *interface; /* as if it had come in by this one */
	uint32_t slot;
	uint32_t header_octets;
	uint32_t mtu;
	uint8_t own_header[OWN_HEADER_OCTETS];
};

/*
 * To an address of ours: a socket of another worker gets it as if it had come in by the address's interface. One of
 * this worker, or none, are the Python stack's (-EAGAIN).
 */
static int find_way_across(struct halo_worker *worker, const struct halo_own_address *own, struct way *way)
{
	int slot;

	if (own->kind != HALO_TARGET_LOCAL || own->interface >= HALO_MAX_INTERFACES)
		return -EAGAIN;
	if (!way->heading.src)
		way->heading.src = way->heading.dst;
	slot = slot_across(worker, &way->heading);
	if (slot < 0)
		return -EAGAIN;
	way->heading.unsummed = true;
	way->neighbor = NULL;
	way->interface = &worker->interfaces.entry[own->interface];
	way->slot = (uint32_t)slot;
	way->header_octets = write_own_header(way->own_header, way->interface);
	way->mtu = way->interface->mtu;
	return 0;
}

/* -EAGAIN: the Python stack knows one, or has to find it. */
static int find_way_to(struct halo_worker *worker, const struct halo_socket_place *place, uint64_t to, struct way *way)
{
	const struct halo_own_address *own;

	way->heading = (struct heading){
		.src = place->socket.address,
		.dst = (uint32_t)(to >> 16),
		.src_port = place->socket.port,
		.dst_port = (uint16_t)to,
		.ttl = place->ttl,
		.tos = place->tos,
	};
	own = find_own(worker, way->heading.dst);
	if (unlikely(own))
		return find_way_across(worker, own, way);
	way->neighbor = find_neighbor(worker, &way->heading);
	if (!way->neighbor)
		return -EAGAIN;
	way->header_octets = way->neighbor->header_octets;
	way->mtu = way->neighbor->mtu;
	return 0;
}

/* -EAGAIN: it is too long for one frame. */
static int send_by(struct halo_worker *worker, struct way *way, const uint8_t *payload, uint32_t length)
{
	const uint8_t *header = way->neighbor ? way->neighbor->header : way->own_header;
	struct halo_descriptor descriptor;
	int error;

	if (length > UINT16_MAX || IP_OCTETS + UDP_OCTETS + length > way->mtu ||
	    way->header_octets + IP_OCTETS + UDP_OCTETS + length > worker->geometry.data_octets)
		return -EAGAIN;
	way->heading.identification = ++worker->sockets->identification;
	error = make(worker, header, way->header_octets, &way->heading, payload, length, &descriptor);
	if (error)
		return error;
	if (way->neighbor) {
		descriptor.port = way->neighbor->port;
		halo_send_frame(worker, descriptor);
	} else {
		halo_set_port_of(worker, descriptor.offset, way->interface->port);
		halo_hand_over(worker, descriptor, (uint8_t)way->slot);
	}
	return 0;
}

/* The socket, or NULL with the reason why nothing can be sent from it. */
static const struct halo_socket_place *find_place(struct halo_worker *worker, uint32_t number, int *error)
{
	*error = -EBADF; /* no worker: it has left its slot, and endpoints may outlive that */
	if (!worker || number >= HALO_MAX_OWN_SOCKETS || !worker->sockets->place[number].socket.protocol)
		return NULL;
	*error = -EPERM; /* Python's lock is not held here: the rings would have two producers */
	if (unlikely(!pthread_equal(worker->sockets->thread, pthread_self())))
		return NULL;
	return &worker->sockets->place[number];
}

int halo_worker_send_datagram(struct halo_worker *worker, uint32_t number, uint64_t to, const uint8_t *payload,
			      uint32_t length)
{
	const struct halo_socket_place *place;
	struct way way;
	int error;

	place = find_place(worker, number, &error);
	if (!place)
		return error;
	error = find_way_to(worker, place, to, &way);
	return error ? error : send_by(worker, &way, payload, length);
}

/*
 * Ask for the lines of the datagram after this one, and of the buffer that it will be copied into: both were touched long
 * ago, and each is too short for the processor to see what comes.
 */
static void prefetch_next(struct halo_worker *worker, const struct halo_outgoing *next)
{
	uint32_t octets = next->length < worker->geometry.data_octets ? next->length : worker->geometry.data_octets;
	const uint8_t *to = NULL;
	uint32_t at;

	if (halo_ring_peek(&worker->spare, 2) == 2)
		to = worker->pool + halo_ring_get(&worker->spare, 1).offset;
	for (at = 0; at < octets; at += HALO_LINE) {
		__builtin_prefetch(next->octets + at);
		if (to)
			halo_prefetch_write(to + at);
	}
}

uint32_t halo_worker_send_datagrams(struct halo_worker *worker, uint32_t number, const struct halo_outgoing *outgoing,
				    uint32_t count, int32_t *error)
{
	const struct halo_socket_place *place;
	struct way way;
	uint32_t i;

	place = find_place(worker, number, error);
	if (!place)
		return 0;
	for (i = 0; i < count; i++) {
		*error = i && outgoing[i].to == outgoing[i - 1].to ? 0
								   : find_way_to(worker, place, outgoing[i].to, &way);
		if (i + 1 < count)
			prefetch_next(worker, &outgoing[i + 1]);
		if (!*error)
			*error = send_by(worker, &way, outgoing[i].octets, outgoing[i].length);
		if (*error)
			break;
	}
	if (i == count)
		*error = 0;
	/* The driver works on them, and brings new buffers, while Python makes the next ones. */
	halo_worker_flush(worker);
	return i;
}
