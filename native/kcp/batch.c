/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KCP's datagrams on a socket of the kernel, many for each system call.
 *
 * Theory of operation. A system call for each datagram costs more than all that KCP does with it. recvmmsg() and sendmmsg()
 * share one call among messages; UDP_GRO and UDP_SEGMENT let one message be many datagrams of one length, the last of which
 * may be shorter. So
 *
 *   receive   HALO_KCP_BATCH_MESSAGES messages of up to 64 KiB land in one arena; each is cut into the datagrams it is made
 *             of, which stay where they are: struct halo_kcp_incoming points into the arena until the next call.
 *   send      datagrams in the order of the batch; a run of one session and one length is one message, gathered by iovecs.
 *
 * Where the kernel (or the way out: a device without checksum offload, a path with a smaller MTU) refuses a message of
 * several datagrams, segmentation is given up for this socket, and the same datagrams go one by one. A datagram that it
 * refuses alone is lost, as on any link: it is counted, and KCP sends it again. Only a full socket stops the batch.
 *
 * Nothing here blocks: the socket must not. What came is not believed: lengths are the kernel's, and octets are for
 * halo_kcp_group_input() to judge.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <halo/kcp.h>
#include <halo/kcp_batch_def.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	MESSAGES = HALO_KCP_BATCH_MESSAGES,
	MESSAGE_OCTETS = 65536,
	RUN_DATAGRAMS = 64, /* the kernel's UDP_MAX_SEGMENTS, of old */
	RUN_OCTETS = 65000, /* an IP packet's 65535 without headers, of any kind */
};

union control_room {
	struct cmsghdr align;
	uint8_t octets[CMSG_SPACE(sizeof(int))];
};

struct halo_kcp_batch {
	int fd;
	uint32_t connected;
	uint32_t offloads;
	uint32_t control_count;
	uint32_t messages; /* of the last receive */
	uint32_t reserved;
	uint8_t *arena;
	struct halo_kcp_batch_counters counters;
	struct mmsghdr message[MESSAGES];
	struct sockaddr_storage name[MESSAGES];
	union control_room room[MESSAGES];
	uint32_t run[MESSAGES]; /* datagrams of each message that is sent */
	struct iovec part[MESSAGES * RUN_DATAGRAMS];
	struct halo_kcp_incoming incoming[HALO_KCP_BATCH_MOST];
	struct halo_kcp_incoming control[HALO_KCP_BATCH_MOST];
};

static uint32_t try_offloads(int fd, uint32_t offloads)
{
	uint32_t known = 0;
	int on = 1, size;
	socklen_t length = sizeof(size);

	if ((offloads & HALO_KCP_OFFLOAD_GRO) && !setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)))
		known |= HALO_KCP_OFFLOAD_GRO;
	if ((offloads & HALO_KCP_OFFLOAD_GSO) && !getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, &length))
		known |= HALO_KCP_OFFLOAD_GSO;
	return known;
}

struct halo_kcp_batch *halo_kcp_batch_create(int fd, uint32_t connected, uint32_t offloads)
{
	struct halo_kcp_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->arena = malloc((size_t)MESSAGES * MESSAGE_OCTETS);
	if (!batch->arena) {
		free(batch);
		return NULL;
	}
	batch->fd = fd;
	batch->connected = connected;
	batch->offloads = try_offloads(fd, offloads);
	return batch;
}

void halo_kcp_batch_free(struct halo_kcp_batch *batch)
{
	if (!batch)
		return;
	free(batch->arena);
	free(batch);
}

uint32_t halo_kcp_batch_offloads(const struct halo_kcp_batch *batch)
{
	return batch->offloads;
}

const struct halo_kcp_batch_counters *halo_kcp_batch_counters(const struct halo_kcp_batch *batch)
{
	return &batch->counters;
}

const struct halo_kcp_incoming *halo_kcp_batch_incoming(const struct halo_kcp_batch *batch)
{
	return batch->incoming;
}

const struct halo_kcp_incoming *halo_kcp_batch_control(const struct halo_kcp_batch *batch)
{
	return batch->control;
}

uint32_t halo_kcp_batch_control_count(const struct halo_kcp_batch *batch)
{
	return batch->control_count;
}

int halo_kcp_batch_more(const struct halo_kcp_batch *batch)
{
	return batch->messages == MESSAGES;
}

/* ---- what comes in */

static void prepare_receive(struct halo_kcp_batch *batch)
{
	for (uint32_t i = 0; i < MESSAGES; i++) {
		batch->part[i] = (struct iovec){batch->arena + (size_t)i * MESSAGE_OCTETS, MESSAGE_OCTETS};
		batch->message[i].msg_hdr = (struct msghdr){
			.msg_name = &batch->name[i],
			.msg_namelen = sizeof(batch->name[i]),
			.msg_iov = &batch->part[i],
			.msg_iovlen = 1,
			.msg_control = batch->room[i].octets,
			.msg_controllen = sizeof(batch->room[i].octets),
		};
	}
}

/* Octets of each datagram of a message; 0: it is one. */
static uint32_t run_length(struct msghdr *header)
{
	for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each; each = CMSG_NXTHDR(header, each)) {
		int size;

		if (each->cmsg_level != IPPROTO_UDP || each->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(each), sizeof(size));
		return size > 0 ? (uint32_t)size : 0;
	}
	return 0;
}

static void read_peer(const struct sockaddr_storage *name, struct halo_kcp_peer *peer)
{
	memset(peer, 0, sizeof(*peer));
	if (name->ss_family == AF_INET) {
		const struct sockaddr_in *from = (const struct sockaddr_in *)name;

		peer->family = 4;
		peer->port = ntohs(from->sin_port);
		memcpy(peer->address, &from->sin_addr, 4);
	} else if (name->ss_family == AF_INET6) {
		const struct sockaddr_in6 *from = (const struct sockaddr_in6 *)name;

		peer->family = 6;
		peer->port = ntohs(from->sin6_port);
		peer->scope = from->sin6_scope_id;
		memcpy(peer->address, &from->sin6_addr, 16);
	}
}

/* Cut message i; returns how many datagrams stand in `incoming` then. */
static uint32_t cut_message(struct halo_kcp_batch *batch, uint32_t i, uint32_t count, uint32_t control)
{
	struct msghdr *header = &batch->message[i].msg_hdr;
	const uint8_t *octets = batch->part[i].iov_base;
	uint32_t left = batch->message[i].msg_len, each = run_length(header);
	struct halo_kcp_peer peer;

	if (header->msg_flags & MSG_TRUNC) {
		batch->counters.truncated++;
		return count;
	}
	read_peer(&batch->name[i], &peer);
	each = each ? each : left;
	while (left) {
		uint32_t length = left < each ? left : each;
		struct halo_kcp_incoming *one;

		batch->counters.received++;
		if (control && length == HALO_KCP_CONTROL_OCTETS && batch->control_count < HALO_KCP_BATCH_MOST) {
			one = &batch->control[batch->control_count++];
		} else if (count < HALO_KCP_BATCH_MOST) {
			one = &batch->incoming[count++];
		} else {
			batch->counters.truncated++;
			break;
		}
		*one = (struct halo_kcp_incoming){.octets = octets, .length = length, .peer = peer};
		octets += length;
		left -= length;
	}
	return count;
}

int64_t halo_kcp_batch_receive(struct halo_kcp_batch *batch, uint32_t control)
{
	uint32_t count = 0;
	int messages;

	batch->control_count = 0;
	batch->messages = 0;
	prepare_receive(batch);
	batch->counters.receive_calls++;
	messages = recvmmsg(batch->fd, batch->message, MESSAGES, MSG_DONTWAIT, NULL);
	if (messages < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	batch->messages = (uint32_t)messages;
	for (int i = 0; i < messages; i++)
		count = cut_message(batch, (uint32_t)i, count, control);
	return count;
}

/* ---- what goes out */

static socklen_t write_name(const struct halo_kcp_peer *peer, struct sockaddr_storage *name)
{
	memset(name, 0, sizeof(*name));
	if (peer->family == 6) {
		struct sockaddr_in6 *to = (struct sockaddr_in6 *)name;

		to->sin6_family = AF_INET6;
		to->sin6_port = htons(peer->port);
		to->sin6_scope_id = peer->scope;
		memcpy(&to->sin6_addr, peer->address, 16);
		return sizeof(*to);
	}
	struct sockaddr_in *to = (struct sockaddr_in *)name;

	to->sin_family = AF_INET;
	to->sin_port = htons(peer->port);
	memcpy(&to->sin_addr, peer->address, 4);
	return sizeof(*to);
}

/* How many datagrams from number `first` on can be one message. */
static uint32_t measure_run(const struct halo_kcp_batch *batch, const struct halo_kcp_output *output, uint32_t first)
{
	const struct halo_kcp_datagram *datagram = &output->datagram[first];
	uint32_t most = output->count - first, total = datagram->length, count = 1;

	if (!(batch->offloads & HALO_KCP_OFFLOAD_GSO))
		return 1;
	if (most > RUN_DATAGRAMS)
		most = RUN_DATAGRAMS;
	while (count < most) {
		const struct halo_kcp_datagram *next = &datagram[count];

		if (next->session != datagram->session || next->length > datagram->length ||
		    total + next->length > RUN_OCTETS)
			break;
		total += next->length;
		count++;
		if (next->length < datagram->length)
			break;
	}
	return count;
}

static void ask_for_segments(union control_room *room, struct msghdr *header, uint16_t octets)
{
	struct cmsghdr *each;

	memset(room, 0, sizeof(*room));
	header->msg_control = room->octets;
	header->msg_controllen = CMSG_SPACE(sizeof(octets));
	each = CMSG_FIRSTHDR(header);
	each->cmsg_level = IPPROTO_UDP;
	each->cmsg_type = UDP_SEGMENT;
	each->cmsg_len = CMSG_LEN(sizeof(octets));
	memcpy(CMSG_DATA(each), &octets, sizeof(octets));
}

/* Message i from the datagrams from `first` on; returns how many it has. */
static uint32_t build_message(struct halo_kcp_batch *batch, uint32_t i, const struct halo_kcp_output *output,
			      uint32_t first, const struct halo_kcp_group *group)
{
	struct iovec *part = &batch->part[i * RUN_DATAGRAMS];
	uint32_t count = measure_run(batch, output, first);
	struct msghdr header = {.msg_iov = part, .msg_iovlen = count};
	struct halo_kcp_peer peer;

	for (uint32_t j = 0; j < count; j++)
		part[j] = (struct iovec){(void *)(uintptr_t)output->datagram[first + j].octets,
					 output->datagram[first + j].length};
	if (!batch->connected && !halo_kcp_group_peer(group, output->datagram[first].session, &peer)) {
		header.msg_name = &batch->name[i];
		header.msg_namelen = write_name(&peer, &batch->name[i]);
	}
	if (count > 1)
		ask_for_segments(&batch->room[i], &header, (uint16_t)output->datagram[first].length);
	batch->message[i].msg_hdr = header;
	batch->run[i] = count;
	return count;
}

/* Whether a message of several datagrams was refused for being that. */
static int is_segmentation(int code)
{
	return code == EINVAL || code == EIO || code == EMSGSIZE || code == EOPNOTSUPP || code == ENOPROTOOPT;
}

int64_t halo_kcp_batch_send(struct halo_kcp_batch *batch, const struct halo_kcp_output *output, uint32_t from,
			    const struct halo_kcp_group *group, int32_t *error)
{
	uint32_t next = from;

	*error = 0;
	while (next < output->count) {
		uint32_t messages = 0, ahead = next;
		int sent;

		while (messages < MESSAGES && ahead < output->count)
			ahead += build_message(batch, messages++, output, ahead, group);
		batch->counters.send_calls++;
		sent = sendmmsg(batch->fd, batch->message, messages, MSG_DONTWAIT);
		for (int i = 0; i < sent; i++) {
			next += batch->run[i];
			batch->counters.sent += batch->run[i];
		}
		if (sent >= 0)
			continue;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		if (errno == EINTR)
			continue;
		if (batch->run[0] > 1 && is_segmentation(errno)) {
			batch->offloads &= ~(uint32_t)HALO_KCP_OFFLOAD_GSO;
			continue;
		}
		*error = errno;
		batch->counters.undelivered += batch->run[0];
		next += batch->run[0];
	}
	return next > from || from >= output->count ? (int64_t)(next - from) : -EAGAIN;
}

void halo_kcp_incoming_fill(struct halo_kcp_incoming *incoming, const uint8_t *octets, const uint32_t *length,
			    const struct halo_kcp_peer *peer, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		incoming[i] = (struct halo_kcp_incoming){.octets = octets, .length = length[i], .peer = peer[i]};
		octets += length[i];
	}
}
