# SPDX-License-Identifier: Apache-2.0
"""Hooks as the worker calls them, in each form: verdicts, exceptions, octets; and what debug mode notices."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halo_mp.app import Burst, Packet, Verdict
from halo_mp.app.registry import HookSpec, make_hook
from halo_mp.app.trial import Settled, Trial
from halo_mp.app.verdict import Form
from halo_mp.shm.layout import ffi
from halo_mp.workers import hook_leaks
from halo_mp.workers.compiled import NotCompiled, compile_hook
from halo_mp.workers.compiler import command
from halo_mp.workers.fingerprint import Fingerprint
from halo_mp.workers.hook_leaks import LeakyBurstRunner, LeakyPacketRunner
from halo_mp.workers.hook_runners import ERROR, BurstRunner, PacketRunner, Runner
from halo_mp.workers.settings import AppSettings
from tests.support import frames
from tests.unit.app.test_packet import assert_sound, ip_frame, udp_frame

FRAMES = [udp_frame(), ip_frame(bytes(20), protocol=6), ip_frame(frames.icmp(8, 0), protocol=1), udp_frame()]
PORT = 53


def spec_of(
    function: Callable[..., Any], *, form: Form = "packet", on_error: Any = "pass", jit: bool = False
) -> HookSpec:
    return make_hook(
        function,
        "ingress",
        form=form,
        jit=jit,
        ports=None,
        interface=None,
        priority=0,
        name=None,
        on_error=on_error,
    )


def compiled(spec: HookSpec, trial: Trial) -> Runner:
    """A compiled hook as the fast path calls it."""
    function = ffi.cast("halo_hook_function", compile_hook(spec, None))

    def run(packets: Any, count: int) -> int:
        return int(function(packets, count, trial.pool))

    return run


def interpreted(spec: HookSpec, trial: Trial) -> Runner:
    return PacketRunner(spec, trial.pool, lambda: None)


def watched(spec: HookSpec, trial: Trial) -> Runner:
    return LeakyPacketRunner(spec, trial.pool, lambda: None)


MAKERS = [interpreted, watched, compiled]


def run(make: Callable[[HookSpec, Trial], Runner], function: Callable[..., Any]) -> list[Settled]:
    trial = Trial(FRAMES)
    make(spec_of(function, jit=True), trial)(trial.packets, trial.count)
    return trial.settle()


def drop_and_rewrite(packet: Packet) -> Verdict | None:
    """Drop ICMP echo requests and TCP, send datagrams to another port."""
    if packet.icmp.type == 8 or packet.ipv4.protocol == 6:
        return Verdict.DROP
    if packet.udp.dport == PORT:
        packet.udp.dport = 5353
        packet.ipv4.ttl -= 1
    return None


@pytest.mark.parametrize("make", MAKERS)
def test_each_form_of_a_function_means_the_same(make: Callable[[HookSpec, Trial], Runner]) -> None:
    settled = run(make, drop_and_rewrite)
    assert [each.verdict for each in settled] == [Verdict.PASS, Verdict.DROP, Verdict.DROP, Verdict.PASS]
    for each in (settled[0], settled[3]):
        assert assert_sound(each.frame).dst_port == 5353
        assert each.frame[22] == 63


def swap_addresses(packet: Packet, octets: Any) -> int:
    """Swap the MAC addresses of what is no TCP."""
    if packet.ipv4.protocol == 6:
        return 0
    for place in range(6):
        here = octets[place]
        octets[place] = octets[place + 6]
        octets[place + 6] = here
    packet.tx_port = packet.port
    return 1


@pytest.mark.parametrize("make", MAKERS)
def test_octets_are_the_frame(make: Callable[[HookSpec, Trial], Runner]) -> None:
    settled = run(make, swap_addresses)
    assert [int(each.verdict) for each in settled] == [1, 0, 1, 1]
    assert settled[0].frame[:12] == FRAMES[0][6:12] + FRAMES[0][:6]
    assert settled[1].frame == FRAMES[1]


def raise_for_tcp(packet: Packet) -> None:
    if packet.ipv4.protocol == 6:
        raise ValueError("no TCP here")
    packet.mark = 7


def read_behind_the_frame(packet: Packet, octets: Any) -> None:
    if packet.ipv4.protocol == 6:
        octets[0] = octets[2000]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("function", [raise_for_tcp, read_behind_the_frame])
def test_exception_costs_that_packet(
    make: Callable[[HookSpec, Trial], Runner], function: Callable[..., Any]
) -> None:
    trial = Trial(FRAMES)
    make(spec_of(function, jit=True), trial)(trial.packets, trial.count)
    assert [trial.packets[index].verdict for index in range(4)] == [0, ERROR, 0, 0]


def leave(packet: Packet) -> None:
    sys.exit("no")


def say_nonsense(packet: Packet) -> Any:
    return "drop it"


@pytest.mark.parametrize("function", [leave, say_nonsense])
def test_what_is_no_verdict_and_no_exception_costs_that_packet(function: Callable[..., Any]) -> None:
    trial, failures = Trial(FRAMES), []
    PacketRunner(spec_of(function), trial.pool, lambda: failures.append(sys.exception()))(trial.packets, 4)
    assert [trial.packets[index].verdict for index in range(4)] == [ERROR] * 4
    assert len(failures) == 4
    assert None not in failures


def test_objects_are_used_again_wherever_a_burst_starts() -> None:
    seen: list[Packet] = []
    trial = Trial(FRAMES)
    runner = PacketRunner(spec_of(seen.append), trial.pool, lambda: None)
    runner(trial.packets, 4)
    runner(trial.packets + 1, 2)
    assert [id(each) for each in seen[4:]] == [id(each) for each in seen[1:3]]


# ---- bursts


def drop_tcp(burst: Burst) -> None:
    burst.drop(burst.ipv4.protocol == 6)


@pytest.mark.parametrize("kind", [BurstRunner, LeakyBurstRunner])
def test_burst_is_what_was_parked(kind: type[BurstRunner]) -> None:
    trial = Trial(FRAMES)
    runner = kind(spec_of(drop_tcp, form="burst"), trial.pool, trial.geometry, lambda: None)
    assert runner(trial.packets + 1, 3) == 0
    assert [each.verdict for each in trial.settle()] == [
        Verdict.PASS,
        Verdict.DROP,
        Verdict.PASS,
        Verdict.PASS,
    ]


def raise_after_dropping(burst: Burst) -> None:
    burst.drop()
    raise ValueError("no")


@pytest.mark.parametrize(
    ("on_error", "verdict", "reason"), [("pass", Verdict.PASS, None), ("drop", Verdict.DROP, "hook_error")]
)
def test_exception_costs_that_burst(on_error: str, verdict: Verdict, reason: str | None) -> None:
    trial = Trial(FRAMES)
    spec = spec_of(raise_after_dropping, form="burst", on_error=on_error)
    assert BurstRunner(spec, trial.pool, trial.geometry, lambda: None)(trial.packets, 4) == 1
    assert [(each.verdict, each.reason) for each in trial.settle()] == [(verdict, reason)] * 4


# ---- debug mode


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What leaks were told of."""
    found: list[str] = []
    monkeypatch.setattr(hook_leaks._Teller, "tell", lambda _, what: found.append(what))
    return found


def test_packet_that_is_kept_is_told_and_refuses(told: list[str]) -> None:
    kept: list[Any] = []

    def keeper(packet: Packet) -> None:
        kept.append(packet)

    trial = Trial(FRAMES[:1])
    LeakyPacketRunner(spec_of(keeper), trial.pool, lambda: None)(trial.packets, 1)
    assert told == ["the packet"]
    for look in (lambda p: p.length, lambda p: p.ipv4.src, lambda p: p.octets):
        with pytest.raises(RuntimeError, match="this burst has ended: hook keeper kept a view of it"):
            look(kept[0])


@pytest.mark.parametrize(
    ("what", "look"),
    [
        ("packet.octets", lambda packet: packet.octets),
        ("a view of packet.octets", lambda packet: packet.octets[4:]),
        ("packet.ipv4", lambda packet: packet.ipv4),
    ],
)
def test_view_of_a_packet_that_is_kept_is_told(
    told: list[str], what: str, look: Callable[[Packet], Any]
) -> None:
    kept: list[Any] = []

    def keeper(packet: Packet) -> None:
        kept.append(look(packet))

    trial = Trial(FRAMES[:1])
    LeakyPacketRunner(spec_of(keeper), trial.pool, lambda: None)(trial.packets, 1)
    assert [what in each for each in told] == [True]
    if what == "packet.octets":
        with pytest.raises(ValueError, match="released"):
            _ = kept[0][0]


@pytest.mark.parametrize(
    ("what", "look"),
    [
        ("a column", lambda burst: burst.ipv4.src[1:]),
        ("burst.pool", lambda burst: burst.pool[:9]),
        ("the burst", lambda burst: burst),
    ],
)
def test_what_is_kept_of_a_burst_is_told(told: list[str], what: str, look: Callable[[Burst], Any]) -> None:
    kept: list[Any] = []

    def keeper(burst: Burst) -> None:
        kept.append(look(burst))

    trial = Trial(FRAMES)
    runner = LeakyBurstRunner(spec_of(keeper, form="burst"), trial.pool, trial.geometry, lambda: None)
    runner(trial.packets, 4)
    assert told == [what]
    if what == "the burst":
        with pytest.raises(RuntimeError, match="this burst has ended: hook keeper"):
            _ = kept[0].length


def test_what_is_copied_or_only_looked_at_is_not_told(told: list[str]) -> None:
    kept: list[Any] = []

    def careful(burst: Burst) -> None:
        kept.append((burst.ipv4.src.copy(), burst.octets[:, 0:6], burst.length > 60, int(burst.pool[0])))

    def careful_packet(packet: Packet) -> None:
        kept.append((packet.ipv4.src, bytes(packet.octets)))

    trial = Trial(FRAMES)
    LeakyBurstRunner(spec_of(careful, form="burst"), trial.pool, trial.geometry, lambda: None)(
        trial.packets, 4
    )
    LeakyPacketRunner(spec_of(careful_packet), trial.pool, lambda: None)(trial.packets, 4)
    assert len(kept) == 5
    assert told == []


# ---- compiling


def call_what_is_not_there(packet: Packet) -> Any:
    return nobody(packet)  # type: ignore[name-defined]  # noqa: F821


def test_function_that_does_not_compile_says_why() -> None:
    with pytest.raises(NotCompiled, match="nobody"):
        compile_hook(spec_of(call_what_is_not_there, jit=True), None)


def test_compiled_code_is_found_in_the_cache_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(drop_and_rewrite, jit=True)
    with pytest.raises(NotCompiled, match="not in the cache"):
        compile_hook(spec, tmp_path, cached_only=True)
    compile_hook(spec, tmp_path)
    compile_hook(spec, tmp_path, cached_only=True)
    monkeypatch.setattr(sys.modules[__name__], "PORT", 54)
    with pytest.raises(NotCompiled, match="not in the cache"):
        compile_hook(spec, tmp_path, cached_only=True)


def fingerprint_of(source: str, **globals_: Any) -> str:
    exec(source, globals_)
    return Fingerprint(globals_["f"]).text


SETTINGS = types.ModuleType("settings")
SETTINGS.inner = types.ModuleType("settings.inner")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("def f(p): return PORTS", "globals"),
        ("def f(p): return [each for each in (1, 2) if each in PORTS]", "globals"),
        ("def f(p): return settings.PORTS", "settings"),
        ("def f(p): return settings.inner.PORTS", "settings.inner"),
        ("def g(p): return settings.PORTS\ndef f(p): return [g(p) for _ in (1,)]", "settings"),
    ],
)
def test_fingerprint_changes_with_a_value_wherever_it_is(
    source: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a filter would go on with the values that it had before its file was edited."""
    values: dict[str, Any] = {"settings": SETTINGS, "numpy": np}
    modules = {"settings": SETTINGS, "settings.inner": SETTINGS.inner}  # type: ignore[attr-defined]
    found = []
    for ports in ((23,), (24,), (23,)):
        for module in modules.values():
            monkeypatch.delattr(module, "PORTS", raising=False)
        if place == "globals":
            values["PORTS"] = ports
        else:
            monkeypatch.setattr(modules[place], "PORTS", ports, raising=False)
        found.append(fingerprint_of(source, **values))
    assert found[0] == found[2] != found[1]


def test_function_that_no_other_process_can_find_is_not_compiled(tmp_path: Path) -> None:
    settings = AppSettings("app.py", "", "app", ".", False)
    spec = spec_of(functools.wraps(drop_and_rewrite)(lambda packet: None), jit=True)
    with pytest.raises(NotCompiled, match=r"is no global of .*test_hook_runners"):
        command(settings, spec, tmp_path)
