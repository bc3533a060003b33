# SPDX-License-Identifier: Apache-2.0
"""How the end of a session is told: by exceptions that asyncio's users know, with the reason in a word."""

from __future__ import annotations

from typing import Final

from halo_mp.kcp.control import EndReason, reason_name

GRACEFUL: Final = frozenset(
    (int(EndReason.CLIENT_CLOSE), int(EndReason.CLIENT_SHUTDOWN), int(EndReason.SERVER_SHUTDOWN))
)
"""Reasons of a FIN after which all that was written has arrived: the end of a stream, not an error."""


class SessionEndedError(ConnectionResetError):
    """A session has ended; `reason` says by a word why, `str()` by a sentence.

    dead_link: a segment was sent again and again and never acknowledged. idle_timeout: nothing was heard of the peer.
    close_timeout: what was written was not delivered in the time for closing. closed: by this side. socket_closed: its
    socket was, by neither side. refused: the peer's host says that nobody listens there. Others are what the peer's FIN
    says, by halo's names (`EndReason`).
    """

    def __init__(self, reason: str, sentence: str, *, graceful: bool = False) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.graceful = graceful
        """Everything that was written has arrived."""


class RefusedError(SessionEndedError, ConnectionRefusedError):
    """The peer's host says that nobody listens there."""


def ended_by_peer(event: int) -> SessionEndedError:
    """What the event of a FIN means."""
    reason, graceful = reason_name(event), event in GRACEFUL
    return SessionEndedError(reason, f"the peer has ended the session: {reason}", graceful=graceful)


def ended_here(event: int = EndReason.CLIENT_CLOSE) -> SessionEndedError:
    """For who reads or writes what its own side has closed."""
    return SessionEndedError("closed", f"the session was closed here: {reason_name(event)}", graceful=True)


def dead_link(times: int) -> SessionEndedError:
    """A segment was sent that many times."""
    return SessionEndedError("dead_link", f"the peer acknowledged nothing: a segment was sent {times} times")


def idle_timeout(seconds: float) -> SessionEndedError:
    """Nothing was heard for so long."""
    return SessionEndedError("idle_timeout", f"nothing was heard of the peer for {seconds:g} s")


def close_timeout(seconds: float, segments: int) -> SessionEndedError:
    """What was written was not delivered."""
    return SessionEndedError(
        "close_timeout", f"{segments} segments were not delivered in the {seconds:g} s that closing may take"
    )


def socket_closed(error: Exception | None) -> SessionEndedError:
    """The socket is no more, and no side has closed the session: what came may be a part."""
    why = error or "its worker has left, or its transport was closed"
    return SessionEndedError("socket_closed", f"the socket of the session was closed under it: {why}")


def refused(error: OSError) -> RefusedError:
    """The peer's host has answered with an ICMP error, or the own host with one of its own."""
    return RefusedError("refused", f"nobody has the peer's address and port: {error}")
