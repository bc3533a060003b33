# SPDX-License-Identifier: Apache-2.0
"""The hooks of an application in its worker: which there are, whose turn it is, and what becomes of those that fail.

    added → active → quarantined (fails too often: its policy decides for it) → removed

A hook that is written in Python is called between two polls, with the burst parked; one that is compiled is called by
the fast path itself, and looked after here once a second.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from typing import Any

from halo_mp import logs
from halo_mp.app.registry import HookSpec
from halo_mp.shm.layout import ffi
from halo_mp.shm.tables import Interface
from halo_mp.workers.bounded_log import BoundedLog
from halo_mp.workers.fastpath_hooks import MAX_HOOKS, NO_INTERFACE, FastPathHooks, HookPolicy
from halo_mp.workers.hook_leaks import LeakyBurstRunner, LeakyPacketRunner
from halo_mp.workers.hook_runners import BurstRunner, PacketRunner, Runner

NOWHERE = NO_INTERFACE - 1
"""The number of an interface that is not there."""
MOST_ERRORS = 100
"""In WINDOW_S; and of more than half of what the hook was shown. Then it is quarantined."""
WINDOW_S = 10.0

log = logs.get("app")


class Hook:
    """One that has been added."""

    def __init__(self, spec: HookSpec) -> None:
        self.spec = spec
        self.number = -1
        self.run: Runner | None = None
        self.native = False
        self.quarantined = False
        self.window_began = 0.0
        self.shown = 0  # in this window: packets, or bursts
        self.showing = 0  # the same of the call that is under way
        self.errors = 0
        self.counted = 0, 0  # of a native one: errors and packets, as they were at the last look

    def begin_window(self, now: float) -> None:
        """Count anew."""
        self.window_began, self.shown, self.errors = now, 0, 0

    @property
    def fails_too_often(self) -> bool:
        """Whether it shall be called no more."""
        return self.errors >= MOST_ERRORS and 2 * self.errors > self.shown


class HookHost:
    """Runs the hooks of one worker."""

    def __init__(
        self,
        hooks: FastPathHooks,
        pool: Any,
        slot: Any,
        *,
        debug: bool,
        errors: BoundedLog,
        on_failed: Callable[[str], None],
    ) -> None:
        """`slot` is the shared struct halo_slot. `on_failed` ends the worker, with a sentence."""
        self._hooks = hooks
        self._pool = pool
        self._slot = slot
        self._debug = debug
        self._log = errors
        self._on_failed = on_failed
        self._by_number: dict[int, Hook] = {}
        self._interfaces: dict[tuple[int, int], int] = {}

    def names(self) -> list[tuple[int, str]]:
        """Return number and name of each."""
        return [(number, hook.spec.name) for number, hook in self._by_number.items()]

    def add(self, spec: HookSpec, function: int = 0) -> int:
        """Add a hook from the next burst on and return its number; `function`: the address of compiled code.

        Raises ValueError with a sentence when there is no room for it; ImportError without what it needs.
        """
        hook = Hook(spec)
        hook.native = function != 0
        hook.run = None if function else self._runner(hook)
        ports = sum(1 << port for port in spec.ports or ())
        try:
            hook.number = self._hooks.add(
                spec.name,
                spec.stage,
                priority=spec.priority,
                ports=ports,
                interface=self._interface(spec),
                on_error=HookPolicy.DROP if spec.on_error == "drop" else HookPolicy.PASS,
                function=function,
            )
        except OSError as error:
            why = f"there are {MAX_HOOKS}; remove one" if error.errno == errno.ENOSPC else error.strerror
            raise ValueError(f"hook {spec.name} can not be added: {why}") from None
        hook.begin_window(time.monotonic())
        self._by_number[hook.number] = hook
        return hook.number

    def make_native(self, number: int, spec: HookSpec, function: int) -> bool:
        """Let compiled code take over from the next burst on; False when the hook is gone, or in quarantine."""
        hook = self._by_number.get(number)
        if hook is None or hook.spec is not spec or hook.quarantined:
            return False  # another hook may have its number by now
        self._hooks.set_function(number, function)
        hook.native = True
        counters = self._slot.hook[number]
        hook.counted = counters.errors, counters.packets  # it knows of them
        return True

    def remove(self, number: int) -> None:
        """Remove a hook from the next burst on."""
        if self._by_number.pop(number, None) is not None:
            self._hooks.remove(number)

    def set_interfaces(self, interfaces: Mapping[int, Interface]) -> None:
        """Follow the interfaces, by their numbers, for hooks that name one."""
        self._interfaces = {entry.key: number for number, entry in interfaces.items()}
        for number, hook in self._by_number.items():
            if hook.spec.interface is not None:
                self._hooks.set_interface(number, self._interface(hook.spec))

    def run(self) -> None:
        """Show the packets that the last poll has parked to the hook that is meant."""
        number, packets, count = self._hooks.parked()
        hook = self._by_number.get(number)
        if hook is None or hook.run is None or hook.quarantined:
            return  # it was removed in this very burst
        hook.showing = count if hook.spec.form == "packet" else 1
        hook.shown += hook.showing
        errors = hook.run(packets, count)
        if errors:
            self._hooks.count_errors(number, errors)
        if hook.errors and hook.fails_too_often and self._by_number.get(number) is hook:
            self._quarantine(hook)

    def look_after(self) -> None:
        """Look at what compiled hooks have counted; once a second."""
        now = time.monotonic()
        for hook in list(self._by_number.values()):
            if not hook.native or hook.quarantined:
                continue
            counters = self._slot.hook[hook.number]
            errors, packets = counters.errors, counters.packets
            failed = errors - hook.counted[0]
            if now - hook.window_began > WINDOW_S:
                hook.begin_window(now)
            hook.errors += failed
            hook.shown += packets - hook.counted[1]
            hook.counted = errors, packets
            if failed:
                log.error("hook.failed", name=hook.spec.name, exceptions=failed, compiled=True)
            if hook.fails_too_often:
                self._quarantine(hook)

    # ---- private

    def _runner(self, hook: Hook) -> Runner:
        def failed() -> None:
            now = time.monotonic()
            if now - hook.window_began > WINDOW_S:
                hook.begin_window(now)
                hook.shown = hook.showing
            hook.errors += 1
            self._log.exception("hook.failed", hook.spec.name, now)

        spec, geometry = hook.spec, ffi.addressof(self._slot.geometry, "pool")
        if spec.form == "burst":
            kind = LeakyBurstRunner if self._debug else BurstRunner
            return kind(spec, self._pool, geometry, failed)
        return (LeakyPacketRunner if self._debug else PacketRunner)(spec, self._pool, failed)

    def _interface(self, spec: HookSpec) -> int:
        if spec.interface is None:
            return NO_INTERFACE
        return self._interfaces.get(spec.interface, NOWHERE)

    def _quarantine(self, hook: Hook) -> None:
        hook.quarantined = True
        spec = hook.spec
        policy = HookPolicy.DROP if spec.on_error == "drop" else HookPolicy.PASS
        self._hooks.quarantine(hook.number, policy)
        log.error("hook.quarantined", name=spec.name, errors=hook.errors, of=hook.shown, policy=spec.on_error)
        if spec.on_error == "stop":
            self._on_failed(
                f"the hook {spec.name} of the application failed {hook.errors} times within {WINDOW_S:g} s, and "
                "on_error is stop; the log has its traceback."
            )
