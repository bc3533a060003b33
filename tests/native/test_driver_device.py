# SPDX-License-Identifier: Apache-2.0
"""A port whose device is taken away and opened again, under one lcore and two: drops, feeds, buffers, totals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.rig import Plan, PortPlan, RefusalError, Rig
from tests.native.slot import Slot, SlotPlan

LOOP, OTHER = 3, 5
FRAMES = 40


@pytest.fixture(params=[1, 2], ids=["one lcore", "two lcores"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Both ports give back what slot 0 sends; slot 1 may have another lcore as its home."""
    plan = Plan(
        ports=(PortPlan(LOOP, "net_ring0"), PortPlan(OTHER, "net_ring1")),
        slots=(SlotPlan(0, feeds=((LOOP, 0), (OTHER, 0))), SlotPlan(1, lcore=request.param - 1)),
        lcores=request.param,
    )
    with Rig(plan, tmp_path) as rig:
        yield rig


def send(rig: Rig, slot: Slot, port: int, count: int = FRAMES) -> dict[str, int]:
    """Send frames to a port, and return the slot's counters when all are dealt with."""
    slot.submit(slot.frames([bytes([i]) * 60 for i in range(count)], port=port))
    return rig.sync(slot)


def loop(rig: Rig, slot: Slot, port: int) -> None:
    """Send frames to a port that gives them back, and take them."""
    send(rig, slot, port)
    frames = slot.receive(FRAMES)
    assert [bytes(slot.look(frame))[0] for frame in frames] == list(range(FRAMES))
    slot.release(frames)


def test_lost_port_is_a_named_drop_for_every_lcore(rig: Rig) -> None:
    rig.driver.do("lose", port=LOOP)
    assert rig.read_ports()["ports"][LOOP]["state"] == "failed"
    for slot in rig.slots.values():
        assert send(rig, slot, LOOP)["tx_port_down"] == FRAMES
    loop(rig, rig.slots[0], OTHER)
    rig.check_books()


def test_returned_port_is_fed_from_and_sent_to_as_before(rig: Rig) -> None:
    for _ in range(3):
        loop(rig, rig.slots[0], LOOP)
        rig.driver.do("lose", port=LOOP)
        rig.driver.do("reopen", port=LOOP)
    loop(rig, rig.slots[0], LOOP)
    port = rig.read_ports()["ports"][LOOP]
    assert (port["state"], port["losses"], port["returns"]) == ("started", 3, 3)
    assert (port["stats"]["rx_frames"], port["stats"]["tx_frames"]) == (4 * FRAMES, 4 * FRAMES), (
        "totals go on"
    )
    assert rig.read_ports()["ports"][OTHER]["losses"] == 0


def test_feeds_that_change_while_the_port_is_lost_are_those_of_its_return(rig: Rig) -> None:
    rig.driver.do("lose", port=LOOP)
    rig.feed(rig.slots[1], (LOOP, 0))
    rig.driver.do("reopen", port=LOOP)
    send(rig, rig.slots[0], LOOP)
    rig.slots[1].release(rig.slots[1].receive(FRAMES))


def test_started_port_is_not_opened_a_second_time(rig: Rig) -> None:
    with pytest.raises(RefusalError, match="port 3"):
        rig.driver.do("reopen", port=LOOP)
    loop(rig, rig.slots[0], LOOP)
