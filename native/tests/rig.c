/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "rig.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, octets) ((void)(start), (void)(octets))
#define ASAN_UNPOISON_MEMORY_REGION(start, octets) ((void)(start), (void)(octets))
#endif

enum {
	PAGE = 4096,
	TAG_OCTETS = 4, /* of headroom that a router may push a tag into */
	FRAME_START = HALO_METADATA_OCTETS + HALO_HEADROOM_OCTETS,
	SLOT_OCTETS = sizeof(struct halo_slot) + (RIG_RING + RIG_TX + RIG_SPARE) * sizeof(struct halo_descriptor),
};

static const size_t FIB_OCTETS =
	sizeof(struct halo_fib) + (size_t)HALO_FIB_MAX_NODES * HALO_FIB_NODE * sizeof(uint32_t);

struct rig rig;
const struct link rig_interface = {
	.port = 0,
	.home_slot = RIG_SLOT_NUMBER,
	.prefix_length = 24,
	.address = OWN_ADDRESS,
	.mac = OWN_MAC,
	.mtu = 1500,
	.flags = HALO_INTERFACE_UP,
};
bool reason_seen[HALO_DROP_LIMIT];

static void *map(uint64_t octets)
{
	uint8_t *start = mmap(NULL, octets + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(start != MAP_FAILED);
	CHECK(mprotect(start + octets, PAGE, PROT_NONE) == 0);
	return start;
}

static uint64_t whole_pages(uint64_t octets)
{
	return (octets + PAGE - 1) / PAGE * PAGE;
}

static void fill_geometry(void)
{
	struct halo_slot_geometry *geometry = &rig.slot->geometry;

	geometry->slot = RIG_SLOT_NUMBER;
	geometry->ring_size = RIG_RING;
	geometry->tx_size = RIG_TX;
	geometry->spare_size = RIG_SPARE;
	geometry->rx_offset = sizeof(struct halo_slot);
	geometry->tx_offset = geometry->rx_offset + RIG_RING * sizeof(struct halo_descriptor);
	geometry->spare_offset = geometry->tx_offset + RIG_TX * sizeof(struct halo_descriptor);
	geometry->buffer_bound = RIG_TX;
	geometry->pool.size_octets = rig.pool_octets;
	geometry->pool.buffer_count = RIG_BUFFERS;
	geometry->pool.buffers_per_chunk = RIG_BUFFERS;
	geometry->pool.stride_octets = RIG_STRIDE;
	geometry->pool.data_octets = HALO_DATA_OCTETS;
}

static void make_slot(void)
{
	struct halo_region_header *header;

	rig.slot = map(whole_pages(SLOT_OCTETS));
	header = &rig.slot->header;
	header->magic = HALO_MAGIC;
	header->layout_version = HALO_LAYOUT_VERSION;
	header->kind = HALO_REGION_SLOT;
	header->size_octets = SLOT_OCTETS;
	fill_geometry();
}

static struct halo_descriptor *descriptors(uint32_t offset)
{
	return (struct halo_descriptor *)(void *)((uint8_t *)rig.slot + offset);
}

static void attach_rings(void)
{
	const struct halo_slot_geometry *geometry = &rig.slot->geometry;

	halo_producer_attach(&rig.rx, &rig.slot->rx, descriptors(geometry->rx_offset), RIG_RING);
	halo_producer_attach(&rig.spare, &rig.slot->spare, descriptors(geometry->spare_offset), RIG_SPARE);
	halo_consumer_attach(&rig.tx, &rig.slot->tx, descriptors(geometry->tx_offset), RIG_TX);
}

static void make_setup(uint32_t idle_policy)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct halo_worker_setup setup = {
		.pool = rig.pool,
		.slot = rig.slot,
		.tables = rig.tables,
		.fib = rig.fib,
		.doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.driver_doorbell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.idle_policy = idle_policy,
	};

	event.data.fd = setup.doorbell_fd;
	CHECK(setup.doorbell_fd >= 0 && setup.driver_doorbell_fd >= 0 && setup.epoll_fd >= 0);
	CHECK(epoll_ctl(setup.epoll_fd, EPOLL_CTL_ADD, setup.doorbell_fd, &event) == 0);
	rig.setup = setup;
}

static void unmap(void *start, uint64_t octets)
{
	ASAN_UNPOISON_MEMORY_REGION(start, octets);
	munmap(start, octets + PAGE);
}

static void close_fds(void)
{
	close(rig.setup.doorbell_fd);
	close(rig.setup.driver_doorbell_fd);
	close(rig.setup.epoll_fd);
}

/* Safe for a rig that was never opened. */
static void abandon(void)
{
	if (!rig.pool)
		return;
	halo_worker_detach(rig.worker);
	close_fds();
	free(rig.returned);
	unmap(rig.pool, rig.pool_octets);
	unmap(rig.tables, whole_pages(sizeof(*rig.tables)));
	munmap(rig.fib, FIB_OCTETS);
	unmap(rig.slot, whole_pages(SLOT_OCTETS));
	memset(&rig, 0, sizeof(rig));
}

void rig_open_idle(const struct link *interfaces, uint32_t count, uint32_t idle_policy)
{
	abandon(); /* what a row that failed has left */
	rig.pool_octets = HALO_CHUNK_OCTETS;
	rig.pool = map(rig.pool_octets);
	memset(rig.pool, 0xa5, rig.pool_octets);
	ASAN_POISON_MEMORY_REGION(rig.pool, rig.pool_octets);
	rig.tables = map(whole_pages(sizeof(*rig.tables)));
	rig.fib = mmap(NULL, FIB_OCTETS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(rig.fib != MAP_FAILED);
	rig.fib->nodes_reserved = HALO_FIB_MAX_NODES;
	rig_set_interfaces(interfaces, count);
	make_slot();
	attach_rings();
	make_setup(idle_policy);
	rig.returned = calloc(RIG_MAX_RETURNED, sizeof(*rig.returned));
	CHECK(rig.returned);
	CHECK_EQUAL(halo_worker_create(&rig.setup, &rig.worker), 0);
	rig_set_state(HALO_SLOT_ENABLED);
	CHECK(rig_poll() & HALO_POLL_ENABLED);
}

void rig_open(const struct link *interfaces, uint32_t count)
{
	rig_open_idle(interfaces, count, HALO_IDLE_POLL);
}

void rig_close(void)
{
	rig_check_books();
	abandon();
}

static void fill_interface(struct halo_interface_block *block, uint32_t number, const struct link *link)
{
	struct halo_interface *interface = &block->entry[number];

	interface->port = link->port;
	interface->home_slot = link->home_slot;
	interface->vlan = link->vlan;
	memcpy(interface->mac, link->mac, 6);
	interface->mtu = link->mtu;
	interface->flags = link->flags;
	if (!link->address)
		return;
	interface->first_address = (uint16_t)block->address_count;
	interface->address_count = 1;
	block->address[block->address_count++] = (struct halo_address){
		.address = link->address, .prefix_length = link->prefix_length, .interface = (uint16_t)number};
}

/* The routes that follow from an address. */
static void route_link(uint32_t number, const struct link *link)
{
	uint32_t host = link->prefix_length < 32 ? UINT32_MAX >> link->prefix_length : 0;
	uint32_t broadcast;

	if (!link->address || !(link->flags & HALO_INTERFACE_UP))
		return;
	if (host)
		rig_route(link->address & ~host, link->prefix_length, rig_target(HALO_TARGET_CONNECTED, number, 0));
	if (host > 1) {
		broadcast = rig_target(HALO_TARGET_BROADCAST, number, 0);
		rig_route(link->address | host, 32, broadcast);
		rig_route(link->address & ~host, 32, broadcast);
	}
	rig_route(link->address, 32, rig_target(HALO_TARGET_LOCAL, number, 0));
}

void rig_set_interfaces(const struct link *interfaces, uint32_t count)
{
	struct halo_interface_block *block = &rig.tables->interfaces[!rig.tables->active];
	uint32_t i;

	CHECK(count <= HALO_MAX_INTERFACES);
	memset(block, 0, sizeof(*block));
	rig.route_count = 0;
	rig.fib_targets = 1;
	for (i = 0; i < count; i++) {
		fill_interface(block, i, &interfaces[i]);
		route_link(i, &interfaces[i]);
	}
	rig_build_fib();
	block->count = count;
	rig.tables->active = !rig.tables->active;
	rig.tables->interface_generation++;
	__atomic_store_n(&rig.tables->epoch, rig.tables->epoch + 1, __ATOMIC_RELEASE);
}

/* ---- the FIB -------------------------------------------------------------------------------------------------- */

uint32_t rig_target(enum halo_target_kind kind, uint32_t interface, uint32_t address)
{
	CHECK(rig.fib_targets < HALO_MAX_TARGETS);
	rig.fib->target[rig.fib_targets] = (struct halo_target){.what = kind | interface << 16, .address = address};
	return rig.fib_targets++;
}

uint32_t rig_group(const uint32_t *targets, uint32_t count)
{
	uint32_t group = rig_target(HALO_TARGET_GROUP, 0, 0);

	rig.fib->target[group].first = group * 16;
	rig.fib->target[group].count = (uint16_t)count;
	CHECK(count <= 16 && (count & (count - 1)) == 0);
	memcpy(&rig.fib->bucket[group * 16], targets, count * sizeof(*targets));
	return group;
}

static uint32_t *fib_node(uint32_t node)
{
	return (uint32_t *)(void *)(rig.fib + 1) + (size_t)node * HALO_FIB_NODE;
}

/* The node below an entry, made of the leaf that stood there. */
static uint32_t *fib_below(uint32_t *entry)
{
	uint32_t i;

	if (!(*entry & HALO_FIB_CHILD)) {
		CHECK(rig.fib_nodes < HALO_FIB_MAX_NODES);
		for (i = 0; i < HALO_FIB_NODE; i++)
			fib_node(rig.fib_nodes)[i] = *entry;
		*entry = HALO_FIB_CHILD | rig.fib_nodes++;
	}
	return fib_node(*entry & HALO_FIB_INDEX_MASK);
}

/* Longer prefixes come later, so what was there may be written over. */
static void fib_put(const struct rig_route *route)
{
	uint32_t leaf = route->target | (uint32_t)route->length << HALO_FIB_DEPTH_SHIFT;
	uint32_t *level = rig.fib->root[rig.fib->active & 1];
	uint32_t bits = 16, at = route->prefix >> 16, i;

	if (route->length > 16) {
		level = fib_below(&level[at]);
		bits = 24;
		at = route->prefix >> 8 & 255;
	}
	if (route->length > 24) {
		level = fib_below(&level[at]);
		bits = 32;
		at = route->prefix & 255;
	}
	for (i = 0; i < 1u << (bits - route->length); i++)
		level[at + i] = leaf;
}

void rig_build_fib(void)
{
	uint32_t length, i;

	memset(rig.fib->root, 0, sizeof(rig.fib->root));
	rig.fib_nodes = 0;
	for (length = 0; length <= 32; length++)
		for (i = 0; i < rig.route_count; i++)
			if (rig.routes[i].length == length)
				fib_put(&rig.routes[i]);
}

void rig_route(uint32_t prefix, uint8_t length, uint32_t target)
{
	CHECK(rig.route_count < RIG_MAX_ROUTES);
	rig.routes[rig.route_count++] = (struct rig_route){.prefix = prefix, .length = length, .target = target};
}

/* ---- the driver ----------------------------------------------------------------------------------------------- */

void rig_set_state(uint32_t state)
{
	__atomic_store_n(&rig.slot->life.state, state, __ATOMIC_RELEASE);
}

/* What the driver does between disabled and enabled; all buffers are its own again. */
void rig_reset_rings(void)
{
	rig_set_state(HALO_SLOT_DISABLED);
	memset(&rig.slot->rx, 0, sizeof(rig.slot->rx));
	memset(&rig.slot->tx, 0, sizeof(rig.slot->tx));
	memset(&rig.slot->spare, 0, sizeof(rig.slot->spare));
	memset(rig.worker_owns, 0, sizeof(rig.worker_owns));
	ASAN_POISON_MEMORY_REGION(rig.pool, rig.pool_octets);
	attach_rings();
	rig.lost = 0;
	__atomic_store_n(&rig.slot->life.generation, rig.slot->life.generation + 1, __ATOMIC_RELEASE);
}

uint32_t rig_buffer_offset(uint32_t buffer)
{
	return buffer * RIG_STRIDE + FRAME_START;
}

void rig_expose(uint32_t offset, uint32_t octets)
{
	ASAN_UNPOISON_MEMORY_REGION(rig.pool + offset, octets);
}

void rig_expose_all(void)
{
	rig.exposed = true;
	rig_expose(0, (uint32_t)rig.pool_octets);
}

static void hide_buffer(uint32_t buffer)
{
	if (!rig.exposed)
		ASAN_POISON_MEMORY_REGION(rig.pool + (uint64_t)buffer * RIG_STRIDE, RIG_STRIDE);
}

static uint32_t take_buffer(void)
{
	uint32_t tries;

	for (tries = 0; tries < RIG_BUFFERS; tries++) {
		uint32_t buffer = rig.next_buffer++ % RIG_BUFFERS;

		if (rig.worker_owns[buffer])
			continue;
		rig.worker_owns[buffer] = true;
		return buffer;
	}
	CHECK(false, "the rig has no buffer left");
	return 0;
}

void rig_deliver_raw(struct halo_descriptor descriptor)
{
	CHECK_EQUAL(halo_ring_reserve(&rig.rx, 1), 1);
	halo_ring_put(&rig.rx, 0, descriptor);
	halo_ring_submit(&rig.rx, 1);
}

struct halo_descriptor rig_fill(const struct frame *frame, uint8_t port, uint8_t flags)
{
	uint32_t buffer = take_buffer();
	struct halo_descriptor descriptor = {
		.offset = rig_buffer_offset(buffer),
		.length = (uint16_t)frame->length,
		.port = port,
		.flags = flags,
	};

	rig_expose(descriptor.offset - TAG_OCTETS, TAG_OCTETS + frame->length + rig.room_behind);
	memcpy(rig.pool + descriptor.offset, frame->octets, frame->length);
	if (flags & HALO_DESCRIPTOR_METADATA)
		rig_expose(buffer * RIG_STRIDE, HALO_METADATA_OCTETS);
	return descriptor;
}

uint32_t rig_deliver(const struct frame *frame, uint8_t port, uint8_t flags)
{
	struct halo_descriptor descriptor = rig_fill(frame, port, flags);

	rig_deliver_raw(descriptor);
	return descriptor.offset / RIG_STRIDE;
}

void rig_give_spares(uint32_t count)
{
	for (; count; count--) {
		struct halo_descriptor descriptor = {.offset = rig_buffer_offset(take_buffer())};

		rig_expose(descriptor.offset / RIG_STRIDE * RIG_STRIDE, HALO_METADATA_OCTETS);
		rig_expose(descriptor.offset, HALO_DATA_OCTETS);
		CHECK_EQUAL(halo_ring_reserve(&rig.spare, 1), 1);
		halo_ring_put(&rig.spare, 0, descriptor);
		halo_ring_submit(&rig.spare, 1);
	}
}

/* What the driver checks of a tx descriptor, as far as a sound worker must never offend. */
static void take_back(struct halo_descriptor descriptor)
{
	uint32_t buffer = descriptor.offset / RIG_STRIDE;
	struct returned *returned = &rig.returned[rig.returned_count++];

	CHECK(buffer < RIG_BUFFERS && rig.worker_owns[buffer], "offset %u came back twice, or was never given",
	      descriptor.offset);
	returned->descriptor = descriptor;
	returned->buffer = buffer;
	if ((descriptor.flags & HALO_ACTION_MASK) != HALO_ACTION_RELEASE) {
		CHECK(descriptor.length <= FRAME_ROOM &&
		      descriptor.offset % RIG_STRIDE + descriptor.length <= RIG_STRIDE);
		rig_expose(descriptor.offset, descriptor.length);
		memcpy(returned->octets, rig.pool + descriptor.offset, descriptor.length);
	}
	rig.worker_owns[buffer] = false;
	hide_buffer(buffer);
}

void rig_collect(void)
{
	uint32_t ready = halo_ring_peek(&rig.tx, RIG_TX);
	uint32_t i;

	CHECK(ready != HALO_RING_BROKEN);
	rig.returned_count = 0;
	for (i = 0; i < ready; i++)
		take_back(halo_ring_get(&rig.tx, i));
	halo_ring_release(&rig.tx, ready);
}

uint32_t rig_poll(void)
{
	int punts = halo_worker_poll(rig.worker, 0, &rig.result);

	CHECK(punts >= 0);
	CHECK_EQUAL(punts, rig.result.punt_count);
	return rig.result.reasons;
}

int64_t rig_drops(void)
{
	int64_t sum = 0;
	uint32_t i;

	for (i = 0; i < HALO_DROP_LIMIT; i++) {
		sum += (int64_t)rig.slot->worker.drops[i];
		reason_seen[i] |= rig.slot->worker.drops[i] != 0;
	}
	return sum;
}

/* Conservation of frames, and every buffer in one place: with the driver, on rx, on spare, or punted. */
void rig_check_books(void)
{
	const struct halo_worker_counters *count = &rig.slot->worker;
	uint32_t owned = 0, on_rings, i;

	CHECK_EQUAL(count->rx_frames + count->originated + count->copies,
		    count->tx_frames + count->tx_handed + rig_drops() + count->consumed + count->held);
	halo_worker_flush(rig.worker);
	rig_collect();
	for (i = 0; i < RIG_BUFFERS; i++)
		owned += rig.worker_owns[i];
	on_rings = rig.rx.head - rig.slot->rx.consumer + rig.spare.head - rig.slot->spare.consumer;
	CHECK_EQUAL(owned, on_rings + count->held + rig.lost);
}

static const char *name_of(unsigned int reason)
{
	return reason < HALO_DROP_COUNT ? halo_drop_name(reason) : "none";
}

static unsigned int only_reason(const uint64_t *before)
{
	unsigned int i;

	for (i = 0; i < HALO_DROP_LIMIT; i++)
		if (rig.slot->worker.drops[i] != before[i])
			return i;
	return HALO_DROP_COUNT;
}

static void run_one(const struct frame *frame, uint8_t port)
{
	rig_deliver(frame, port, 0);
	rig_poll();
	rig_collect();
}

void rig_check_drop(const struct frame *frame, uint8_t port, enum halo_drop reason)
{
	uint64_t before[HALO_DROP_LIMIT];
	unsigned int found;

	memcpy(before, rig.slot->worker.drops, sizeof(before));
	run_one(frame, port);
	found = only_reason(before);
	CHECK(found == reason, "%u octets ended as %s, not as %s", frame->length, name_of(found), name_of(reason));
	CHECK_EQUAL(rig.slot->worker.drops[reason], before[reason] + 1);
	CHECK_EQUAL(rig.returned_count, 1);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_RELEASE);
	CHECK_EQUAL(rig.result.punt_count, 0);
}

void rig_check_punt(const struct frame *frame, uint8_t port)
{
	uint64_t before[HALO_DROP_LIMIT];
	unsigned int found;

	memcpy(before, rig.slot->worker.drops, sizeof(before));
	run_one(frame, port);
	found = only_reason(before);
	CHECK(rig.result.punt_count == 1, "%u octets were not punted, but %s", frame->length,
	      found == HALO_DROP_COUNT ? "answered" : name_of(found));
	CHECK(rig.result.reasons & HALO_POLL_PUNTS);
	CHECK_EQUAL(rig.returned_count, 0);
	CHECK_EQUAL(halo_worker_finish_punt(rig.worker, 0, -1), 0);
	halo_worker_flush(rig.worker);
	rig_collect();
	CHECK_EQUAL(rig.returned_count, 1);
}

void rig_check_reply(const struct frame *frame, uint8_t port)
{
	uint64_t before[HALO_DROP_LIMIT];
	const uint8_t *octets;
	struct frame reply;
	unsigned int found;
	uint32_t icmp;

	memcpy(before, rig.slot->worker.drops, sizeof(before));
	run_one(frame, port);
	found = only_reason(before);
	CHECK(rig.returned_count == 1 && rig.returned[0].descriptor.flags == HALO_ACTION_TRANSMIT,
	      "%u octets were not answered, but %s", frame->length,
	      found == HALO_DROP_COUNT ? "punted" : name_of(found));
	CHECK_EQUAL(rig.returned[0].descriptor.port, port);
	CHECK_EQUAL(rig.returned[0].descriptor.length, frame->length);
	frame_reply(frame, &reply);
	/* A checksum has two spellings of 0: what counts is that it verifies. */
	octets = rig.returned[0].octets;
	icmp = frame_l3(&reply) + 20;
	CHECK(memcmp(octets, reply.octets, icmp + 2) == 0, "headers of a reply of %u octets", reply.length);
	CHECK(memcmp(octets + icmp + 4, reply.octets + icmp + 4, reply.length - icmp - 4) == 0);
	CHECK_EQUAL(reference_checksum(octets + icmp, frame_ip_length(&reply) - 20), 0);
}

static void check_one_returned(const struct frame *frame, const uint64_t *before)
{
	unsigned int found = only_reason(before);

	CHECK(rig.returned_count == 1 && found == HALO_DROP_COUNT, "%u octets ended as %s", frame->length,
	      found == HALO_DROP_COUNT ? "a punt" : name_of(found));
}

void rig_check_sent(const struct frame *frame, uint8_t port, const struct frame *expected, uint8_t out)
{
	uint64_t before[HALO_DROP_LIMIT];
	uint32_t i;

	memcpy(before, rig.slot->worker.drops, sizeof(before));
	run_one(frame, port);
	check_one_returned(frame, before);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_TRANSMIT);
	CHECK_EQUAL(rig.returned[0].descriptor.port, out);
	CHECK_EQUAL(rig.returned[0].descriptor.length, expected->length);
	for (i = 0; i < expected->length; i++)
		CHECK(rig.returned[0].octets[i] == expected->octets[i], "octet %u is %02x, not %02x", i,
		      rig.returned[0].octets[i], expected->octets[i]);
}

void rig_check_handed(const struct frame *frame, uint8_t port, uint8_t slot)
{
	uint64_t before[HALO_DROP_LIMIT];

	memcpy(before, rig.slot->worker.drops, sizeof(before));
	run_one(frame, port);
	check_one_returned(frame, before);
	CHECK_EQUAL(rig.returned[0].descriptor.flags, HALO_ACTION_HAND);
	CHECK_EQUAL(rig.returned[0].descriptor.port, slot);
	CHECK_EQUAL(rig.returned[0].descriptor.length, frame->length);
	CHECK(memcmp(rig.returned[0].octets, frame->octets, frame->length) == 0, "it was changed");
}
