# SPDX-License-Identifier: Apache-2.0
"""The configuration of an instance as values: complete, validated, and the same whatever it came from.

`config.build` makes one, everything else only reads it. Addresses are integers in host order, as in shared
memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """An IPv4 address of a port."""

    address: int
    prefix_length: int


@dataclass(frozen=True, slots=True)
class TapConfig:
    """The kernel's side of a TAP that is ours: the supervisor configures it and deletes it at the end."""

    interface: str
    kernel_address: int
    prefix_length: int


@dataclass(frozen=True, slots=True)
class PortConfig:
    """One port: a device by its DPDK name, and what our side of it is called."""

    number: int
    device: str
    """`net_tap0`, or a PCI address with its domain."""
    queues: int
    """That feed slots."""
    spread: str
    """Who spreads frames over them: `hardware`, `software`, or `auto`, as the driver finds the device."""
    mtu: int
    """Octets of an IP packet."""
    promiscuous: bool
    addresses: tuple[InterfaceConfig, ...]
    mac: bytes | None
    """Of our stack. None: the device's; on a TAP, whose MAC is the kernel's, a locally administered one."""
    tap: TapConfig | None
    """Only on the TAPs that stand in when no device is named; a TAP from --vdev is its user's own."""

    @property
    def device_queues(self) -> int:
        """Receive queues that the device is opened with, at most."""
        return 1 if self.spread == "software" else self.queues


@dataclass(frozen=True, slots=True)
class SlotConfig:
    """A place for a worker, and the (port, queue) pairs that feed it."""

    number: int
    feeds: tuple[tuple[int, int], ...]
    core: int
    """That the worker is pinned to."""
    lcore: int
    """Its home: index into `Config.driver_cores`."""


@dataclass(frozen=True, slots=True)
class Config:
    """One instance. Everything a supervisor needs to start it; nothing in it changes by itself."""

    instance: str
    ports: tuple[PortConfig, ...]
    slots: tuple[SlotConfig, ...]
    driver_cores: tuple[int, ...]
    """One forwarding lcore on each."""
    main_cores: tuple[int, ...]
    """Where the driver's main thread, which forwards nothing, may float."""
    vdevs: tuple[str, ...]
    """For EAL, with their arguments."""
    pcis: tuple[str, ...]
    eal: tuple[str, ...]
    mem_channels: int | None
    pool_size: int
    """Buffers."""
    ring_size: int
    """Entries of a slot's rx ring."""
    hugepages: int | None
    """Octets of a page, or None."""
    hugepages_auto: bool
    """Whether that is what the machine had, and not what a flag said."""
    data_octets: int
    """Room for the frame in each buffer."""
    rx_checksum: bool
    tx_checksum: bool
    tx_only: bool
    idle: str
    stats_log: float | None
    """Seconds between two lines, or None."""
    debug_log: bool
    user: str | None
    """That --user names; None: nobody when root, where that works (`checks.privileges_plan`)."""
    log_level: str
    log_format: str
    restart_limit: tuple[int, float]
    """Restarts of one worker, in seconds, before it counts as failed."""
    hang_timeout_s: float
    orphan_timeout_s: float
    adopt: bool
    """Whether to take over what a dead supervisor of this name left running, or to end it."""
    macswap: dict[int, int]
    """Port in to port out; empty: the stack runs."""
    spares: int | None
    """Workers that are kept ready to take the place of one that dies; None: one, while memory allows."""
    warnings: tuple[str, ...]
    """Sentences about what is allowed but costs something; the supervisor logs them at start."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the defaults depend on."""

    cores: tuple[int, ...]
    """That this process may run on."""
    free_pages: Mapping[int, int]
    """Size of a hugepage in octets -> how many are free."""

    @classmethod
    def here(cls) -> Machine:
        """Return what this process finds."""
        return cls(cores=tuple(sorted(os.sched_getaffinity(0))), free_pages=free_pages())


def free_pages(directory: Path = Path("/sys/kernel/mm/hugepages")) -> dict[int, int]:
    """Return how many hugepages of each size nobody uses or has reserved; empty where the kernel has none."""
    found: dict[int, int] = {}
    for entry in directory.glob("hugepages-*kB"):
        free, reserved = (int((entry / name).read_text()) for name in ("free_hugepages", "resv_hugepages"))
        found[int(entry.name[len("hugepages-") : -len("kB")]) << 10] = max(0, free - reserved)
    return found
