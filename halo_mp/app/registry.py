# SPDX-License-Identifier: Apache-2.0
"""What an application has registered, as values. The worker reads them; nothing here runs anything."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from halo_mp.app.verdict import Form, OnError, Stage, StageName

if TYPE_CHECKING:
    from halo_mp.app.worker import Worker

Callback = Callable[["Worker"], Awaitable[None] | None]
Task = Callable[["Worker"], Awaitable[None]]

MOST_PRIORITY = 1_000_000
MOST_HOOK_NAME_OCTETS = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSpec:
    """A hook: a function, where it is, and which packets it is shown."""

    function: Callable[..., Any]
    name: str
    stage: Stage
    form: Form
    jit: bool = False
    octets: bool = False
    """Form packet: the function has a second parameter, for the octets of the frame."""
    ports: frozenset[int] | None = None
    """At ingress and forward of the port that a packet came in by, at egress of the one it leaves by; None: any."""
    interface: tuple[int, int] | None = None
    """Port and VLAN; None: any."""
    priority: int = 0
    """The lowest is first; of equal ones, the one that was added first."""
    on_error: OnError = "pass"


@dataclass(frozen=True, slots=True)
class TimerSpec:
    """A function that is called every so many seconds."""

    function: Callback
    interval_s: float


def make_hook(
    function: Callable[..., Any],
    stage: StageName,
    *,
    form: Form,
    jit: bool,
    ports: Iterable[int] | None,
    interface: str | None,
    priority: int,
    name: str | None,
    on_error: OnError,
) -> HookSpec:
    """Return a hook. Raises ValueError, TypeError with a sentence when it makes no sense."""
    called = str(name or getattr(function, "__name__", "hook"))
    _check_choice(called, "stage", stage, get_args(StageName))
    _check_choice(called, "form", form, get_args(Form))
    _check_choice(called, "on_error", on_error, get_args(OnError))
    if not called or len(called.encode()) > MOST_HOOK_NAME_OCTETS:
        raise ValueError(f"hook {called!r}: a name has 1 to {MOST_HOOK_NAME_OCTETS} octets; give name=...")
    if jit and form != "packet":
        raise ValueError(f"hook {called}: jit=True compiles a function of one packet; leave form='burst' out")
    if abs(priority) > MOST_PRIORITY:
        raise ValueError(f"hook {called}: priority {priority} is beyond +-{MOST_PRIORITY}")
    return HookSpec(
        function=function,
        name=called,
        stage=Stage[stage.upper()],
        form=form,
        jit=jit,
        octets=_wants_octets(function, called, form),
        ports=None if ports is None else _ports(called, ports),
        interface=None if interface is None else _interface(called, interface),
        priority=priority,
        on_error=on_error,
    )


def make_timer(function: Callback, interval_s: float) -> TimerSpec:
    """Return a timer. Raises ValueError for an interval that makes no sense."""
    if not 0.001 <= interval_s <= 1e6:
        raise ValueError(f"app.every({interval_s}): an interval has 0.001 to 1,000,000 seconds")
    return TimerSpec(function, interval_s)


def _check_choice(called: str, what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"hook {called}: {what} {value!r} is none of {', '.join(choices)}")


def _wants_octets(function: Callable[..., Any], called: str, form: Form) -> bool:
    """Whether a hook takes (packet, octets). Raises TypeError when it takes anything but what its form has."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"hook {called}: a hook is no coroutine: the packets wait for it; write def")
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind in positional and each.default is each.empty
    ]
    if len(needed) == 1 or (len(needed) == 2 and form == "packet"):
        return len(needed) == 2
    shape = "f(burst)" if form == "burst" else "f(packet) or f(packet, octets)"
    raise TypeError(f"hook {called}: it is called as {shape}, and takes {len(needed)} arguments")


def _ports(called: str, ports: Iterable[int]) -> frozenset[int]:
    found = frozenset(ports)
    wrong = [each for each in found if not 0 <= each < 64]
    if wrong or not found:
        raise ValueError(f"hook {called}: ports={sorted(found)}: name ports by number, 0 to 63")
    return found


def _interface(called: str, text: str) -> tuple[int, int]:
    port, _, vlan = str(text).partition(".")
    if not (port.isdecimal() and (vlan.isdecimal() or not vlan) and int(port) < 64 and int(vlan or 0) < 4095):
        raise ValueError(
            f"hook {called}: interface={text!r}: an interface is '0', or '0.100' for VLAN 100 of it"
        )
    return int(port), int(vlan or 0)
