# SPDX-License-Identifier: Apache-2.0
"""A driver dies at a known place in the midst of a burst: its successor knows of each buffer whose it is.

With the test as the worker every descriptor's end is known; tests/faults/test_hooks.py walks the hooks of a whole
instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from halo_mp.shm.layout import SlotState
from tests.native.rig import Plan, PortPlan, Rig
from tests.native.slot import HAND, Descriptor, Slot, SlotPlan
from tests.support import hooks
from tests.support.hooks import Hooks

LOOP, SINK = 0, 1
PLAN = Plan(
    ports=(PortPlan(LOOP, "net_ring0"), PortPlan(SINK, "net_null0,no-rx=1")),
    slots=(SlotPlan(0, feeds=((LOOP, 0),)), SlotPlan(1)),
)
BURST = 20
NAMES = hooks.hook_names("driver")
OF_TX = [name for name in NAMES if name.startswith("tx.")]
OF_RX = [name for name in NAMES if name.startswith("rx.")]
OF_HANDING = [name for name in NAMES if name.startswith("hand.")]
OF_RESET = [name for name in NAMES if name.startswith("reset.")]


@pytest.fixture(autouse=True)
def _nothing_left_by_the_test() -> None:
    """Drivers of the shared rig come and go; what the file leaves is looked for all the same."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hooks, Rig]]:
    plan = replace(PLAN, prefix=(made := Hooks()).via(hooks.build()))
    with made, Rig(plan, tmp_path_factory.mktemp("driver")) as rig:
        yield made, rig
        rig.stop_driver()  # its last counters are of a life that began between two others: the laws do not hold


@pytest.fixture
def armed(shared: tuple[Hooks, Rig]) -> Iterator[tuple[Hooks, Rig]]:
    yield shared
    shared[1].check_books(laws=False)


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 16


def die(order: Hooks, rig: Rig, name: str, passage: int, slot: Slot, burst: list[Descriptor]) -> None:
    """Have the driver die of a burst, and start its successor."""
    order.order(name, passage=passage)
    slot.submit(burst)
    order.wait_until_hit()
    rig.kill_driver()  # it is dead; this reaps it
    rig.start_driver()


def loop(slot: Slot, first: int) -> None:
    """Frames still go round, each once."""
    contents = [content(first + i) for i in range(BURST)]
    slot.submit(slot.frames(contents, port=LOOP))
    back = slot.receive(BURST)
    assert [slot.look(frame) for frame in back] == contents
    slot.release(back)


def test_hooks_are_there() -> None:
    assert len(OF_TX) >= 5
    assert len(OF_RX) >= 5
    assert len(OF_HANDING) == 4
    assert len(OF_RESET) >= 5


@pytest.mark.parametrize("name", OF_TX)
def test_death_while_tx_is_served(armed: tuple[Hooks, Rig], name: str) -> None:
    """What was consumed is the driver's again, what was not is served by the successor, and none of it twice."""
    order, rig = armed
    slot = rig.slots[0]
    burst = slot.frames([content(i) for i in range(BURST)], port=SINK)
    before = slot.counters()
    die(order, rig, name, 7 if name == "tx.served_one" else 1, slot, burst)
    after = rig.sync(slot)
    again = after["tx_descriptors"] - before["tx_descriptors"]
    sent, refused = (after[key] - before[key] for key in ("tx_sent", "tx_bad_owner"))
    expected = {
        "tx.looked_up": (BURST, BURST, 0),  # nothing was done
        "tx.served_one": (BURST, BURST - 7, 7),  # what had changed hands is refused when it is met again
        "tx.served": (BURST, 0, BURST),
        "tx.released": (0, 0, 0),  # consumed, not counted
        "tx.sent": (0, 0, 0),
    }
    assert (again, sent, refused) == expected[name]
    loop(slot, 100)


@pytest.mark.parametrize("name", OF_RX)
def test_death_while_frames_are_delivered(armed: tuple[Hooks, Rig], name: str) -> None:
    """A burst is delivered, or its buffers are the driver's: nothing in between."""
    order, rig = armed
    slot = rig.slots[0]
    die(order, rig, name, 1, slot, slot.frames([content(i) for i in range(BURST)], port=LOOP))
    published = name in ("rx.published", "rx.woken")
    assert slot.rx.fill == (BURST if published else 0)
    if published:
        back = slot.receive(BURST)
        assert [slot.look(frame) for frame in back] == [content(i) for i in range(BURST)]
        slot.release(back)
    loop(slot, 100)


@pytest.mark.parametrize("name", OF_HANDING)
def test_death_while_a_frame_is_handed_over(armed: tuple[Hooks, Rig], name: str) -> None:
    """The frame is with one slot, with the other, or with nobody; a second one names it in vain."""
    order, rig = armed
    giver, taker = rig.slots[0], rig.slots[1]
    frames = giver.frames([content(i) for i in range(BURST)], port=taker.number, flags=HAND)
    before = giver.counters()
    die(order, rig, name, 5, giver, frames)
    after = rig.sync(giver)
    assert after["tx_descriptors"] - before["tx_descriptors"] == BURST
    refused = after["tx_bad_owner"] - before["tx_bad_owner"]
    assert refused == 5
    assert after["hand_sent"] - before["hand_sent"] == 4 + BURST - refused, "counted frame by frame"
    published = 4 if name != "hand.published" else 5
    handed = taker.receive(published + BURST - refused)
    got = [int.from_bytes(taker.look(frame)[:4], "big") for frame in handed]
    assert got == [*range(published), *range(5, BURST)]
    taker.release(handed)
    loop(giver, 100)


@pytest.mark.parametrize("name", OF_RESET)
def test_death_while_a_slot_is_reset(armed: tuple[Hooks, Rig], name: str) -> None:
    """The order is given again, as a supervisor does, and comes to the same end."""
    order, rig = armed
    slot = rig.slots[1]
    slot.spares(100)
    generation = slot.region.pointer.life.generation
    order.order(name, passage=300 if name == "reset.owner" else 1)
    with pytest.raises(AssertionError, match="the driver died"):
        rig.reset(slot)
    rig.kill_driver()
    rig.start_driver()  # which enables what it finds disabled
    rig.reset(slot)
    assert rig.owned(slot) == 0
    assert slot.state == SlotState.DISABLED
    steps = slot.region.pointer.life.generation - generation
    assert steps == (2 if name == "reset.generation" else 1)
    rig.enable(slot)
    slot.submit(slot.frames([content(i) for i in range(BURST)], port=SINK))
    rig.sync(slot)
