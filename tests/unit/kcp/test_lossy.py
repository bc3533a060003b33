# SPDX-License-Identifier: Apache-2.0
"""The lossy link itself: counts agree, seeds repeat, and each kind of weather does what it says."""

import dataclasses

import pytest

from tests.support.lossy import CALM, LossyLink, Talk, Weather

STORM = Weather(loss=0.2, duplicate=0.1, reorder=0.1, noise=0.05, delay_ms=20, jitter_ms=10, reorder_ms=15)
COUNT = 5000


def pour(link: LossyLink, count: int = COUNT) -> list[bytes]:
    for n in range(count):
        link.send(n.to_bytes(4, "big"), n)
    return link.due(2 * count)


def test_calm_link_delivers_all_at_once_in_order() -> None:
    link = LossyLink(CALM, 1)
    assert pour(link) == [n.to_bytes(4, "big") for n in range(COUNT)]
    assert link.next_ms is None


def test_same_seed_has_the_same_fates_whatever_is_sent() -> None:
    first, second, third = LossyLink(STORM, 5), LossyLink(STORM, 5), LossyLink(STORM, 6)
    assert pour(first) == pour(second) != pour(third)
    quiet = dataclasses.replace(STORM, noise=0)
    one, other = LossyLink(quiet, 5), LossyLink(quiet, 5)
    for n in range(COUNT):
        one.send(bytes(n % 7 + 1), n)
        other.send(bytes(n % 11 + 1), n)
    assert one.counters == other.counters
    assert one.next_ms == other.next_ms


def test_counts_agree() -> None:
    link = LossyLink(STORM, 3)
    for n in range(COUNT):
        link.send(bytes(100), n)
        link.due(n)
        counters = link.counters
        assert counters.delivered + link.waiting + counters.lost == counters.sent + counters.duplicated
    assert link.waiting > 10


@pytest.mark.parametrize("kind", ["loss", "duplicate", "reorder", "noise"])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_share_is_what_was_asked_for(kind: str, share: float) -> None:
    counter = {"loss": "lost", "duplicate": "duplicated", "reorder": "reordered", "noise": "damaged"}[kind]
    link = LossyLink(Weather(**{kind: share}), 11)
    pour(link, 20_000)
    assert getattr(link.counters, counter) == pytest.approx(20_000 * share, rel=0.15)
    others = {"lost", "duplicated", "reordered", "damaged"} - {counter}
    assert not any(getattr(link.counters, other) for other in others)


def test_losses_come_in_runs_when_asked() -> None:
    runs = {}
    for burst in (1.0, 5.0):
        link = LossyLink(Weather(loss=0.1, burst=burst), 4)
        arrived = {int.from_bytes(octets, "big") for octets in pour(link, 20_000)}
        lost = [n for n in range(20_000) if n not in arrived]
        assert len(lost) == pytest.approx(2000, rel=0.15)
        runs[burst] = len(lost) / sum(n - 1 in arrived or n == 0 for n in lost)
    assert runs[1.0] == pytest.approx(1.1, rel=0.1)
    assert runs[5.0] == pytest.approx(5.0, rel=0.15)


def test_noise_turns_one_bit() -> None:
    link = LossyLink(Weather(noise=1), 2)
    sent = bytes(range(50))
    for n in range(200):
        link.send(sent, n)
    turned = [int.from_bytes(sent, "big") ^ int.from_bytes(octets, "big") for octets in link.due(1000)]
    assert [value.bit_count() for value in turned] == [1] * 200
    assert len(set(turned)) > 100


def test_jitter_delays_and_keeps_order() -> None:
    link = LossyLink(Weather(delay_ms=20, jitter_ms=5), 2)
    delays, arrived = [], []
    for now in range(COUNT):
        if now % 10 == 0:
            link.send(now.to_bytes(4, "big"), now)
        for octets in link.due(now):
            arrived.append(int.from_bytes(octets, "big"))
            delays.append(now - arrived[-1])
    assert arrived == sorted(arrived)
    assert set(delays) == set(range(20, 26))


def test_those_that_come_late_are_overtaken() -> None:
    arrived = [int.from_bytes(octets, "big") for octets in pour(LossyLink(Weather(reorder=0.1), 2))]
    assert sorted(arrived) == list(range(COUNT))
    assert arrived != sorted(arrived)
    late = LossyLink(Weather(reorder=1, delay_ms=20, reorder_ms=15), 1)
    late.send(b"a", 100)
    assert late.next_ms == 135
    assert late.due(134) == []
    assert late.due(135) == [b"a"]


class Echo:
    """Sends back what comes, with a note of when."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.heard: list[tuple[int, bytes]] = []

    def input(self, octets: bytes, now_ms: int) -> int:
        self.heard.append((now_ms, octets))
        self.out.append(octets)
        return len(octets)

    def poll(self, now_ms: int) -> list[bytes]:
        out, self.out = self.out, []
        return out


def test_talk_carries_both_ways_over_the_wrap_of_the_clock() -> None:
    one, other = Echo(), Echo()
    one.out.append(b"hello")
    talk = Talk(one, other, Weather(delay_ms=10), 1, now_ms=2**32 - 5)
    assert talk.run(100, lambda _: len(one.heard) == 2)
    assert [now for now, _ in other.heard] == [6, 26]
    assert [now for now, _ in one.heard] == [16, 36]
    assert talk.verdicts == {5: 4}
    assert not talk.run(1, lambda _: None)
