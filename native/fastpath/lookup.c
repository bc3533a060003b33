/* SPDX-License-Identifier: Apache-2.0 */
/* A look-up for Python, in the table that bursts are routed by, with the choice that a burst would make. */
#include <halo/fib.h>
#include <halo/flow.h>

#include "worker.h"

/* Past a member of a group that a burst would pass over. */
static void avoid_dead(const struct halo_worker *worker, uint32_t leaf, uint32_t hash, uint32_t dst,
		       struct halo_route_found *found)
{
	uint32_t next_hop = found->kind == HALO_TARGET_GATEWAY ? found->address : dst;

	if (found->interface < HALO_MAX_INTERFACES && halo_hop_is_dead(worker, (uint16_t)found->interface, next_hop))
		halo_another_hop(worker, leaf, hash, dst, found);
}

void halo_worker_route(struct halo_worker *worker, const struct halo_flow *flow, struct halo_route_found *found)
{
	const struct halo_fib *fib = worker->fib;
	const struct halo_target *target;
	uint32_t hash, leaf, what;

	/* In Python we read no tables, and say so. For this moment we do; pairs with the fence in halo_fib_table_seal. */
	__atomic_store_n(&worker->slot->status.epoch, __atomic_load_n(&worker->tables->epoch, __ATOMIC_ACQUIRE),
			 __ATOMIC_SEQ_CST);
	hash = halo_flow_hash(fib->hash_seed, flow->src, flow->dst, flow->protocol, flow->src_port, flow->dst_port);
	leaf = halo_fib_leaf(fib, halo_fib_root(fib), flow->dst);
	target = &fib->target[halo_fib_choose(fib, leaf, hash)];
	what = halo_target_what(target);
	found->kind = halo_target_kind(what);
	found->interface = halo_target_interface(what);
	found->address = target->address;
	if (found->kind == HALO_TARGET_GATEWAY || found->kind == HALO_TARGET_CONNECTED)
		avoid_dead(worker, leaf, hash, flow->dst, found);
	__atomic_store_n(&worker->slot->status.epoch, 0, __ATOMIC_RELEASE);
}
