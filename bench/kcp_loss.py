# SPDX-License-Identifier: Apache-2.0
"""KCP by loss: goodput and latency of our core and of the reference's, over the same seeded link in memory.

    python -m bench kcp-loss            rows with targets
    python -m bench.kcp_loss            the table of docs/kcp-loss.md, in Markdown

Time is simulated, a millisecond a step, so that figures depend on nothing but the seeds: one machine gives those of
another. Both meet the same fates, datagram by datagram, as long as they send the same.

Goodput: one side always has more to send than its window takes, in messages that fill a segment; octets that the other
reads in `BULK_MS`. Latency: `beats` messages of 200 octets, one each `beat_ms`, from write to read;
those that never came count as infinitely late.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.rows import Row, row_at_least, row_at_most
from halo_mp.kcp.core import Session, default_settings
from halo_mp.kcp.fec import OVERHEAD, FecDecoder, FecEncoder, FecSettings
from tests.support.kcp_reference import Reference
from tests.support.lossy import Talk, Weather

CONV = 0x11223344
LOSSES = (0.0, 0.01, 0.05, 0.10, 0.20, 0.30)
WEATHER = Weather(delay_ms=20, jitter_ms=4, reorder=0.02, reorder_ms=15, duplicate=0.01)
SEEDS = (1, 2, 3)
MTU = 1400
MESSAGE = 1376  # a full segment of the classic format
BULK_MS = 5_000
DRAIN_MS = 30_000  # for the last messages of the beat to arrive


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings by the names of `struct halo_kcp_settings`; `ours` are those that the reference does not have."""

    name: str
    fields: dict[str, int]
    beat_ms: int = 10
    beats: int = 500
    ours: dict[str, int] = field(default_factory=dict)
    fec: FecSettings | None = None

    def struct(self) -> Any:
        """As the reference takes them."""
        settings = default_settings()
        self.emit(settings)
        return settings

    def emit(self, pointer: Any) -> None:
        """As our core takes them."""
        for name, value in {"mtu": MTU, **self.fields, **self.ours}.items():
            setattr(pointer, name, value)


WINDOWS = {"send_window": 256, "receive_window": 256}
FAST = {"nodelay": 1, "interval_ms": 10, "resend": 2, "congestion": 0, **WINDOWS}
PROMPT = {"ack_no_delay": 1, "flush_on_ack": 1}
SLOW = {"nodelay": 0, "interval_ms": 40, "resend": 0, "congestion": 1, **WINDOWS}
NORMAL = Profile("normal", SLOW, beat_ms=500, beats=200)
COMPARED = (NORMAL, Profile("fast", FAST))
"""Profiles that both implementations have."""
OURS_ALONE = (
    Profile("prompt", FAST, ours=PROMPT),
    Profile("prompt-fec", {**FAST, "mtu": MTU - OVERHEAD}, ours=PROMPT, fec=FecSettings(data=4, parity=2)),
)


class Side(Protocol):
    """One end, of whichever implementation."""

    def send(self, octets: bytes) -> int:
        """Write a message."""

    def receive(self) -> bytes | None:
        """Read one; None: there is none."""

    def input(self, octets: bytes, now_ms: int) -> int:
        """Take in a datagram."""

    def poll(self, now_ms: int) -> list[bytes]:
        """What is to be sent now."""

    def backlog(self) -> int:
        """Segments written that are not acknowledged."""


class Ours(Session):
    """Our core."""

    def backlog(self) -> int:
        return self.waiting


class Theirs(Reference):
    """The reference."""

    def backlog(self) -> int:
        return int(self.kcp.nsnd_que + self.kcp.nsnd_buf)


class Corrected:
    """Our core over forward error correction."""

    def __init__(self, inner: Ours, settings: FecSettings) -> None:
        self.inner = inner
        self.encoder, self.decoder = FecEncoder(settings), FecDecoder(settings)
        self.send, self.receive, self.backlog = inner.send, inner.receive, inner.backlog

    def input(self, octets: bytes, now_ms: int) -> int:
        for datagram in self.decoder.decode(octets):
            self.inner.input(datagram, now_ms)
        return 0

    def poll(self, now_ms: int) -> list[bytes]:
        return [out for datagram in self.inner.poll(now_ms) for out in self.encoder.encode(datagram, now_ms)]


def our_side(profile: Profile) -> Side:
    """An end of ours."""
    session = Ours(profile, CONV)
    return session if profile.fec is None else Corrected(session, profile.fec)


def their_side(profile: Profile) -> Side:
    """An end of the reference's."""
    return Theirs(profile.struct(), CONV)


Make = Callable[[Profile], Side]


@dataclass(frozen=True, slots=True)
class Cell:
    """goodput_kbps: thousands of octets a second. Latencies in ms. sent: octets on the link for each that was read."""

    goodput_kbps: float
    p50_ms: float
    p99_ms: float
    sent: float


def bulk(
    make: Make, profile: Profile, weather: Weather, seed: int, duration_ms: int = BULK_MS
) -> tuple[int, int]:
    """Return octets that were read, and octets that the sender put on the link."""
    sender, receiver = make(profile), make(profile)
    talk = Talk(sender, receiver, weather, seed)
    message = bytes(MESSAGE if profile.fec is None else MESSAGE - OVERHEAD)
    enough = 2 * profile.fields["send_window"]
    read = 0

    def each(_: int) -> None:
        nonlocal read
        while sender.backlog() < enough:
            sender.send(message)
        while (got := receiver.receive()) is not None:
            read += len(got)

    talk.run(duration_ms, each)
    return read, talk.there.octets


def beat(make: Make, profile: Profile, weather: Weather, seed: int) -> list[float]:
    """Return the latency of each message."""
    sender, receiver = make(profile), make(profile)
    talk = Talk(sender, receiver, weather, seed)
    latencies: list[float] = []
    beats = profile.beats

    def each(now_ms: int) -> bool:
        number, rest = divmod(now_ms, profile.beat_ms)
        if rest == 0 and number < beats:
            sender.send(now_ms.to_bytes(4, "big") + bytes(196))
        while (got := receiver.receive()) is not None:
            latencies.append(now_ms - int.from_bytes(got[:4], "big"))
        return len(latencies) == beats

    talk.run(beats * profile.beat_ms + DRAIN_MS, each)
    return latencies + [float("inf")] * (beats - len(latencies))


def measure(make: Make, profile: Profile, loss: float) -> Cell:
    """One cell of the table: the same over all seeds."""
    weather = Weather(
        loss=loss,
        **{
            name: getattr(WEATHER, name)
            for name in ("delay_ms", "jitter_ms", "reorder", "reorder_ms", "duplicate")
        },
    )
    runs = [bulk(make, profile, weather, seed) for seed in SEEDS]
    read, sent = (sum(run[i] for run in runs) for i in (0, 1))
    latencies = [latency for seed in SEEDS for latency in beat(make, profile, weather, seed)]
    cuts = statistics.quantiles(latencies, n=100)
    return Cell(read / len(SEEDS) / BULK_MS, cuts[49], cuts[98], sent / read)


def run(_rounds: int) -> list[Row]:
    """Ratios to the reference in each cell: as good, but for 5 %. Rounds would give the same again."""
    rows = []
    for profile in COMPARED:
        for loss in LOSSES:
            ours, theirs = measure(our_side, profile, loss), measure(their_side, profile, loss)
            name = f"kcp.loss.{profile.name}.{loss:.0%}"
            rows.append(
                row_at_least(
                    f"{name}.goodput",
                    ours.goodput_kbps / theirs.goodput_kbps,
                    "of reference",
                    0.95,
                    peer="kcp, KB/s",
                    peer_value=theirs.goodput_kbps,
                )
            )
            rows += [
                row_at_most(
                    f"{name}.{metric}",
                    _ratio(getattr(ours, metric), getattr(theirs, metric)),
                    "of reference",
                    1.05,
                    peer="kcp, ms",
                    peer_value=getattr(theirs, metric),
                )
                for metric in ("p50_ms", "p99_ms")
            ]
    return rows


def _ratio(ours: float, theirs: float) -> float:
    return 1.0 if ours == theirs else ours / theirs  # both infinite: as late as each other


def table() -> str:
    """All cells in Markdown."""
    lines = [
        "| settings | loss | goodput, KB/s: ours | reference | p50, ms: ours | reference | p99, ms: ours | reference |"
        " sent for each octet read: ours | reference |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [line(profile, loss) for profile in (*COMPARED, *OURS_ALONE) for loss in LOSSES]
    return "\n".join(lines)


def line(profile: Profile, loss: float) -> str:
    """One row of the table."""
    ours = measure(our_side, profile, loss)
    theirs = measure(their_side, profile, loss) if profile in COMPARED else None
    cells = [profile.name, f"{loss:.0%}"]
    for name, digits in (("goodput_kbps", 0), ("p50_ms", 0), ("p99_ms", 0), ("sent", 2)):
        cells.append(f"{getattr(ours, name):,.{digits}f}")
        cells.append("-" if theirs is None else f"{getattr(theirs, name):,.{digits}f}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table())
