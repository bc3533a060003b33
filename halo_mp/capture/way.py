# SPDX-License-Identifier: Apache-2.0
"""The way of a traced packet: what workers noted behind each stage, as values and in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from halo_mp.capture.text import describe
from halo_mp.shm.capture_ring import Record, drop_name, drop_text
from halo_mp.shm.layout import ffi, lib

STAGES = ("parse", "input", "route", "forward", "hook", "finish", "python")
VERDICTS = ("none", "transmit", "drop", "punt", "hand", "consume", "deliver", "raw")
NEIGHBORS = {
    0: "not known",
    lib.HALO_NEIGHBOR_INCOMPLETE: "looked for",
    lib.HALO_NEIGHBOR_REACHABLE: "reachable",
    lib.HALO_NEIGHBOR_STALE: "stale",
    lib.HALO_NEIGHBOR_FAILED: "failed",
    lib.HALO_NEIGHBOR_REPORT: "told by the supervisor",
}
_NOTHING = 0xFFFF
_EVENT = "struct halo_trace_event"
_EVENT_OCTETS = ffi.sizeof(_EVENT)

Step = dict[str, Any]
Route = Callable[[Step], str | None]


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers mean in this instance."""

    interfaces: Mapping[int, str]
    hooks: Mapping[tuple[int, int], str]


def steps(record: Record, slot: int, names: Names) -> list[Step]:
    """Return what the packet was behind each stage: names, numbers and texts only."""
    found = []
    for at in range(0, len(record.events), _EVENT_OCTETS):
        event = ffi.new(_EVENT + " *")
        ffi.memmove(event, record.events[at : at + _EVENT_OCTETS], _EVENT_OCTETS)
        found.append(_step(event, slot, names))
    return found


def _step(event: Any, slot: int, names: Names) -> Step:
    verdict = _name(VERDICTS, event.verdict)
    step: Step = {"stage": _name(STAGES, event.stage), "verdict": verdict, "length": event.length}
    if verdict == "drop":
        step["reason"] = drop_name(event.reason)
    for key, number in (("interface", event.interface), ("tx_interface", event.tx_interface)):
        if number != _NOTHING:
            step[key] = names.interfaces.get(number, f"number {number}")
    if verdict in ("transmit", "hand") and event.tx_port != _NOTHING:
        step["port" if verdict == "transmit" else "slot"] = event.tx_port
    if event.src or event.dst:
        step |= {"src": str(IPv4Address(event.src)), "dst": str(IPv4Address(event.dst)), "ttl": event.ttl}
    if step["stage"] == "parse":
        step["handed"] = bool(event.detail)
    if step["stage"] == "hook":
        step["hook"] = names.hooks.get((slot, event.detail), f"number {event.detail}")
        step["rewritten"] = bool(event.rewritten)
    if step["stage"] == "route" and event.next_hop:
        step["next_hop"] = str(IPv4Address(event.next_hop))
        step["neighbor"] = NEIGHBORS.get(event.detail, "?")
    if note := ffi.string(event.note).decode("ascii", "replace"):
        step["note"] = note
    return step


def tell(record: Record, slot: int, found: list[Step], when: str, route: Route) -> Iterator[str]:
    """Yield the lines about a packet; `route` says which route its destination has."""
    yield f"{when} port {record.port} slot {slot}: {describe(record.octets)}, {record.length} octets"
    for step in found:
        if sentence := _sentence(step, found, route):
            yield f"  {step['stage']:8} {sentence}"


def _sentence(step: Step, found: list[Step], route: Route) -> str:
    parts: list[str] = []
    stage = step["stage"]
    if stage == "parse" and step["handed"]:
        parts.append("handed over by another worker")
    if stage == "input" and "interface" in step:
        parts.append(f"interface {step['interface']}")
    if stage == "route":
        parts += [text] if (text := route(step)) else []
        if "next_hop" in step:
            parts.append(f"next hop {step['next_hop']} at {step.get('tx_interface', '?')}")
            parts.append(f"neighbor {step['neighbor']}")
    if stage == "hook":
        parts.append(step["hook"] + (", rewritten" if step["rewritten"] else ""))
    if stage == "python" and "note" in step:
        return str(step["note"])
    if stage == "finish" and len(found) > 1 and step["verdict"] == found[found.index(step) - 1]["verdict"]:
        return ""  # says nothing that was not said
    parts.append(_verdict(step))
    return "; ".join(part for part in parts if part)


def _verdict(step: Step) -> str:
    reason = step.get("reason")
    return {
        "none": "goes on",
        "transmit": f"leaves by port {step.get('port')}",
        "drop": f"dropped: {reason}: {drop_text(reason)}" if reason else "dropped",
        "punt": "to the Python stack",
        "hand": f"handed to slot {step.get('slot')}",
        "consume": "consumed",
        "deliver": "to a socket",
        "raw": "to the application, as it came",
    }.get(step["verdict"], "?")


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)
