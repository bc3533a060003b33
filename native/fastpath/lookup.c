/* SPDX-License-Identifier: Apache-2.0 */
/* A look-up for Python, in the table that bursts are routed by, with the choice that a burst would make. */
#include <halo/fib.h>
#include <halo/flow.h>

#include "worker.h"

void halo_worker_route(struct halo_worker *worker, const struct halo_flow *flow, struct halo_route_found *found)
{
	const struct halo_fib *fib = worker->fib;
	const struct halo_target *target;
	uint32_t hash, what;

	/* In Python we read no tables, and say so. For this moment we do; pairs with the fence in halo_fib_table_seal. */
	__atomic_store_n(&worker->slot->status.epoch, __atomic_load_n(&worker->tables->epoch, __ATOMIC_ACQUIRE),
			 __ATOMIC_SEQ_CST);
	hash = halo_flow_hash(fib->hash_seed, flow->src, flow->dst, flow->protocol, flow->src_port, flow->dst_port);
	target = &fib->target[halo_fib_choose(fib, halo_fib_leaf(fib, halo_fib_root(fib), flow->dst), hash)];
	what = halo_target_what(target);
	found->kind = halo_target_kind(what);
	found->interface = halo_target_interface(what);
	found->address = target->address;
	__atomic_store_n(&worker->slot->status.epoch, 0, __ATOMIC_RELEASE);
}
