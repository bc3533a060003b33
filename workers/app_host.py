# SPDX-License-Identifier: Apache-2.0
"""The life of an application in its worker: started, its timers and tasks, its end.

    made (imported, hooks added) → started (slot enabled, interfaces known) → stopped

Plain functions of on_start run before the first packet is shown to a hook written in Python; coroutine functions
are awaited behind them, and the worker is ready when they have returned. An exception in on_start ends the worker,
with the reason; anywhere else it is logged and counted, and all goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from halo_mp import logs
from halo_mp.app import App, Worker
from halo_mp.app.frames import Port
from halo_mp.app.registry import Callback, HookSpec, Task, TimerSpec
from halo_mp.app.verdict import Stage
from halo_mp.errors import HaloError
from halo_mp.shm.layout import ffi
from halo_mp.workers.bounded_log import BoundedLog
from halo_mp.workers.compiled import NotCompiled, compile_hook
from halo_mp.workers.compiler import command
from halo_mp.workers.fastpath import FastPath
from halo_mp.workers.fastpath_hooks import FastPathHooks
from halo_mp.workers.hooks import HookHost
from halo_mp.workers.raw import RawFrames
from halo_mp.workers.regions import WorkerRegions
from halo_mp.workers.services import Services
from halo_mp.workers.settings import AppSettings, Settings
from halo_mp.workers.udp import UdpSockets

STOP_TIMEOUT_S = 1.0
"""For on_stop, and for tasks that are cancelled; the supervisor waits two seconds in all."""

FAULTS = (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError)
"""What an application may raise. CancelledError: it has awaited what somebody has cancelled."""

SLOW_START_S = 3.0
"""Of a coroutine of on_start: then the log says what the worker waits for."""

LOOK_S = 1.0
"""Between two looks at compiled hooks."""

log = logs.get("app")


class AppHost:
    """Runs one App. Everything is called from the event loop's thread."""

    def __init__(
        self,
        app: App,
        fastpath: FastPath,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        regions: WorkerRegions,
        sockets: UdpSockets,
        *,
        turn: Callable[[int], bool],
        cache: Path,
        functions: Mapping[HookSpec, int],
        on_started: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """`regions` are what the worker has mapped, `functions` the addresses of hooks that are compiled.

        `turn` runs one poll and does its work, or says that it can not be now. `cache` is the directory for hooks
        compiled later. `on_failed` gets the sentence why this worker is of no use.
        """
        self.started = False
        """Whether on_start is behind us."""
        self._app = app
        self._fastpath = fastpath
        self._loop = loop
        self._settings = settings
        self._cache = cache
        self._slot: Any = regions.slot.pointer
        self._on_started = on_started
        self._on_failed = on_failed
        self._errors = BoundedLog()
        self._fast_hooks = FastPathHooks(fastpath)
        debug = app.debug or (settings.app is not None and settings.app.debug)
        self.hooks = HookHost(
            self._fast_hooks,
            regions.pool.pointer,
            regions.slot.pointer,
            debug=debug,
            errors=self._errors,
            on_failed=on_failed,
        )
        self._raw = RawFrames(
            fastpath,
            loop,
            regions.pool.pointer,
            ffi.addressof(regions.slot.pointer.geometry, "pool"),
            turn,
            debug=debug,
        )
        self._begun = False
        self._services = Services(sockets, fastpath)
        self._tasks: set[asyncio.Task[None]] = set()
        self.worker = Worker(
            slot=settings.slot, ports=settings.ports, loop=loop, log=logging.getLogger(app.name), backend=self
        )
        app._worker = self.worker
        for spec in app.hooks:
            self.worker.hooks._added(spec, self.hooks.add(spec, functions.get(spec, 0)))

    # ---- life

    def start(self) -> None:
        """Call on_start and begin timers and tasks; only the first call does anything."""
        if self._begun:
            return
        self._begun = True
        for function in self._app.starts:
            if not inspect.iscoroutinefunction(function):
                try:
                    function(self.worker)
                except FAULTS as error:
                    self._fail(function, error)
                    return
        self._spawn(self._finish_start())
        self._spawn(self._look_after_hooks())

    async def stop(self) -> None:
        """Cancel timers and tasks, and call on_stop. May be called twice."""
        if not self._begun:
            return
        self._begun = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for function in self._app.stops if self.started else ():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._call("app.stop_failed", function)

    def on_poll(self, reasons: int) -> None:
        """Do what a poll came back for."""
        self._raw.on_poll(reasons)

    def detach(self) -> None:
        """Give back every frame that the application has, before the worker leaves its slot."""
        self._raw.close()
        self._slot = None  # it is unmapped soon, and tasks may go on for a moment

    async def _finish_start(self) -> None:
        try:
            await self._services.start(self._app.services)
        except HaloError as error:
            self._on_failed(str(error))
            return
        for function in self._app.starts:
            if inspect.iscoroutinefunction(function):
                slow = self._loop.call_later(SLOW_START_S, _tell_slow_start, _name(function))
                try:
                    await function(self.worker)
                except FAULTS as error:
                    if _is_cancellation(error):
                        raise
                    self._fail(function, error)
                    return
                finally:
                    slow.cancel()
        self.started = True
        for timer in self._app.timers:
            self._spawn(self._run_timer(timer))
        for task in self._app.tasks:
            self._spawn(self._run_task(task))
        log.info("app.started", app=self._app.name, hooks=len(self._app.hooks))
        self._on_started()

    def _fail(self, function: Any, error: BaseException) -> None:
        log.exception("app.start_failed", name=_name(function))
        self._on_failed(f"on_start of the application, {_name(function)}, raised {logs.describe(error)}.")

    async def _look_after_hooks(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.hooks.look_after()

    async def _run_timer(self, timer: TimerSpec) -> None:
        due = self._loop.time()
        while True:
            due = max(due + timer.interval_s, self._loop.time())  # what was missed is not made up for
            await asyncio.sleep(due - self._loop.time())
            await self._call("app.timer_failed", timer.function)

    async def _run_task(self, task: Task) -> None:
        await self._call("app.task_failed", task)

    async def _call(self, event: str, function: Callback) -> None:
        """Call a function of the application, and await what it returns; an exception is logged and counted."""
        try:
            result = function(self.worker)
            if inspect.isawaitable(result):
                await result
        except MemoryError:
            raise
        except FAULTS as error:
            if self._fastpath.forked:  # a child that has got this far ends, and is no second worker
                os._exit(0 if isinstance(error, SystemExit) and not error.code else 1)
            if _is_cancellation(error):
                raise
            self.count_error()
            self._errors.exception(event, _name(function), self._loop.time())

    def count_error(self) -> None:
        """Count an exception which cost no packet; not when the slot, and its counters, may be another worker's."""
        if self._slot is not None:
            self._slot.worker.app_errors += 1

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what its Worker asks for

    def add_hook(self, spec: HookSpec) -> int:
        """Add a hook from the next burst on; return its number. Compiled code takes over when it is there."""
        number = self.hooks.add(spec)
        if spec.jit and self._settings.app is not None:
            self._spawn(self._compile(spec, number, self._settings.app))
        return number

    async def _compile(self, spec: HookSpec, number: int, settings: AppSettings) -> None:
        try:
            words = command(settings, spec, self._cache)
            process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
            try:
                said, _ = await process.communicate()
            except asyncio.CancelledError:
                process.kill()
                raise
            if process.returncode:
                raise NotCompiled(
                    said.decode(errors="replace").strip() or "the compiler ended without a word"
                )
            load = functools.partial(compile_hook, spec, self._cache, cached_only=True)
            if self.hooks.make_native(number, spec, await self._loop.run_in_executor(None, load)):
                log.info("hook.compiled", name=spec.name)
        except (NotCompiled, OSError) as error:
            tell_not_compiled(spec, str(error))

    def remove_hook(self, number: int) -> None:
        """Remove a hook from the next burst on."""
        self.hooks.remove(number)

    def inject(self, stage: Stage, port: int, frame: bytes) -> bool:
        """Put a frame in at a stage; False when it was dropped, which is counted."""
        return self._fast_hooks.inject(stage, port, frame)

    def open_port(self, number: int) -> Port:
        """Return the port's raw frames."""
        return self._raw.open(number)


def compile_all(app: App, cache: Path) -> dict[HookSpec, int]:
    """Return the addresses of the hooks of an application that can be compiled; of others the log says why."""
    found = {}
    for spec in app.hooks:
        if spec.jit:
            try:
                found[spec] = compile_hook(spec, cache)
            except NotCompiled as error:
                tell_not_compiled(spec, str(error))
    return found


def tell_not_compiled(spec: HookSpec, reason: str) -> None:
    """Say that a hook runs as Python."""
    log.warning("hook.not_compiled", name=spec.name, reason=reason)


def _tell_slow_start(name: str) -> None:
    log.warning(
        "app.start_waits",
        name=name,
        reason=f"it is an on_start that has not returned for {SLOW_START_S:g} s, and the worker is not ready before it "
        "has; what is to go on beside the packets is an @app.task",
    )


def _is_cancellation(error: BaseException) -> bool:
    """Whether this is how the task that runs is told to end, and not what the application has brought about."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
