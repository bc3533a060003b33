/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface table, as the supervisor last switched it. The block that is active is copied into private memory; the
 * supervisor does not write into it again before this worker's epoch has passed.
 */
#include "octets.h"
#include "worker.h"

static void compile(struct halo_worker *worker)
{
	uint32_t i;

	for (i = 0; i < HALO_MAX_PORTS; i++) {
		worker->port[i].count = 0;
		worker->port[i].first = 0;
	}
	for (i = 0; i < worker->interfaces.count; i++) {
		const struct halo_interface *interface = &worker->interfaces.entry[i];
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

/* Whatever stands there: nothing of it may lead us out of the tables. */
static void copy_block(struct halo_interface_block *copy, const struct halo_interface_block *block)
{
	uint32_t i;

	memcpy(copy, block, sizeof(*copy));
	if (copy->count > HALO_MAX_INTERFACES)
		copy->count = HALO_MAX_INTERFACES;
	if (copy->address_count > HALO_MAX_ADDRESSES)
		copy->address_count = HALO_MAX_ADDRESSES;
	for (i = 0; i < copy->count; i++) {
		struct halo_interface *interface = &copy->entry[i];

		if ((uint32_t)interface->first_address + interface->address_count > copy->address_count)
			interface->first_address = interface->address_count = 0;
	}
}

bool halo_interfaces_refresh(struct halo_worker *worker)
{
	const struct halo_tables *tables = worker->tables;
	uint64_t epoch = __atomic_load_n(&tables->epoch, __ATOMIC_ACQUIRE); /* pairs with the supervisor's switch */
	uint32_t generation;

	if (likely(epoch == worker->epoch))
		return false;
	/* Tell the supervisor what we are about to read before we read it; it waits for us from here on. */
	__atomic_store_n(&worker->slot->status.epoch, epoch, __ATOMIC_SEQ_CST);
	worker->epoch = epoch;
	generation = __atomic_load_n(&tables->interface_generation, __ATOMIC_ACQUIRE);
	if (generation == worker->interface_generation)
		return false;
	worker->interface_generation = generation;
	copy_block(&worker->interfaces, &tables->interfaces[__atomic_load_n(&tables->active, __ATOMIC_ACQUIRE) & 1]);
	compile(worker);
	return true;
}
