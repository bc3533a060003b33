/* SPDX-License-Identifier: Apache-2.0 */
/* --debug-log: the first octets of frames and what became of them, kept for Python to write out. */
#include "worker.h"

void halo_debug_keep(struct halo_worker *worker, const struct halo_packet *packet)
{
	struct halo_debug_frame *frame;

	if (worker->debug_count == HALO_MAX_DEBUG) {
		worker->debug_missed++;
		return;
	}
	if (packet->reason == HALO_DROP_bad_descriptor && packet->verdict == HALO_VERDICT_DROP)
		return;
	frame = &worker->debug_frames[worker->debug_count++];
	frame->length = packet->length;
	frame->port = packet->port;
	frame->verdict = packet->verdict;
	frame->reason = packet->reason;
	frame->captured = packet->length < HALO_DEBUG_OCTETS ? (uint8_t)packet->length : HALO_DEBUG_OCTETS;
	memcpy(frame->octets, worker->pool + packet->offset, frame->captured);
}
