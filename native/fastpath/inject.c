/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that this worker makes and that go through a part of the line: what the application puts in at a stage, and, where there
 * are egress hooks, whatever leaves without having been in a burst. They wait in spare buffers for the next turn. From when
 * they were made until they have gone their way they count as held.
 */
#include <errno.h>

#include "worker.h"

static void set_up(struct halo_chain *chain)
{
	chain->waiting[HALO_STAGE_INGRESS].entry = chain->at_ingress;
	chain->waiting[HALO_STAGE_INGRESS].size = HALO_WIDE_BURST;
	chain->waiting[HALO_STAGE_FORWARD].entry = chain->at_forward;
	chain->waiting[HALO_STAGE_FORWARD].size = HALO_WIDE_BURST;
	chain->waiting[HALO_STAGE_EGRESS].entry = chain->at_egress;
	chain->waiting[HALO_STAGE_EGRESS].size = HALO_EGRESS_WAITING;
}

void halo_chain_note(struct halo_chain *chain)
{
	uint32_t i;

	chain->busy = chain->parked;
	for (i = 0; i < HALO_STAGE_COUNT; i++)
		chain->busy |= chain->count[i] || chain->waiting[i].count;
}

bool halo_chain_wait(struct halo_worker *worker, enum halo_stage stage, struct halo_descriptor descriptor)
{
	struct halo_chain *chain = &worker->chain;
	struct halo_waiting *waiting = &chain->waiting[stage];

	if (waiting->size == 0)
		set_up(chain);
	if (waiting->count == waiting->size)
		return false;
	waiting->entry[(waiting->first + waiting->count++) & (waiting->size - 1)] = descriptor;
	chain->busy = true;
	return true;
}

static struct halo_descriptor take(struct halo_waiting *waiting)
{
	struct halo_descriptor descriptor = waiting->entry[waiting->first];

	waiting->first = (waiting->first + 1) & (waiting->size - 1);
	waiting->count--;
	return descriptor;
}

uint32_t halo_chain_receive(struct halo_worker *worker, uint32_t source)
{
	struct halo_waiting *waiting = &worker->chain.waiting[source - 1];
	uint32_t count = waiting->count < worker->width ? waiting->count : worker->width;
	uint32_t i;

	worker->hop_count = 0;
	worker->forwarded_count = 0;
	worker->trimmed_octets = 0;
	for (i = 0; i < count; i++) {
		struct halo_descriptor descriptor = take(waiting);

		memcpy(&worker->burst[i], &descriptor, sizeof(descriptor));
	}
	return count;
}

/* As one that `port` has received and that may go on. */
static void admit_forward(struct halo_worker *worker, struct halo_packet *packet)
{
	if (packet->verdict != HALO_VERDICT_NONE)
		return;
	if (packet->ip_version != 4)
		return halo_drop(packet, HALO_DROP_ethertype_unknown);
	packet->interface = halo_interface_of(worker, packet->port, packet->vlan);
	if (packet->interface >= HALO_MAX_INTERFACES)
		return halo_drop(packet, HALO_DROP_no_interface);
	halo_route_again(worker, packet);
}

/* Whatever is wrong with it: it leaves as it is. */
static void admit_egress(struct halo_worker *worker, struct halo_packet *packet)
{
	halo_send(packet, packet->port);
	packet->tx_interface = halo_interface_of(worker, packet->port, packet->vlan);
}

void halo_chain_admit(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; i < chain->frames; i++) {
		struct halo_packet *packet = &worker->burst[i];

		packet->injected = (uint8_t)chain->source;
		if (chain->source == HALO_SOURCE_FORWARD)
			admit_forward(worker, packet);
		else if (chain->source == HALO_SOURCE_EGRESS)
			admit_egress(worker, packet);
	}
}

void halo_chain_forget(struct halo_chain *chain)
{
	uint32_t i;

	for (i = 0; i < HALO_STAGE_COUNT; i++)
		chain->waiting[i].first = chain->waiting[i].count = 0;
}

void halo_chain_release(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_STAGE_COUNT; i++) {
		struct halo_waiting *waiting = &worker->chain.waiting[i];

		while (waiting->count) {
			halo_release(worker, take(waiting));
			halo_count(&worker->slot->worker.held, UINT64_MAX); /* - 1 */
			halo_count(&worker->slot->worker.drops[HALO_DROP_punt_lost], 1);
		}
	}
}

static bool has_room(const struct halo_worker *worker, uint32_t stage)
{
	const struct halo_waiting *waiting = &worker->chain.waiting[stage];

	return waiting->count < HALO_WIDE_BURST; /* at egress there is more, for what others make */
}

int halo_worker_inject(struct halo_worker *worker, uint32_t stage, uint32_t port, const uint8_t *frame, uint32_t length)
{
	struct halo_descriptor descriptor;
	int error;

	if (stage > HALO_STAGE_TX || port >= HALO_MAX_PORTS || length < HALO_MIN_FRAME_OCTETS)
		return -EINVAL;
	if (stage < HALO_STAGE_COUNT && !has_room(worker, stage)) {
		halo_worker_count_drop(worker, HALO_DROP_inject_full);
		return -ENOBUFS;
	}
	error = halo_make_frame(worker, port, frame, length, &descriptor);
	if (error)
		return error;
	halo_count(&worker->slot->worker.injected, 1);
	if (stage == HALO_STAGE_TX) {
		halo_send_past_hooks(worker, descriptor);
		return 0;
	}
	halo_count(&worker->slot->worker.held, 1);
	halo_chain_wait(worker, stage, descriptor);
	return 0;
}
