# SPDX-License-Identifier: Apache-2.0
"""The core against the reference, step by step: same calls, same clock; octets, verdicts and state are the same.

Two sessions talk over a link that loses, repeats and reorders; each is ours and the reference's in parallel, and both
get the same datagrams. Each script is made from a seed, which a failure names.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter

import pytest

from halo_mp._native import ffi, lib
from halo_mp.kcp.core import Session
from tests.support.kcp_reference import Fields, Reference

SEED = 20261123
CONV = 0x11223344
MUTATIONS = int(os.environ.get("HALO_KCP_MUTATIONS", "10000"))
COMPARED = (
    "srtt_ms",
    "rttvar_ms",
    "rto_ms",
    "remote_window",
    "queued",
    "in_flight",
    "unread",
    "held",
    "send_next",
    "send_una",
    "receive_next",
)


class Twin:
    """A session of ours and one of the reference's that are told the same."""

    def __init__(self, fields: Fields, send_next: int = 0, receive_next: int = 0) -> None:
        self.ours = Session(fields, CONV)
        self.theirs = Reference(fields.struct(), CONV)
        assert lib.halo_kcp_start(self.ours.pointer, send_next, receive_next) == 0
        self.theirs.wrap_soon(send_next, receive_next)

    def send(self, octets: bytes) -> None:
        assert self.ours.send(octets) == len(octets)
        assert self.theirs.send(octets) == 0

    def input(self, octets: bytes, now_ms: int) -> int:
        verdict = self.ours.input(octets, now_ms)
        assert verdict == self.theirs.input(octets, now_ms)
        return verdict

    def poll(self, now_ms: int) -> list[bytes]:
        ours, theirs = self.ours.poll(now_ms), self.theirs.poll(now_ms)
        assert [octets.hex() for octets in ours] == [octets.hex() for octets in theirs]
        return ours

    def receive(self) -> bytes | None:
        ours, theirs = self.ours.receive(), self.theirs.receive()
        assert ours == theirs
        return ours

    def receive_stream(self) -> bytes:
        """All there is; the reference gives it segment by segment."""
        ours = b"".join(iter(self.ours.receive, None))
        theirs = b"".join(iter(self.theirs.receive, None))
        assert ours == theirs
        return ours

    def compare(self) -> None:
        info, theirs = self.ours.info(), self.theirs.state()
        assert {name: info[name] for name in COMPARED} == theirs
        if self.theirs.kcp.nocwnd == 0:
            assert info["congestion_window"] == self.theirs.kcp.cwnd
            assert info["slow_start_threshold"] == self.theirs.kcp.ssthresh
        assert bool(info["end"]) == (self.theirs.kcp.state != 0)


class Link:
    """What is under way in one direction: (arrival, octets), in no order."""

    def __init__(self, rng: random.Random, loss: float) -> None:
        self.rng, self.loss = rng, loss
        self.flying: list[tuple[int, bytes]] = []

    def send(self, datagrams: list[bytes], now_ms: int) -> None:
        for octets in datagrams:
            while self.rng.random() >= self.loss:
                self.flying.append((now_ms + self.rng.randint(1, 40), octets))
                if self.rng.random() > 0.1:
                    break

    def arrived(self, now_ms: int) -> list[bytes]:
        here = [octets for at, octets in self.flying if at <= now_ms]
        self.flying = [(at, octets) for at, octets in self.flying if at > now_ms]
        return here


def random_fields(rng: random.Random, stream: int) -> Fields:
    return Fields(
        mtu=rng.choice([50, 100, 512, 1400, 9000]),
        stream=stream,
        send_window=rng.choice([1, 4, 32, 128, 1024]),
        receive_window=rng.choice([128, 200, 1024]),
        interval_ms=rng.choice([10, 20, 100]),
        nodelay=rng.choice([0, 1, 2]),
        resend=rng.choice([0, 1, 2, 5]),
        fast_limit=rng.choice([0, 1, 5]),
        congestion=rng.choice([0, 1]),
        dead_link=1000,
        most_fragments=127,
    )


def run_script(seed: int, stream: int, steps: int = 400) -> Counter[str]:
    """Run one; return what the two sessions of ours have counted."""
    rng = random.Random(seed)
    fields = random_fields(rng, stream)
    # Near a wrap, half of the time.
    first = rng.choice([0, 0, 2**32 - 5, 2**31 - 5])
    now = rng.choice([0, 1000, 2**32 - 2000, 2**31 - 2000])
    ends = Twin(fields, first, 0), Twin(fields, 0, first)
    loss = rng.choice([0, 0.01, 0.1, 0.3])
    links = Link(rng, loss), Link(rng, loss)
    sent = [bytearray(), bytearray()]
    got = [bytearray(), bytearray()]
    slow_reader = rng.random() < 0.3
    mss = fields.fields["mtu"] - 24
    for step in range(steps):
        now += rng.choice([0, 1, 5, 10, 30])
        for side, end in enumerate(ends):
            for octets in links[1 - side].arrived(now):
                assert end.input(octets, now & 0xFFFFFFFF) == 0
            if step < steps // 2 and rng.random() < 0.5:
                octets = rng.randbytes(
                    rng.choice([1, 10, mss - 1, mss, mss + 1, 3 * mss, rng.randint(1, 20 * mss)])
                )
                end.send(octets)
                sent[side] += octets
            if not slow_reader or rng.random() < 0.1:
                if stream:
                    got[1 - side] += end.receive_stream()
                else:
                    while (message := end.receive()) is not None:
                        got[1 - side] += message
            links[side].send(end.poll(now & 0xFFFFFFFF), now)
            end.compare()
    for side in (0, 1):
        assert sent[side].startswith(got[side])
    if loss == 0 and not slow_reader:
        assert got[0] or got[1]
    return sum((Counter(end.ours.counters()) for end in ends), Counter())


@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("part", range(4))
def test_scripts_of_a_lossy_link_give_the_same_octets(part: int, stream: int) -> None:
    counted: Counter[str] = Counter()
    for number in range(15):
        seed = SEED + 1000 * part + number
        try:
            counted += run_script(seed, stream)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, stream {stream}") from error
    # Each way to send, and to send again, was among them.
    assert min(counted[name] for name in ("out_segments", "fast", "lost", "repeated", "bytes_received")) > 20


def mutate(rng: random.Random, octets: bytes) -> bytes:
    """Change what a hostile or broken peer might."""
    out = bytearray(octets)
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[rng.randint(0, len(out)) :]
        elif kind == 2 and len(out) >= 24:
            place = rng.choice([4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
            out[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 3:
            out += rng.randbytes(rng.randint(1, 30))
        elif kind == 4:
            out += octets
        elif out:
            start = rng.randrange(len(out))
            out[start : start + 4] = rng.randbytes(4)
    return bytes(out)


def valid_datagram(rng: random.Random, info: dict[str, int]) -> bytes:
    """One that fits the state of a session, more or less."""
    out = bytearray()
    for _ in range(rng.randint(1, 4)):
        command = rng.choice([81, 81, 82, 83, 84])
        payload = rng.randbytes(rng.randint(0, 20)) if command == 81 else b""
        base = info["receive_next"] if command == 81 else info["send_una"]
        words = (
            CONV.to_bytes(4, "little"),
            bytes([command, rng.choice([0, 0, 0, 1, 2])]),
            rng.choice([0, 1, 32, 128]).to_bytes(2, "little"),
            rng.randrange(20000).to_bytes(4, "little"),
            ((base + rng.randint(-3, 10)) & 0xFFFFFFFF).to_bytes(4, "little"),
            ((info["send_una"] + rng.randint(-2, 3)) & 0xFFFFFFFF).to_bytes(4, "little"),
            len(payload).to_bytes(4, "little"),
        )
        out += b"".join(words) + payload
    return bytes(out)


def test_mutated_input_gives_the_same_verdicts_and_state() -> None:
    rng = random.Random(SEED)
    verdicts: dict[int, int] = {}
    twin, now, age = Twin(Fields(congestion=1, resend=2, mtu=100, dead_link=10**6)), 1000, 0
    unbounded = ("srtt_ms", "rttvar_ms", "rto_ms")  # the reference's overflow
    for _ in range(MUTATIONS):
        if age == 0:
            first = rng.choice([0, 2**32 - 3])
            twin = Twin(Fields(congestion=1, resend=2, mtu=100, dead_link=10**6), first, first)
            twin.theirs.poll(now)
            twin.ours.poll(now)
        age = (age + 1) % 100
        if rng.random() < 0.3:
            twin.send(rng.randbytes(rng.randint(1, 300)))
        now += rng.randint(0, 60)
        twin.ours.poll(now)
        twin.theirs.poll(now)
        octets = mutate(rng, valid_datagram(rng, twin.ours.info()))
        verdict = twin.input(octets, now)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        while twin.receive() is not None:
            pass
        info, theirs = twin.ours.info(), twin.theirs.state()
        for name in set(COMPARED) - set(unbounded):
            assert info[name] == theirs[name], (name, octets.hex(), now)
    assert set(verdicts) == {0, -1, -2, -3}
    assert sum(verdicts.values()) == MUTATIONS


def test_dead_link_ends_the_session_where_the_reference_marks_it() -> None:
    twin = Twin(Fields(nodelay=1, interval_ms=10, dead_link=4))
    twin.send(b"to nobody")
    now = 0
    while twin.ours.end is None:
        now += 10
        twin.poll(now)
        twin.compare()
        assert now < 10_000
    assert twin.ours.end == "dead link"
    assert twin.theirs.kcp.state == 0xFFFFFFFF
    assert twin.ours.poll(now + 10_000) == []
    with pytest.raises(OSError, match="Broken pipe"):
        twin.ours.send(b"more")


def test_a_closed_window_is_probed_when_the_reference_does() -> None:
    twin = Twin(Fields(interval_ms=100))
    header = CONV.to_bytes(4, "little") + bytes([84, 0]) + bytes(2) + bytes(16)
    twin.poll(0)
    assert twin.input(header, 10) == 0
    probes = [now for now in range(100, 200_000, 100) if twin.poll(now)]
    # After 7 s, then each time half as long again.
    assert [later - earlier for earlier, later in itertools.pairwise(probes)][:4] == [
        10500,
        15800,
        23700,
        35500,
    ]


def test_settings_that_can_not_be_are_named() -> None:
    for name, value in (("mtu", 49), ("send_window", 0), ("receive_window", 65536), ("congestion", 2)):
        with pytest.raises(ValueError, match=name):
            Session(Fields(**{name: value}), CONV)
    with pytest.raises(ValueError, match="conv"):
        Session(Fields(), 2**32)
    assert ffi.string(lib.halo_kcp_settings_check(Fields(nodelay=3).struct())) == b"nodelay"
