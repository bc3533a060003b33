# SPDX-License-Identifier: Apache-2.0
"""What an application registers: kept as values, and refused in sentences."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from halo_mp.app import App, Burst, Packet, Verdict, Worker
from halo_mp.app.verdict import Stage


def seen(packet: Packet) -> None:
    del packet


def seen_with_octets(packet: Packet, octets: memoryview) -> None:
    del packet, octets


def test_hook_is_kept_with_what_was_said_of_it() -> None:
    app = App("filter")
    assert app.hook("forward", ports=[0, 3], interface="0.100", priority=-5, on_error="drop")(seen) is seen
    [spec] = app.hooks
    assert (spec.name, spec.stage, spec.form, spec.jit, spec.octets) == (
        "seen",
        Stage.FORWARD,
        "packet",
        False,
        False,
    )
    assert (spec.ports, spec.interface, spec.priority, spec.on_error) == ({0, 3}, (0, 100), -5, "drop")


def test_second_parameter_asks_for_octets() -> None:
    app = App()
    app.hook("ingress", jit=True)(seen_with_octets)
    assert app.hooks[0].octets


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (["sideways"], {}, "stage 'sideways' is none of ingress, forward, egress"),
        (["ingress"], {"form": "frame"}, "form 'frame' is none of packet, burst"),
        (["ingress"], {"on_error": "explode"}, "on_error 'explode' is none of pass, drop, stop"),
        (["ingress"], {"form": "burst", "jit": True}, "jit=True compiles a function of one packet"),
        (["ingress"], {"ports": [64]}, "name ports by number, 0 to 63"),
        (["ingress"], {"ports": []}, "name ports by number, 0 to 63"),
        (["ingress"], {"interface": "eth0"}, "an interface is '0', or '0.100'"),
        (["ingress"], {"name": "x" * 32}, "a name has 1 to 31 octets"),
        (["ingress"], {"priority": 1 << 40}, "priority 1099511627776 is beyond"),
    ],
)
def test_hook_that_makes_no_sense_is_refused(
    arguments: list[Any], options: dict[str, Any], sentence: str
) -> None:
    app = App()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        app.hook(*arguments, **options)(seen)
    assert app.hooks == []


async def waits(packet: Packet) -> None:
    del packet


def takes_nothing() -> None: ...


def burst_with_octets(burst: Burst, octets: bytes) -> None:
    del burst, octets


@pytest.mark.parametrize(
    ("function", "form", "sentence"),
    [
        (waits, "packet", "a hook is no coroutine"),
        (takes_nothing, "packet", r"called as f(packet) or f(packet, octets), and takes 0"),
        (burst_with_octets, "burst", r"called as f(burst), and takes 2"),
    ],
)
def test_function_of_another_shape_is_refused(function: Callable[..., Any], form: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        App().hook("ingress", form=form)(function)


def test_callbacks_timers_and_tasks_are_kept_in_order() -> None:
    app = App()

    @app.on_start
    def first(worker: Worker) -> None: ...

    @app.on_start
    async def second(worker: Worker) -> None: ...

    @app.on_stop
    def last(worker: Worker) -> None: ...

    @app.every(0.5)
    def tick(worker: Worker) -> None: ...

    @app.task
    async def beside(worker: Worker) -> None: ...

    assert app.starts == [first, second]
    assert app.stops == [last]
    assert [(timer.function, timer.interval_s) for timer in app.timers] == [(tick, 0.5)]
    assert app.tasks == [beside]


@pytest.mark.parametrize("interval_s", [0, -1, float("nan"), 1e7])
def test_interval_that_makes_no_sense_is_refused(interval_s: float) -> None:
    with pytest.raises(ValueError, match=r"an interval has 0\.001 to 1,000,000 seconds"):
        App().every(interval_s)(lambda worker: None)


def test_task_that_is_no_coroutine_function_is_refused() -> None:
    with pytest.raises(TypeError, match="write async def"):
        App().task(lambda worker: None)  # type: ignore[arg-type, return-value]


def test_worker_outside_of_one_says_so() -> None:
    with pytest.raises(RuntimeError, match="there inside a worker only"):
        _ = App().worker


def test_verdicts_are_those_of_the_fast_path() -> None:
    assert [verdict.name for verdict in Verdict] == ["PASS", "TRANSMIT", "DROP", "PUNT", "CONSUME"]
    assert int(Verdict.PASS) == 0
