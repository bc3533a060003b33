# SPDX-License-Identifier: Apache-2.0
"""Keeping one child alive: the part that is the same for driver and workers.

A life is: spawn → hello → configured → useful → ended. The end of the process is the only end of a life;
whatever else goes wrong (silence, a broken channel, no progress) becomes a reason to kill it. After the end
the restart policy says when the next life begins. A child that never was useful and says why, or dies three
times, is a configuration that can not boot: that ends the instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.inbox import close_all
from halo_mp.control.messages import field
from halo_mp.errors import BootFailed, HaloError
from halo_mp.stats.status_model import ProcessState
from halo_mp.supervisor import boxes
from halo_mp.supervisor.greeter import Greeter
from halo_mp.supervisor.hang import START_GRACE_S
from halo_mp.supervisor.life import Life
from halo_mp.supervisor.process import first_of
from halo_mp.supervisor.reports import Reports
from halo_mp.supervisor.restart import Restart, RestartPolicy
from halo_mp.supervisor.wiring import role_name

BOOT_ATTEMPTS = 3
STOP_GRACE_S = 2.0  # between the request to stop and SIGTERM
CLOSING_GRACE_S = 1.0  # between the end of a channel and the end of its process
GREETING_GRACE_S = 0.2  # for a greeting that an ended process may have left in the socket
_EXIT_BOOT_FAILED = BootFailed.exit_code

log = logs.get("supervisor")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How children are started."""

    driver: Sequence[str] = (sys.executable, "-P", "-m", "halo_mp.supervisor.driver")
    worker: Sequence[str] = (sys.executable, "-P", "-m", "halo_mp.workers")
    start_grace_s: float = START_GRACE_S


class Keeper(ABC):
    """Keeps one child alive until `stop`. `run` is a task of the supervisor's for all that time."""

    def __init__(
        self,
        role: Literal["driver", "worker"],
        slot: int | None,
        greeter: Greeter,
        limits: tuple[tuple[int, float], float],
        start_grace_s: float,
    ) -> None:
        self.role = role
        self.slot = slot
        self.name = role_name(role, slot)
        self.life: Life | None = None
        self.restarts = 0
        self.failed_because: str | None = None  # while it waits out a back-off
        self.retry_at: float | None = None  # wall clock, for people; as long
        self.reports = Reports()  # the supervisor sets the instance's
        self._fields: dict[str, object] = {} if slot is None else {"slot": slot}
        self._greeter = greeter
        self._restart_limit, self.hang_timeout_s = limits
        self._policy = RestartPolicy(*self._restart_limit)
        self._start_grace_s = start_grace_s
        self._first: Life | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._was_useful = False
        self._boot_deaths = 0
        self._stop_asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_useful(self) -> bool:
        """Whether there is a process that does its work."""
        return self.life is not None and self.life.useful_since is not None

    @property
    def was_useful(self) -> bool:
        """Whether any of its processes ever did its work: if so, what is wrong now may pass."""
        return self._was_useful

    # ---- what differs

    @abstractmethod
    def _begin(self) -> Life:
        """Start the process, or take one that is ready. Raises OSError."""

    @abstractmethod
    async def _make_useful(self, life: Life, channel: Channel) -> None:
        """Configure a child that has greeted, and do what it needs until it is useful, and while it lives."""

    @abstractmethod
    async def _on_message(self, life: Life, message: Message) -> None:
        """Handle a message other than `failed`."""

    @abstractmethod
    def _on_ended(self, life: Life) -> None:
        """Take note that the process has ended, or has left its place in order, before there is another."""

    # ---- the same for both

    def adopt(self, life: Life) -> None:
        """Begin with a life that another supervisor started. Before `start`."""
        self._first = life
        self._was_useful = True

    @property
    def state(self) -> ProcessState:
        """What a person should know of it."""
        if self.life is not None:
            return "starting" if self.life.useful_since is None else "ready"
        if self._stop_asked.is_set():
            return "stopped"
        return "starting" if self.failed_because is None else "failed"

    def set_limits(self, restart_limit: tuple[int, float], hang_timeout_s: float) -> None:
        """Change how often it is started again, and how long it may hang; a life that has begun keeps that."""
        self.hang_timeout_s = hang_timeout_s
        if restart_limit != self._restart_limit:
            self._restart_limit = restart_limit
            self._policy = RestartPolicy(*restart_limit)

    def start(self) -> asyncio.Task[None]:
        """Start keeping; the task ends after `stop`, or with BootFailed."""
        self._task = asyncio.create_task(self._run(), name=f"keep {self.name}")
        return self._task

    async def stop(self) -> None:
        """End the child in order: asked, then SIGTERM, then SIGKILL. Then the task ends too."""
        self._stop_asked.set()
        if self._task is None:
            return
        if self.life is not None:
            await self._end(self.life)
        else:
            self._task.cancel()
            if self._first is not None:  # adopted, and not even begun
                await self._first.child.end()
                self._first.close()
        await asyncio.wait([self._task, *self._burials])
        if not self._task.cancelled():
            self._task.exception()  # the first failure ends the instance; those behind it are of no interest

    def kill(self) -> None:
        """End the child at once and start no other."""
        self._stop_asked.set()
        if self.life is not None:
            self.life.kill("the second signal came")

    async def _end(self, life: Life) -> None:
        if life.channel is not None:
            with contextlib.suppress(ChannelError, TimeoutError):
                await life.channel.request({"type": "stop"}, timeout_s=STOP_GRACE_S)
                await life.child.wait_for(STOP_GRACE_S)
        await life.child.end()

    async def _run(self) -> None:
        while (restart := await self._live_once()) is not None:
            await asyncio.sleep(restart.delay_s)
            self.failed_because = self.retry_at = None

    async def _live_once(self) -> Restart | None:
        """Live one life and return when to start the next, None when there shall be none. Raises BootFailed."""
        loop = asyncio.get_running_loop()
        if self._stop_asked.is_set():
            return None
        try:
            life = self.life = self._take_first() or self._begin()
        except OSError as error:
            return self._after(None, f"could not be started ({error.strerror})", loop.time())
        child = life.child
        event = f"{self.role}.adopted" if life.adopted else f"{self.role}.spawned"
        log.info(event, **self._fields, pid=child.pid)
        talk = asyncio.create_task(self._talk(life), name=f"talk to {self.name}")
        try:
            await first_of(child.wait(), life.left.wait())
            if not life.left.is_set():
                await self._drain(life)
        finally:
            talk.cancel()
            await asyncio.wait([talk])
            self._greeter.forget(child.pid)
            life.close()
            self.life = None
            self._on_ended(life)
        if life.left.is_set():
            self._bury(life)
            return Restart(delay_s=0.0, failed=False)
        if self._stop_asked.is_set():
            log.info(f"{self.role}.stopped", **self._fields, pid=child.pid)
            boxes.remove(child.box)
            return None
        return self._after(life, life.ending, loop.time())

    def _bury(self, life: Life) -> None:
        """See to the end of a process that has handed its place over, while its successor begins."""

        async def end() -> None:
            if not await life.child.wait_for(STOP_GRACE_S):
                await life.child.end()
            log.info(f"{self.role}.stopped", **self._fields, pid=life.child.pid)
            boxes.remove(life.child.box)

        task = asyncio.create_task(end(), name=f"bury {self.name}")
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    def _take_first(self) -> Life | None:
        life, self._first = self._first, None
        return life

    def _after(self, life: Life | None, ending: str, now: float) -> Restart:
        """Take stock of an end that nobody asked for."""
        useful_s = 0.0
        if life is not None and life.useful_since is not None:
            useful_s = now - life.useful_since
        elif not self._was_useful:
            self._raise_if_it_can_not_boot(life, ending)
        restart = self._policy.died(now, useful_s=useful_s)
        failure = life.failure if life is not None else None
        reason = failure or ending
        child = life.child if life is not None else None
        more = self.reports.ended(
            self.name,
            self.role,
            self.slot,
            child,
            restart,
            reason=ending,
            failure=failure,
            silence=life.silence if life is not None else None,
            useful_s=useful_s,
            restarts=self.restarts,
        )
        event = f"{self.role}.failed" if restart.failed else f"{self.role}.died"
        log.warning(
            event,
            **self._fields,
            pid=child.pid if child else None,
            reason=reason,
            useful_s=round(useful_s, 3),
            restart_in_s=round(restart.delay_s, 3),
            **more,
        )
        self.restarts += 1
        self.failed_because = reason if restart.failed else None
        self.retry_at = time.time() + restart.delay_s if restart.failed else None
        return restart

    def _raise_if_it_can_not_boot(self, life: Life | None, ending: str) -> None:
        self._boot_deaths += 1
        if life is not None and life.failure is not None:
            raise BootFailed(life.failure)
        if life is not None and life.child.exit_code == _EXIT_BOOT_FAILED and life.blamed_for is None:
            raise BootFailed(f"{self.name} can not start; it has said why above.")
        if self._boot_deaths >= BOOT_ATTEMPTS:
            raise BootFailed(f"{self.name} {ending}, the third time before it was ready.")

    async def _talk(self, life: Life) -> None:
        """Speak with the child until its channel ends. Whatever goes wrong, it is killed for."""
        try:
            life.channel = life.channel or await self._hello(life)
            await self._serve(life, life.channel)
            await self._let_end(life)
        except ProtocolError as error:
            life.blame(str(error))
            await self._let_end(life)
        except ChannelError:
            await self._let_end(life)
        except TimeoutError as error:
            life.kill_hung(str(error))
        except HaloError as error:
            life.failure = str(error)
            life.kill("could not be used")
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception(f"{self.role}.talk", **self._fields)
            life.kill("met an error of the supervisor's")

    async def _let_end(self, life: Life) -> None:
        """Give a child without a channel a moment to end by itself; most often that is why it has none."""
        if life.channel is not None:
            life.channel.close()
        await asyncio.sleep(CLOSING_GRACE_S)
        life.kill("closed its control channel")

    async def _drain(self, life: Life) -> None:
        """Let what an ended child said last be handled: it may be why it ended."""
        grace_s = GREETING_GRACE_S if life.channel is None else CLOSING_GRACE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await life.drained.wait()

    async def _hello(self, life: Life) -> Channel:
        greeted = self._greeter.expect(life.child.pid, self.role, self.slot)
        return await self.within_grace(greeted, "said nothing")

    async def _serve(self, life: Life, channel: Channel) -> None:
        """Receive until the channel ends, and do what is needed beside that."""

        async def handle(message: Message, fds: list[int]) -> None:
            close_all(fds)  # children have none to send
            if message["type"] == "failed":
                life.failure = field(message, "error", str)
            else:
                await self._on_message(life, message)

        serve = asyncio.create_task(channel.serve(handle))
        useful = asyncio.create_task(self._make_useful(life, channel))
        try:
            await asyncio.wait([serve, useful], return_when=asyncio.FIRST_COMPLETED)
            if useful.done():
                useful.result()
            await serve
        finally:
            serve.cancel()
            useful.cancel()
            await asyncio.gather(serve, useful, return_exceptions=True)
            life.drained.set()

    async def within_grace(self, what: Awaitable[T], failing: str, grace_s: float | None = None) -> T:
        """Await something that a child that starts must do soon. Raises TimeoutError with what it did instead."""
        grace_s = self._start_grace_s if grace_s is None else grace_s
        try:
            async with asyncio.timeout(grace_s):
                return await what
        except TimeoutError:
            raise TimeoutError(f"{failing} for {grace_s:g} s after it was started") from None

    def _mark_useful(self, life: Life) -> None:
        life.useful_since = asyncio.get_running_loop().time()
        self._was_useful = True
        log.info(f"{self.role}.ready", **self._fields, pid=life.child.pid)
