# SPDX-License-Identifier: Apache-2.0
"""How a worker gets along, and its hooks, as its slot's region tells: read-only, asking nobody.

Each word has one writer and never tears; words of one distribution were not read at one instant, so sums are made of
what was read. A hook's name and its state agree: the name is copied again when the state moved meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from itertools import takewhile
from typing import Any

from halo_mp.shm.counters import COPY_ATTEMPTS
from halo_mp.shm.layout import ffi, lib
from halo_mp.shm.region import Region

BURST_BOUNDS = tuple(2**bits - 1 for bits in range(1, lib.HALO_BURST_BUCKETS - 1))
"""Most frames of a burst in each bucket from the second on; the last is without a bound. No burst is empty."""
LAG_BOUNDS_NS = tuple(1024 << bits for bits in range(lib.HALO_LAG_BUCKETS - 1))
"""Each lag of a bucket is shorter than this; the last bucket is without a bound."""
HOOK_COUNTERS = ("calls", "packets", "dropped", "rewritten", "errors", "busy_ns")
"""What is counted of a hook."""

_MAX_HOOKS: int = lib.HALO_MAX_HOOKS


class TimedStage(IntEnum):
    """The stages that are timed; see enum halo_timed_stage."""

    RECEIVE = lib.HALO_TIMED_RECEIVE
    PARSE = lib.HALO_TIMED_PARSE
    INPUT = lib.HALO_TIMED_INPUT
    ROUTE = lib.HALO_TIMED_ROUTE
    FORWARD = lib.HALO_TIMED_FORWARD
    FINISH = lib.HALO_TIMED_FINISH


STAGES = tuple(stage.name.lower() for stage in TimedStage)


class HookState(IntEnum):
    """See enum halo_hook_state."""

    FREE = lib.HALO_HOOK_FREE
    ACTIVE = lib.HALO_HOOK_ACTIVE
    QUARANTINED = lib.HALO_HOOK_QUARANTINED
    REMOVED = lib.HALO_HOOK_REMOVED


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """Since the region was made."""

    bursts: tuple[int, ...]
    """By their frames: up to 1, 3, 7 ... (`BURST_BOUNDS`), and more."""
    lags: tuple[int, ...]
    """Times that Python kept the worker from its rings, by how long (`LAG_BOUNDS_NS`)."""
    lag_ns: int
    lag_max_ns: int
    rx_depth_max: int
    """Frames that waited on the rx ring when a burst was taken from it."""
    timed_frames: int
    cycles: dict[str, int]
    """Of these frames, by stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookStats:
    """A hook of an application."""

    name: str
    state: str
    stage: int
    calls: int
    packets: int
    dropped: int
    rewritten: int
    errors: int
    busy_ns: int


def read_load(region: Region) -> WorkerLoad:
    """Return how the worker of a slot gets along."""
    load = region.pointer.load
    bursts = ffi.unpack(load.burst, lib.HALO_BURST_BUCKETS)
    cycles = ffi.unpack(load.cycles, len(TimedStage))
    return WorkerLoad(
        bursts=(bursts[0] + bursts[1], *bursts[2:]),
        lags=tuple(ffi.unpack(load.lag, lib.HALO_LAG_BUCKETS)),
        lag_ns=load.lag_ns,
        lag_max_ns=load.lag_max_ns,
        rx_depth_max=load.rx_depth_max,
        timed_frames=load.timed_frames,
        cycles=dict(zip(STAGES, cycles, strict=True)),
    )


def read_hooks(region: Region) -> tuple[HookStats, ...]:
    """Return the hooks of the worker of a slot, in the order in which they were added."""
    hooks = region.pointer.hook
    used = takewhile(
        lambda hook: hook.state, (hooks[i] for i in range(_MAX_HOOKS))
    )  # no place becomes free again
    return tuple(map(_hook, used))


def _hook(hook: Any) -> HookStats:
    state, name = _state_and_name(hook)
    for _ in range(COPY_ATTEMPTS):
        if hook.state == state:
            break
        state, name = _state_and_name(hook)
    known = state in HookState.__members__.values()
    return HookStats(
        name=name,
        state=HookState(state).name.lower() if known else str(state),
        stage=hook.stage,
        **{word: getattr(hook, word) for word in HOOK_COUNTERS},
    )


def _state_and_name(hook: Any) -> tuple[int, str]:
    return hook.state, bytes(ffi.string(hook.name)).decode("utf-8", "replace")
