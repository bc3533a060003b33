/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A burst with hooks. The stages are those of a burst without, in the same order; between them stand the hooks of ingress, forward
 * and egress, each with the packets that are there and not decided:
 *
 *   parse → INGRESS → input, route → FORWARD → forward → EGRESS → finish
 *
 * A hook of Python's ends the poll; all that is needed to go on lies in struct halo_chain, and the next poll begins there. Python
 * may do anything in between but poll: so what could have moved is found anew (neighbors, the FIB's root), interfaces are not
 * looked at again until the burst is through, and hooks take or leave their places when it is.
 */
#include <errno.h>

#include <halo/fib.h>

#include "load.h"
#include "worker.h"

enum {
	ETHERTYPE_ARP = 0x0806,
	CLOCK_EVERY = 16, /* native calls: one in so many is timed, and stands for the others */
};

static struct halo_hook_counters *counters_of(const struct halo_worker *worker, uint32_t number)
{
	return &worker->slot->hook[number];
}

/* ---- one hook ------------------------------------------------------------------------------------------------- */

static inline bool is_meant(const struct halo_hook *hook, const struct halo_packet *packet)
{
	bool leaving = hook->stage == HALO_STAGE_EGRESS;
	uint32_t port = leaving ? packet->tx_port : packet->port;
	uint32_t interface = leaving ? packet->tx_interface : packet->interface;

	return (hook->ports == 0 || (port < HALO_MAX_PORTS && (hook->ports >> port & 1))) &&
	       (hook->interface == HALO_NO_INTERFACE || hook->interface == interface);
}

static void choose_some(struct halo_chain *chain, const struct halo_hook *hook)
{
	bool all = hook->ports == 0 && hook->interface == HALO_NO_INTERFACE;
	uint32_t gaps = 0, count = 0;
	uint32_t i;

	for (i = 0; i < chain->members; i++) {
		struct halo_packet *packet = chain->member[i];

		if (packet->verdict != HALO_VERDICT_NONE || !(all || is_meant(hook, packet)))
			continue;
		chain->some[count] = packet;
		gaps |= packet != chain->some[0] + count;
		count++;
	}
	chain->selection = chain->some;
	chain->selected = count;
	chain->gathered = gaps;
	for (i = 0; gaps && i < count; i++)
		chain->scratch[i] = *chain->some[i];
}

/* The packets that the hook is for. Where they lie in a row it gets them where they are, else copies. */
static void choose(struct halo_chain *chain, const struct halo_hook *hook)
{
	if (!chain->whole || hook->ports || hook->interface != HALO_NO_INTERFACE)
		return choose_some(chain, hook);
	chain->selection = chain->member;
	chain->selected = chain->members;
	chain->gathered = false;
}

static struct halo_packet *shown(struct halo_chain *chain)
{
	return chain->gathered ? chain->scratch : chain->selection[0];
}

/* After the hook: what it did becomes true, or is undone. */
static void settle(struct halo_worker *worker, const struct halo_hook *hook, struct halo_settled *settled)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; chain->gathered && i < chain->selected; i++)
		*chain->selection[i] = chain->scratch[i];
	halo_settle_all(worker->pool, &worker->geometry, chain->selection, chain->selected, worker->burst,
			chain->shadow, hook->on_error, settled);
	worker->trimmed_octets += settled->trimmed;
	chain->whole &= !settled->decided;
	chain->changed |= settled->decided || settled->rewritten;
}

static void count_call(struct halo_worker *worker, uint32_t number, const struct halo_settled *settled)
{
	struct halo_hook_counters *counters = counters_of(worker, number);

	halo_count(&counters->calls, 1);
	halo_count(&counters->packets, worker->chain.selected);
	if (settled->dropped | settled->rewritten | settled->errors) {
		halo_count(&counters->dropped, settled->dropped);
		halo_count(&counters->rewritten, settled->rewritten);
		halo_count(&counters->errors, settled->errors);
	}
}

static void conclude(struct halo_worker *worker, uint32_t number)
{
	struct halo_settled settled = {0};

	settle(worker, &worker->chain.hook[number], &settled);
	count_call(worker, number, &settled);
	halo_trace_hook(worker, number);
}

static void fail_all(struct halo_chain *chain)
{
	struct halo_packet *packets = shown(chain);
	uint32_t i;

	for (i = 0; i < chain->selected; i++)
		packets[i].verdict = HALO_VERDICT_ERROR;
}

static void call_native(struct halo_worker *worker, uint32_t number)
{
	struct halo_chain *chain = &worker->chain;
	struct halo_hook_counters *counters = counters_of(worker, number);
	bool timed = counters->calls % CLOCK_EVERY == 0;
	uint64_t begin = timed ? halo_now_ns() : 0;

	if (unlikely(chain->hook[number].function(shown(chain), chain->selected, worker->pool) < 0))
		fail_all(chain);
	if (timed)
		halo_count(&counters->busy_ns, (halo_now_ns() - begin) * CLOCK_EVERY);
	conclude(worker, number);
}

static void quarantine(struct halo_worker *worker, uint32_t number)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	if (chain->hook[number].policy == HALO_HOOK_PASS)
		return;
	for (i = 0; i < chain->selected; i++) {
		halo_drop(chain->selection[i], HALO_DROP_hook_quarantined);
		chain->selection[i]->hooked |= HALO_HOOKED_DECIDED;
	}
	chain->whole = false;
	halo_count(&counters_of(worker, number)->dropped, chain->selected);
	halo_trace_hook(worker, number);
}

/* Call the hooks of the stage from the current position on. False: one is Python's, and the burst is parked there. */
static bool run_hooks(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;

	for (; chain->position < chain->count[chain->stage]; chain->position++) {
		uint32_t number = chain->order[chain->stage][chain->position];
		const struct halo_hook *hook = &chain->hook[number];

		if (hook->state != HALO_HOOK_ACTIVE && hook->state != HALO_HOOK_QUARANTINED)
			continue;
		choose(chain, hook);
		if (chain->selected == 0)
			continue;
		if (hook->state == HALO_HOOK_QUARANTINED)
			quarantine(worker, number);
		else if (hook->function)
			call_native(worker, number);
		else
			return false;
	}
	return true;
}

/* ---- the stages ----------------------------------------------------------------------------------------------- */

static inline void add_member(struct halo_chain *chain, struct halo_packet *packet)
{
	chain->whole &= packet == chain->member[0] + chain->members;
	chain->member[chain->members++] = packet;
}

/* What another worker has handed over has been shown there. */
static void enter_ingress(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; i < chain->frames; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (unlikely(packet->verdict != HALO_VERDICT_NONE || (packet->flags & HALO_DESCRIPTOR_HANDED)))
			continue;
		packet->interface = halo_interface_of(worker, packet->port, packet->vlan);
		packet->tx_port = HALO_NO_PORT;
		add_member(chain, packet);
	}
}

/* Packets for a neighbor, then those that Python sends on. */
static void enter_forward(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; i < worker->hop_count; i++) {
		struct halo_packet *packet = worker->hop[i].packet;

		packet->tx_interface = halo_neighbor_interface(worker->hop[i].key);
		packet->next_hop = (uint32_t)worker->hop[i].key;
		packet->tx_port = HALO_NO_PORT;
		if (packet->tx_interface < HALO_MAX_INTERFACES)
			packet->tx_port = worker->interfaces.entry[packet->tx_interface].port;
		if (likely(!(packet->flags & HALO_DESCRIPTOR_HANDED)))
			add_member(chain, packet);
	}
	if (chain->members == chain->frames)
		return;
	for (i = 0; i < chain->frames; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (packet->verdict != HALO_VERDICT_PUNT || packet->tx_interface == HALO_NO_INTERFACE ||
		    (packet->flags & HALO_DESCRIPTOR_HANDED) || (packet->hooked & HALO_HOOKED_DECIDED))
			continue;
		packet->verdict = HALO_VERDICT_NONE;
		add_member(chain, packet);
		chain->late++;
	}
}

/* The packet says again what its frame does: TTL, addresses and tag may be others now. */
static void enter_egress(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; i < chain->frames; i++) {
		struct halo_packet *packet = &worker->burst[i];

		if (packet->verdict != HALO_VERDICT_TRANSMIT)
			continue;
		halo_packet_parse_again(worker->pool, &worker->geometry, packet);
		packet->verdict = HALO_VERDICT_NONE;
		add_member(chain, packet);
	}
}

static void enter(struct halo_worker *worker, uint32_t stage)
{
	static void (*const enter_stage[HALO_STAGE_COUNT])(struct halo_worker *) = {enter_ingress, enter_forward,
										    enter_egress};
	struct halo_chain *chain = &worker->chain;

	chain->stage = stage;
	chain->position = 0;
	chain->members = 0;
	chain->late = 0;
	chain->member[0] = worker->burst;
	chain->whole = true;
	chain->changed = false;
	if (chain->count[stage] == 0)
		return;
	enter_stage[stage](worker);
	/* After all of them: a wide load of what was stored in parts just now would wait for that. */
	halo_remember_all(worker->pool, chain->member, chain->members, worker->burst, chain->shadow);
}

/* A hook sent it out of a port. */
static void note_interface(const struct halo_worker *worker, struct halo_packet *packet)
{
	if (packet->verdict == HALO_VERDICT_TRANSMIT)
		packet->tx_interface = halo_interface_of(worker, (uint8_t)packet->tx_port, packet->vlan);
}

static void leave_ingress(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; chain->changed && i < chain->members; i++) {
		struct halo_packet *packet = chain->member[i];

		packet->hooked &= (uint8_t)~HALO_HOOKED_CHANGED; /* it has not been routed yet */
		if (packet->verdict == HALO_VERDICT_NONE)
			continue;
		packet->plain = 0; /* the short way is for what is not decided */
		if (packet->ip_version != 4 && packet->ethertype != ETHERTYPE_ARP)
			packet->interface = HALO_NO_INTERFACE;
		note_interface(worker, packet);
	}
	halo_stage_input(worker, chain->frames);
	halo_trace_stage(worker, HALO_TRACE_INPUT);
	halo_stage_route(worker);
	halo_trace_stage(worker, HALO_TRACE_ROUTE);
}

/* What a hook has changed behind the look-up is looked up again. */
static void route_changed(struct halo_worker *worker, struct halo_packet *packet)
{
	packet->hooked &= (uint8_t)~HALO_HOOKED_CHANGED;
	if (packet->ip_version != 4)
		return halo_drop(packet, HALO_DROP_ethertype_unknown);
	packet->tx_interface = HALO_NO_INTERFACE;
	halo_route_again(worker, packet);
}

/* Neighbors may have moved, and what is decided has no hop. */
static void review_hops(struct halo_worker *worker)
{
	uint32_t count = worker->hop_count, i;

	worker->hop_count = 0;
	for (i = 0; i < count; i++) {
		struct halo_hop hop = worker->hop[i];

		if (hop.packet->verdict != HALO_VERDICT_NONE)
			continue;
		if (hop.packet->hooked & HALO_HOOKED_CHANGED) {
			route_changed(worker, hop.packet);
			continue;
		}
		hop.home = halo_neighbor_home(&worker->neighbors, hop.key);
		worker->hop[worker->hop_count++] = hop;
	}
}

static void leave_forward(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; chain->changed && i < chain->members; i++)
		note_interface(worker, chain->member[i]);
	for (i = chain->members - chain->late; i < chain->members; i++)
		if (chain->member[i]->verdict == HALO_VERDICT_NONE)
			halo_punt(chain->member[i]);
	if (chain->members)
		review_hops(worker);
	halo_stage_forward(worker);
	halo_trace_stage(worker, HALO_TRACE_FORWARD);
	for (i = 0; chain->count[HALO_STAGE_EGRESS] && i < worker->hop_count; i++)
		worker->hop[i].packet->hooked |= HALO_HOOKED_FORWARDED;
}

static void leave_egress(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; i < chain->members; i++) {
		struct halo_packet *packet = chain->member[i];

		if (packet->verdict == HALO_VERDICT_NONE)
			packet->verdict = HALO_VERDICT_TRANSMIT;
		else
			note_interface(worker, packet);
		if (packet->verdict != HALO_VERDICT_TRANSMIT && (packet->hooked & HALO_HOOKED_FORWARDED))
			worker->forwarded_count--;
	}
}

/* ---- a burst -------------------------------------------------------------------------------------------------- */

static void finish(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;

	if (unlikely(worker->debug) && chain->source == HALO_SOURCE_RX)
		halo_debug_conclude(worker);
	halo_stage_finish(worker, chain->frames);
	chain->source = HALO_SOURCE_RX; /* as it is for bursts that know nothing of us */
	if (chain->stale)
		halo_chain_arrange(worker);
	halo_chain_note(chain);
}

/* Call hooks, and run the stages behind them, until Python is needed or the burst is through. */
static void advance(struct halo_worker *worker)
{
	static void (*const leave_stage[HALO_STAGE_COUNT])(struct halo_worker *) = {leave_ingress, leave_forward,
										    leave_egress};
	struct halo_chain *chain = &worker->chain;

	while (run_hooks(worker)) {
		leave_stage[chain->stage](worker);
		if (chain->stage == HALO_STAGE_EGRESS)
			return finish(worker);
		enter(worker, chain->stage + 1);
	}
	chain->parked = true;
	chain->called_ns = halo_now_ns();
}

/* Go on with what was parked. */
static void resume(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t number = chain->order[chain->stage][chain->position];

	/* In Python we read no tables, and said so. Pairs with the fence in halo_fib_table_seal. */
	__atomic_store_n(&worker->slot->status.epoch, __atomic_load_n(&worker->tables->epoch, __ATOMIC_ACQUIRE),
			 __ATOMIC_SEQ_CST);
	worker->root = halo_fib_root(worker->fib);
	chain->parked = false;
	halo_count(&counters_of(worker, number)->busy_ns, halo_now_ns() - chain->called_ns);
	conclude(worker, number);
	chain->position++;
	advance(worker);
}

/* The next burst, from whoever's turn it is and has one. */
static uint32_t begin(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t tries;

	worker->root = halo_fib_root(worker->fib);
	for (tries = 0; tries < HALO_SOURCE_COUNT; tries++) {
		uint32_t source = chain->next_source, frames;

		chain->next_source = (source + 1) % HALO_SOURCE_COUNT;
		frames = source == HALO_SOURCE_RX ? halo_stage_receive(worker) : halo_chain_receive(worker, source);
		if (frames == 0)
			continue;
		chain->source = source;
		chain->frames = frames;
		return frames;
	}
	return 0;
}

/* Put the burst in front of the stage where it comes in. */
static void start(struct halo_worker *worker)
{
	static const struct halo_laps untimed; /* hooks are not the stages' time, and have counters of their own */
	struct halo_chain *chain = &worker->chain;

	halo_stage_parse(worker, chain->frames);
	if (chain->source != HALO_SOURCE_RX)
		halo_chain_admit(worker);
	else
		halo_load_burst(worker, chain->frames, &untimed);
	if (unlikely(worker->debug) && chain->source == HALO_SOURCE_RX)
		halo_debug_keep(worker, chain->frames);
	if (unlikely(worker->captures.points) && chain->source == HALO_SOURCE_RX)
		halo_capture_received(worker, chain->frames);
	enter(worker, chain->source == HALO_SOURCE_RX ? HALO_STAGE_INGRESS : chain->source - 1);
}

uint32_t halo_chain_run(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t frames = chain->frames;

	if (chain->parked) {
		resume(worker);
		return frames;
	}
	frames = begin(worker);
	if (frames == 0 || frames == HALO_RING_BROKEN)
		return frames;
	start(worker);
	advance(worker);
	return frames;
}

void halo_chain_show(struct halo_worker *worker, struct halo_poll_result *result)
{
	struct halo_chain *chain = &worker->chain;

	result->hook_count = 0;
	result->hook_packets = NULL;
	if (!chain->parked)
		return;
	result->hook = chain->order[chain->stage][chain->position];
	result->hook_count = chain->selected;
	result->hook_packets = shown(chain);
}

/* ---- ends ----------------------------------------------------------------------------------------------------- */

/* What was put in counts as held since, so the books have it already. */
void halo_chain_abandon(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;

	if (chain->parked && chain->source == HALO_SOURCE_RX) {
		halo_count(&worker->slot->worker.rx_frames, chain->frames);
		halo_count(&worker->slot->worker.drops[HALO_DROP_punt_lost], chain->frames);
	}
	if (chain->parked) {
		worker->debug_count = 0;
		halo_trace_lost(worker, HALO_DROP_punt_lost);
	}
	chain->parked = false;
	chain->source = HALO_SOURCE_RX;
	halo_chain_forget(chain);
	if (chain->stale)
		halo_chain_arrange(worker);
	halo_chain_note(chain);
}

void halo_chain_end(struct halo_worker *worker)
{
	struct halo_chain *chain = &worker->chain;
	uint32_t i;

	for (i = 0; chain->parked && i < chain->frames; i++)
		if (worker->burst[i].verdict == HALO_VERDICT_NONE || worker->burst[i].verdict == HALO_VERDICT_PUNT)
			halo_drop(&worker->burst[i], HALO_DROP_punt_lost);
	if (chain->parked)
		halo_stage_finish(worker, chain->frames);
	chain->parked = false;
	halo_chain_release(worker);
}
