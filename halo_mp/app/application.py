# SPDX-License-Identifier: Apache-2.0
"""The application object: what a file registers, and how it is run.

An App does nothing by itself. The supervisor is told where it is (`--app`); each worker imports the file and runs what
the App has registered. The App of a process and its Worker are found through `app.worker`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, TypeVar

from halo_mp.app import launch
from halo_mp.app.registry import Callback, HookSpec, Task, TimerSpec, make_hook, make_timer
from halo_mp.app.udp import UdpForm, UdpService, make_service
from halo_mp.app.verdict import Form, OnError, StageName
from halo_mp.app.worker import Worker

Hook = TypeVar("Hook", bound=Callable[..., Any])
AnyCallback = TypeVar("AnyCallback", bound=Callback)
AnyTask = TypeVar("AnyTask", bound=Task)
Wildcard = Literal["halo", "kernel"]


class App:
    """What runs in every worker: hooks, timers, tasks, services, callbacks of life and death."""

    def __init__(self, name: str | None = None, *, debug: bool = False, wildcard: Wildcard = "halo") -> None:
        """`name` is that of its log. `debug`: notice views that outlive their burst, which costs speed.

        `wildcard` says on which stack `loop.create_datagram_endpoint` opens endpoints for any address. ValueError.
        """
        if wildcard not in ("halo", "kernel"):
            raise ValueError(f"App: wildcard {wildcard!r} is neither 'halo' nor 'kernel'")
        self.name = name or "app"
        self.debug = debug
        self.wildcard: Wildcard = wildcard
        self.hooks: list[HookSpec] = []
        self.timers: list[TimerSpec] = []
        self.tasks: list[Task] = []
        self.starts: list[Callback] = []
        self.stops: list[Callback] = []
        self.services: list[UdpService] = []
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The worker of this process. Raises RuntimeError outside of one."""
        if self._worker is None:
            raise RuntimeError(
                "app.worker is there inside a worker only, from on_start on; at import time, and in a process that "
                "you started yourself, there is none"
            )
        return self._worker

    def hook(
        self,
        stage: StageName,
        *,
        form: Form = "packet",
        jit: bool = False,
        ports: Iterable[int] | None = None,
        interface: str | None = None,
        priority: int = 0,
        name: str | None = None,
        on_error: OnError = "pass",
    ) -> Callable[[Hook], Hook]:
        """Show packets to the function that this decorates, in every worker.

        ingress: everything that came in, parsed. forward: what goes on to another station. egress: what leaves.
        `form` packet: f(packet) or f(packet, octets), returning a Verdict or None; burst: f(burst), up to 512 packets.
        `jit` compiles form packet with numba. `ports` and `interface` ("0", or "0.100") choose packets. Hooks run from
        the lowest `priority` to the highest. `on_error`: what becomes of packets when the function raises, and of
        all when it does so again and again; "stop" ends the worker then. Raises ValueError, TypeError.
        """

        def add(function: Hook) -> Hook:
            spec = make_hook(
                function, stage, form=form, jit=jit, ports=ports, interface=interface, priority=priority,
                name=name, on_error=on_error,
            )  # fmt: skip
            self.hooks.append(spec)
            return function

        return add

    def udp(
        self, port: int, address: str | None = None, *, form: UdpForm = "datagram", reuse_port: bool = True
    ) -> Callable[[Hook], Hook]:
        """Give what comes to a UDP port to the function that this decorates, in every worker.

        `address` is one of ours; without one, all are. `form` datagram: f(datagram); burst: f(burst), up to 512 at
        once, as NumPy columns. `reuse_port`: each worker has the port, and takes what comes in by its own queues; False
        lets only one have it, and is for who opens it in one worker alone. Raises ValueError, TypeError.
        """

        def add(function: Hook) -> Hook:
            self.services.append(make_service(function, port, address, form=form, reuse_port=reuse_port))
            return function

        return add

    def on_start(self, function: AnyCallback) -> AnyCallback:
        """Call a function, or await it, when a worker has its interfaces and frames come in."""
        self.starts.append(function)
        return function

    def on_stop(self, function: AnyCallback) -> AnyCallback:
        """Call a function, or await it, before a worker ends in order. One that is killed calls nothing."""
        self.stops.append(function)
        return function

    def every(self, interval_s: float) -> Callable[[AnyCallback], AnyCallback]:
        """Call a function, or await it, every so many seconds in each worker; never twice at once."""

        def add(function: AnyCallback) -> AnyCallback:
            self.timers.append(make_timer(function, interval_s))
            return function

        return add

    def task(self, function: AnyTask) -> AnyTask:
        """Run a coroutine function beside the packets, from the start of a worker to its end. Raises TypeError."""
        is_coroutine: bool = inspect.iscoroutinefunction(function)
        if not is_coroutine:
            name = getattr(function, "__name__", function)
            raise TypeError(f"app.task: {name} is no coroutine function; write async def")
        self.tasks.append(function)
        return function

    def run(self, **flags: Any) -> NoReturn:
        """Start an instance with this application: become `python -m halo_mp.supervisor --app FILE:NAME`.

        Flags are those of docs/flags.md with _ for -: run(ports=[0, 1], address=["0=10.0.0.1/24"], no_forward=True).
        What stands on the command line follows them. Raises RuntimeError where it can not be run from.
        """
        launch.run(self, flags)
