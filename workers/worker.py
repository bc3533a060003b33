# SPDX-License-Identifier: Apache-2.0
"""The worker process from its first message to its last.

    connecting → configured (mapped) → unprivileged → attached → ready (slot enabled) → stopping
                                          ↑ channel lost: keep forwarding, reconnect, give up after --orphan-timeout

A worker links no DPDK, needs no hugepages and, from `unprivileged` on, can open nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from halo_mp import logs
from halo_mp.app import App
from halo_mp.app.registry import HookSpec
from halo_mp.blackbox import Inherited
from halo_mp.control.channel import ChannelError
from halo_mp.control.lifeline import Lifeline
from halo_mp.control.messages import chunks
from halo_mp.errors import EXIT_NO_MEMORY, HaloError
from halo_mp.shm.layout import WorkerState, lib
from halo_mp.workers import reserve
from halo_mp.workers.app_host import AppHost, compile_all
from halo_mp.workers.app_loader import load
from halo_mp.workers.captures import CaptureError, Captures
from halo_mp.workers.compiled import CACHE_DIRECTORY
from halo_mp.workers.echo import EchoError, emit_outcome, parse_echo
from halo_mp.workers.fastpath import FastPath, PollReason
from halo_mp.workers.host import Neighbor, Place, StackHost
from halo_mp.workers.loop import WorkerLoop
from halo_mp.workers.regions import WorkerRegions
from halo_mp.workers.selector import RingSelector
from halo_mp.workers.settings import AppSettings, CommandLine, Privileges, Settings, parse_settings

log = logs.get("worker")

EXIT_FAULT = 1
EXIT_CANNOT_BOOT = 5
_LAST_LINE_S = 0.5  # for the log to be written when memory has run out

# Plain numbers: with flags each & would make an object, a dozen of them for each poll.
_BROKEN = int(PollReason.BROKEN)
_DISABLED = int(PollReason.DISABLED)
_ENABLED = int(PollReason.ENABLED)
_DATAGRAMS = int(PollReason.DATAGRAMS)
_TOUCHED = int(PollReason.TOUCHED)
_PUNTS = int(PollReason.PUNTS)
_RAW = int(PollReason.RAW | PollReason.BLAST)
_INTERFACES = int(PollReason.EPOCH | PollReason.ENABLED)


class Worker:
    """One worker. `run` returns the exit status of the process."""

    def __init__(
        self, command_line: CommandLine, selector: RingSelector, box: Inherited | None = None
    ) -> None:
        self._command_line = command_line
        self._selector = selector
        self._box = box
        self._loop = asyncio.get_running_loop()
        self._line = Lifeline(command_line.runtime, self._identity, self._handle)
        self._settings: Settings | None = None
        self._regions: WorkerRegions | None = None
        self._fastpath: FastPath | None = None
        self._host: StackHost | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._echoes: dict[int, asyncio.Task[None]] = {}
        self._captures: Captures | None = None
        self._app: App | None = None
        self._app_host: AppHost | None = None
        self._functions: dict[HookSpec, int] = {}
        self._unprivileged = False
        self._working = False
        self._enabled = False
        self._known: list[Neighbor] = []  # before there is anybody to tell
        self._to_watch: list[Place] = []  # of which there is more to come
        self._end: asyncio.Future[int] = self._loop.create_future()

    async def run(self) -> int:
        """Serve the slot until told to stop."""
        self._loop.set_exception_handler(self._on_loop_error)
        if self._is_spare and not self._load_early():
            return EXIT_CANNOT_BOOT
        await self._line.connect()
        if self._is_spare:
            gc.collect()  # takes 20 ms, for which a worker that takes over has no time
        service = self._loop.create_task(self._serve_or_end())
        try:
            return await self._end
        finally:
            await self._stop_app()
            service.cancel()
            self._leave()

    def stop(self, status: int = 0) -> None:
        """End `run` with that status."""
        if self._regions is not None and self._fastpath is not None:
            self._regions.slot.pointer.status.state = WorkerState.STOPPING
        if not self._end.done():
            self._end.set_result(status)

    # ---- the supervisor's channel

    def _identity(self) -> dict[str, Any]:
        """Who we are, in a greeting: a spare, until we are told which slot is ours."""
        slot = self._command_line.slot if self._settings is None else self._settings.slot
        return {"role": "spare"} if slot is None else {"role": "worker", "slot": slot}

    async def _serve_or_end(self) -> None:
        try:
            await self._serve()
        except Exception:  # a worker that nobody can talk to is of no use
            self._on_fault()

    async def _serve(self) -> None:
        try:
            reserve.hold(_end_without_memory)
            orphaned = await self._line.serve(lambda: self._fastpath is not None)
        except HaloError as error:
            await self._fail(str(error))
            return
        if orphaned:
            log.warning("worker.orphaned", waited_s=self._line.orphan_timeout_s)
        self.stop(0 if orphaned or self._is_spare else EXIT_CANNOT_BOOT)

    @property
    def _is_spare(self) -> bool:
        """Whether nobody has said yet which slot is ours."""
        return self._settings is None and self._command_line.slot is None

    async def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["type"]:
            case "configure" if self._fastpath is None:
                await self._configure(message, fds)
                return
            case "adopt" if self._host:
                self._line.orphan_timeout_s = float(message["orphan_timeout_s"])
                self._end_echoes()  # who asked for them is gone
                self._end_captures()
                self._introduce(self._host)
            case "neighbors":
                self._adopt([_neighbor(item) for item in message["neighbors"]])
            case "announce" if self._host:
                self._host.announce([int(port) for port in message["ports"]])
            case "static" if self._host:
                self._host.set_static([_neighbor(item) for item in message["neighbors"]])
            case "forgotten" if self._host:
                self._host.lose([_place(item) for item in message["neighbors"]])
            case "forget" if self._host:
                self._host.forget([_place(item) for item in message["neighbors"]])
            case "used" if self._host:
                self._host.touch([_place(item) for item in message["neighbors"]])
            case "watch" if self._host:
                self._to_watch += [_place(item) for item in message["neighbors"]]
                if not message["more"]:
                    self._host.watch(self._to_watch)
                    self._to_watch = []
            case "sockets.accepted" | "sockets.refused" as kind if self._host:
                numbers = [int(number) for number in message["numbers"]]
                self._host.udp.answer(numbers, accepted=kind == "sockets.accepted")
            case "echo" if self._host:
                self._start_echo(self._host, message)
            case "kcp":
                await self._line.channel.reply(message, kcp=_kcp_report())
                return
            case "echo.end":
                self._end_echo(int(message["number"]))
            case "capture.start" if self._captures and len(fds) == 1:
                await self._start_capture(self._captures, message, fds[0])
                return
            case "capture.stop" if self._captures:
                self._captures.stop(int(message["number"]))
            case "ping":
                await self._line.channel.reply(message)
            case "interfaces":
                pass  # the fast path sees the tables' epoch by itself
            case "leave":
                await self._stop_app()
                if self._host and self._fastpath and self._fastpath.held:
                    self._host.udp.handle_parked()
                    self._host.handle_punts()  # the loop has polled once more since this was asked for
                self._finish_parked()
                self._leave_slot()
                await self._line.channel.reply(message)
                with contextlib.suppress(OSError):  # a container may forbid it
                    # Our successor starts on this core, and has better use for it.
                    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
                self.stop()
            case "stop":
                await self._line.channel.reply(message)
                self.stop()
            case unknown:
                await self._line.channel.refuse(message, f"a worker does not know {unknown!r} now")
        for fd in fds:
            os.close(fd)

    def _adopt(self, neighbors: list[Neighbor]) -> None:
        if self._host is None:
            self._known += neighbors  # told first of all, so that the first frames need not wait for answers
        else:
            self._host.adopt(neighbors)

    def _introduce(self, host: StackHost) -> None:
        """Tell a supervisor that is new to us where we are and what we know."""
        self._send({"type": "attached", "pid": os.getpid()})
        if self._is_ready:
            self._send({"type": "ready"})
        self._to_watch = []  # its predecessor may have died between two messages
        for kind, places in host.watched().items():
            for chunk in chunks(places):
                self._send({"type": kind, "neighbors": [list(place) for place in chunk]})
        host.udp.introduce()
        self._send_each(
            {"type": "learned", "neighbors": [list(neighbor) for neighbor in known]}
            for known in chunks(host.neighbors())
        )

    def _send(self, message: dict[str, Any]) -> None:
        """Send without waiting; a supervisor that is gone loses it, and asks again when it is back."""
        self._send_each((message,))

    def _send_each(self, messages: Iterable[dict[str, Any]]) -> None:
        """Send many, each when the one before is gone: a channel is closed when too much waits in it."""
        task = self._loop.create_task(self._send_quietly(messages))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_quietly(self, messages: Iterable[dict[str, Any]]) -> None:
        try:
            for message in messages:
                await self._line.channel.send(message)
        except ChannelError:
            pass

    async def _fail(self, sentence: str) -> None:
        log.error("worker.failed", error=sentence)
        await self._send_quietly([{"type": "failed", "kind": "worker", "error": sentence}])
        self.stop(EXIT_CANNOT_BOOT)

    # ---- pings that the supervisor asks for

    def _start_echo(self, host: StackHost, message: dict[str, Any]) -> None:
        number = int(message["number"])
        task = self._loop.create_task(self._echo(host, message))
        self._echoes[number] = task
        task.add_done_callback(lambda _: self._echoes.pop(number, None))

    async def _echo(self, host: StackHost, message: dict[str, Any]) -> None:
        channel = self._line.channel  # the one that it was asked on, should there be another later
        try:
            outcomes = await host.ping(**parse_echo(message))
            await channel.reply(message, outcomes=[emit_outcome(each) for each in outcomes])
        except (EchoError, ValueError) as error:
            with contextlib.suppress(ChannelError):
                await channel.refuse(message, str(error))
        except ChannelError:
            pass

    def _end_echo(self, number: int) -> None:
        if task := self._echoes.get(number):
            task.cancel()

    def _end_echoes(self) -> None:
        for number in list(self._echoes):
            self._end_echo(number)

    # ---- captures

    async def _start_capture(self, captures: Captures, message: dict[str, Any], fd: int) -> None:
        try:
            captures.start(message, fd)
        except CaptureError as error:
            await self._line.channel.refuse(message, str(error))
        else:
            hooks = self._app_host.hooks.names() if self._app_host else []
            await self._line.channel.reply(message, hooks=hooks)

    def _end_captures(self) -> None:
        if self._captures is not None:
            self._captures.stop_all()

    # ---- from configured to ready

    async def _configure(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            settings = parse_settings(message)
        except (KeyError, ValueError, TypeError) as error:
            await self._fail(f"the configuration makes no sense to the worker: {error!r}")
            return
        self._settings = settings
        self._line.orphan_timeout_s = settings.orphan_timeout_s
        self._regions = WorkerRegions(fds)
        self._become_unprivileged(settings.privileges, f"worker.{settings.slot}")
        if settings.app is not None and self._app is None:
            self._load(settings.app)
        self._attach(settings, self._regions)
        self._send({"type": "attached", "pid": os.getpid()})

    def _become_unprivileged(self, privileges: Privileges, name: str) -> None:
        """Give up what is not needed any more, and log from here on."""
        if self._unprivileged:
            logs.rename(name)
            return
        _drop_privileges(privileges)
        self._unprivileged = True
        # Its writer thread would keep the capabilities that this thread gives up, so logging starts only now.
        logs.configure(
            name,
            self._command_line.log_level,
            _style(self._command_line.log_format),
            box=self._box.lines() if self._box else None,
        )

    def _load(self, settings: AppSettings) -> None:
        """Import the application and compile its hooks. Raises HaloError."""
        self._app = load(settings, self._command_line.log_level)
        self._functions = compile_all(self._app, self._cache)

    @property
    def _cache(self) -> Path:
        return self._command_line.runtime / CACHE_DIRECTORY

    def _load_early(self) -> bool:
        """Import the application as a spare, before anybody waits for it; False when that is not possible."""
        command_line = self._command_line
        if command_line.app is None or command_line.privileges is None:
            return True
        self._become_unprivileged(command_line.privileges, "worker.spare")
        try:
            self._load(command_line.app)
        except HaloError as error:
            log.error("worker.failed", error=str(error))
            return False
        return True

    def _attach(self, settings: Settings, regions: WorkerRegions) -> None:
        status = regions.slot.pointer.status
        self._selector.register(regions.doorbell_fd, select.EPOLLIN)
        self._fastpath = FastPath(
            pool=regions.pool.pointer,
            slot=regions.slot.pointer,
            tables=regions.tables.pointer,
            fib=regions.fib.pointer,
            doorbell_fd=regions.doorbell_fd,
            driver_doorbell_fd=regions.driver_doorbell_fd,
            epoll_fd=self._selector.fileno(),
            idle=settings.idle,
            spin_ns=settings.spin_ns,
            debug=settings.debug_log,
        )
        os.register_at_fork(after_in_child=self._fastpath.forget_in_child)
        for port, twin, only in settings.twins:
            self._fastpath.set_twin(port, twin, only)
        for port, to in settings.macswap:
            self._fastpath.set_macswap(port, to)
        self._captures = Captures(self._fastpath)
        self._host = StackHost(self._fastpath, self._loop, settings, self._send)
        self._host.adopt(self._known)
        self._known.clear()
        if isinstance(self._loop, WorkerLoop):
            self._loop.sockets = self._host.udp
            self._loop.wildcard = "halo" if self._app is None else self._app.wildcard
        if self._app is not None:
            self._app_host = AppHost(
                self._app,
                self._fastpath,
                self._loop,
                settings,
                regions,
                self._host.udp,
                turn=self._turn,
                cache=self._cache,
                functions=self._functions,
                on_started=self._tell_ready,
                on_failed=self._fail_soon,
            )
        status.pid = os.getpid()
        status.state = WorkerState.ATTACHED
        on_hook = self._app_host.hooks.run if self._app_host else None
        self._selector.attach(self._fastpath, regions.doorbell_fd, self._on_work, on_hook)
        gc.freeze()  # what is there now stays; a collection must not walk it between two bursts
        log.info("worker.attached", slot=settings.slot, pid=os.getpid(), uid=os.getuid())

    def _on_work(self, reasons: int) -> None:
        """Called by the selector between two runs of the event loop."""
        if reasons & _BROKEN:
            log.error(
                "worker.broken", reason="the rings' indices make no sense; ending, to be started on new ones"
            )
            self.stop(EXIT_FAULT)
            return
        self._working = True  # from here on: until that work is done there is no other poll
        self._loop.call_soon(self._work, reasons)

    def _turn(self, timeout_ns: int) -> bool:
        """Poll for the application, and do what it comes back for; False in the middle of that."""
        if self._working or self._selector.in_hook:
            return False
        self._work(self._selector.turn(timeout_ns))
        return True

    def _work(self, reasons: int) -> None:
        self._working = True
        try:
            self._do_work(reasons)
        except Exception:  # what is wrong here would be wrong again: end, say why, and be started anew
            self._on_fault()
        finally:
            self._working = False

    def _on_fault(self) -> None:
        """End because of the exception that is being handled. Without memory at once: nothing can be relied on then."""
        if isinstance(sys.exception(), MemoryError):
            _end_without_memory()
        log.exception("worker.fault")
        self.stop(EXIT_FAULT)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), MemoryError):
            _end_without_memory()
        if self._app_host is not None:
            self._app_host.count_error()
        loop.default_exception_handler(context)

    def _do_work(self, reasons: int) -> None:
        if self._fastpath is None or self._host is None or self._regions is None or self._fastpath.forked:
            return
        self._regions.slot.pointer.worker.logs_dropped = logs.dropped()
        if reasons & _RAW and self._app_host is not None:
            self._app_host.on_poll(reasons)
        if reasons & _DISABLED:
            self._enabled = False
        if reasons & _ENABLED:
            self._enabled = True
            self._tell_ready()
        if reasons & _INTERFACES and self._enabled:
            # Not before there are spare buffers: the stack starts with announcements.
            self._host.set_interfaces(self._fastpath.interfaces())
            if self._app_host is not None:
                self._app_host.hooks.set_interfaces(self._fastpath.interfaces())
                self._app_host.start()
        if reasons & _DATAGRAMS:
            self._host.udp.handle_parked()
        if reasons & _TOUCHED:
            self._host.handle_touched()
        if reasons & _PUNTS:  # may have waited on the ring for as long as it had no worker
            self._host.write_debug_log()  # first: what came in before the answers to it
            self._host.handle_punts()

    @property
    def _is_ready(self) -> bool:
        return self._enabled and (self._app_host is None or self._app_host.started)

    def _tell_ready(self) -> None:
        """Say that we do our work, once the slot is enabled and the application has started."""
        if self._is_ready:
            log.info("worker.ready")
            self._send({"type": "ready"})

    def _fail_soon(self, sentence: str) -> None:
        task = self._loop.create_task(self._fail(sentence))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop_app(self) -> None:
        if self._app_host is not None:
            await self._app_host.stop()

    def _finish_parked(self) -> None:
        """Let a burst that is parked go its way, hooks and all: a worker that is replaced loses nothing."""
        try:
            while self._fastpath is not None and self._fastpath.parked:
                self._do_work(self._selector.turn(0))
        except Exception:  # it is lost then, and counted; who leaves does so in any case
            log.exception("worker.fault")

    def _leave_slot(self) -> None:
        """Touch the rings no more: from here on another worker may attach where this one stopped."""
        self._end_echoes()
        if self._host is not None:
            if isinstance(self._loop, WorkerLoop):
                self._loop.sockets = None
            self._host.stop()
            self._host = None
        if self._fastpath is not None and self._regions is not None:
            if self._app_host is not None:
                self._app_host.detach()
            self._selector.detach()
            self._end_captures()  # which another worker may go on with
            self._captures = None
            self._fastpath.detach()
            self._fastpath = None  # work may have been called for already
            self._selector.unregister(self._regions.doorbell_fd)

    def _leave(self) -> None:
        self._leave_slot()
        if self._regions is not None:
            self._regions.close(keep_pool=self._app is not None)
        self._line.close()
        log.info("worker.stopped")


def _drop_privileges(privileges: Privileges) -> None:
    if privileges.mode == "keep":
        return
    keep_uid = privileges.mode == "capabilities" or privileges.user is None
    uid, gid = privileges.user or (os.getuid(), os.getgid())
    error = lib.halo_drop_privileges(uid, gid, keep_uid)
    if error:
        raise HaloError(
            f"the worker cannot give up its privileges (uid {uid}, gid {gid}): {os.strerror(-error)}. "
            "Name another user with --user, or start without root."
        )


def _kcp_report() -> dict[str, Any] | None:
    """What the application's KCP says; nothing is imported for that."""
    module = sys.modules.get("halo_mp.kcp")
    return None if module is None else module.report()


def _end_without_memory() -> None:
    """End now. What a successor needs lies in shared memory, and it starts with a small process.

    Called where a MemoryError is caught, and by the reserve: then there is just enough to say so.
    """
    try:
        log.error("worker.no_memory", reason="Python has no memory left; ending, to be started anew")
        logs.flush(_LAST_LINE_S)
    finally:
        os._exit(EXIT_NO_MEMORY)


def _neighbor(item: Any) -> Neighbor:
    port, vlan, address, mac = item
    return int(port), int(vlan), int(address), bytes(mac)


def _place(item: Any) -> Place:
    port, vlan, address = item
    return int(port), int(vlan), int(address)


def _style(name: str) -> logs.Format:
    return "json" if name == "json" else "text"
