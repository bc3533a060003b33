/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool as a DPDK mempool. The data rooms lie in the shared pool; mbuf headers are ordinary DPDK memory, private to this
 * process, so that no worker can touch them. mbuf->buf_addr is the first octet behind a buffer's metadata.
 *
 * A driver that follows a dead one finds in `owners` what workers still hold, and keeps those mbufs out of the mempool.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_malloc.h>

#include "driver.h"

enum { CACHE_SIZE = 512 };

static int fail(struct halo_driver_setup *setup, int error, const char *what)
{
	snprintf(setup->error, sizeof(setup->error), "%s: %s", what, rte_strerror(-error));
	return error;
}

static int make_locator(struct halo_driver *driver)
{
	uint32_t lines = driver->geometry.stride_octets / HALO_LINE;
	uint32_t line;

	driver->locator.buffers_per_chunk = driver->geometry.buffers_per_chunk;
	driver->locator.buffer_count = driver->geometry.buffer_count;
	driver->locator.stride_octets = driver->geometry.stride_octets;
	driver->locator.reciprocal = (uint32_t)((UINT64_C(1) << 32) / lines + 1);
	for (line = 0; line < HALO_CHUNK_OCTETS / HALO_LINE; line++)
		if ((uint32_t)(((uint64_t)line * driver->locator.reciprocal) >> 32) != line / lines)
			return -ERANGE;
	return 0;
}

static int check_geometry(const struct halo_pool_geometry *geometry)
{
	uint64_t chunks;

	if (geometry->stride_octets > UINT16_MAX)
		return -EINVAL;
	if (geometry->stride_octets % HALO_LINE || geometry->buffers_per_chunk == 0 || geometry->buffer_count == 0)
		return -EINVAL;
	if ((uint64_t)geometry->buffers_per_chunk * geometry->stride_octets > HALO_CHUNK_OCTETS)
		return -EINVAL;
	if (geometry->stride_octets < HALO_METADATA_OCTETS + HALO_HEADROOM_OCTETS + geometry->data_octets)
		return -EINVAL;
	chunks = (geometry->buffer_count + geometry->buffers_per_chunk - 1) / geometry->buffers_per_chunk;
	return chunks * HALO_CHUNK_OCTETS > geometry->size_octets ? -EINVAL : 0;
}

/*
 * Register the pool with EAL, for rte_mem_virt2iova() and DMA. With IOVA as physical addresses every page needs its own,
 * which only hugepages can promise to keep.
 */
static int register_memory(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	uint64_t pages = driver->geometry.size_octets / setup->page_octets;
	rte_iova_t *addresses = NULL;
	uint64_t i;
	int error;

	if (rte_eal_iova_mode() == RTE_IOVA_PA) {
		if (setup->page_octets < HALO_CHUNK_OCTETS)
			return fail(setup, -ENOTSUP,
				    "the IOVA mode is PA, so the pool must be in hugepages: add --hugepages 2M, or "
				    "--eal '--iova-mode=va' where an IOMMU is there");
		addresses = calloc(pages, sizeof(*addresses));
		if (!addresses)
			return fail(setup, -ENOMEM, "page addresses");
		for (i = 0; i < pages; i++)
			addresses[i] = rte_mem_virt2phy(driver->pool + i * setup->page_octets);
	}
	error = rte_extmem_register(driver->pool, driver->geometry.size_octets, addresses,
				    addresses ? (unsigned int)pages : 0, setup->page_octets);
	free(addresses);
	if (error)
		return fail(setup, -rte_errno, "registering the pool with EAL");
	driver->registered = true;
	return 0;
}

/*
 * Make object `index` of the mempool the mbuf of buffer `index`, as rte_pktmbuf_init() would, but for the place of its data
 * room. For DPDK it is an ordinary, direct mbuf: freeing it reads no shared info, and drivers that rewrite flags do no harm.
 */
static void init_mbuf(struct rte_mempool *mempool, void *argument, void *object, unsigned int index)
{
	struct halo_driver *driver = argument;
	struct rte_mbuf *mbuf = object;
	struct halo_note *note = halo_note_of(driver, mbuf);
	uint32_t chunk = index / driver->geometry.buffers_per_chunk;
	uint32_t place = index % driver->geometry.buffers_per_chunk;
	uint8_t *room = driver->pool + (uint64_t)chunk * HALO_CHUNK_OCTETS +
			(uint64_t)place * driver->geometry.stride_octets + HALO_METADATA_OCTETS;

	memset(mbuf, 0, sizeof(*mbuf));
	mbuf->buf_addr = room;
	rte_mbuf_iova_set(mbuf,
			  rte_eal_iova_mode() == RTE_IOVA_VA ? (rte_iova_t)(uintptr_t)room : rte_mem_virt2iova(room));
	mbuf->buf_len = (uint16_t)(driver->geometry.stride_octets - HALO_METADATA_OCTETS);
	mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	mbuf->pool = mempool;
	mbuf->nb_segs = 1;
	mbuf->port = RTE_MBUF_PORT_INVALID;
	rte_mbuf_refcnt_set(mbuf, 1);
	note->buffer = index;
	note->owner = driver->owner[index];
	if (halo_mbuf_of(driver, index) != mbuf)
		driver->header_octets = 0; /* not even: create_mempool() refuses */
}

static void prepare(struct halo_driver *driver, uint32_t cache)
{
	struct rte_pktmbuf_pool_private private = {
		.mbuf_data_room_size = (uint16_t)(driver->geometry.stride_octets - HALO_METADATA_OCTETS),
	};

	driver->mempool = rte_mempool_create_empty("halo_pool", driver->geometry.buffer_count, sizeof(struct rte_mbuf),
						   cache, sizeof(private), SOCKET_ID_ANY,
						   RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (driver->mempool)
		rte_pktmbuf_pool_init(driver->mempool, &private);
}

/* All mbuf headers in one piece of DPDK memory, one after the other. */
static int create_mempool(struct halo_driver *driver)
{
	uint32_t count = driver->geometry.buffer_count;
	struct rte_mempool *mempool;
	int added;

	prepare(driver, RTE_MIN((uint32_t)CACHE_SIZE, count / 2));
	mempool = driver->mempool;
	/*
	 * Last in, first out, also behind the lcores' caches: a backlog that comes and goes would otherwise take its buffers
	 * from one end of the pool and give them back at the other, and each frame would meet a cold one.
	 */
	if (!mempool || rte_mempool_set_ops_byname(mempool, "stack", NULL) != 0)
		return -ENOMEM;
	driver->header_offset = mempool->header_size;
	driver->header_octets = mempool->header_size + mempool->elt_size + mempool->trailer_size;
	driver->headers = rte_zmalloc("halo_mbufs", (size_t)count * driver->header_octets, RTE_CACHE_LINE_SIZE);
	if (!driver->headers)
		return -ENOMEM;
	added = rte_mempool_populate_iova(mempool, (char *)driver->headers, RTE_BAD_IOVA,
					  (size_t)count * driver->header_octets, NULL, NULL);
	if (added < 0 || (uint32_t)added != count)
		return added < 0 ? added : -ENOMEM;
	rte_mempool_obj_iter(mempool, init_mbuf, driver);
	return driver->header_octets ? 0 : -ENOTSUP;
}

/* Take out of the mempool what the owners region says workers have. Nothing else runs yet. */
static int withhold(struct halo_driver *driver)
{
	uint32_t count = driver->geometry.buffer_count;
	uint32_t kept = 0;
	uint32_t i;
	void **all = calloc(count, sizeof(*all));

	if (!all)
		return -ENOMEM;
	if (rte_mempool_generic_get(driver->mempool, all, count, NULL) < 0) {
		free(all);
		return -ENOBUFS;
	}
	free(all);
	for (i = 0; i < count; i++) {
		void *mbuf = halo_mbuf_of(driver, i);

		if (driver->owner[i] == HALO_OWNER_DRIVER)
			rte_mempool_generic_put(driver->mempool, &mbuf, 1, NULL);
		else
			kept++;
	}
	HALO_HOOK("attach.withheld");
	driver->ports->withheld = kept;
	return 0;
}

int halo_pool_measure(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	int error = check_geometry(&driver->geometry);

	if (!error)
		error = make_locator(driver);
	return error ? fail(setup, error, "the pool's geometry makes no sense") : 0;
}

int halo_pool_create(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	int error = register_memory(driver, setup);

	if (error)
		return error;
	error = create_mempool(driver);
	if (error)
		return fail(setup, error, "making a mempool of the pool: EAL has too little memory");
	error = withhold(driver);
	return error ? fail(setup, error, "taking stock of the buffers") : 0;
}

void halo_pool_destroy(struct halo_driver *driver)
{
	rte_mempool_free(driver->mempool);
	if (driver->registered)
		rte_extmem_unregister(driver->pool, driver->geometry.size_octets);
	rte_free(driver->headers);
}
