/* SPDX-License-Identifier: Apache-2.0 */
/* For bench: the stages that a poll runs, one after the other, and what each took. */
#include "load.h"
#include "worker.h"

/* Adds what has passed since the last call. */
static void note(uint64_t *sum, uint64_t *last)
{
	uint64_t now = halo_cycles_now();

	*sum += now - *last;
	*last = now;
}

int64_t halo_bench_stages(struct halo_worker *worker, uint32_t bursts, uint64_t *cycles)
{
	int64_t frames = 0;
	uint64_t last;
	uint32_t count;

	worker->now_ns = halo_now_ns();
	for (; bursts; bursts--) {
		last = halo_cycles_now();
		count = halo_stage_receive(worker);
		if (count == 0 || count == HALO_RING_BROKEN)
			break;
		note(&cycles[0], &last);
		halo_stage_parse(worker, count);
		note(&cycles[1], &last);
		halo_stage_input(worker, count);
		note(&cycles[2], &last);
		halo_stage_route(worker);
		note(&cycles[3], &last);
		halo_stage_forward(worker);
		note(&cycles[4], &last);
		halo_stage_finish(worker, count);
		note(&cycles[5], &last);
		frames += count;
	}
	return frames;
}
