# SPDX-License-Identifier: Apache-2.0
"""Anything at all on the control socket: who sends it is refused or closed, and the others are served meanwhile.

`GARBAGE_MESSAGES=1000000 pytest -s tests/faults/test_garbage_control.py` sends as many as that, and says what it took.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import msgpack

from halo_mp.control import frame
from halo_mp.control.client import Client
from halo_mp.control.public import REQUESTS
from tests.faults.test_garbage import GROWTH_OCTETS, KINDS, framed, memory
from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import wait_until

SEED = 20261123
MESSAGES = int(os.environ.get("GARBAGE_MESSAGES", "100000"))
TOGETHER = 100
"""Messages of one connection, of which all but the last are frames, and answered."""
VARIETY = 5000
HELLO = frame.emit({"type": "hello", "version": 1})
HARMLESS = sorted(set(REQUESTS) - {"instance.stop"})
"""What it says of itself is done: garbage that stops the instance would be no garbage."""
FIELDS = sorted({name for request in REQUESTS.values() for name in request.fields})


@cache
def message(seed: int) -> bytes:
    """Return a frame that is a message, and nearly a request."""
    dice = random.Random(seed)
    odd: list[Callable[[], object]] = [
        lambda: None,
        lambda: True,
        lambda: dice.choice((-1, 0, 1, 2**31, 2**63, 2**64 - 1, -(2**63))),
        lambda: dice.choice((float("nan"), float("inf"), 1e308)),
        lambda: dice.randbytes(dice.randrange(40)),
        lambda: "".join(map(chr, (dice.randrange(1, 0xD800) for _ in range(dice.randrange(30))))),
        lambda: dice.choice(("0", "0.100", "10.0.0.0/8", "default", "events", "statistics", "10.77.0.2")),
        lambda: [["10.0.0.0/8", ["10.77.0.2"]], [1], "x", None] * dice.randrange(30),
        lambda: [[[[[[[[["deep"]]]]]]]]],
        lambda: {"a": {"b": [{}]}, "": 1},
    ]
    kind = dice.choice(HARMLESS) if dice.random() < 0.8 else dice.choice(("", "reply", "notice", "x" * 500))
    fields = dice.sample(FIELDS, dice.randrange(1, 4))
    if kind in REQUESTS and dice.random() < 0.5:
        fields = [*REQUESTS[kind].fields, *fields[:1]]
    body = {**{name: dice.choice(odd)() for name in fields}, "type": kind, "id": dice.randrange(2**32)}
    return framed(bytes(msgpack.packb(body)))


def send_some(path: str, dice: random.Random, count: int) -> int:
    """Send messages on one connection, the last of them anything at all; return how many replies came."""
    octets = [message(dice.randrange(VARIETY)) for _ in range(count - 1)]
    last = dice.choice(KINDS)(dice)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        reading = threading.Thread(target=send_all, args=(connection, HELLO + b"".join(octets) + last))
        reading.start()
        replies = count_frames(connection)
        reading.join()
    return replies


def send_all(connection: socket.socket, octets: bytes) -> None:
    with suppress(OSError):  # closed: it was told
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)


def count_frames(connection: socket.socket) -> int:
    """Return how many come until the connection is closed."""
    buffer, start, count = bytearray(), 0, 0
    with suppress(ConnectionResetError):
        while octets := connection.recv(1 << 20):
            buffer += octets
    while start + 4 <= len(buffer):
        start += 4 + int.from_bytes(buffer[start : start + 4], "big")
        count += start <= len(buffer)
    return count


class Customer:
    """A client that asks all the time, and is told of statistics, while others send garbage."""

    def __init__(self, instance: Instance) -> None:
        self._client = Client(path=instance.runtime / "control.sock", timeout_s=60.0)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest_s = 0.0
        self.served = self.told = 0
        self.error: BaseException | None = None

    def __enter__(self) -> Customer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        try:
            self._client.subscribe("statistics", period_s=0.1)
            while not self._enough.wait(0.01):
                begin = time.monotonic()
                assert self._client.version()[1] == 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
                self.served += 1
                self.told += sum(notice.topic == "statistics" for notice in self._client.notices(0.001))
        except BaseException as error:  # for who waits for us
            self.error = error


def test_garbage_on_the_control_socket_is_refused_and_the_others_are_served(pair: Instance) -> None:
    assert pair.process is not None
    supervisor, children = pair.process.pid, everybody(pair)
    path, dice = str(pair.runtime / "control.sock"), random.Random(SEED)
    print(f"seed {SEED}")
    for _ in range(60):  # what it needs for all of this, once
        send_some(path, dice, TOGETHER)
    descriptors, before = len(lives.descriptors(supervisor)), memory(supervisor)
    replies, begin = 0, time.monotonic()
    with Customer(pair) as customer:
        for _ in range(MESSAGES // TOGETHER):
            replies += send_some(path, dice, TOGETHER)
        seconds = time.monotonic() - begin
        wait_until(lambda: customer.error or customer.told > 1, what="statistics")
    assert customer.error is None
    assert customer.served > 1
    grown = memory(supervisor) - before
    print(
        f"{MESSAGES} messages in {seconds:.1f} s, {replies} answered; {grown >> 10} KiB more memory; "
        f"another client was served {customer.served} times, at the slowest in {1000 * customer.slowest_s:.0f} ms"
    )
    assert replies > MESSAGES / 2, "most of them are answered, if with a refusal"
    assert grown <= GROWTH_OCTETS
    wait_until(lambda: len(lives.descriptors(supervisor)) <= descriptors, what="all of them closed")
    assert everybody(pair) == children
    assert not pair.events("control.error")
    assert "Traceback" not in pair.text()
    with Client(path=pair.runtime / "control.sock", timeout_s=30.0) as client:
        assert {each.name for each in client.interfaces.list()} >= {"0", "1"}
        for number in ("0", "1"):
            client.interfaces.set(number, up=True)  # garbage may have said otherwise
    assert_answered(pair.namespace, *ADDRESSES)
    assert pair.stop() == 0
