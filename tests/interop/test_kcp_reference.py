# SPDX-License-Identifier: Apache-2.0
"""The reference and ours talk to each other over a lossy link in memory, both ways at once, and every octet arrives.

HALO_KCP_RUNS and HALO_KCP_OCTETS make it more and longer; 100 runs of 10 MB are what was accepted.
"""

from __future__ import annotations

import os
import random

import pytest

from halo_mp.kcp.core import Session
from tests.support.kcp_reference import Fields, Reference

SEED = 20261123
RUNS = int(os.environ.get("HALO_KCP_RUNS", "4"))
OCTETS = int(os.environ.get("HALO_KCP_OCTETS", "300000"))
CONV = 0x1234
LONGEST_MS = 3_600_000


class Side:
    """One end: what it has to write, what it has read, and what is under way to it."""

    def __init__(self, end: Session | Reference, content: bytes, rng: random.Random, loss: float) -> None:
        self.end, self.content, self.rng, self.loss = end, content, rng, loss
        self.written = 0
        self.read = bytearray()
        self.flying: list[tuple[int, bytes]] = []

    def turn(self, now_ms: int, other: Side) -> None:
        arrived = [octets for at, octets in self.flying if at <= now_ms]
        self.flying = [flying for flying in self.flying if flying[0] > now_ms]
        for octets in arrived:
            assert self.end.input(octets, now_ms & 0xFFFFFFFF) == 0
        while self.written < len(self.content) and self._waiting() < 256:
            length = self.rng.randint(1, 20_000)
            self.end.send(self.content[self.written : self.written + length])
            self.written += length
        while (message := self.end.receive()) is not None:
            self.read += message
        for octets in self.end.poll(now_ms & 0xFFFFFFFF):
            if self.rng.random() >= self.loss:
                other.flying.append((now_ms + self.rng.randint(5, 40), octets))

    def _waiting(self) -> int:
        if isinstance(self.end, Session):
            return self.end.waiting
        return self.end.kcp.nsnd_buf + self.end.kcp.nsnd_que


@pytest.mark.parametrize("run", range(RUNS))
def test_reference_and_ours_bring_every_octet_over(run: int) -> None:
    seed = SEED + run
    rng = random.Random(seed)
    fields = Fields(
        nodelay=rng.choice([0, 1, 2]),
        interval_ms=10,
        resend=rng.choice([0, 2]),
        congestion=rng.choice([0, 0, 1]),
        send_window=256,
        receive_window=256,
        stream=rng.choice([0, 1]),
        most_fragments=127,
        dead_link=10_000,
        conserve=rng.choice([0, 1]),
        early=rng.choice([0, 1]),
        flush_on_ack=rng.choice([0, 1]),
        ack_no_delay=rng.choice([0, 1]),
        write_delay=rng.choice([0, 1]),
    )
    loss = rng.choice([0.01, 0.05, 0.1])
    sides = [
        Side(Session(fields, CONV), rng.randbytes(OCTETS), rng, loss),
        Side(Reference(fields.struct(), CONV), rng.randbytes(OCTETS), rng, loss),
    ]
    start = now = rng.choice([0, 2**32 - 500])
    while any(len(side.read) < OCTETS for side in sides):
        now += 10
        sides[0].turn(now, sides[1])
        sides[1].turn(now, sides[0])
        assert now - start < LONGEST_MS, f"seed {seed}: {[len(side.read) for side in sides]} of {OCTETS}"
    assert sides[1].read == sides[0].content, f"seed {seed}"
    assert sides[0].read == sides[1].content, f"seed {seed}"
