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


def show(part: Part = "all") -> Call[str]:
    """Return the configuration as a file that leads to the same state; routes by themselves as a routes file.

    The text is from one moment: it is asked for again when something but a route changed meanwhile.
    """
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


def stage(
    text: str,
    *,
    file: str = "the candidate",
    routes: Iterable[tuple[str, Sequence[str]]] | None = None,
) -> Call[int]:
    """Send a file, and return the number of the candidate; `file` is what sentences call it.

    `routes` are those of the routes file that it names: the instance opens no file for us.
    """
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


def diff(candidate: int) -> Call[DiffInfo]:
    """Return what a candidate would change."""
    reply = yield {"type": "config.diff", "candidate": candidate}
    return _diff(reply)


def apply(candidate: int, *, confirm_s: int | None = None) -> Call[DiffInfo]:
    """Bring a candidate about, whole or not at all, while packets flow; return what was changed.

    With `confirm_s` all of it is taken back after so many seconds, whatever becomes of this client and of the
    supervisor, unless `confirm` is called by then.
    """
    given = {} if confirm_s is None else {"confirm_s": confirm_s}
    reply = yield {"type": "config.apply", "candidate": candidate, **given}
    return _diff(reply)


def confirm() -> Call[None]:
    """Keep what was applied with `confirm_s`."""
    yield {"type": "config.confirm"}


def rollback(steps: int = 1) -> Call[DiffInfo]:
    """Bring back what was there before the last application, or before so many of them."""
    reply = yield {"type": "config.rollback", "steps": steps}
    return _diff(reply)


def reload() -> Call[DiffInfo]:
    """Have the flags and the file that the instance was started with read anew, and brought about."""
    reply = yield {"type": "config.reload"}
    return _diff(reply)


def history() -> Call[list[KeptInfo]]:
    """Return what can be gone back to, the latest first."""
    reply = yield {"type": "config.history"}
    return [read(KeptInfo, entry) for entry in reply["kept"]]


def _diff(reply: Message) -> DiffInfo:
    return DiffInfo(
        changes=tuple(reply["changes"]),
        count=reply["count"],
        restart=tuple(reply.get("restart", ())),
        confirm_until=reply.get("confirm_until"),
    )


def _parts(text: str) -> Iterator[str]:
    step = TEXT_OCTETS // 4
    return (text[at : at + step] for at in range(0, len(text), step))
