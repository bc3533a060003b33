# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of TAPs that are ours: its addresses or its MAC, its link state, and its end.

Only in this process's network namespace. The driver creates the interface (`persist`, so that it keeps its
addresses over a driver's death); deleting it is ours. pyroute2 runs in a thread: its blocking calls refuse to
run in an event loop, and importing it takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Any, TypeVar

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.config import AddressConfig, TapConfig

T = TypeVar("T")


async def configure(taps: Sequence[TapConfig]) -> None:
    """Give the kernel's side of each TAP its addresses and set it up; what is so already stays.

    Raises EnvironmentProblem.
    """

    def work(route: Any) -> None:
        for tap in taps:
            _configure(route, tap)

    await _in_thread(work)


async def take_away(interface: str, addresses: Iterable[AddressConfig]) -> None:
    """Take addresses away from the kernel's side of a TAP, as far as it has them. Raises EnvironmentProblem."""
    gone = list(addresses)

    def work(route: Any) -> None:
        index = _index(route, interface)
        for entry in gone if index is not None else ():
            _change_address(route, "del", index, entry)

    await _in_thread(work)


async def configure_twin(interface: str, mac: bytes) -> None:
    """Give the kernel's share of a port the port's MAC and set it up; addresses and routes are its user's.

    The driver gives it another MAC each time that it opens it. Raises EnvironmentProblem.
    """
    await _in_thread(lambda route: _configure_twin(route, interface, mac))


async def delete(interfaces: Iterable[str]) -> list[str]:
    """Delete those that are there and are TAPs; return their names. Raises EnvironmentProblem."""
    names = sorted(set(interfaces))
    if not names:
        return []
    return await _in_thread(lambda route: [name for name in names if _delete(route, name)])


async def warm_up() -> None:
    """Import what the others need, while there is something else to wait for."""
    await _in_thread(lambda route: None)


async def _in_thread(work: Callable[[Any], T]) -> T:
    def run() -> T:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as route:
                return work(route)
        except (NetlinkError, OSError) as error:  # it refuses, or has no memory or descriptor for us
            raise EnvironmentProblem(f"the kernel's side of a TAP can not be configured: {error}.") from None

    return await asyncio.to_thread(run)


def _configure_twin(route: Any, interface: str, mac: bytes) -> None:
    route.link("set", index=_existing(route, interface), address=mac.hex(":"), state="up")


def _configure(route: Any, tap: TapConfig) -> None:
    index = _existing(route, tap.interface)
    for entry in tap.addresses:
        _change_address(route, "add", index, entry)
    route.link("set", index=index, state="up")


def _change_address(route: Any, command: str, index: int | None, entry: AddressConfig) -> None:
    address = str(IPv4Address(entry.address))
    done = errno.EEXIST if command == "add" else errno.EADDRNOTAVAIL
    _unless(done, lambda: route.addr(command, index=index, address=address, prefixlen=entry.prefix_length))


def _delete(route: Any, name: str) -> bool:
    index = _index(route, name)
    if index is None or _kind(route, index) != "tun":
        return False
    _unless(errno.ENODEV, lambda: route.link("del", index=index))
    return True


def _existing(route: Any, name: str) -> int:
    index = _index(route, name)
    if index is None:
        raise EnvironmentProblem(f"the driver made no interface {name}.")
    return index


def _index(route: Any, name: str) -> int | None:
    found = route.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _kind(route: Any, index: int) -> str | None:
    information = route.get_links(index)[0].get_attr("IFLA_LINKINFO")
    kind: str | None = information.get_attr("IFLA_INFO_KIND") if information else None
    return kind


def _unless(expected: int, call: Callable[[], object]) -> None:
    """Call; an error that says that it is so already is none."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        call()
    except NetlinkError as error:
        if error.code != expected:
            raise
