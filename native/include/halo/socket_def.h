/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP sockets of a worker, as its Python sees them. Datagrams that a poll brings are parked in their buffers until Python has
 * ended each: by a reply in place, a drop, or all that are left by a release.
 */

enum halo_socket_limit {
	HALO_MAX_OWN_SOCKETS = 4096, /* of one worker */
};

/* A parked datagram. Host order. */
struct halo_datagram {
	uint64_t src;    /* address << 16 | port of who sent it */
	uint32_t offset; /* of its payload in the pool */
	uint32_t socket; /* number of ours */
	uint32_t dst;    /* address that it was sent to */
	uint16_t length; /* octets of its payload */
	uint16_t interface;
};

/*
 * Have datagrams for this address, port and peer, of the protocol UDP (`slot` is not looked at). Returns the socket's number,
 * -EADDRINUSE when another of ours has the place, or -ENFILE when HALO_MAX_OWN_SOCKETS are open. Whether a socket of another
 * worker has it the supervisor knows: what is known here may be a moment old.
 */
int halo_worker_open_socket(struct halo_worker *worker, const struct halo_socket *wanted);
/* Have no more of them; a datagram that is parked stays so. -EBADF: it is not open. */
int halo_worker_close_socket(struct halo_worker *worker, uint32_t number);
/* What its datagrams are sent with. */
int halo_worker_set_socket(struct halo_worker *worker, uint32_t number, uint32_t ttl, uint32_t tos);
/* Whether a socket of another worker has the place, as far as is known here: -EADDRINUSE, else 0. */
int halo_worker_check_socket(const struct halo_worker *worker, const struct halo_socket *wanted);
/*
 * The slot whose worker has the socket for a datagram from `peer` (whose address and port it has) to `address` and `port`;
 * -ENOENT. `number`: which one it is, if it is ours. `to_all`: the datagram was for all stations of a link.
 */
int halo_worker_find_socket(const struct halo_worker *worker, const struct halo_socket *datagram, int to_all,
			    uint32_t *number);

/* The parked datagrams, where they always are, and how many the last poll brought. */
const struct halo_datagram *halo_worker_datagrams(const struct halo_worker *worker);
uint32_t halo_worker_datagram_count(const struct halo_worker *worker);
/* The socket that all of them are for; -1: they are for several, or there are none. */
int64_t halo_worker_datagrams_socket(const struct halo_worker *worker);
/* End all that are not ended yet: they have been received. */
void halo_worker_release_datagrams(struct halo_worker *worker);
/* End datagram i: it is counted as that drop. */
int halo_worker_drop_datagram(struct halo_worker *worker, uint32_t i, uint32_t reason);
/*
 * Send datagram i back by where it came from, in its own buffer, with other octets, or the same where `payload` is NULL.
 * -EINVAL: it is ended already; -EMSGSIZE: the reply does not fit, and it is still parked.
 */
int halo_worker_reply_datagram(struct halo_worker *worker, uint32_t i, const uint8_t *payload, uint32_t length);
/* Send those back whose numbers stand in `which`, as their octets are now, with these lengths; returns how many went. */
uint32_t halo_worker_reply_datagrams(struct halo_worker *worker, const uint32_t *which, const uint16_t *length,
				     uint32_t count);
/*
 * Send a datagram from a socket of ours; `to` is address << 16 | port. -EAGAIN: the Python stack has to do it (a neighbor that is not known, a packet to be
 * fragmented, an unusual destination); -ENOBUFS: no buffer is there for it now; -EBADF: the socket is not open;
 * -EPERM: this is not the thread that has made the worker.
 */
int halo_worker_send_datagram(struct halo_worker *worker, uint32_t number, uint64_t to, const uint8_t *payload,
			      uint32_t length);
/* A datagram of a burst; `to` is address << 16 | port. */
struct halo_outgoing {
	const uint8_t *octets;
	uint64_t to;
	uint32_t length;
	uint32_t reserved;
};

/*
 * Send several from one socket, in order. Returns how many went; when that is not all, `error` says why the next did not, as
 * of halo_worker_send_datagram(), else it is 0. Those to one destination, one behind the other, are routed once.
 */
uint32_t halo_worker_send_datagrams(struct halo_worker *worker, uint32_t number, const struct halo_outgoing *outgoing,
				    uint32_t count, int32_t *error);
/* Count datagrams that the Python stack has received or sent for sockets of ours. */
void halo_worker_count_datagrams(struct halo_worker *worker, uint32_t in, uint32_t out);
