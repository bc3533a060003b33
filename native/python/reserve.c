/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one file that includes Python.h: allocators have no place in the stable ABI, but they are documented, and their
 * structures are the same since Python 3.5.
 *
 * Python takes memory in two ways: arenas for what is small, and the raw domain for what is not. Both are wrapped. The raw
 * domain may be called without the GIL, hence the atomic exchange: one thread gives the reserve back, the others fail as
 * they would have, a moment before the process ends.
 */
#include <Python.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include <halo/reserve.h>

static PyMemAllocatorEx raw;
static PyObjectArenaAllocator arenas;
static _Atomic(void *) reserve;
static size_t reserve_octets;

static int tell(void *unused)
{
	(void)unused;
	halo_reserve_used();
	return PyErr_Occurred() ? -1 : 0;
}

/* Returns whether it is worth asking again. */
static int give_back(size_t wanted)
{
	void *kept;

	if (wanted > reserve_octets / HALO_RESERVE_SHARE)
		return 0;
	kept = atomic_exchange(&reserve, NULL);
	if (!kept)
		return 0;
	munmap(kept, reserve_octets);
	Py_AddPendingCall(tell, NULL);
	return 1;
}

static void *raw_malloc(void *context, size_t size)
{
	void *memory = raw.malloc(context, size);

	return memory || !give_back(size) ? memory : raw.malloc(context, size);
}

static void *raw_calloc(void *context, size_t count, size_t size)
{
	void *memory = raw.calloc(context, count, size);

	if (memory || (size && count > SIZE_MAX / size))
		return memory;
	return give_back(count * size) ? raw.calloc(context, count, size) : NULL;
}

static void *raw_realloc(void *context, void *old, size_t size)
{
	void *memory = raw.realloc(context, old, size);

	return memory || !give_back(size) ? memory : raw.realloc(context, old, size);
}

static void raw_free(void *context, void *memory)
{
	raw.free(context, memory);
}

static void *arena_alloc(void *context, size_t size)
{
	void *memory = arenas.alloc(context, size);

	return memory || !give_back(size) ? memory : arenas.alloc(context, size);
}

static void arena_free(void *context, void *memory, size_t size)
{
	arenas.free(context, memory, size);
}

int halo_reserve_hold(uint64_t octets)
{
	PyMemAllocatorEx wrapped_raw = {NULL, raw_malloc, raw_calloc, raw_realloc, raw_free};
	PyObjectArenaAllocator wrapped_arenas = {NULL, arena_alloc, arena_free};
	void *kept;

	if (reserve_octets)
		return -EALREADY;
	kept = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (kept == MAP_FAILED)
		return -errno;
	reserve_octets = octets;
	atomic_store(&reserve, kept);
	PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
	PyObject_GetArenaAllocator(&arenas);
	wrapped_raw.ctx = raw.ctx;
	wrapped_arenas.ctx = arenas.ctx;
	PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &wrapped_raw);
	PyObject_SetArenaAllocator(&wrapped_arenas);
	return 0;
}
