/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface table, as the supervisor last switched it. The block that is active is copied into private memory; the
 * supervisor does not write into it again before this worker's epoch has passed.
 */
#include "octets.h"
#include "worker.h"

static uint32_t vlan_key(uint8_t port, uint16_t vlan)
{
	return (uint32_t)port << 12 | vlan;
}

static uint32_t vlan_place(uint32_t key)
{
	return key * UINT32_C(0x9e3779b1) >> (32 - VLAN_PLACE_BITS);
}

uint16_t halo_vlan_find(const struct halo_worker *worker, uint8_t port, uint16_t vlan)
{
	uint32_t key = vlan_key(port, vlan);
	uint32_t place = vlan_place(key);
	uint32_t entry;

	for (; (entry = worker->vlans.place[place]) != 0; place = (place + 1) % (1 << VLAN_PLACE_BITS))
		if (entry >> 9 == key)
			return (uint16_t)((entry & 511) - 1);
	return HALO_NO_INTERFACE;
}

/* Of two with the same port and VLAN, the first one counts. */
static void add(struct halo_worker *worker, uint16_t number)
{
	const struct halo_interface *interface = &worker->interfaces.entry[number];
	uint32_t key = vlan_key(interface->port, interface->vlan);
	uint32_t place = vlan_place(key);

	if (halo_vlan_find(worker, interface->port, interface->vlan) != HALO_NO_INTERFACE)
		return;
	while (worker->vlans.place[place])
		place = (place + 1) % (1 << VLAN_PLACE_BITS);
	worker->vlans.place[place] = key << 9 | (number + 1u);
	worker->port[interface->port].count++;
	if (interface->vlan)
		return;
	worker->port[interface->port].untagged = number;
	if (interface->flags & HALO_INTERFACE_FORWARD)
		worker->port[interface->port].mac = load_mac(interface->mac);
}

void halo_interfaces_compile(struct halo_worker *worker)
{
	uint16_t i;

	for (i = 0; i < PORT_ENTRIES; i++) {
		worker->port[i].mac = UINT64_MAX;
		worker->port[i].count = 0;
		worker->port[i].untagged = HALO_NO_INTERFACE;
	}
	memset(&worker->vlans, 0, sizeof(worker->vlans));
	for (i = 0; i < worker->interfaces.count; i++)
		if (worker->interfaces.entry[i].flags & HALO_INTERFACE_UP)
			add(worker, i);
	halo_own_compile(&worker->own, &worker->interfaces);
}

/* Whatever stands there: nothing of it may lead us out of the tables. */
static void tame(struct halo_interface_block *block, struct halo_interface *interface)
{
	bool has_home = interface->home_slot < HALO_MAX_SLOTS || interface->home_slot == HALO_NO_SLOT;

	if ((uint32_t)interface->first_address + interface->address_count > block->address_count)
		interface->first_address = interface->address_count = 0;
	if (interface->port >= HALO_MAX_PORTS || !has_home || interface->vlan > 4095 || interface->mtu == 0)
		memset(interface, 0, sizeof(*interface));
}

/* An interface that takes the place of another, or one that was free, counts from zero. */
static void count_anew(struct halo_worker *worker, const struct halo_interface *before)
{
	const struct halo_interface *now = worker->interfaces.entry;
	uint32_t i;

	for (i = 0; i < HALO_MAX_INTERFACES; i++)
		if (now[i].mtu && (!before[i].mtu || now[i].port != before[i].port || now[i].vlan != before[i].vlan))
			memset(&worker->slot->interface[i], 0, sizeof(worker->slot->interface[i]));
}

/* Return whether something changed that neighbors depend on: all but the addresses. */
static bool copy_block(struct halo_worker *worker, const struct halo_interface_block *block, bool is_first)
{
	struct halo_interface_block *copy = &worker->interfaces;
	struct halo_interface before[HALO_MAX_INTERFACES];
	bool changed = false;
	uint32_t i;

	memcpy(before, copy->entry, sizeof(before));
	memcpy(copy, block, sizeof(*copy));
	if (copy->count > HALO_MAX_INTERFACES)
		copy->count = HALO_MAX_INTERFACES;
	if (copy->address_count > HALO_MAX_ADDRESSES)
		copy->address_count = HALO_MAX_ADDRESSES;
	memset(&copy->entry[copy->count], 0, (HALO_MAX_INTERFACES - copy->count) * sizeof(copy->entry[0]));
	for (i = 0; i < HALO_MAX_INTERFACES; i++) {
		tame(copy, &copy->entry[i]);
		changed |= memcmp(&before[i], &copy->entry[i], offsetof(struct halo_interface, first_address)) != 0;
	}
	if (!is_first) /* what a worker finds when it starts was counted by the one before */
		count_anew(worker, before);
	return changed;
}

bool halo_interfaces_refresh(struct halo_worker *worker)
{
	const struct halo_tables *tables = worker->tables;
	uint64_t epoch = __atomic_load_n(&tables->epoch, __ATOMIC_ACQUIRE); /* pairs with the supervisor's switch */
	uint32_t generation, active;
	bool is_first = worker->interface_generation == 0;

	if (likely(epoch == worker->epoch))
		return false;
	/* Tell the supervisor what we are about to read before we read it; it waits for us from here on. */
	__atomic_store_n(&worker->slot->status.epoch, epoch, __ATOMIC_SEQ_CST);
	worker->epoch = epoch;
	halo_sockets_refresh(worker);
	generation = __atomic_load_n(&tables->interface_generation, __ATOMIC_ACQUIRE);
	if (generation == worker->interface_generation)
		return false;
	worker->interface_generation = generation;
	active = __atomic_load_n(&tables->active, __ATOMIC_ACQUIRE) & 1;
	if (copy_block(worker, &tables->interfaces[active], is_first))
		halo_neighbors_follow(&worker->neighbors, &worker->interfaces);
	halo_interfaces_compile(worker);
	return true;
}
