# SPDX-License-Identifier: Apache-2.0
"""A router of ours with real kernels around it: each port one end of a veth, a host in a namespace at the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.instance import Instance
from tests.support.namespace import Namespace, connect


@dataclass(frozen=True, slots=True)
class Host:
    """A kernel in a namespace of its own, and its address. Its default route is the router's."""

    namespace: Namespace
    address: str
    router: str


class Network:
    """Use as a context manager. Port n has the router's 10.n.0.1/24, and a host with 10.n.0.2 behind it."""

    def __init__(
        self, *flags: str, ports: int = 2, driver: str = "net_af_packet", mtus: Sequence[int] = ()
    ) -> None:
        self._flags = flags
        self._count = ports
        self._driver = driver
        self._mtus = mtus
        self._stack = ExitStack()
        self.hosts: list[Host] = []
        self.instance: Instance

    def __enter__(self) -> Self:
        with self._stack:
            namespace = self._stack.enter_context(Namespace())
            namespace.silence()
            arguments = []
            for number in range(self._count):
                self.hosts.append(self._host(namespace, number))
                arguments += ["--vdev", f"{self._driver}{number},iface=veth{number}"]
                arguments += ["--address", f"{number}=10.{number}.0.1/24"]
            self.instance = self._stack.enter_context(Instance(namespace, *arguments, *self._flags))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _host(self, namespace: Namespace, number: int) -> Host:
        host = Host(self._stack.enter_context(Namespace()), f"10.{number}.0.2", f"10.{number}.0.1")
        host.namespace.silence()
        connect(namespace, host.namespace, name=f"veth{number}")
        if self._mtus:
            for side in (namespace, host.namespace):
                side.run("ip", "link", "set", f"veth{number}", "mtu", str(self._mtus[number]))
        host.namespace.run("ip", "address", "add", f"{host.address}/24", "dev", f"veth{number}")
        host.namespace.run("ip", "route", "add", "default", "via", host.router)
        return host
