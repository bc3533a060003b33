/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has the socket for a datagram: this worker, another one, or nobody. One hash for both, by address, port and peer. Own
 * sockets are known at once; those of others are copied from the tables when the supervisor has switched them.
 */
#ifndef HALO_SOCKETS_H
#define HALO_SOCKETS_H

#include <pthread.h>
#include <stdbool.h>

#include <halo/fastpath.h>

enum {
	SOCKET_PLACES = HALO_MAX_OWN_SOCKETS + HALO_MAX_SOCKETS,
	SOCKET_HEAD_BITS = 15,
	SOCKET_PORTS = 65536,
	SOCKET_DEFAULT_TTL = 64, /* RFC 1700 */
};

struct halo_socket_place {
	struct halo_socket socket; /* protocol 0: the place is empty */
	uint32_t next;             /* in its chain; index + 1, 0: the last one */
	uint8_t ttl;               /* of an own socket's datagrams */
	uint8_t tos;
	uint16_t reserved;
};

struct halo_sockets {
	pthread_t thread;    /* that has made the worker: no other may send */
	uint32_t generation; /* of the tables' block that others' sockets were copied from */
	uint32_t own_limit;  /* own places that were ever used */
	uint32_t own_last;   /* that was given out */
	uint32_t own_count;
	bool wants_wide; /* bursts: Python looks at what comes */
	uint32_t other_count;
	uint16_t identification;              /* of the last packet that was sent */
	uint16_t at_port[SOCKET_PORTS];       /* sockets that a port has: most have none, which one load says */
	uint32_t head[1 << SOCKET_HEAD_BITS]; /* of chains; index + 1, 0: empty */
	struct halo_socket_place place[SOCKET_PLACES]; /* ours by their number, then those of others */
};

struct halo_datagrams {
	uint32_t count;
	uint32_t parked; /* of them, not ended yet */
	struct halo_packet packet[HALO_WIDE_BURST];
	bool open[HALO_WIDE_BURST];
	struct halo_datagram told[HALO_WIDE_BURST];
};

struct halo_worker;

int halo_sockets_create(struct halo_worker *worker);
void halo_sockets_free(struct halo_worker *worker);
/* The worker leaves its slot: parked datagrams are lost, and it has no sockets any more. */
void halo_sockets_close(struct halo_worker *worker);
/* Copy what the supervisor has published, if it is new. The worker's epoch is that of now. */
void halo_sockets_refresh(struct halo_worker *worker);
/* The place of the socket for a datagram, or NULL. `datagram` has the peer's address and port as peer. */
const struct halo_socket_place *halo_sockets_find(const struct halo_sockets *sockets,
						  const struct halo_socket *datagram, bool to_all);
static inline bool halo_socket_is_own(const struct halo_sockets *sockets, const struct halo_socket_place *place)
{
	return place - sockets->place < HALO_MAX_OWN_SOCKETS;
}

/* Park a datagram whose verdict is deliver. False: there is no room. */
bool halo_park_datagram(struct halo_worker *worker, const struct halo_packet *packet);

#endif
