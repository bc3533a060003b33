/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets: a chained hash in memory of this worker alone. Python opens and closes between polls. A datagram goes to the socket
 * that says most about it: address, port and peer; else address and port; else port. Of several that share a place, to one of
 * this worker's, by the datagram's flow, or, where this worker has none, to another worker's.
 */
#include <errno.h>
#include <stdlib.h>

#include <halo/flow.h>

#include "worker.h"

enum { PROTOCOL_UDP = 17 };

static uint32_t head_of(const struct halo_socket *socket)
{
	uint32_t hash = halo_flow_hash(0, socket->address, socket->peer, 0, socket->port, socket->peer_port);

	return hash >> (32 - SOCKET_HEAD_BITS);
}

static bool same_place(const struct halo_socket *one, const struct halo_socket *other)
{
	return one->port == other->port && one->address == other->address && one->peer == other->peer &&
	       one->peer_port == other->peer_port;
}

static void link_in(struct halo_sockets *sockets, uint32_t index)
{
	struct halo_socket_place *place = &sockets->place[index];
	uint32_t *head = &sockets->head[head_of(&place->socket)];

	place->next = *head;
	*head = index + 1;
	sockets->at_port[place->socket.port]++;
}

static void unlink_from(struct halo_sockets *sockets, uint32_t index)
{
	struct halo_socket_place *place = &sockets->place[index];
	uint32_t *link = &sockets->head[head_of(&place->socket)];

	while (*link != index + 1)
		link = &sockets->place[*link - 1].next;
	*link = place->next;
	sockets->at_port[place->socket.port]--;
}

int halo_sockets_create(struct halo_worker *worker)
{
	worker->sockets = calloc(1, sizeof(*worker->sockets));
	worker->datagrams = calloc(1, sizeof(*worker->datagrams));
	if (!worker->sockets || !worker->datagrams)
		return -ENOMEM;
	worker->sockets->thread = pthread_self();
	worker->sockets->identification = (uint16_t)(halo_now_ns() >> 10);
	return 0;
}

void halo_sockets_free(struct halo_worker *worker)
{
	free(worker->sockets);
	free(worker->datagrams);
}

void halo_sockets_close(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < worker->datagrams->count; i++)
		halo_worker_drop_datagram(worker, i, HALO_DROP_punt_lost);
	__atomic_store_n(&worker->slot->worker.sockets, 0, __ATOMIC_RELAXED);
}

/* ---- those of others ------------------------------------------------------------------------------------------ */

static void forget_others(struct halo_sockets *sockets)
{
	uint32_t i;

	for (i = 0; i < sockets->other_count; i++)
		unlink_from(sockets, HALO_MAX_OWN_SOCKETS + i);
	sockets->other_count = 0;
}

/* Whatever stands there; our own sockets we know better. */
static bool is_other(const struct halo_worker *worker, const struct halo_socket *socket)
{
	return socket->protocol == PROTOCOL_UDP && socket->port != 0 && socket->slot < HALO_MAX_SLOTS &&
	       socket->slot != worker->slot_number;
}

void halo_sockets_refresh(struct halo_worker *worker)
{
	const struct halo_tables *tables = worker->tables;
	struct halo_sockets *sockets = worker->sockets;
	uint32_t generation = __atomic_load_n(&tables->socket_generation, __ATOMIC_ACQUIRE);
	const struct halo_socket_block *block;
	uint32_t count, i;

	if (generation == sockets->generation)
		return;
	sockets->generation = generation;
	block = &tables->sockets[__atomic_load_n(&tables->active_sockets, __ATOMIC_ACQUIRE) & 1];
	count = block->count < HALO_MAX_SOCKETS ? block->count : HALO_MAX_SOCKETS;
	forget_others(sockets);
	for (i = 0; i < count; i++) {
		struct halo_socket_place *place = &sockets->place[HALO_MAX_OWN_SOCKETS + sockets->other_count];

		place->socket = block->entry[i]; /* read once: what was checked is what is kept */
		if (is_other(worker, &place->socket))
			link_in(sockets, HALO_MAX_OWN_SOCKETS + sockets->other_count++);
	}
}

/* ---- look-up -------------------------------------------------------------------------------------------------- */

static const struct halo_socket_place *next_in(const struct halo_sockets *sockets, uint32_t link,
					       const struct halo_socket *wanted)
{
	const struct halo_socket_place *place;

	for (; link; link = place->next) {
		place = &sockets->place[link - 1];
		if (same_place(&place->socket, wanted))
			return place;
	}
	return NULL;
}

/* Of those in one place, ours before others'; of several, the one that is the flow's. */
static const struct halo_socket_place *choose(const struct halo_sockets *sockets, const struct halo_socket *wanted,
					      const struct halo_socket *datagram)
{
	uint32_t first = sockets->head[head_of(wanted)];
	const struct halo_socket_place *place = next_in(sockets, first, wanted);
	uint32_t own = 0, others = 0, turn;

	if (!place || !(place->socket.flags & HALO_SOCKET_SHARED))
		return place;
	for (; place; place = next_in(sockets, place->next, wanted))
		halo_socket_is_own(sockets, place) ? own++ : others++;
	turn = halo_flow_share(
		halo_flow_hash(0, datagram->peer, datagram->address, PROTOCOL_UDP, datagram->peer_port, datagram->port),
		own ? own : others);
	for (place = next_in(sockets, first, wanted); place; place = next_in(sockets, place->next, wanted))
		if (halo_socket_is_own(sockets, place) == (own != 0) && turn-- == 0)
			break;
	return place;
}

const struct halo_socket_place *halo_sockets_find(const struct halo_sockets *sockets,
						  const struct halo_socket *datagram, bool to_all)
{
	const struct halo_socket_place *place = NULL;
	struct halo_socket wanted = {.address = datagram->address, .port = datagram->port};

	if (sockets->at_port[datagram->port] == 0)
		return NULL;
	if (!to_all) {
		wanted.peer = datagram->peer;
		wanted.peer_port = datagram->peer_port;
		place = choose(sockets, &wanted, datagram);
		wanted.peer = wanted.peer_port = 0;
		if (!place)
			place = choose(sockets, &wanted, datagram);
	}
	wanted.address = 0;
	return place ? place : choose(sockets, &wanted, datagram);
}

int halo_worker_find_socket(const struct halo_worker *worker, const struct halo_socket *datagram, int to_all,
			    uint32_t *number)
{
	const struct halo_socket_place *place = halo_sockets_find(worker->sockets, datagram, to_all != 0);

	if (!place)
		return -ENOENT;
	if (!halo_socket_is_own(worker->sockets, place))
		return place->socket.slot;
	*number = (uint32_t)(place - worker->sockets->place);
	return (int)worker->slot_number;
}

/* ---- opening and closing -------------------------------------------------------------------------------------- */

/* As for bind(2): one port, and addresses that can mean the same, unless both are willing to share. */
static bool conflicts(const struct halo_socket *one, const struct halo_socket *other)
{
	if (one->protocol != other->protocol || one->port != other->port)
		return false;
	if (one->address && other->address && one->address != other->address)
		return false;
	return !(one->flags & other->flags & HALO_SOCKET_SHARED);
}

static bool conflicts_in(const struct halo_sockets *sockets, uint32_t first, uint32_t count,
			 const struct halo_socket *wanted)
{
	uint32_t i;

	if (sockets->at_port[wanted->port] == 0)
		return false;
	for (i = first; i < first + count; i++)
		if (conflicts(&sockets->place[i].socket, wanted))
			return true;
	return false;
}

int halo_worker_check_socket(const struct halo_worker *worker, const struct halo_socket *wanted)
{
	const struct halo_sockets *sockets = worker->sockets;

	return conflicts_in(sockets, HALO_MAX_OWN_SOCKETS, sockets->other_count, wanted) ? -EADDRINUSE : 0;
}

static struct halo_socket_place *own_place(struct halo_worker *worker, uint32_t number)
{
	if (number >= worker->sockets->own_limit || !worker->sockets->place[number].socket.protocol)
		return NULL;
	return &worker->sockets->place[number];
}

/* There are more sockets now, or fewer. */
static void publish_count(struct halo_worker *worker)
{
	worker->wide_users += worker->sockets->own_count != 0;
	worker->wide_users -= worker->sockets->wants_wide;
	worker->sockets->wants_wide = worker->sockets->own_count != 0;
	halo_worker_set_width(worker);
	__atomic_store_n(&worker->slot->worker.sockets, worker->sockets->own_count, __ATOMIC_RELAXED);
}

/* A number that was not used for long: what is still parked for the last one who had it must not be taken for ours. */
static uint32_t free_number(struct halo_sockets *sockets)
{
	do
		sockets->own_last = (sockets->own_last + 1) % HALO_MAX_OWN_SOCKETS;
	while (sockets->place[sockets->own_last].socket.protocol);
	if (sockets->own_last >= sockets->own_limit)
		sockets->own_limit = sockets->own_last + 1;
	return sockets->own_last;
}

int halo_worker_open_socket(struct halo_worker *worker, const struct halo_socket *wanted)
{
	struct halo_sockets *sockets = worker->sockets;
	struct halo_socket_place *place;
	uint32_t number;

	if (wanted->protocol != PROTOCOL_UDP || wanted->port == 0)
		return -EINVAL;
	if (conflicts_in(sockets, 0, sockets->own_limit, wanted))
		return -EADDRINUSE;
	if (sockets->own_count == HALO_MAX_OWN_SOCKETS)
		return -ENFILE;
	number = free_number(sockets);
	place = &sockets->place[number];
	*place = (struct halo_socket_place){.socket = *wanted, .ttl = SOCKET_DEFAULT_TTL};
	place->socket.slot = (uint8_t)worker->slot_number;
	sockets->own_count++;
	link_in(sockets, number);
	publish_count(worker);
	return (int)number;
}

int halo_worker_close_socket(struct halo_worker *worker, uint32_t number)
{
	struct halo_socket_place *place = own_place(worker, number);

	if (!place)
		return -EBADF;
	unlink_from(worker->sockets, number);
	memset(place, 0, sizeof(*place));
	worker->sockets->own_count--;
	publish_count(worker);
	return 0;
}

int halo_worker_set_socket(struct halo_worker *worker, uint32_t number, uint32_t ttl, uint32_t tos)
{
	struct halo_socket_place *place = own_place(worker, number);

	if (!place)
		return -EBADF;
	if (ttl == 0 || ttl > 255 || tos > 255)
		return -EINVAL;
	place->ttl = (uint8_t)ttl;
	place->tos = (uint8_t)tos;
	return 0;
}
