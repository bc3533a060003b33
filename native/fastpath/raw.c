/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw frames. The rows of a burst that are the application's are copied to the queue of their port and stay there, record and
 * buffer, until they are settled; the application works on the records in place.
 */
#include <errno.h>
#include <stdlib.h>

#include "worker.h"

enum {
	GATHER_NS = 100000, /* frames that are wanted wait no longer for more of them */
};

static struct halo_raw_port *find(const struct halo_worker *worker, uint32_t port)
{
	return port < HALO_MAX_PORTS ? worker->raw.port[port] : NULL;
}

/* ---- the fast path's side ------------------------------------------------------------------------------------- */

/* Frames that parse calls broken are frames all the same; what a hook has decided stays decided. */
static bool is_undecided(const struct halo_packet *packet)
{
	if (packet->verdict == HALO_VERDICT_NONE)
		return true;
	return packet->verdict == HALO_VERDICT_DROP && !(packet->hooked & HALO_HOOKED_DECIDED) &&
	       packet->reason >= HALO_DROP_vlan_truncated && packet->reason <= HALO_DROP_ipv4_fragment;
}

void halo_stage_raw(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (!find(worker, packet->port) || (packet->flags & HALO_DESCRIPTOR_HANDED) || packet->injected ||
		    !is_undecided(packet))
			continue;
		packet->verdict = HALO_VERDICT_RAW;
		packet->plain = 0; /* decided: no short way */
	}
}

static void note_ready(struct halo_worker *worker, const struct halo_raw_port *port)
{
	if (port->waiting == 0)
		return;
	if (worker->raw.ready++ == 0)
		worker->raw.ready_since_ns = worker->now_ns;
	worker->raw.full |= port->waiting >= port->wanted;
}

bool halo_raw_keep(struct halo_worker *worker, const struct halo_packet *packet)
{
	struct halo_raw_port *port = find(worker, packet->port);
	uint32_t place;

	if (unlikely(!port || port->waiting + port->taken == port->size))
		return false;
	place = port->head++ & (port->size - 1);
	port->packet[place] = *packet;
	port->kept[place] = halo_descriptor_make(packet->offset, packet->length, packet->port, packet->flags);
	port->waiting++;
	halo_count(&worker->slot->worker.held, 1);
	halo_count(&worker->slot->worker.raw_frames, 1);
	if (port->wanted && port->waiting == 1)
		note_ready(worker, port);
	worker->raw.full |= port->wanted && port->waiting >= port->wanted;
	return true;
}

bool halo_raw_is_due(const struct halo_worker *worker, uint32_t burst)
{
	return worker->raw.ready &&
	       (worker->raw.full || burst < HALO_BURST || worker->now_ns - worker->raw.ready_since_ns > GATHER_NS);
}

void halo_raw_told(struct halo_worker *worker)
{
	uint32_t i;

	if (likely(worker->raw.ready == 0))
		return;
	for (i = 0; i < HALO_MAX_PORTS; i++)
		if (worker->raw.port[i] && worker->raw.port[i]->waiting)
			worker->raw.port[i]->wanted = 0;
	worker->raw.ready = 0;
	worker->raw.full = false;
}

void halo_raw_forget(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++) {
		if (!worker->raw.port[i])
			continue;
		worker->raw.port[i]->waiting = 0;
		worker->raw.port[i]->taken = 0;
	}
	worker->raw.ready = 0;
	worker->raw.full = false;
}

/* ---- the application's side ----------------------------------------------------------------------------------- */

static uint32_t first_taken(const struct halo_raw_port *port)
{
	return (port->head - port->waiting - port->taken) & (port->size - 1);
}

/* Whether a frame that the application has had its hands on is still one, in the buffer that it came in. */
static bool is_whole(const struct halo_worker *worker, const struct halo_packet *packet, struct halo_descriptor kept)
{
	return halo_fits_buffer(&worker->geometry, kept.offset, packet->offset, packet->length);
}

static void drop(struct halo_worker *worker, struct halo_descriptor kept, enum halo_drop reason)
{
	halo_count(&worker->slot->worker.drops[reason], 1);
	if (unlikely(worker->captures.points))
		halo_capture_lost(worker, kept, false, reason);
	halo_release(worker, kept);
}

/* A reason that the application gave itself counts as that; reason 0 is the driver's, and means none here. */
static enum halo_drop reason_of(const struct halo_packet *packet)
{
	return packet->reason && packet->reason < HALO_DROP_COUNT ? packet->reason : HALO_DROP_app_drop;
}

static void settle_one(struct halo_worker *worker, const struct halo_packet *packet, struct halo_descriptor kept)
{
	switch (packet->verdict) {
	case HALO_VERDICT_TRANSMIT:
		if (packet->tx_port >= HALO_MAX_PORTS || !is_whole(worker, packet, kept))
			return drop(worker, kept, HALO_DROP_hook_error);
		halo_send_frame(worker, halo_descriptor_make(packet->offset, packet->length, (uint8_t)packet->tx_port,
							     HALO_ACTION_TRANSMIT));
		return;
	case HALO_VERDICT_CONSUME:
		halo_count(&worker->slot->worker.consumed, 1);
		halo_release(worker, kept);
		return;
	case HALO_VERDICT_DROP:
		return drop(worker, kept, reason_of(packet));
	case HALO_VERDICT_NONE:
	case HALO_VERDICT_RAW:
		return drop(worker, kept, HALO_DROP_app_drop);
	default:
		return drop(worker, kept, HALO_DROP_hook_error);
	}
}

int halo_worker_raw_settle(struct halo_worker *worker, uint32_t number)
{
	struct halo_raw_port *port = find(worker, number);
	uint32_t first, count, i;

	if (!port)
		return -ENOENT;
	first = first_taken(port);
	count = port->taken;
	for (i = 0; i < count; i++)
		settle_one(worker, &port->packet[first + i], port->kept[first + i]);
	port->taken = 0;
	halo_count(&worker->slot->worker.held, -(uint64_t)count);
	if (count)
		halo_worker_flush(worker);
	return (int)count;
}

/* Take up to the end of the ring, so that they lie one behind the other. */
int halo_worker_raw_take(struct halo_worker *worker, uint32_t number, uint32_t limit, struct halo_packet **packets)
{
	struct halo_raw_port *port = find(worker, number);
	uint32_t first, i;

	if (!port)
		return -ENOENT;
	halo_worker_raw_settle(worker, number);
	first = first_taken(port);
	port->taken = port->waiting < limit ? port->waiting : limit;
	if (port->taken > port->size - first)
		port->taken = port->size - first;
	port->waiting -= port->taken;
	for (i = 0; i < port->taken; i++) /* what parse called broken */
		port->packet[first + i].reason = 0;
	*packets = &port->packet[first];
	return (int)port->taken;
}

int halo_worker_raw_decide(struct halo_worker *worker, uint32_t number, uint32_t verdict, uint32_t tx_port,
			   const uint8_t *mask)
{
	struct halo_raw_port *port = find(worker, number);
	uint32_t first, i, decided = 0;

	if (!port)
		return -ENOENT;
	if (verdict != HALO_VERDICT_TRANSMIT && verdict != HALO_VERDICT_DROP && verdict != HALO_VERDICT_CONSUME)
		return -EINVAL;
	if (tx_port >= HALO_MAX_PORTS)
		return -EINVAL;
	first = first_taken(port);
	for (i = 0; i < port->taken; i++) {
		if (mask && !mask[i])
			continue;
		port->packet[first + i].verdict = (uint8_t)verdict;
		port->packet[first + i].tx_port = (uint16_t)tx_port;
		decided++;
	}
	return (int)decided;
}

int halo_worker_raw_replace(struct halo_worker *worker, uint32_t number, uint32_t i, const uint8_t *octets,
			    uint32_t length)
{
	struct halo_raw_port *port = find(worker, number);
	struct halo_packet wanted;
	uint32_t place;

	if (!port || i >= port->taken)
		return -ENOENT;
	place = first_taken(port) + i;
	wanted = (struct halo_packet){.offset = port->kept[place].offset, .length = (uint16_t)length};
	if (length > UINT16_MAX || !is_whole(worker, &wanted, port->kept[place]))
		return -EMSGSIZE;
	memmove(worker->pool + wanted.offset, octets, length);
	port->packet[place].offset = wanted.offset;
	port->packet[place].length = wanted.length;
	port->packet[place].rewritten = 1;
	return 0;
}

uint32_t halo_worker_raw_waiting(const struct halo_worker *worker, uint32_t port)
{
	const struct halo_raw_port *found = find(worker, port);

	return found ? found->waiting : 0;
}

/* Which ports are ready is worked out anew: it is few of them, and once for a burst. */
static void look_for_ready(struct halo_worker *worker)
{
	uint32_t i;

	worker->raw.ready = 0;
	worker->raw.full = false;
	for (i = 0; i < HALO_MAX_PORTS; i++)
		if (worker->raw.port[i] && worker->raw.port[i]->wanted)
			note_ready(worker, worker->raw.port[i]);
}

int halo_worker_raw_want(struct halo_worker *worker, uint32_t number, uint32_t count)
{
	struct halo_raw_port *port = find(worker, number);

	if (!port)
		return -ENOENT;
	port->wanted = count < port->size ? count : port->size;
	look_for_ready(worker);
	return 0;
}

/* ---- claims --------------------------------------------------------------------------------------------------- */

static void free_port(struct halo_raw_port *port)
{
	if (!port)
		return;
	free(port->kept);
	free(port);
}

int halo_worker_raw_claim(struct halo_worker *worker, uint32_t number, uint32_t limit, struct halo_packet *records)
{
	struct halo_raw_port *port;

	if (number >= HALO_MAX_PORTS || limit == 0 || limit > HALO_RAW_QUEUE || (limit & (limit - 1)))
		return -EINVAL;
	if (worker->raw.port[number])
		return -EBUSY;
	port = calloc(1, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->size = limit;
	port->packet = records;
	port->kept = malloc(limit * sizeof(*port->kept));
	if (!port->kept) {
		free_port(port);
		return -ENOMEM;
	}
	worker->raw.port[number] = port;
	worker->raw.claims++;
	return 0;
}

/* End everything that a port has, for that reason. */
static void give_back(struct halo_worker *worker, struct halo_raw_port *port, enum halo_drop reason)
{
	uint32_t count = port->waiting + port->taken;
	uint32_t i;

	for (i = 0; i < count; i++)
		drop(worker, port->kept[(port->head - count + i) & (port->size - 1)], reason);
	port->waiting = port->taken = 0;
	halo_count(&worker->slot->worker.held, -(uint64_t)count);
}

static void release(struct halo_worker *worker, uint32_t number, enum halo_drop reason)
{
	struct halo_raw_port *port = find(worker, number);

	if (!port)
		return;
	give_back(worker, port, reason);
	worker->raw.port[number] = NULL;
	worker->raw.claims--;
	free_port(port);
	look_for_ready(worker);
}

void halo_worker_raw_release(struct halo_worker *worker, uint32_t number)
{
	release(worker, number, HALO_DROP_app_drop);
	halo_worker_flush(worker);
}

void halo_raw_close(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++)
		release(worker, i, HALO_DROP_punt_lost);
}
