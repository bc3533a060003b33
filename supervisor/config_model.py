# SPDX-License-Identifier: Apache-2.0
"""The configuration of an instance as values: complete, validated, and the same whatever it came from.

`config.build` makes one, everything else only reads it. Addresses are integers in host order, as in shared
memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from halo_mp.shm.tables import interface_name


@dataclass(frozen=True, slots=True)
class AddressConfig:
    """An IPv4 address with the length of its prefix."""

    address: int
    prefix_length: int

    def __str__(self) -> str:
        return f"{IPv4Address(self.address)}/{self.prefix_length}"

    @property
    def first(self) -> int:
        """The first address of its network."""
        return self.address & ~self._hosts

    @property
    def last(self) -> int:
        """The last one."""
        return self.address | self._hosts

    @property
    def _hosts(self) -> int:
        return (1 << 32 - self.prefix_length) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceConfig:
    """A port, or one VLAN of it: what our stack is there."""

    number: int
    """Its place in the tables. Stays for the life of the instance."""
    port: int
    vlan: int = 0
    """0: untagged."""
    addresses: tuple[AddressConfig, ...] = ()
    """The first is the primary one; none: unnumbered."""
    mtu: int = 1500
    """Octets of an IP packet; at most its port's."""
    up: bool = True
    forward: bool = True
    """Whether packets that come in here may go on elsewhere."""
    proxy_arp: bool = False
    directed_broadcast: bool = False
    redirects: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What tells one interface from another."""
        return self.port, self.vlan

    @property
    def name(self) -> str:
        """`0`, or `0.100`."""
        return interface_name(self.port, self.vlan)


HopKind = Literal["gateway", "blackhole", "unreachable", "prohibit"]


@dataclass(frozen=True, slots=True)
class HopConfig:
    """Where a route leads: to a neighbor that sends on, or to an end. Of ends a route has one and nothing else."""

    address: int = 0
    """Of the gateway; 0: none, the destinations are on the link of the interface."""
    port: int | None = None
    """None: that of the interface on whose network the address is."""
    vlan: int = 0
    weight: int = 1
    """Its share of the flows, among the weights of the route's other hops."""
    kind: HopKind = "gateway"

    def __str__(self) -> str:
        if self.kind != "gateway":
            return self.kind
        where = "" if self.port is None else f"@{interface_name(self.port, self.vlan)}"
        weight = f"*{self.weight}" if self.weight > 1 else ""
        return f"{IPv4Address(self.address) if self.address else ''}{where}{weight}"


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """A static route."""

    prefix: int
    length: int
    hops: tuple[HopConfig, ...]

    def __str__(self) -> str:
        return f"{IPv4Address(self.prefix)}/{self.length}"


@dataclass(frozen=True, slots=True)
class NeighborConfig:
    """A neighbor whose MAC address is known, and neither asked for nor forgotten."""

    port: int
    vlan: int
    address: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class TapConfig:
    """The kernel's side of a TAP that is ours: the supervisor configures it and deletes it at the end."""

    interface: str
    addresses: tuple[AddressConfig, ...]
    """One in each network of ours that has room for it."""


@dataclass(frozen=True, slots=True)
class TwinConfig:
    """The kernel's share of a port (--kernel): a TAP that gets what is not for us. It has a port number of its own."""

    interface: str
    port: int
    device: str
    only: int | None
    """Of our addresses the one that is ours on the port; None: all are."""


@dataclass(frozen=True, slots=True)
class PortConfig:
    """One port: a device by its DPDK name. What our stack is there is the matter of `InterfaceConfig`."""

    number: int
    device: str
    """`net_tap0`, or a PCI address with its domain."""
    queues: int
    """That feed slots."""
    spread: str
    """Who spreads frames over them: `hardware`, `software`, or `auto`, as the driver finds the device."""
    mtu: int
    """Octets of the longest IP packet that the device takes; its interfaces have as much or less."""
    promiscuous: bool
    mac: bytes | None
    """Of our stack. None: the device's; on a TAP, whose MAC is the kernel's, a locally administered one."""
    tap: TapConfig | None
    """Only on the TAPs that stand in when no device is named; a TAP from --vdev is its user's own."""
    twin: TwinConfig | None

    @property
    def device_queues(self) -> int:
        """Receive queues that its device is opened with, at most, and that of its twin."""
        return (1 if self.spread == "software" else self.queues) + (self.twin is not None)


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
class AppConfig:
    """A Python file or module, and the global variable of it that holds the App."""

    module: str
    """A dotted name; empty where it is a file."""
    file: str
    """Its path; empty where it is a module."""
    name: str
    directory: str
    """Where modules are looked for first."""
    debug: bool = False

    @property
    def text(self) -> str:
        """What --app was given."""
        return f"{self.file or self.module}:{self.name}"


@dataclass(frozen=True, slots=True)
class Config:
    """One instance. Everything a supervisor needs to start it; nothing in it changes by itself."""

    instance: str
    ports: tuple[PortConfig, ...]
    interfaces: tuple[InterfaceConfig, ...]
    """As configured. What they become at run time is the matter of `running`."""
    routes: tuple[RouteConfig, ...]
    routes_file: str | None
    """More routes, too many to be kept here: loaded once, at the start of the instance."""
    neighbors: tuple[NeighborConfig, ...]
    probe: bool
    """Whether static addresses are probed (RFC 5227) before they are used."""
    icmp_rate: int
    """ICMP errors that each worker may send in a second."""
    reachable_time_s: float
    """How long a neighbor that has answered counts as reachable, on the average."""
    ecmp_seed: int | None
    """Of the hash that spreads flows over the hops of a route; None: another one for each instance."""
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
    control_group: str | None
    """Who may use the control socket, besides us and root; None: that of `user`, or ours."""
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
    app: AppConfig | None
    """What runs in the workers besides the stack."""
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
