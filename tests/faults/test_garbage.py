# SPDX-License-Identifier: Apache-2.0
"""Anything at all on the private socket: who sent it is closed, and nobody else learns of it."""

from __future__ import annotations

import array
import gc
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import msgpack
import psutil

from halo_mp.control import frame
from halo_mp.control.frame import FrameError
from halo_mp.control.inbox import Inbox
from tests.proc.conftest import ADDRESSES, assert_answered, everybody
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import wait_until
from tests.support.pinger import Pinger
from tests.unit.supervisor.tree import Tree, scenario

SEED = 20261122
PARSED = 100_000
SENT = 8_000
WARM = 1_000
REPEATED = 10_000
GROWTH_OCTETS = 5 << 20
HELLO = {"type": "hello", "role": "worker", "slot": 0, "pid": 1, "version": 1, "boot_id": bytes(16)}


def framed(body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">I", len(body) if length is None else length) + body


def packed(random_: random.Random) -> bytes:
    """A message that could be one, with values that could not."""
    return packed_of(random_.randrange(2000))


@cache
def packed_of(seed: int) -> bytes:
    random_ = random.Random(seed)
    odd = (
        float("nan"),
        float("-inf"),
        2**64 - 1,
        -(2**63),
        True,
        None,
        "",
        "x" * 300,
        b"\xff" * 70,
        [[]] * 5,
        {"": {}},
        msgpack.ExtType(random_.randrange(128), b"x"),
        msgpack.Timestamp(2**40),
    )
    message: dict[object, object] = dict(
        random_.sample(list(HELLO.items()), random_.randrange(len(HELLO) + 1))
    )
    for key in random_.sample(["type", "role", "slot", "pid", "version", "boot_id", "fds", "id", 7, b"k"], 3):
        message[key] = random_.choice(odd)
    return bytes(msgpack.packb(message))


def flipped(random_: random.Random) -> bytes:
    octets = bytearray(framed(bytes(msgpack.packb(HELLO))))
    for _ in range(random_.randrange(1, 8)):
        octets[random_.randrange(len(octets))] = random_.randrange(256)
    return bytes(octets)


KINDS: list[Callable[[random.Random], bytes]] = [
    lambda r: r.randbytes(r.randrange(200)),
    lambda r: framed(r.randbytes(r.randrange(1, 200))),
    lambda r: framed(packed(r)),
    lambda r: framed(packed(r))[: r.randrange(1, 40)],
    lambda r: framed(packed(r) + packed(r)),  # a second object behind the first
    lambda r: framed(packed(r)) * r.randrange(2, 9),
    flipped,
    lambda r: framed(b"\x81\xa4type", 2**32 - r.randrange(1, 9)),  # 4 GiB declared
    lambda r: framed(b"\x81\xa4type\xc6\xff\xff\xff\xff"),  # the same, within
    lambda r: framed(b"\x81\xa4type\xdd\xff\xff\xff\xff" + bytes(40)),
    lambda r: framed(b"\x81\xa4type" + b"\x91" * 2000 + b"\xc0"),
    lambda r: framed(b"\x81\xa1x" * 2000 + b"\xc0"),
    lambda r: framed(b"\x82\xa4type\xa1x\xa4type\xa1y"),  # a key twice
    lambda r: framed(b"\x81\xa4type\xa2\xc3\x28"),  # no UTF-8
    lambda r: framed(b"\x81\xa4type\xcb\x7f\xf8" + bytes(6)),  # NaN
    lambda r: framed(b"", 0),
    lambda r: framed(bytes(frame.MAX_FRAME_OCTETS + 1)),
]


def garbage(count: int) -> Iterator[bytes]:
    """Yield what nobody should send, always the same."""
    random_ = random.Random(SEED)
    for number in range(count):
        yield KINDS[number % len(KINDS)](random_)


def test_garbage_is_a_frame_error_or_a_message_and_nothing_else() -> None:
    messages = 0
    for octets in garbage(PARSED):
        inbox = Inbox()
        with suppress(FrameError):
            inbox.put(octets, [])
            while (found := inbox.take()) is not None:
                assert isinstance(found[0]["type"], str)
                messages += 1
    assert 0 < messages < PARSED


def dial(instance: Instance) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(str(instance.runtime / "private.sock"))  # waits for room in the backlog
    return channel


def send_garbage(instance: Instance, count: int) -> None:
    """Each on a connection of its own, of which every tenth carries descriptors that nobody asked for."""
    with open(os.devnull, "rb") as null:
        rights = array.array("i", [null.fileno()] * 20)
        for number, octets in enumerate(garbage(count)):
            with dial(instance) as channel, suppress(BrokenPipeError, ConnectionResetError):
                extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if number % 10 == 0 else []
                channel.sendmsg([octets or b"\0"], extra)


def memory(process: int) -> int:
    """Return the octets that are a process's own, and not shared: the pool grows with its use."""
    found = psutil.Process(process).memory_info()
    return int(found.rss - found.shared)


def test_garbage_closes_who_sent_it_and_leaves_nothing(pair: Instance) -> None:
    assert pair.process is not None
    supervisor, children = pair.process.pid, everybody(pair)
    send_garbage(pair, WARM)
    wait_until(lambda: len(lives.descriptors(supervisor)) < 64, what="the first to be closed")
    descriptors, before = len(lives.descriptors(supervisor)), memory(supervisor)
    with Pinger(pair.namespace) as pinger:
        pinger.wait_for_more()
        send_garbage(pair, SENT)
        pinger.wait_for_more()
    assert pinger.lost == set()
    wait_until(lambda: len(lives.descriptors(supervisor)) <= descriptors, what="all of them closed")
    assert memory(supervisor) - before <= GROWTH_OCTETS
    assert everybody(pair) == children
    victim = lives.pid(pair, "worker", 1)
    lives.kill(victim)
    lives.wait_for_successor(pair, "worker", victim, 1)
    assert_answered(pair.namespace, *ADDRESSES)
    assert "Traceback" not in pair.text()
    assert not pair.events("supervisor.error")
    assert pair.stop() == 0


def test_half_a_message_then_silence_is_closed_and_keeps_no_child_out(pair: Instance) -> None:
    """More of them than a supervisor listens to at once, while a worker has to come back."""
    with ExitStack() as stack:
        silent = []
        for _ in range(100):
            silent.append(stack.enter_context(dial(pair)))
            with suppress(BrokenPipeError):
                silent[-1].send(framed(bytes(msgpack.packb(HELLO)))[:20])
        victim = lives.pid(pair, "worker", 0)
        lives.kill(victim)
        lives.wait_for_successor(pair, "worker", victim, 0)
        assert not pair.events("worker.failed")
        for channel in silent:
            channel.settimeout(15)
            with suppress(ConnectionResetError):
                assert channel.recv(1) == b"", "closed"
    assert_answered(pair.namespace, ADDRESSES[0])
    assert pair.stop() == 0


def test_everything_a_worker_may_say_ten_thousand_times_changes_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        tree = Tree(tmp_path, {"worker.0": [f"repeat:{REPEATED}@soon"]}, "--spare", "0")
        await tree.up()
        gc.collect()
        descriptors, before = len(os.listdir("/proc/self/fd")), memory(os.getpid())
        await tree.wait_for("worker.0", "repeated")
        assert len(tree.events("worker.0", "start")) == 1
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 6, "those of one message may be under way"
        assert memory(os.getpid()) - before <= GROWTH_OCTETS
        await tree.stop()

    scenario(tmp_path, play)
