# SPDX-License-Identifier: Apache-2.0
"""Talking to whoever runs us as a service: datagrams to NOTIFY_SOCKET, as sd_notify(3) describes them.

Started by anybody else, nothing is sent. Sending never waits: what the manager has no room for is sent again with the
next sign of life, since a READY=1 that it never hears would have us ended as one that does not start.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from halo_mp import logs

MOST_UNSENT = 16
_ALIVE = "WATCHDOG=1"
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

log = logs.get("supervisor")


class Service:
    """What a service manager is told of one supervisor."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Take the variables out of the environment: they are meant for us, and not for our children."""
        environment = os.environ if environment is None else environment
        address, usec, pid = (environment.pop(name, "") for name in _VARIABLES)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = not pid or pid == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and mine else 0.0
        """After so many seconds of silence we are ended and started anew; 0: nobody watches."""
        self._alive_at = 0.0
        self._failed = False
        self._unsent: list[str] = []
        """Oldest first."""
        # Kept open: when descriptors run out, the watchdog is to be told all the same.
        self._socket = _datagrams() if address else None

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def starting(self, text: str) -> None:
        """Say what is done before the start is over."""
        self._send(f"STATUS={text}")

    def ready(self, text: str) -> None:
        """Say that the start, or a reload, is over."""
        self._send(f"READY=1\nSTATUS={text}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Say that the configuration is being read anew; `ready` ends it."""
        self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=Reloading the configuration"
        )

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1\nSTATUS=Stopping")

    def alive(self, now: float) -> None:
        """Say that we are alive, as often as the watchdog needs to hear it: twice in its time."""
        self._send_again()
        if self.watchdog_s and now - self._alive_at >= self.watchdog_s / 4:
            self._alive_at = now
            self._send(_ALIVE)

    def _send(self, text: str) -> None:
        if self._socket is not None:
            self._unsent = [*(each for each in self._unsent if each not in (text, _ALIVE)), text][
                -MOST_UNSENT:
            ]
            self._send_again()

    def _send_again(self) -> None:
        while self._unsent and self._socket is not None:
            try:
                self._socket.sendto(self._unsent[0].encode(), self._address)
            except BlockingIOError:
                return
            except OSError as error:
                if not self._failed:
                    log.warning("service.not_told", reason=error.strerror)
                self._failed = True
            del self._unsent[0]


def _datagrams() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
