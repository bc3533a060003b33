# SPDX-License-Identifier: Apache-2.0
"""A router of ours with real kernels around it: each port one end of a veth, a host in a namespace at the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from halo_mp.control.client import Client
from halo_mp.control.public import SOCKET
from tests.support.accounts import Tally, tally
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, connect


@dataclass(frozen=True, slots=True)
class Host:
    """A kernel in a namespace of its own, and its address. Its default route is the router's."""

    namespace: Namespace
    address: str
    router: str


class Network:
    """Use as a context manager. Port n has the router's 10.n.0.1/24, and a host with 10.n.0.2 behind it.

    `prefix_length` is that of their networks.
    """

    def __init__(
        self,
        *flags: str,
        ports: int = 2,
        driver: str = "net_af_packet",
        mtus: Sequence[int] = (),
        prefix_length: int = 24,
    ) -> None:
        self._flags = flags
        self._count = ports
        self._driver = driver
        self._mtus = mtus
        self._prefix_length = prefix_length
        self._stack = ExitStack()
        self.hosts: list[Host] = []
        self.flags: tuple[str, ...] = ()
        self.instance: Instance

    def __enter__(self) -> Self:
        with self._stack:
            namespace = self._stack.enter_context(Namespace())
            namespace.silence()
            arguments = []
            for number in range(self._count):
                self.hosts.append(self._host(namespace, number))
                arguments += ["--vdev", f"{self._driver}{number},iface=veth{number}"]
                arguments += ["--address", f"{number}=10.{number}.0.1/{self._prefix_length}"]
            self.flags = (*arguments, *self._flags)
            self.instance = self._stack.enter_context(Instance(namespace, *self.flags))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def slots(self) -> range:
        """The numbers of its slots, a port each."""
        return range(self._count)

    def client(self) -> Client:
        """Return a connection to its control socket, to be entered."""
        return Client(path=self.instance.runtime / SOCKET, timeout_s=30.0)

    def settled(self) -> Tally:
        """Wait until nothing is under way and the accounts of all slots balance; return their sums."""
        return tally(self.instance, *self.slots)

    def stop(self) -> None:
        """End the instance; fail when it did not end well, or lost a buffer."""
        Ledger(self.instance, *self.slots).assert_balanced()
        assert self.instance.stop() == 0

    def successor(self) -> Instance:
        """Return the next instance of the name with the same flags, to be entered."""
        return Instance(self.instance.namespace, *self.flags, name=self.instance.name)

    def _host(self, namespace: Namespace, number: int) -> Host:
        host = Host(self._stack.enter_context(Namespace()), f"10.{number}.0.2", f"10.{number}.0.1")
        host.namespace.silence()
        connect(namespace, host.namespace, name=f"veth{number}")
        if self._mtus:
            for side in (namespace, host.namespace):
                side.run("ip", "link", "set", f"veth{number}", "mtu", str(self._mtus[number]))
        host.namespace.run(
            "ip", "address", "add", f"{host.address}/{self._prefix_length}", "dev", f"veth{number}"
        )
        host.namespace.run("ip", "route", "add", "default", "via", host.router)
        return host
