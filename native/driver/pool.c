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

enum { CACHE_SIZE = 256 };

static int fail(struct halo_driver_setup *setup, int error, const char *what)
{
	snprintf(setup->error, sizeof(setup->error), "%s: %s", what, rte_strerror(-error));
	return error;
}

static int check_reciprocal(struct halo_driver *driver)
{
	uint32_t lines = driver->geometry.stride_octets / HALO_LINE;
	uint32_t line;

	driver->reciprocal = (uint32_t)((UINT64_C(1) << 32) / lines + 1);
	for (line = 0; line < HALO_CHUNK_OCTETS / HALO_LINE; line++)
		if ((uint32_t)(((uint64_t)line * driver->reciprocal) >> 32) != line / lines)
			return -ERANGE;
	return 0;
}

static int check_geometry(const struct halo_pool_geometry *geometry)
{
	uint64_t chunks;

	if (geometry->stride_octets % HALO_LINE || geometry->buffers_per_chunk == 0 || geometry->buffer_count == 0)
		return -EINVAL;
	if ((uint64_t)geometry->buffers_per_chunk * geometry->stride_octets > HALO_CHUNK_OCTETS)
		return -EINVAL;
	if (geometry->stride_octets < HALO_METADATA_OCTETS + HALO_HEADROOM_OCTETS + geometry->data_octets)
		return -EINVAL;
	chunks = (geometry->buffer_count + geometry->buffers_per_chunk - 1) / geometry->buffers_per_chunk;
	return chunks * HALO_CHUNK_OCTETS > geometry->size_octets ? -EINVAL : 0;
}

/* One extmem element per chunk; the last may be short. */
static struct rte_pktmbuf_extmem *describe_chunks(const struct halo_driver *driver, uint32_t chunks)
{
	struct rte_pktmbuf_extmem *memory = calloc(chunks, sizeof(*memory));
	uint32_t i;

	for (i = 0; memory && i < chunks; i++) {
		uint8_t *start = driver->pool + (uint64_t)i * HALO_CHUNK_OCTETS + HALO_METADATA_OCTETS;

		memory[i].buf_ptr = start;
		memory[i].buf_iova =
			rte_eal_iova_mode() == RTE_IOVA_VA ? (rte_iova_t)(uintptr_t)start : rte_mem_virt2iova(start);
		memory[i].buf_len = (size_t)driver->geometry.buffers_per_chunk * driver->geometry.stride_octets;
		memory[i].elt_size = (uint16_t)driver->geometry.stride_octets;
	}
	return memory;
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

static void note_mbuf(struct rte_mempool *mempool, void *argument, void *object, unsigned int index)
{
	struct halo_driver *driver = argument;
	struct rte_mbuf *mbuf = object;
	uint32_t buffer, within;

	(void)mempool;
	(void)index;
	if (halo_locate(driver, (uint32_t)((uint8_t *)mbuf->buf_addr - driver->pool), &buffer, &within))
		driver->mbuf[buffer] = mbuf;
	/*
	 * A data room in the pool is never attached, shared or freed by itself: for all that DPDK does with these mbufs they
	 * are direct ones. Without the flag, freeing one does not read its shared info, a third cache line per frame.
	 */
	mbuf->ol_flags &= ~RTE_MBUF_F_EXTERNAL;
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
	for (i = 0; i < count; i++) {
		if (driver->owner[i] == HALO_OWNER_DRIVER)
			all[i] = driver->mbuf[i];
		else
			all[i] = NULL;
	}
	for (i = 0; i < count; i++) {
		if (all[i])
			rte_mempool_generic_put(driver->mempool, &all[i], 1, NULL);
		else
			kept++;
	}
	driver->ports->withheld = kept;
	free(all);
	return 0;
}

int halo_pool_create(struct halo_driver *driver, struct halo_driver_setup *setup)
{
	struct rte_pktmbuf_extmem *memory;
	uint32_t count = driver->geometry.buffer_count;
	int error = check_geometry(&driver->geometry);

	if (!error)
		error = check_reciprocal(driver);
	if (error)
		return fail(setup, error, "the pool's geometry makes no sense");
	driver->chunk_count = (count + driver->geometry.buffers_per_chunk - 1) / driver->geometry.buffers_per_chunk;
	error = register_memory(driver, setup);
	if (error)
		return error;
	memory = describe_chunks(driver, driver->chunk_count);
	driver->mbuf = calloc(count, sizeof(driver->mbuf[0]));
	if (!memory || !driver->mbuf) {
		free(memory);
		return fail(setup, -ENOMEM, "the table of mbufs");
	}
	driver->mempool = rte_pktmbuf_pool_create_extbuf(
		"halo_pool", count, CACHE_SIZE, 0, (uint16_t)(driver->geometry.stride_octets - HALO_METADATA_OCTETS),
		SOCKET_ID_ANY, memory, driver->chunk_count);
	error = -rte_errno;
	free(memory);
	if (!driver->mempool)
		return fail(setup, error, "making a mempool of the pool: EAL has too little memory");
	rte_mempool_obj_iter(driver->mempool, note_mbuf, driver);
	error = withhold(driver);
	return error ? fail(setup, error, "taking stock of the buffers") : 0;
}

void halo_pool_destroy(struct halo_driver *driver)
{
	rte_mempool_free(driver->mempool);
	if (driver->registered)
		rte_extmem_unregister(driver->pool, driver->geometry.size_octets);
	free(driver->mbuf);
}
