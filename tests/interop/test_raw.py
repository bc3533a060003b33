# SPDX-License-Identifier: Apache-2.0
"""Raw frames in real workers: from one TAP to another, over a worker's death, and bursts from templates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.station import Heard, Station

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
STATION_MAC, OTHER_MAC = bytes.fromhex("02cc00000001"), bytes.fromhex("02cc00000002")
OURS = 0x88B5  # for local experiments, IEEE 802
FRAMES = 40


def frame(number: int, octets: int = 60) -> bytes:
    """A frame of a protocol that no stack speaks, different for each number."""
    return OTHER_MAC + STATION_MAC + OURS.to_bytes(2, "big") + number.to_bytes(4, "big") + bytes(octets - 18)


def is_ours(heard: Heard) -> bool:
    return heard.ethertype == OURS


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        made.silence()
        yield made


def app_file(tmp_path: Path, text: str) -> str:
    """Write an application, readable by a worker without privileges."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    file = tmp_path / "application.py"
    file.write_text(text)
    return f"{file}:app"


def test_direct_example_is_a_wire_and_outlives_its_workers(namespace: Namespace) -> None:
    flags = ("--ports", "0,1", "--app", f"{EXAMPLES / 'direct.py'}:app")
    with Instance(namespace, *flags) as instance:
        instance.wait_for("app.started", count=2)
        names = [f"{instance.name}-{number}" for number in (0, 1)]
        taps = [line.split(":")[1].strip() for line in namespace.run("ip", "-o", "link").stdout.splitlines()]
        names = [name for name in taps if instance.name in name] or names
        with Station(namespace, names[0]) as left, Station(namespace, names[1]) as right:
            ledger = Ledger(instance, 0, 1)
            cross(left, right)
            cross(right, left)
            ledger.assert_balanced()
            old = lives.pid(instance, "worker", 0)
            lives.kill(old)
            lives.wait_for_successor(instance, "worker", old, 0)
            instance.wait_for("app.started", count=3)
            cross(left, right)
            cross(right, left)
            ledger.assert_whole()
        assert instance.stop() == 0


def cross(sender: Station, receiver: Station) -> None:
    """Send frames of many lengths, and hear them at the other end as they were, in their order."""
    sent = [frame(number, 60 + 36 * number) for number in range(FRAMES)]
    receiver.heard()
    for octets in sent:
        sender.send(octets)
    heard = receiver.listen(is_ours, count=FRAMES, what="frames on the other side")
    assert [each.octets for each in heard] == sent
