/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching to a slot, and everything a worker does to its rings that is no burst. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "octets.h"
#include "worker.h"

static struct halo_descriptor *descriptors(struct halo_slot *slot, uint32_t offset)
{
	return (struct halo_descriptor *)(void *)((uint8_t *)slot + offset);
}

static bool power_of_two(uint32_t value)
{
	return value && !(value & (value - 1));
}

/* Geometry is the supervisor's word, read once; still, a region of another make must not become wild pointers. */
static int check_geometry(const struct halo_slot *slot, const struct halo_slot_geometry *geometry)
{
	uint64_t size = slot->header.size_octets;

	if (slot->header.magic != HALO_MAGIC || slot->header.layout_version != HALO_LAYOUT_VERSION)
		return -EPROTO;
	if (slot->header.kind != HALO_REGION_SLOT)
		return -EPROTO;
	if (!power_of_two(geometry->ring_size) || !power_of_two(geometry->tx_size) ||
	    !power_of_two(geometry->spare_size))
		return -EINVAL;
	if (geometry->rx_offset + (uint64_t)geometry->ring_size * 8 > size ||
	    geometry->tx_offset + (uint64_t)geometry->tx_size * 8 > size ||
	    geometry->spare_offset + (uint64_t)geometry->spare_size * 8 > size)
		return -EINVAL;
	if (geometry->pool.stride_octets == 0 || geometry->tx_size < geometry->buffer_bound)
		return -EINVAL;
	return 0;
}

/* Attach at the indices that stand in the region: the driver has reset them, or a predecessor of ours is gone. */
void halo_attach_rings(struct halo_worker *worker)
{
	struct halo_slot *slot = worker->slot;
	struct halo_slot_geometry geometry = worker->rings;

	worker->generation = __atomic_load_n(&slot->life.generation, __ATOMIC_ACQUIRE);
	halo_consumer_attach(&worker->rx, &slot->rx, descriptors(slot, geometry.rx_offset), geometry.ring_size);
	halo_consumer_attach(&worker->spare, &slot->spare, descriptors(slot, geometry.spare_offset),
			     geometry.spare_size);
	halo_producer_attach(&worker->tx, &slot->tx, descriptors(slot, geometry.tx_offset), geometry.tx_size);
	HALO_HOOK("worker.rings");
	worker->tx_pending = 0;
	worker->tx_room = 0;
	worker->punt_count = 0;
	worker->datagrams->count = worker->datagrams->parked = 0;
	worker->punts_open = 0;
	halo_chain_abandon(worker);
	/* What Python held when its worker ended, or when the rings were made anew, is gone: the books say so. */
	halo_count(&slot->worker.drops[HALO_DROP_punt_lost], slot->worker.held);
	halo_count(&slot->worker.held, -slot->worker.held);
	memset(worker->punt_open, 0, sizeof(worker->punt_open));
	halo_raw_forget(worker);
	halo_trace_forget(worker, NULL);
	__atomic_store_n(&slot->status.ring_generation, worker->generation, __ATOMIC_RELEASE);
	HALO_HOOK("worker.attached");
}

static void set_up(struct halo_worker *worker, const struct halo_worker_setup *setup,
		   const struct halo_slot_geometry *geometry)
{
	uint32_t i;

	worker->pool = setup->pool;
	worker->slot = setup->slot;
	worker->tables = setup->tables;
	worker->geometry = geometry->pool;
	worker->rings = *geometry;
	worker->slot_number = geometry->slot;
	worker->width = HALO_BURST;
	worker->doorbell_fd = setup->doorbell_fd;
	worker->driver_doorbell_fd = setup->driver_doorbell_fd;
	worker->epoll_fd = setup->epoll_fd;
	worker->idle_policy = setup->idle_policy;
	worker->spin_ns = setup->idle_policy == HALO_IDLE_SLEEP ? 0 : setup->spin_ns;
	worker->debug = setup->debug != 0;
	worker->share.percent = setup->python_percent < 100 ? setup->python_percent : 0;
	worker->share.credit_ns = HALO_SHARE_LIMIT_NS;
	for (i = 0; i < PORT_ENTRIES; i++)
		worker->port[i].macswap_to = HALO_NO_PORT;
	halo_interfaces_compile(worker);
	halo_tokens_set(&worker->resolve_tokens, HALO_RESOLVE_RATE, HALO_RESOLVE_BURST);
	halo_tokens_set(&worker->error_tokens, HALO_ERROR_RATE, HALO_ERROR_BURST);
}

/* Without a FIB, an empty one, whose pages are all the same page of zeros: nothing leads anywhere. */
static int set_up_fib(struct halo_worker *worker, const struct halo_fib *fib)
{
	void *none;

	worker->fib = fib;
	if (fib)
		return 0;
	none = mmap(NULL, sizeof(*fib), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (none == MAP_FAILED)
		return -ENOMEM;
	worker->fib = none;
	worker->fib_is_ours = true;
	return 0;
}

/* Workers that ended while an application may have had views of their packets; the process ends soon. */
static struct halo_worker *kept;

static void destroy(struct halo_worker *worker)
{
	if (worker->fib_is_ours)
		munmap((void *)(uintptr_t)worker->fib, sizeof(*worker->fib));
	halo_neighbors_free(&worker->neighbors);
	halo_sockets_free(worker);
	halo_captures_free(worker);
	if (worker->chain.ages) {
		worker->next_kept = kept;
		kept = worker;
		return;
	}
	free(worker);
}

int halo_worker_create(const struct halo_worker_setup *setup, struct halo_worker **out)
{
	struct halo_slot_geometry geometry = setup->slot->geometry;
	struct halo_worker *worker;
	int error = check_geometry(setup->slot, &geometry);

	if (error)
		return error;
	worker = aligned_alloc(HALO_LINE, (sizeof(*worker) + HALO_LINE - 1) / HALO_LINE * HALO_LINE);
	if (!worker)
		return -ENOMEM;
	memset(worker, 0, sizeof(*worker));
	set_up(worker, setup, &geometry);
	error = halo_neighbors_create(&worker->neighbors);
	if (!error)
		error = halo_sockets_create(worker);
	if (!error)
		error = set_up_fib(worker, setup->fib);
	if (error) {
		destroy(worker);
		return error;
	}
	halo_attach_rings(worker);
	halo_interfaces_refresh(worker);
	*out = worker;
	return 0;
}

void halo_worker_detach(struct halo_worker *worker)
{
	uint32_t i;

	if (!worker)
		return;
	for (i = 0; i < worker->punt_count; i++)
		if (worker->punt_open[i])
			halo_worker_finish_punt(worker, i, HALO_DROP_punt_lost);
	halo_sockets_close(worker);
	halo_raw_close(worker);
	halo_blast_close(worker);
	halo_chain_end(worker);
	halo_worker_flush(worker);
	__atomic_store_n(&worker->slot->status.epoch, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&worker->slot->status.state, HALO_WORKER_ABSENT, __ATOMIC_RELEASE);
	destroy(worker);
}

int halo_worker_set_macswap(struct halo_worker *worker, uint32_t in, uint32_t out)
{
	if (in >= HALO_MAX_PORTS || (out >= HALO_MAX_PORTS && out != HALO_NO_PORT))
		return -EINVAL;
	worker->port[in].macswap_to = (uint16_t)out;
	worker->measuring = false;
	for (in = 0; in < HALO_MAX_PORTS; in++)
		worker->measuring |= worker->port[in].macswap_to != HALO_NO_PORT;
	return 0;
}

const struct halo_interface_block *halo_worker_interfaces(const struct halo_worker *worker)
{
	return &worker->interfaces;
}

int halo_worker_held(const struct halo_worker *worker)
{
	return (int)(worker->punts_open + worker->datagrams->parked);
}

uint16_t halo_checksum(const uint8_t *octets, uint32_t length)
{
	return __builtin_bswap16(header_checksum(octets, length));
}
