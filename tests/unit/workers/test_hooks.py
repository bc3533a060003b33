# SPDX-License-Identifier: Apache-2.0
"""Which hooks a worker has: when one fails too often, and whose compiled code is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from halo_mp.app import Packet
from halo_mp.app.registry import HookSpec, make_hook
from halo_mp.app.trial import Trial
from halo_mp.shm.layout import ffi
from halo_mp.shm.load import HookState
from halo_mp.workers import hooks as hooks_module
from halo_mp.workers.bounded_log import BoundedLog
from halo_mp.workers.fastpath_hooks import FastPathHooks, Parked
from halo_mp.workers.hooks import MOST_ERRORS, WINDOW_S, HookHost
from tests.unit.app.test_packet import udp_frame
from tests.unit.workers.rig import Rig, rig

BURST = 512


class Shows(FastPathHooks):
    """Hooks that are shown packets of the test."""

    trial: Trial
    number: int

    def parked(self) -> Parked:
        return Parked(self.number, self.trial.packets, self.trial.count)


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, {}) as started:
        yield started


@pytest.fixture
def shows(made: Rig) -> Shows:
    return Shows(made.fastpath)


@pytest.fixture
def host(made: Rig, shows: Shows) -> HookHost:
    return HookHost(
        shows, made.pool, made.slot, debug=False, errors=BoundedLog(), on_failed=lambda sentence: None
    )


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(hooks_module.time, "monotonic", lambda: clock[0])
    return clock


def spec_of(function: Callable[[Packet], Any], *, jit: bool = False) -> HookSpec:
    return make_hook(
        function,
        "ingress",
        form="packet",
        jit=jit,
        ports=None,
        interface=None,
        priority=0,
        name=None,
        on_error="pass",
    )


def fails_on(share: float) -> Callable[[Packet], None]:
    """Return a hook that raises on the first packets of each burst."""
    shown = 0

    def fail(packet: Packet) -> None:
        nonlocal shown
        shown += 1
        if (shown - 1) % BURST < share * BURST:
            raise ValueError(shown)

    return fail


@pytest.mark.parametrize(("share", "state"), [(0.4, HookState.ACTIVE), (0.6, HookState.QUARANTINED)])
def test_hook_that_fails_on_less_than_half_is_kept_however_late(
    host: HookHost, shows: Shows, made: Rig, now: list[float], share: float, state: HookState
) -> None:
    """Also when its first errors are in the first burst of a window."""
    assert share * BURST > MOST_ERRORS
    shows.trial = Trial([udp_frame()] * BURST)
    shows.number = host.add(spec_of(fails_on(share)))
    now[0] += WINDOW_S + 1
    host.run()
    assert made.slot.hook[shows.number].state == state


def test_compiled_code_is_for_the_hook_that_asked_for_it(host: HookHost, made: Rig) -> None:
    """The number of a hook that was removed is another's by the time that its code is there."""

    @ffi.callback("int64_t(struct halo_packet *, int64_t, uint8_t *)")
    def code(packets: Any, count: int, pool: Any) -> int:
        return 0

    address = int(ffi.cast("uintptr_t", code))
    first, second = spec_of(lambda packet: None, jit=True), spec_of(lambda packet: None, jit=True)
    number = host.add(first)
    host.remove(number)
    while host.add(second) != number:
        pass  # places that were never used come first
    assert not host.make_native(number, first, address)
    assert host.make_native(number, second, address)


def test_errors_of_a_hook_before_it_was_compiled_count_once(
    host: HookHost, shows: Shows, made: Rig, now: list[float]
) -> None:
    @ffi.callback("int64_t(struct halo_packet *, int64_t, uint8_t *)")
    def code(packets: Any, count: int, pool: Any) -> int:
        return 0

    spec = spec_of(fails_on(1.0), jit=True)
    shows.trial = Trial([udp_frame()] * (MOST_ERRORS - 1))
    shows.number = host.add(spec)
    host.run()
    counters = made.slot.hook[shows.number]
    counters.errors, counters.packets = MOST_ERRORS - 1, MOST_ERRORS - 1  # as the fast path counts them
    assert host.make_native(shows.number, spec, int(ffi.cast("uintptr_t", code)))
    host.look_after()
    assert counters.state == HookState.ACTIVE
