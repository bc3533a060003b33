/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which hooks there are. What Python asks for is noted at once; the order in which they are called changes only between two
 * bursts, so that a burst that is parked finds its place again.
 */
#include <errno.h>

#include "worker.h"

static int check_hook(const struct halo_worker *worker, uint32_t number)
{
	uint32_t state = number < HALO_MAX_HOOKS ? worker->chain.hook[number].state : HALO_HOOK_FREE;

	return state == HALO_HOOK_ACTIVE || state == HALO_HOOK_QUARANTINED ? 0 : -ENOENT;
}

static void set_state(struct halo_worker *worker, uint32_t number, uint32_t state)
{
	worker->chain.hook[number].state = state;
	__atomic_store_n(&worker->slot->hook[number].state, state, __ATOMIC_RELEASE);
}

static bool is_before(const struct halo_hook *left, const struct halo_hook *right)
{
	if (left->priority != right->priority)
		return left->priority < right->priority;
	return left->age < right->age;
}

/* Insert a hook where it belongs. */
static void place(struct halo_chain *chain, uint32_t number)
{
	const struct halo_hook *hook = &chain->hook[number];
	uint8_t *order = chain->order[hook->stage];
	uint32_t at = chain->count[hook->stage]++;

	for (; at > 0 && is_before(hook, &chain->hook[order[at - 1]]); at--)
		order[at] = order[at - 1];
	order[at] = (uint8_t)number;
}

void halo_worker_set_width(struct halo_worker *worker)
{
	const struct halo_chain *chain = &worker->chain;
	bool wide = worker->wide_users != 0;
	uint32_t i;

	for (i = 0; i < HALO_MAX_HOOKS; i++)
		wide |= chain->hook[i].state == HALO_HOOK_ACTIVE && !chain->hook[i].function;
	worker->width = wide ? HALO_WIDE_BURST : HALO_BURST;
}

void halo_chain_arrange(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	chain->stale = chain->parked;
	if (chain->parked)
		return;
	memset(chain->count, 0, sizeof(chain->count));
	for (i = 0; i < HALO_MAX_HOOKS; i++)
		if (check_hook(worker, i) == 0)
			place(chain, i);
	halo_worker_set_width(worker);
	halo_chain_note(chain);
}

/* Whether a burst that is parked may still come by the hook, or come back to it. */
static bool is_awaited(const struct halo_chain *chain, uint32_t number)
{
	uint32_t stage = chain->hook[number].stage, i;

	for (i = 0; chain->parked && i < chain->count[stage]; i++)
		if (chain->order[stage][i] == number)
			return true;
	return false;
}

/* A place that was never used, or the one that has been left for longest. */
static int find_place(const struct halo_worker *worker)
{
	const struct halo_chain *chain = &worker->chain;
	int found = -ENOSPC;
	uint32_t i;

	for (i = 0; i < HALO_MAX_HOOKS; i++) {
		const struct halo_hook *hook = &chain->hook[i];

		if (hook->state == HALO_HOOK_FREE)
			return (int)i;
		if (hook->state == HALO_HOOK_REMOVED && !is_awaited(chain, i) &&
		    (found < 0 || hook->age < chain->hook[found].age))
			found = (int)i;
	}
	return found;
}

static void name_hook(struct halo_hook_counters *counters, const struct halo_hook_setup *setup)
{
	memset(counters, 0, sizeof(*counters));
	memcpy(counters->name, setup->name, sizeof(counters->name) - 1);
	counters->stage = setup->stage;
}

int halo_worker_add_hook(struct halo_worker *worker, const struct halo_hook_setup *setup)
{
	int number = find_place(worker);

	if (setup->stage >= HALO_STAGE_COUNT || setup->on_error > HALO_HOOK_DROP)
		return -EINVAL;
	if (number < 0)
		return number;
	worker->chain.hook[number] = (struct halo_hook){.stage = setup->stage,
							.priority = setup->priority,
							.age = worker->chain.ages++,
							.ports = setup->ports,
							.interface = setup->interface,
							.on_error = setup->on_error,
							.function = setup->function};
	name_hook(&worker->slot->hook[number], setup);
	set_state(worker, (uint32_t)number, HALO_HOOK_ACTIVE);
	halo_chain_arrange(worker);
	return number;
}

int halo_worker_remove_hook(struct halo_worker *worker, uint32_t number)
{
	int error = check_hook(worker, number);

	if (error)
		return error;
	worker->chain.hook[number].age = worker->chain.ages++;
	set_state(worker, number, HALO_HOOK_REMOVED);
	halo_chain_arrange(worker);
	return 0;
}

int halo_worker_set_hook_function(struct halo_worker *worker, uint32_t number, halo_hook_function function)
{
	int error = check_hook(worker, number);

	if (error)
		return error;
	worker->chain.hook[number].function = function;
	set_state(worker, number, HALO_HOOK_ACTIVE);
	halo_chain_arrange(worker);
	return 0;
}

int halo_worker_set_hook_interface(struct halo_worker *worker, uint32_t number, uint32_t interface)
{
	int error = check_hook(worker, number);

	if (!error)
		worker->chain.hook[number].interface = interface;
	return error;
}

int halo_worker_quarantine_hook(struct halo_worker *worker, uint32_t number, uint32_t policy)
{
	int error = policy > HALO_HOOK_DROP ? -EINVAL : check_hook(worker, number);

	if (error)
		return error;
	worker->chain.hook[number].policy = policy;
	set_state(worker, number, HALO_HOOK_QUARANTINED);
	halo_chain_arrange(worker);
	return 0;
}

int halo_worker_count_hook_errors(struct halo_worker *worker, uint32_t number, uint32_t errors)
{
	if (number >= HALO_MAX_HOOKS || worker->chain.hook[number].state == HALO_HOOK_FREE)
		return -ENOENT;
	halo_count(&worker->slot->hook[number].errors, errors);
	return 0;
}

int halo_worker_parked(const struct halo_worker *worker)
{
	return worker->chain.parked ? (int)worker->chain.selected : 0;
}

/* ---- for bench ------------------------------------------------------------------------------------------------ */

int64_t halo_bench_hook_nothing(struct halo_packet *packets, int64_t count, uint8_t *pool)
{
	(void)packets, (void)count, (void)pool;
	return 0;
}

int64_t halo_bench_hook_filter(struct halo_packet *packets, int64_t count, uint8_t *pool)
{
	int64_t i;

	(void)pool;
	for (i = 0; i < count; i++) {
		struct halo_packet *packet = &packets[i];

		if (packet->ip_protocol == 17 && packet->dst_port == 9 && packet->src[0] >> 24 == 10)
			packet->verdict = HALO_VERDICT_DROP;
	}
	return 0;
}
