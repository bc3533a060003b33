# SPDX-License-Identifier: Apache-2.0
"""Sessions that have ended a moment ago: who still speaks of them is told why, and makes none anew.

Bounded: the last ENDED are remembered, and so many peers a second are told. In halo's format a session is its conv, in
the classic one its peer's address and its conv: there the peer chooses the conv, and may choose the same again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from halo_mp.kcp.control import EndReason
from halo_mp.kcp.peers import Address
from halo_mp.kcp.session import Session

ENDED: Final = 4096
ENDED_S: Final = 60.0
"""For which a classic session is refused that begins where one has ended: it is rather what the network kept back.

Then it is a client that was started anew, with its port and conv: the classic format has nothing else to tell it by.
"""
RESETS_PER_S: Final = 1000


class _Ended(NamedTuple):
    """What is remembered of a session that has ended."""

    event: int
    """Of the FIN that those get who still speak of it."""
    at: float
    """The loop's clock."""


class EndedSessions:
    """What an endpoint knows of its sessions that are no more. `now` is the loop's clock, in seconds."""

    def __init__(self, *, by_conv: bool) -> None:
        """`by_conv`: halo's format."""
        self._by_conv = by_conv
        self._ended: OrderedDict[tuple[Address | None, int], _Ended] = OrderedDict()
        self._second, self._told = 0, 0

    def add(self, session: Session, now: float) -> None:
        """Remember a session that ends."""
        key = self._key(session)
        self._ended.pop(key, None)  # of an earlier one: the latest stand last
        self._ended[key] = _Ended(_event_of(session), now)
        while len(self._ended) > ENDED:
            self._ended.popitem(last=False)

    def discard(self, session: Session) -> None:
        """Forget a session: it may come again."""
        self._ended.pop(self._key(session), None)

    def has_conv(self, conv: int) -> bool:
        """Whether a session of halo's format with that conv has ended a moment ago."""
        return (None, conv) in self._ended

    def is_recent(self, conv: int, address: Address, now: float) -> bool:
        """Whether what a peer of the classic format sends may still be of a session that has ended."""
        ended = self._ended.get((address, conv))
        return ended is not None and now < ended.at + ENDED_S

    def reason(self, conv: int, now: float) -> int | None:
        """Return the event for who speaks of that conv; None: enough were told in this second.

        We may have been started anew, and know of no such session, or our FIN was lost.
        """
        second = int(now)
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= RESETS_PER_S:
            return None
        self._told += 1
        ended = self._ended.get((None, conv))
        return int(EndReason.NOT_FOUND_SESSION) if ended is None else ended.event

    def _key(self, session: Session) -> tuple[Address | None, int]:
        return (None if self._by_conv else session.address, session.conv)


def _event_of(session: Session) -> int:
    """What somebody who still speaks of an ended session is told."""
    error = session.error
    if error is not None and error.graceful:
        return int(EndReason.CLIENT_CLOSE if session.is_client else EndReason.SERVER_SHUTDOWN)
    return int(EndReason.NOT_FOUND_SESSION)
