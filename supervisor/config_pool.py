# SPDX-License-Identifier: Apache-2.0
"""How much memory an instance needs: buffers of the pool, hugepages, megabytes for EAL, octets of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halo_mp.shm import fib
from halo_mp.shm.layout import CHUNK_OCTETS, DATA_OCTETS, SPARE_SIZE, size_of
from halo_mp.shm.pool import PAGE_1G, PAGE_2M, PoolGeometry
from halo_mp.shm.slot import BOUND_MARGIN, SlotGeometry
from halo_mp.supervisor.config_model import Config, PortConfig
from halo_mp.supervisor.config_values import device_driver, device_name

PAGE_SIZES = {"2M": PAGE_2M, "1G": PAGE_1G}
MIB = 1 << 20

_POOL_LIMIT = 1 << 32  # descriptors carry 32-bit offsets; the pool stays below
_PER_PORT_QUEUE = 2048  # descriptors of the receive and of the transmit side
_PER_LCORE = 1024  # the mempool's cache, and bursts under way
_LEAST_PER_SLOT = 2 * SPARE_SIZE  # a full spare ring, and as much to receive into

_HEADER_OCTETS = 320  # of an mbuf with its shared info and the mempool's own, in the driver's private memory
_COPY_BUFFERS = 8192  # of the native mempool behind a port queue that cannot receive into the pool
_COPY_OVERHEAD_OCTETS = 512
_EAL_BASE_OCTETS = 64 * MIB


@dataclass(frozen=True, slots=True)
class PoolNeeds:
    """Who takes buffers from a pool."""

    slots: int
    port_queues: int
    lcores: int

    def __str__(self) -> str:
        queues = _counted(self.port_queues, "port queue")
        return f"{_counted(self.slots, 'slot')}, {queues} and {_counted(self.lcores, 'driver core')}"

    def least(self) -> int:
        """Return the buffers below which a port or a worker would find nothing to start with."""
        return self._driver() + self.slots * _LEAST_PER_SLOT

    def default(self, ring_size: int) -> int:
        """Return the buffers with which every slot can reach its bound at the same time."""
        return self._driver() + self.slots * (ring_size + BOUND_MARGIN)

    def share(self, buffers: int) -> int:
        """Return what each slot may have of a pool, so that others and the ports always have theirs."""
        return (buffers - self._driver()) // max(1, self.slots)

    def largest_ring(self, buffers: int) -> int:
        """Return the largest ring size whose default a pool of so many buffers covers."""
        room = max(1, (buffers - self._driver()) // max(1, self.slots) - BOUND_MARGIN)
        return 1 << (room.bit_length() - 1)

    def _driver(self) -> int:
        return self.port_queues * _PER_PORT_QUEUE + self.lcores * _PER_LCORE


def data_octets(mtu: int) -> int:
    """Return a buffer's room for `mtu` octets with Ethernet header, two VLAN tags and FCS around them."""
    return max(DATA_OCTETS, -(-(mtu + 14 + 8 + 4) // 64) * 64)


def largest_pool_size(data: int) -> int:
    """Return how many buffers fit below 4 GiB."""
    return (_POOL_LIMIT // CHUNK_OCTETS - 1) * PoolGeometry(1, data).buffers_per_chunk


def pool_geometry(config: Config) -> PoolGeometry:
    """Return what the pool is created from."""
    return PoolGeometry(config.pool_size, config.data_octets)


def pool_needs(config: Config) -> PoolNeeds:
    """Return who takes buffers from the instance's pool."""
    queues = sum(port.device_queues for port in config.ports)
    return PoolNeeds(slots=len(config.slots), port_queues=queues, lcores=len(config.driver_cores))


def slot_geometry(config: Config, slot: int) -> SlotGeometry:
    """Return what a slot's region is created from."""
    share = pool_needs(config).share(config.pool_size)
    return SlotGeometry(slot, pool_geometry(config), config.ring_size, share=share)


def region_octets(config: Config) -> int:
    """Return how much of /dev/shm all regions of the instance take; the pool is no part of it."""
    sizes = [size_of("halo_owners") + config.pool_size, size_of("halo_tables"), size_of("halo_ports")]
    sizes += [size_of("halo_fib"), size_of("halo_routes"), *fib.STEP_OCTETS]
    sizes += [slot_geometry(config, slot.number).size_octets for slot in config.slots]
    return sum(-(-size // 4096) * 4096 for size in sizes)


def memory_mb(config: Config) -> int:
    """Return the MiB that EAL needs for itself (its -m)."""
    return eal_mb(pool_geometry(config), copying_queues(config.ports, config.vdevs))


def eal_mb(pool: PoolGeometry, copying: int) -> int:
    """Return the MiB for the mbuf headers of a pool, and for buffers behind the port queues that copy."""
    octets = _EAL_BASE_OCTETS + pool.buffer_count * _HEADER_OCTETS
    octets += copying * _COPY_BUFFERS * (pool.data_octets + _COPY_OVERHEAD_OCTETS)
    return -(-octets // MIB)


def copying_queues(ports: Sequence[PortConfig], vdevs: Sequence[str]) -> int:
    """Return how many port queues cannot receive into the pool: net_af_xdp makes its UMEM from a mempool."""
    copying = {device_name(vdev) for vdev in vdevs if device_driver(vdev) == "net_af_xdp"}
    return sum(port.device_queues for port in ports if port.device in copying)


def pages_needed(pool: PoolGeometry, eal: int, page_size: int) -> int:
    """Return the hugepages for a pool and for `eal` MiB; the two share none."""
    return -(-pool.size_octets // page_size) + -(-eal * MIB // page_size)


def choose_pages(pool: PoolGeometry, eal: int, free: Mapping[int, int]) -> int | None:
    """Return the page size of which enough are free, the smaller first because it wastes less, or None."""
    for size in sorted(PAGE_SIZES.values()):
        if free.get(size, 0) >= pages_needed(pool, eal, size):
            return size
    return None


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
