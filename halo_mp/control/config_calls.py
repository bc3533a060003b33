# SPDX-License-Identifier: Apache-2.0
"""Calls about the configuration, for both clients; see `halo_mp.control.calls`. No I/O: files are read by who calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from halo_mp.control.calls import Call, ControlError, chunks
from halo_mp.control.frame import Message
from halo_mp.control.public import DiffInfo, KeptInfo, read

Part = Literal["all", "settings", "routes"]
TEXT_OCTETS = 32 << 10
"""Of a file in one request; a character may take four."""
TRIES = 5
PATIENCE_S = 300.0
"""For what may have a million routes."""


def show(part: Part) -> Call[str]:
    """Return the text, from one moment: it is asked for again when something but a route changed meanwhile."""
    for _ in range(TRIES):
        texts: list[str] = []
        versions: set[int] = set()
        start: int | None = 0
        while start is not None and len(versions) < 2:
            reply = yield {"type": "config.show", "part": part, "start": start}
            texts.append(reply["text"])
            versions.add(reply["version"])
            start = reply["next"]
        if len(versions) < 2:
            return "".join(texts)
    raise ControlError("the configuration changes all the time; try again when it does not.")


def stage(text: str, file: str, routes: Iterable[tuple[str, Sequence[str]]] | None) -> Call[int]:
    """Send a file, and the routes of its routes file if it names one; return the number of the candidate."""
    reply = yield {"type": "config.stage", "file": file, "text": ""}
    number = int(reply["candidate"])
    for part in _parts(text):
        yield {"type": "config.stage", "candidate": number, "text": part}
    if routes is None:
        return number
    yield {"type": "config.stage", "candidate": number, "routes": []}
    sent = 0
    for chunk in chunks([prefix, list(hops)] for prefix, hops in routes):
        reply = yield {"type": "config.stage", "candidate": number, "routes": chunk}
        for place, refusal in enumerate(reply["results"], sent + 1):
            if refusal is not None:
                raise ControlError(f"route {place} of the routes file: {refusal}")
        sent += len(chunk)
    return number


def diff(number: int) -> Call[DiffInfo]:
    reply = yield {"type": "config.diff", "candidate": number}
    return _diff(reply)


def apply(number: int) -> Call[DiffInfo]:
    reply = yield {"type": "config.apply", "candidate": number}
    return _diff(reply)


def rollback(steps: int) -> Call[DiffInfo]:
    reply = yield {"type": "config.rollback", "steps": steps}
    return _diff(reply)


def reload() -> Call[DiffInfo]:
    reply = yield {"type": "config.reload"}
    return _diff(reply)


def history() -> Call[list[KeptInfo]]:
    reply = yield {"type": "config.history"}
    return [read(KeptInfo, entry) for entry in reply["kept"]]


def _diff(reply: Message) -> DiffInfo:
    return DiffInfo(
        changes=tuple(reply["changes"]), count=reply["count"], restart=tuple(reply.get("restart", ()))
    )


def _parts(text: str) -> Iterator[str]:
    step = TEXT_OCTETS // 4
    return (text[at : at + step] for at in range(0, len(text), step))
