/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port that is shared with the kernel: what is not for us goes to its twin, a TAP, and what comes from there leaves by the
 * port, both unchanged. Runs before anything is decided by addresses, and decides for the frames of such ports:
 *
 *   from the twin                                                        to the port
 *   to another station, or on a VLAN where we are not                    to the twin
 *   IPv4 to our MAC and one of our addresses                             ours
 *   ARP request for one of our addresses on that interface               ours
 *   ARP reply, announcement, or claim of one of our addresses            ours, and a copy to the twin
 *   everything else: other addresses, broadcast, multicast, IPv6 ...     to the twin
 *
 * "Our MAC" is the interface's, which is the kernel's too unless --mac says otherwise: addresses tell the two of us apart. What
 * parse has found wrong with a packet is the kernel's business when the packet is.
 */
#include <errno.h>

#include "octets.h"
#include "worker.h"

enum {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ARP_OCTETS = 28,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	IPV4_OCTETS = 20,
};

enum whose {
	OURS,
	KERNELS,
	BOTH,
};

int halo_worker_set_twin(struct halo_worker *worker, uint32_t port, uint32_t twin, uint32_t only)
{
	if (port >= HALO_MAX_PORTS || twin >= HALO_MAX_PORTS || port == twin)
		return -EINVAL;
	worker->twin[port] = (struct halo_twin){.role = HALO_TWIN_PORT, .other = (uint8_t)twin, .only = only};
	worker->twin[twin] = (struct halo_twin){.role = HALO_TWIN_KERNEL, .other = (uint8_t)port};
	worker->has_twins = true;
	return 0;
}

/* The address of ours that this one is, and that is ours on this port; NULL: it is not. */
static const struct halo_own_address *find_ours(const struct halo_worker *worker, const struct halo_twin *twin,
						uint32_t address)
{
	const struct halo_own_address *own = halo_own_find(&worker->own, address);

	if (!own || own->kind != HALO_TARGET_LOCAL || (twin->only && twin->only != address))
		return NULL;
	return own;
}

/* ARP is about a link: an address of ours on another one is not answered for here. */
static bool is_ours_here(const struct halo_worker *worker, const struct halo_twin *twin, uint32_t address,
			 uint16_t here)
{
	const struct halo_own_address *own = find_ours(worker, twin, address);

	return own && own->interface == here;
}

static enum whose whose_arp(const struct halo_worker *worker, const struct halo_twin *twin,
			    const struct halo_packet *packet, uint16_t here)
{
	const uint8_t *arp = worker->pool + packet->offset + packet->l3_offset;
	uint32_t operation, sender, target;

	if (packet->length < packet->l3_offset + (uint32_t)ARP_OCTETS)
		return KERNELS;
	operation = load16(arp + 6);
	sender = load32(arp + 14);
	target = load32(arp + 24);
	if (operation == ARP_REQUEST && is_ours_here(worker, twin, target, here))
		return OURS;
	if (operation == ARP_REPLY || sender == target || is_ours_here(worker, twin, sender, here))
		return BOTH;
	return KERNELS;
}

static enum whose whose_ipv4(const struct halo_worker *worker, const struct halo_twin *twin,
			     const struct halo_packet *packet)
{
	const uint8_t *ip = worker->pool + packet->offset + packet->l3_offset;

	if (packet->length < packet->l3_offset + (uint32_t)IPV4_OCTETS)
		return KERNELS;
	return find_ours(worker, twin, load32(ip + 16)) ? OURS : KERNELS;
}

static enum whose whose(const struct halo_worker *worker, const struct halo_twin *twin,
			const struct halo_packet *packet)
{
	const uint8_t *frame = worker->pool + packet->offset;
	uint16_t here = halo_interface_of(worker, packet->port, packet->vlan);
	bool group = frame[0] & 1;

	if (here == HALO_NO_INTERFACE)
		return KERNELS;
	if (!group && memcmp(frame, worker->interfaces.entry[here].mac, 6) != 0)
		return KERNELS;
	if (packet->ethertype == ETHERTYPE_ARP)
		return whose_arp(worker, twin, packet, here);
	if (packet->ethertype == ETHERTYPE_IPV4 && !group)
		return whose_ipv4(worker, twin, packet);
	return KERNELS;
}

/* What is no frame at all stays a drop, and what another worker has handed over, or a hook has decided, was decided there. */
static bool is_decided(const struct halo_packet *packet)
{
	if ((packet->flags & HALO_DESCRIPTOR_HANDED) || (packet->hooked & HALO_HOOKED_DECIDED) ||
	    packet->verdict == HALO_VERDICT_RAW)
		return true;
	return packet->verdict == HALO_VERDICT_DROP &&
	       (packet->reason == HALO_DROP_bad_descriptor || packet->reason == HALO_DROP_runt);
}

/* Decided: the short way through the stages behind this one is for packets that are not. */
static void pass(struct halo_packet *packet, uint16_t port)
{
	packet->plain = 0;
	packet->interface = HALO_NO_INTERFACE;
	halo_send(packet, port);
}

static void twin_one(struct halo_worker *worker, struct halo_packet *packet)
{
	const struct halo_twin *twin;

	if (packet->port >= HALO_MAX_PORTS || is_decided(packet))
		return;
	twin = &worker->twin[packet->port];
	if (twin->role == HALO_TWIN_NONE)
		return;
	if (twin->role == HALO_TWIN_KERNEL)
		return pass(packet, twin->other);
	switch (whose(worker, twin, packet)) {
	case OURS:
		break;
	case BOTH:
		halo_copy(worker, packet, twin->other);
		break;
	case KERNELS:
		pass(packet, twin->other);
		break;
	}
}

void halo_stage_twin(struct halo_worker *worker, uint32_t count)
{
	uint32_t i;

	if (likely(!worker->has_twins))
		return;
	for (i = 0; i < count; i++)
		twin_one(worker, &worker->burst[i]);
}
