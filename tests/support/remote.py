# SPDX-License-Identifier: Apache-2.0
"""Python that a test runs inside a worker: the other end of tests/support/apps/remote.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.support.namespace import Namespace
from tests.support.station import socket_in

REMOTE = f"{Path(__file__).with_name('apps') / 'remote.py'}:app"
_FIRST_PORT = 9100


class RemoteError(Exception):
    """What the code raised there."""

    def __init__(self, kind: str, errno: int | None, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.errno = errno


class Remote:
    """The worker of a slot. Use as a context manager."""

    def __init__(self, namespace: Namespace, slot: int = 0) -> None:
        self._socket = socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(20.0)
        self._there = ("127.0.0.1", _FIRST_PORT + slot)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, body: str) -> Any:
        """Run the body of a coroutine there, and return what it returns. Raises RemoteError.

        It has `worker`, `loop`, `asyncio`, `Inbox`, and `kept`, a dict that stays as long as the worker.
        """
        self._socket.sendto(body.encode(), self._there)
        answer = json.loads(self._socket.recv(65536))
        if "error" in answer:
            raise RemoteError(answer["error"], answer["errno"], answer["text"])
        return answer["result"]
