/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KCP's datagrams on a socket of the kernel, many for each system call: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT.
 * The socket is the caller's, non-blocking, and one caller uses it at a time. See native/kcp/batch.c.
 */

struct halo_kcp_batch;

enum halo_kcp_batch_limit {
	HALO_KCP_BATCH_MESSAGES = 16,   /* for each system call */
	HALO_KCP_BATCH_MOST = 16 * 128, /* datagrams of one receive */
	HALO_KCP_CONTROL_OCTETS = 20,
};

/* Bits of `offloads`. */
enum halo_kcp_offload {
	HALO_KCP_OFFLOAD_GRO = 1,
	HALO_KCP_OFFLOAD_GSO = 2,
};

struct halo_kcp_batch_counters {
	uint64_t receive_calls;
	uint64_t send_calls;
	uint64_t received; /* datagrams */
	uint64_t sent;
	uint64_t truncated;   /* longer than a message has room for; not given to anybody */
	uint64_t undelivered; /* that the kernel did not take; KCP sends them again */
};

/*
 * `connected`: datagrams are sent without an address. `offloads`: what is tried; halo_kcp_batch_offloads() tells what the
 * kernel knows. Returns NULL without memory.
 */
struct halo_kcp_batch *halo_kcp_batch_create(int fd, uint32_t connected, uint32_t offloads);
void halo_kcp_batch_free(struct halo_kcp_batch *batch);
uint32_t halo_kcp_batch_offloads(const struct halo_kcp_batch *batch);
const struct halo_kcp_batch_counters *halo_kcp_batch_counters(const struct halo_kcp_batch *batch);

/*
 * Take what has come, at most one call's worth. Returns how many datagrams stand in halo_kcp_batch_incoming(), those of
 * HALO_KCP_CONTROL_OCTETS apart when `control` != 0: they stand in halo_kcp_batch_control(). Both until the next call.
 * 0: there was none but perhaps control packets; -EAGAIN: nothing; else what the socket says, as -ECONNREFUSED.
 */
int64_t halo_kcp_batch_receive(struct halo_kcp_batch *batch, uint32_t control);
const struct halo_kcp_incoming *halo_kcp_batch_incoming(const struct halo_kcp_batch *batch);
const struct halo_kcp_incoming *halo_kcp_batch_control(const struct halo_kcp_batch *batch);
uint32_t halo_kcp_batch_control_count(const struct halo_kcp_batch *batch);
/* Whether the last call came back full: there may be more. */
int halo_kcp_batch_more(const struct halo_kcp_batch *batch);

/*
 * Send the datagrams of `output` from number `from` on, each to the peer of its session in `group`. Returns how many were
 * dealt with, which is fewer when the socket is full: -EAGAIN when none was. What the kernel refuses is counted; a refusal
 * that speaks of the peer (ECONNREFUSED) or of the socket is returned in `error`, and the rest goes on.
 */
int64_t halo_kcp_batch_send(struct halo_kcp_batch *batch, const struct halo_kcp_output *output, uint32_t from,
			    const struct halo_kcp_group *group, int32_t *error);

/*
 * For datagrams that came otherwise: `octets` holds `count` of them, one behind the other, with these lengths and peers.
 */
void halo_kcp_incoming_fill(struct halo_kcp_incoming *incoming, const uint8_t *octets, const uint32_t *length,
			    const struct halo_kcp_peer *peer, uint32_t count);
