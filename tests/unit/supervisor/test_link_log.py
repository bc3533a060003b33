# SPDX-License-Identifier: Apache-2.0
"""Links that flap make few events, and the last one is true."""

from __future__ import annotations

from halo_mp.supervisor.link_log import INTERVAL_S, LinkLog


class Written(list[tuple[int, bool, int]]):
    def __init__(self) -> None:
        super().__init__()
        self.log = LinkLog(lambda port, up, changes: self.append((port, up, changes)))


def test_first_change_is_written_at_once() -> None:
    written = Written()
    written.log.start(0, up=True)
    written.log.set(0, up=True, now=0.0)
    assert written == []
    written.log.set(0, up=False, now=0.0)
    assert written == [(0, False, 1)]


def test_first_state_of_an_unknown_port_is_no_change() -> None:
    written = Written()
    written.log.set(0, up=True, now=0.0)
    assert written == []


def test_flaps_are_counted_and_written_when_it_is_time() -> None:
    written = Written()
    written.log.start(3, up=True)
    for number in range(21):
        written.log.set(3, up=bool(number % 2), now=number * INTERVAL_S / 100)
    written.log.poll(INTERVAL_S / 2)
    assert written == [(3, False, 1)]
    written.log.poll(INTERVAL_S)
    written.log.poll(INTERVAL_S * 10)
    assert written == [(3, False, 1), (3, False, 20)]


def test_each_port_has_its_own_second() -> None:
    written = Written()
    for port in (0, 1):
        written.log.start(port, up=False)
        written.log.set(port, up=True, now=0.0)
    assert written == [(0, True, 1), (1, True, 1)]


def test_lost_port_has_nothing_more_to_say() -> None:
    written = Written()
    written.log.start(0, up=True)
    for up in (False, True):
        written.log.set(0, up=up, now=0.0)
    written.log.forget(0)
    written.log.poll(INTERVAL_S)
    assert written == [(0, False, 1)]
