# SPDX-License-Identifier: Apache-2.0
"""The native driver as an object: mappings, EAL, ports, feeds, slots.

All calls are made by the main thread. Errors of the C side arrive as BootFailed with its sentence.

A port whose device is gone is *lost*: known, closed, and opened again by `reopen`; its feeds are kept here meanwhile.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Sequence
from typing import Any

from halo_mp._driver import ffi, lib
from halo_mp.errors import BootFailed
from halo_mp.shm.layout import IdlePolicy, RegionKind
from halo_mp.shm.layout import ffi as native_ffi
from halo_mp.shm.pool import PoolMapping
from halo_mp.shm.region import Region
from halo_mp.supervisor.config_values import device_name
from halo_mp.supervisor.driver_eal import EalLog
from halo_mp.supervisor.xdp_descriptors import XdpDescriptors

SPIN_NS = 100_000  # an idle lcore polls this long before it sleeps
_PAGE_OCTETS = os.sysconf("SC_PAGESIZE")
_FIXED_FDS = 3  # pool, owners, ports


class Spread(enum.IntEnum):
    """Who spreads a port's frames over its queues."""

    AUTO = lib.HALO_SPREAD_AUTO
    HARDWARE = lib.HALO_SPREAD_HARDWARE
    SOFTWARE = lib.HALO_SPREAD_SOFTWARE


class DriverPorts:
    """Everything the driver has. `close` undoes it all, in order."""

    def __init__(self, message: dict[str, Any], fds: list[int]) -> None:
        """Map what the descriptors name. Raises EnvironmentProblem, BootFailed."""
        self._message = message
        self.configured: list[dict[str, Any]] = message["ports"]
        """Every port, as `configure` has it."""
        self.vdevs = {device_name(device): device for device in message["vdevs"]}
        """Devices with their arguments, by name."""
        self.lost: dict[int, str] = {}
        """Ports that have no device, and why."""
        self._if_index: dict[int, int] = {}
        self._xdp = XdpDescriptors()
        self._slots: list[dict[str, Any]] = message["slots"]
        expected = _FIXED_FDS + 2 * len(self._slots) + len(message["lcores"])
        if len(fds) != expected:
            raise BootFailed(f"{len(fds)} descriptors came with configure, {expected} were expected")
        pool_fd, owners_fd, ports_fd = fds[:_FIXED_FDS]
        slot_fds = fds[_FIXED_FDS : _FIXED_FDS + 2 * len(self._slots)]
        self._slot_doorbells = slot_fds[1::2]
        self._lcore_doorbells = fds[_FIXED_FDS + 2 * len(self._slots) :]
        self._owners = Region.attach(owners_fd, RegionKind.OWNERS, writable=True)
        self._ports = Region.attach(ports_fd, RegionKind.PORTS, writable=True)
        self._regions = [Region.attach(fd, RegionKind.SLOT, writable=True) for fd in slot_fds[::2]]
        self._pool = PoolMapping(pool_fd, self._owners.pointer.pool.size_octets)
        self._pool_fd = pool_fd  # for a later supervisor: the pool has no name
        for region in (self._owners, self._ports, *self._regions):
            region.close_fd()
        self._driver: Any = ffi.NULL
        self._eal_started = False

    @property
    def fds(self) -> list[int]:
        """What has no name and lives as long as somebody has it: the pool, the slots' doorbells, the lcores'."""
        return [self._pool_fd, *self._slot_doorbells, *self._lcore_doorbells]

    @property
    def withheld(self) -> int:
        """Buffers that workers held when this driver started."""
        return int(self._ports.pointer.withheld)

    def start(self, arguments: Sequence[str], eal_log: EalLog) -> None:
        """Start EAL, the ports and the lcores. Raises BootFailed.

        The successor of a dead driver (`resuming`) goes on without a port that can not be opened: it is lost, as if
        that had happened a moment later.
        """
        self._eal_log = eal_log
        self._start_eal(arguments, eal_log)
        self._create(eal_log)
        for port in self.configured:
            self._add_port(port)
        self._feeds = self._wanted_feeds()
        for port in self.configured:
            self._feed(port["port"])
        self.update_status()
        _check(lib.halo_driver_launch(self._driver), "starting the lcores")

    def set_feeds(self, slots: Sequence[dict[str, Any]]) -> None:
        """Let each named (port, queue) feed the named slot from the next burst on. Raises BootFailed."""
        for slot in slots:
            for port, queue in slot["feeds"]:
                self._feeds[port, queue] = slot["slot"]
                if port not in self.lost:
                    self._feed_queue(port, queue)

    def _wanted_feeds(self) -> dict[tuple[int, int], int]:
        """Return the slot of each (port, queue); one that has none is emptied, so that its device does not stop."""
        everything = {
            (port["port"], queue): int(lib.HALO_MAX_SLOTS)
            for port in self.configured
            for queue in range(port["queues"])
        }
        return everything | {
            (port, queue): slot["slot"] for slot in self._slots for port, queue in slot["feeds"]
        }

    def _feed(self, number: int) -> None:
        """Feed from all queues of a port, unless it is lost; the first comes last, as halo_driver_feed wants it."""
        for port, queue in sorted(self._feeds, reverse=True):
            if port == number and port not in self.lost:
                self._feed_queue(port, queue)

    def _feed_queue(self, port: int, queue: int) -> None:
        slot = self._feeds[port, queue]
        what = f"feeding slot {slot} from port {port}, queue {queue}"
        _check(lib.halo_driver_feed(self._driver, port, queue, slot), what)

    # ---- devices that go away and come back

    def lose(self, number: int, reason: str) -> None:
        """Take out of the lcores a port whose device is gone, and close it. May be called again.

        Raises BootFailed when an lcore hangs: then the device is still open. Raises OSError and MemoryError when it is
        closed, but could not be cleared up after.
        """
        self.lost[number] = reason
        self._if_index.pop(number, None)
        _check(lib.halo_driver_lose_port(self._driver, number), f"closing port {number}")
        self._xdp.close(number)  # only now: until every lcore has left, the device is open and uses them

    def reopen(self, number: int) -> None:
        """Probe the device of a lost port, open it, feed from it as before.

        Raises BootFailed, OSError, MemoryError; it stays lost then.
        """
        reason = self.lost.get(number)
        if reason is None:
            raise BootFailed(f"port {number} is not lost, so it can not be opened again.")
        port = next(port for port in self.configured if port["port"] == number)
        self._eal_log.forget()
        try:
            with self._xdp.of(number):
                self._open(port, lib.halo_driver_reopen_port)
            del self.lost[number]
            self._feed(number)
        except (BootFailed, OSError, MemoryError):
            self.lose(number, reason)
            raise
        self.update_status()

    def if_index(self, number: int) -> int:
        """Return the index of the netdev that a port stands on; 0 when it stands on none."""
        return self._if_index.get(number, 0)

    def is_removed(self, number: int) -> bool:
        """Whether the PMD has said that the device of a port was pulled."""
        return bool(lib.halo_driver_port_removed(self._driver, number))

    def link_up(self, number: int) -> bool:
        """Return the link state that shared memory tells."""
        return bool(self._ports.pointer.port[number].link_up)

    def set_link(self, number: int, up: bool) -> None:
        """Say what the link state of a port is, from here on instead of its PMD."""
        lib.halo_driver_set_link(self._driver, number, up)

    # ---- slots, status

    def enable_slot(self, slot: int) -> None:
        """Let frames flow. Raises BootFailed when there is no such slot or it must be reset first."""
        _check(lib.halo_driver_enable_slot(self._driver, slot), f"enabling slot {slot}")

    def reset_slot(self, slot: int) -> int:
        """Walk the slot's life cycle; return how many buffers came back."""
        return _check(lib.halo_driver_reset_slot(self._driver, slot), f"resetting slot {slot}")

    def update_status(self) -> None:
        """Copy what the ports say of themselves into shared memory."""
        lib.halo_driver_update_status(self._driver)

    def describe(self) -> list[dict[str, Any]]:
        """Return what the supervisor must know of each port that is not lost."""
        numbers = [port["port"] for port in self.configured]
        return [self.describe_port(number) for number in numbers if number not in self.lost]

    def close(self) -> None:
        """Stop lcores and ports, end EAL, unmap."""
        if self._driver != ffi.NULL:
            lib.halo_driver_destroy(self._driver)
            self._driver = ffi.NULL
        if self._eal_started:
            lib.halo_eal_stop()
            self._eal_started = False
        for region in (self._owners, self._ports, *self._regions):
            region.close()
        self._pool.close()
        for fd in self.fds:
            os.close(fd)

    def _start_eal(self, arguments: Sequence[str], eal_log: EalLog) -> None:
        # EAL keeps pointers into argv, so it lives as long as this object.
        self._argv = [ffi.new("char[]", argument.encode()) for argument in arguments]
        self._argv_array = ffi.new("char *[]", self._argv)
        error = ffi.new("char[]", lib.HALO_ERROR_OCTETS)
        result = lib.halo_eal_start(
            len(self._argv), self._argv_array, eal_log.write_fd, error, lib.HALO_ERROR_OCTETS
        )
        if result == -errno.EACCES and self._message["hugepages"]:
            raise BootFailed(
                "EAL found no free hugepage for its own memory, beside the pool's: reserve more, or --hugepages off."
            )
        if result < 0:
            raise BootFailed(f"{_text(error)} ({eal_log.reason() or 'it gave no reason'})")
        self._eal_started = True

    def _create(self, eal_log: EalLog) -> None:
        message = self._message
        setup = ffi.new("struct halo_driver_setup *")
        setup.pool = ffi.cast("void *", _address(self._pool.pointer))
        setup.owners = ffi.cast("struct halo_owners *", _address(self._owners.pointer))
        setup.ports = ffi.cast("struct halo_ports *", _address(self._ports.pointer))
        setup.page_octets = message["hugepages"] or _PAGE_OCTETS
        setup.slot_count, setup.lcore_count = len(self._slots), len(message["lcores"])
        for i, (slot, region) in enumerate(zip(self._slots, self._regions, strict=True)):
            setup.slot[i] = ffi.cast("struct halo_slot *", _address(region.pointer))
            setup.slot_octets[i] = region.size_octets
            setup.slot_number[i], setup.slot_lcore[i] = slot["slot"], slot["lcore"]
            setup.slot_doorbell[i] = self._slot_doorbells[i]
        for i, fd in enumerate(self._lcore_doorbells):
            setup.lcore_doorbell[i] = fd
        setup.idle_policy = IdlePolicy[str(message["idle"]).upper()]
        setup.spin_ns = int(message.get("spin_ns", SPIN_NS))
        for flag in ("rx_checksum", "tx_checksum", "tx_only"):
            setattr(setup, flag, bool(message[flag]))
        out = ffi.new("struct halo_driver **")
        result = lib.halo_driver_create(setup, out)
        self._driver = out[0]
        _raise_sentence(result, setup.error, eal_log)

    def _add_port(self, port: dict[str, Any]) -> None:
        try:
            with self._xdp.of(port["port"]):
                self._open(port, lib.halo_driver_add_port)
        except BootFailed as error:
            if not self._message.get("resuming"):
                raise
            self.lost[port["port"]] = str(error)
            self._open(port, lib.halo_driver_expect_port)
            self._xdp.close(port["port"])

    def _open(self, port: dict[str, Any], call: Any) -> None:
        device = str(port["device"])
        setup = ffi.new("struct halo_port_setup *")
        name, bus = (
            ffi.new("char[]", device.encode()),
            ffi.new("char[]", b"pci" if ":" in device else b"vdev"),
        )
        described = self.vdevs.get(device) or self._pci(device)
        arguments = ffi.new("char[]", described.partition(",")[2].encode())
        setup.port, setup.device, setup.bus, setup.arguments = port["port"], name, bus, arguments
        setup.queues, setup.mtu, setup.promiscuous = port["queues"], port["mtu"], port["promiscuous"]
        setup.spread = Spread[str(port["spread"]).upper()]
        _raise_sentence(call(self._driver, setup), setup.error, self._eal_log)
        self._if_index[port["port"]] = setup.if_index

    def _pci(self, device: str) -> str:
        """Return a PCI device with its arguments."""
        return next((pci for pci in self._message["pcis"] if device_name(pci) == device), device)

    def describe_port(self, number: int) -> dict[str, Any]:
        """Return what the supervisor must know of a port."""
        status = self._ports.pointer.port[number]
        return {
            "port": number,
            "device": _text(status.device, native_ffi),
            "driver": _text(status.driver, native_ffi),
            "mac": bytes(status.mac),
            "mtu": status.mtu,
            "mode": "copy" if status.mode else "direct",
            "rx_queues": status.rx_queues,
            "tx_queues": status.tx_queues,
            "spread_queues": status.spread_queues,
            "link_up": bool(status.link_up),
        }


def _raise_sentence(result: int, error: Any, eal_log: EalLog) -> None:
    if result >= 0:
        return
    reason = eal_log.reason()
    raise BootFailed(_text(error) + (f" ({reason})" if reason else "") + ".")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise BootFailed(f"{what}: {os.strerror(-result)}.")
    return result


def _text(octets: Any, owner: Any = ffi) -> str:
    return bytes(owner.string(octets)).decode(errors="replace")


def _address(pointer: Any) -> int:
    return int(native_ffi.cast("uintptr_t", pointer))
