# SPDX-License-Identifier: Apache-2.0
"""Echo requests to several addresses at a steady pace, and when each was answered.

As a module this is a process: `python -m bench.prober INTERVAL_NS ADDRESS...` writes a record for each answer to
standard output, and what it has sent to each address when it is told to stop. `Prober` is its other end.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Self

from halo_mp.wire import icmpv4, ipv4
from halo_mp.wire.octets import WireError

_RECORD = struct.Struct("=BQQQ")  # address, sequence number, sent and received in ns of CLOCK_MONOTONIC
_LAST = 0xFF  # instead of an address: followed by how many were sent to which
_PAYLOAD = struct.Struct("!QQ")
LAST_ANSWERS_S = 0.5
"""How long an answer may take that is still waited for at the end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request; times in ns of CLOCK_MONOTONIC."""

    sequence: int
    sent_ns: int
    received_ns: int


class Prober:
    """The process, and what it has told. Use as a context manager; `answers` and `lost` are complete afterwards."""

    def __init__(self, addresses: list[str], interval_s: float = 0.001) -> None:
        self._command = [sys.executable, "-m", "bench.prober", str(int(interval_s * 1e9)), *addresses]
        self.answers: list[list[Answer]] = [[] for _ in addresses]
        self._sent = [0] * len(addresses)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._thread.join()

    def wait_for_answer(self, address: int, after_ns: int, timeout_s: float) -> Answer:
        """Return the first answer to a request that was sent after that moment. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        known = self.answers[address]
        at = len(known)
        while at and known[at - 1].sent_ns > after_ns:
            at -= 1
        while time.monotonic() < deadline:
            while at < len(known):
                if known[at].sent_ns > after_ns:
                    return known[at]
                at += 1
            time.sleep(0.0005)
        raise TimeoutError(f"no answer from address {address} within {timeout_s:g} s")

    def lost(self, address: int) -> int:
        """Return how many requests had no answer. Once it has ended."""
        return self._sent[address] - len({answer.sequence for answer in self.answers[address]})

    def _read(self) -> None:
        assert self._process.stdout is not None
        while octets := self._process.stdout.read(_RECORD.size):
            address, first, second, third = _RECORD.unpack(octets)
            if address == _LAST:
                self._sent[second] = first
            else:
                self.answers[address].append(Answer(first, second, third))


def main() -> None:
    """Send, receive and write until SIGINT."""
    interval_ns, addresses = int(sys.argv[1]), sys.argv[2:]
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGINT, stop)
    sockets = [_connect(address) for address in addresses]
    numbers = {sock.fileno(): number for number, sock in enumerate(sockets)}
    sent = [0] * len(sockets)
    due_ns = time.monotonic_ns()
    until_ns: int | None = None
    while until_ns is None or time.monotonic_ns() < until_ns:
        if stopping and until_ns is None:
            until_ns = time.monotonic_ns() + int(LAST_ANSWERS_S * 1e9)
        now_ns = time.monotonic_ns()
        if now_ns >= due_ns and until_ns is None:
            due_ns = max(due_ns + interval_ns, now_ns - interval_ns)
            for number, sock in enumerate(sockets):
                sent[number] += _request(sock, sent[number])
        readable, _, _ = select.select(sockets, [], [], max(0, due_ns - time.monotonic_ns()) / 1e9)
        for sock in readable:
            _answer(sock, numbers[sock.fileno()])
    for number, count in enumerate(sent):
        os.write(1, _RECORD.pack(_LAST, count, number, 0))


def _connect(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.setblocking(False)
    sock.connect((address, 0))
    return sock


def _request(sock: socket.socket, sequence: int) -> int:
    """Send a request and return 1: one that the kernel does not take, its device being away, is lost like others."""
    rest = (os.getpid() & 0xFFFF) << 16 | sequence & 0xFFFF
    payload = _PAYLOAD.pack(sequence, time.monotonic_ns())
    with suppress(OSError):
        sock.send(icmpv4.Icmpv4Message(icmpv4.ECHO_REQUEST, 0, rest, payload).emit())
    return 1


def _answer(sock: socket.socket, number: int) -> None:
    try:
        message = icmpv4.parse(ipv4.parse(sock.recv(2048)).payload)
    except (OSError, WireError):
        return
    received_ns = time.monotonic_ns()
    if message.type == icmpv4.ECHO_REPLY and message.identifier == os.getpid() & 0xFFFF:
        sequence, sent_ns = _PAYLOAD.unpack_from(message.payload)
        os.write(1, _RECORD.pack(number, sequence, sent_ns, received_ns))


if __name__ == "__main__":
    main()
