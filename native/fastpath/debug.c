/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --debug-log: the first octets of frames and what became of them, kept for Python to write out. The octets are copied before
 * any stage changes them, the verdicts noted at the end.
 */
#include "worker.h"

static void keep(struct halo_worker *worker, const struct halo_packet *packet)
{
	struct halo_debug_frame *frame = &worker->debug_frames[worker->debug_count++];

	frame->length = packet->length;
	frame->port = packet->port;
	frame->captured = packet->length < HALO_DEBUG_OCTETS ? (uint8_t)packet->length : HALO_DEBUG_OCTETS;
	if (packet->verdict == HALO_VERDICT_DROP && packet->reason == HALO_DROP_bad_descriptor)
		frame->captured = 0;
	memcpy(frame->octets, worker->pool + packet->offset, frame->captured);
}

void halo_debug_keep(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	worker->debug_first = worker->debug_count;
	for (i = 0; i < count; i++) {
		if (worker->debug_count == HALO_MAX_DEBUG)
			worker->debug_missed++;
		else
			keep(worker, &worker->burst[i]);
	}
}

void halo_debug_conclude(struct halo_worker *worker)
{
	uint32_t i;

	for (i = worker->debug_first; i < worker->debug_count; i++) {
		worker->debug_frames[i].verdict = worker->burst[i - worker->debug_first].verdict;
		worker->debug_frames[i].reason = worker->burst[i - worker->debug_first].reason;
	}
}
