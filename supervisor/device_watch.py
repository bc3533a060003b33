# SPDX-License-Identifier: Apache-2.0
"""Devices that go away under their ports, and come back: the part of the driver's main thread that decides.

    started → lost (the netdev is deleted, or the PMD says that the device was removed) → started again

A lost port is taken out of the lcores and closed at once, and is opened again when what its device needs is there:
tried after a quarter of a second, then after longer, and as soon as the kernel tells of a netdev of that name.
Everything here runs in the driver's event loop, and the other ports go on meanwhile: frames are moved by lcores.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from halo_mp import logs
from halo_mp.control.frame import Message
from halo_mp.errors import HaloError
from halo_mp.supervisor.config_values import device_argument, device_driver
from halo_mp.supervisor.driver_ports import DriverPorts
from halo_mp.supervisor.link_log import LinkLog
from halo_mp.supervisor.netdevices import NetDevice, NetDevices

FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 2.0
TRANSIENT = (HaloError, OSError, MemoryError)
"""What may be otherwise the next time that it is tried. Anything else is a mistake of ours."""

log = logs.get("driver")

_NEEDS = {
    "net_tap": ("remote",),
    "net_tun": (),
    "net_af_packet": ("iface",),
    "net_af_xdp": ("iface",),
    "net_pcap": ("iface", "rx_iface", "rx_iface_in"),
}
"""Virtual devices that stand on a netdev, and which argument names the one that must be there before they are made."""
_NEEDS_UP = ("net_af_xdp",)
"""A socket of these can not be bound to a netdev that is down."""


@dataclass(slots=True)
class _Port:
    """A port and what it stands on."""

    number: int
    device: str
    needs: str | None  # name of a netdev
    needs_up: bool
    has_netdev_link: bool  # its link state is the netdev's, of which its PMD may know nothing
    indexes: tuple[int, ...] = ()  # of the netdevs below it: its own first, while it is started
    lost: bool = False
    retry_at: float = 0.0
    pause_s: float = FIRST_RETRY_S
    returned_at: float = -math.inf
    complaint: str = ""  # why it could not be opened again, the last time


class DeviceWatch:
    """Follows the devices of all ports. `tell` sends a message to the supervisor."""

    def __init__(self, ports: DriverPorts, tell: Callable[[Message], None]) -> None:
        self._ports = ports
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._log = LinkLog(self._write_link)
        self._watched = {port["port"]: _watched(port, ports.vdevs) for port in ports.configured}
        self._wake = asyncio.Event()
        self._netdevices = self._listen()
        for number, port in self._watched.items():
            if number in ports.lost:
                self._mark_lost(port, self._missing(port) or ports.lost[number])
            else:
                self._watch(port)

    async def run(self) -> None:
        """Open lost ports again, for ever."""
        while True:
            await self._wait_until(min((port.retry_at for port in self._lost()), default=None))
            now = self._loop.time()
            for port in self._lost():
                if port.retry_at <= now:
                    self._try(port)

    def poll(self) -> None:
        """Look at what nobody tells of; twice a second is often enough."""
        if self._netdevices is not None:
            self._netdevices.receive()  # nothing, most often; but it may have to ask again
        for port in self._watched.values():
            if port.lost:
                continue
            if self._ports.is_removed(port.number):
                self._lose(port, "its driver says that it was removed")
            else:
                self._log.set(port.number, self._ports.link_up(port.number), self._loop.time())
        self._log.poll(self._loop.time())

    def close(self) -> None:
        """Listen no more."""
        if self._netdevices is not None:
            self._loop.remove_reader(self._netdevices)
            self._netdevices.close()

    # ---- what the kernel says

    def _listen(self) -> NetDevices | None:
        try:
            netdevices = NetDevices(self._on_gone, self._on_change)
        except OSError as error:
            log.warning("devices.unwatched", reason=error.strerror)
            return None
        self._loop.add_reader(netdevices, netdevices.receive)
        return netdevices

    def _on_gone(self, device: NetDevice) -> None:
        for port in self._watched.values():
            if device.index in port.indexes:
                self._lose(port, f"the interface {device.name} is gone")

    def _on_change(self, device: NetDevice) -> None:
        for port in self._watched.values():
            if port.lost and device.name == port.needs:
                port.retry_at = self._loop.time()
                self._wake.set()
            elif port.has_netdev_link and port.indexes[:1] == (device.index,):
                self._set_link(port, device.has_link)

    # ---- losing

    def _lose(self, port: _Port, reason: str) -> None:
        try:
            self._ports.lose(port.number, reason)
        except TRANSIENT as error:  # an lcore hangs, for which the supervisor ends us; else it is tried again
            log.error("port.not_closed", port=port.number, error=_sentence(error))
        self._mark_lost(port, reason)

    def _mark_lost(self, port: _Port, reason: str) -> None:
        log.warning("port.lost", port=port.number, device=port.device, reason=reason)
        port.lost, port.indexes, port.complaint = True, (), ""
        now = self._loop.time()
        if (
            now - port.returned_at > LONGEST_RETRY_S
        ):  # else it comes and goes: keep the pause that it had grown to
            port.pause_s = FIRST_RETRY_S
            port.retry_at = now
        else:
            self._postpone(port)
        self._log.forget(port.number)
        # Told first: the supervisor must know why we do not answer while the device is opened.
        self._tell({"type": "port.lost", "port": port.number, "device": port.device, "reason": reason})
        self._wake.set()

    # ---- coming back

    def _lost(self) -> list[_Port]:
        return [port for port in self._watched.values() if port.lost]

    async def _wait_until(self, due: float | None) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _try(self, port: _Port) -> None:
        if self._missing(port):
            self._postpone(port)
            return
        try:
            self._ports.reopen(port.number)
        except TRANSIENT as error:
            reason = _sentence(error)
            if reason != port.complaint:
                log.warning("port.not_opened", port=port.number, device=port.device, reason=reason)
            port.complaint = reason
            self._postpone(port)
            return
        port.lost = False
        port.returned_at = self._loop.time()
        log.info("port.returned", port=port.number, device=port.device)
        self._watch(port)
        if not port.lost:
            self._tell({"type": "port.returned", "ports": [self._ports.describe_port(port.number)]})

    def _postpone(self, port: _Port) -> None:
        port.retry_at = self._loop.time() + port.pause_s
        port.pause_s = min(port.pause_s * 2, LONGEST_RETRY_S)

    def _missing(self, port: _Port) -> str:
        """Say what a port waits for, as far as we can know; nothing when there is no reason not to try."""
        if port.needs is None or self._netdevices is None:
            return ""
        found = self._netdevices.find(port.needs)
        if found is None:
            return f"there is no interface {port.needs}"
        return f"the interface {port.needs} is down" if port.needs_up and not found.is_up else ""

    def _watch(self, port: _Port) -> None:
        """Follow the netdevs of a port that was just opened. One of them may be gone already."""
        index = self._ports.if_index(port.number)
        if self._netdevices is None or not index:
            self._log.start(port.number, self._ports.link_up(port.number))
            return
        self._netdevices.receive()  # what was said while it was opened
        needed = self._netdevices.find(port.needs) if port.needs else None
        port.indexes = (index, needed.index) if needed is not None and needed.index != index else (index,)
        own = self._netdevices.get(index)
        if own is None:
            self._lose(port, "its interface is gone")
            return
        if port.has_netdev_link:
            self._ports.set_link(port.number, own.has_link)
        self._log.start(port.number, self._ports.link_up(port.number))

    # ---- links

    def _set_link(self, port: _Port, up: bool) -> None:
        if self._ports.link_up(port.number) != up:
            self._ports.set_link(port.number, up)
        self._log.set(port.number, up, self._loop.time())

    def _write_link(self, number: int, up: bool, changes: int) -> None:
        log.info("port.link", port=number, device=self._watched[number].device, up=up, changes=changes)


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _watched(port: Mapping[str, Any], vdevs: Mapping[str, str]) -> _Port:
    device = port["device"]
    driver = device_driver(device) if device in vdevs else ""
    named = (device_argument(vdevs[device], key) for key in _NEEDS.get(driver, ()))
    needs = next((name for name in named if name), None)
    return _Port(port["port"], device, needs, driver in _NEEDS_UP, driver in _NEEDS)
