/* SPDX-License-Identifier: Apache-2.0 */
/* Wraps layout_def.h for C: the types it needs, the drop reasons as an enum, and what the layout promises. */
#ifndef HALO_LAYOUT_H
#define HALO_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define HALO_MAGIC UINT64_C(0x31706d2d6f6c6168) /* "halo-mp1", little-endian */
#define HALO_LINE 64

enum halo_drop {
#define X(name, text) HALO_DROP_##name,
#include "drop_def.h"
#undef X
	HALO_DROP_COUNT
};

#include "layout_def.h"

#define HALO_AT(type, field, offset) static_assert(offsetof(struct type, field) == (offset), #type "." #field)

static_assert(sizeof(struct halo_region_header) == 64, "region header is one line");
static_assert(sizeof(struct halo_slot_geometry) == 64, "geometry is one line");
static_assert(sizeof(struct halo_pool_geometry) == 32, "pool geometry");
static_assert(sizeof(struct halo_descriptor) == 8, "a descriptor is one word");
static_assert(sizeof(struct halo_metadata) == HALO_METADATA_OCTETS, "metadata");
static_assert(sizeof(struct halo_ring_index) == 256, "producer and consumer are 128 octets apart");
static_assert(sizeof(struct halo_slot_life) == 128, "life");
static_assert(sizeof(struct halo_slot_doorbell) == 128, "doorbell");
static_assert(sizeof(struct halo_slot_status) == 128, "status");
static_assert(sizeof(struct halo_interface) == 32, "interface");
static_assert(sizeof(struct halo_address) == 8, "address");
static_assert(sizeof(struct halo_target) == 16, "target");
static_assert(sizeof(struct halo_route) == 16, "route");
static_assert(sizeof(struct halo_routes) == 128, "routes header");
static_assert(sizeof(struct halo_fib) % HALO_LINE == 0, "nodes start on a line");
static_assert(sizeof(struct halo_lcore_status) == 128, "lcore status");
static_assert((int)HALO_DROP_COUNT <= (int)HALO_DROP_LIMIT, "more drop reasons than room in the counter blocks");
static_assert(sizeof(struct halo_worker_counters) == 1280, "worker counters end on a pair of lines");
static_assert(sizeof(struct halo_driver_counters) == 1152, "driver counters end on a pair of lines");
static_assert(sizeof(struct halo_owners) == 128, "owners header");
HALO_AT(halo_slot, life, 128);
HALO_AT(halo_slot, doorbell, 256);
HALO_AT(halo_slot, status, 384);
HALO_AT(halo_slot, rx, 512);
HALO_AT(halo_slot, worker, 1280);
HALO_AT(halo_slot, driver, 2560);
HALO_AT(halo_slot, interface, 3712);
static_assert(sizeof(struct halo_hook_counters) == 128, "hook counters are a pair of lines");
static_assert(sizeof(struct halo_socket) == 16, "socket");
static_assert(sizeof(struct halo_worker_load) == 512, "load");
static_assert((int)HALO_TIMED_COUNT <= (int)HALO_TIMED_STAGES, "more timed stages than room for them");
HALO_AT(halo_slot, load, 16000);
static_assert(sizeof(struct halo_slot) == 16512, "slot header");
HALO_AT(halo_ring_index, consumer, 128);
HALO_AT(halo_tables, interfaces, 128);
HALO_AT(halo_ports, lcore, 128);

#endif
