/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface table, as the supervisor last switched it. The block that is active is copied into private memory; the
 * supervisor does not write into it again before this worker's epoch has passed.
 */
#include "octets.h"
#include "worker.h"

static void compile(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++) {
		worker->port[i].count = 0;
		worker->port[i].first = 0;
	}
	/* The supervisor writes the interfaces of one port next to each other. */
	for (i = 0; i < count; i++) {
		const struct halo_interface *interface = &worker->interfaces[i];
		struct halo_port_entry *port;

		if (interface->port >= HALO_MAX_PORTS || !(interface->flags & HALO_INTERFACE_UP))
			continue;
		port = &worker->port[interface->port];
		if (port->count == 0)
			port->first = (uint16_t)i;
		port->count = (uint16_t)(i - port->first + 1);
		port->mac = 0;
		memcpy(&port->mac, interface->mac, 6);
	}
}

bool halo_interfaces_refresh(struct halo_worker *worker)
{
	const struct halo_tables *tables = worker->tables;
	uint64_t epoch = __atomic_load_n(&tables->epoch, __ATOMIC_ACQUIRE); /* pairs with the supervisor's switch */
	const struct halo_interface_block *block;
	uint32_t count;

	if (epoch == worker->epoch)
		return false;
	/* Tell the supervisor what we are about to read before we read it; it waits for us from here on. */
	__atomic_store_n(&worker->slot->status.epoch, epoch, __ATOMIC_SEQ_CST);
	block = &tables->interfaces[__atomic_load_n(&tables->active, __ATOMIC_ACQUIRE) & 1];
	count = __atomic_load_n(&block->count, __ATOMIC_RELAXED);
	if (count > HALO_MAX_INTERFACES)
		count = HALO_MAX_INTERFACES;
	memcpy(worker->interfaces, block->entry, count * sizeof(block->entry[0]));
	worker->interface_count = count;
	compile(worker, count);
	worker->epoch = epoch;
	return true;
}
