# SPDX-License-Identifier: Apache-2.0
"""What an endpoint remembers of sessions that have ended, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from halo_mp.kcp.control import EndReason
from halo_mp.kcp.ended import ENDED, ENDED_S, RESETS_PER_S, EndedSessions
from halo_mp.kcp.errors import SessionEndedError, ended_by_peer
from halo_mp.kcp.peers import Address
from halo_mp.kcp.session import Session

PEER, OTHER = ("192.0.2.1", 5000), ("192.0.2.1", 5001)
DEAD = SessionEndedError("dead_link", "a segment was sent 20 times")
CLOSED = ended_by_peer(int(EndReason.CLIENT_CLOSE))


@dataclass
class Gone:
    """All that is looked at of a session."""

    conv: int
    address: Address = PEER
    error: SessionEndedError | None = field(default=None)
    is_client: bool = False


def gone(
    conv: int, address: Address = PEER, error: SessionEndedError | None = None, *, is_client: bool = False
) -> Session:
    return cast("Session", Gone(conv, address, error, is_client))


@pytest.mark.parametrize(
    ("error", "is_client", "told"),
    [
        (CLOSED, False, EndReason.SERVER_SHUTDOWN),
        (CLOSED, True, EndReason.CLIENT_CLOSE),
        (DEAD, False, EndReason.NOT_FOUND_SESSION),
        (None, False, EndReason.NOT_FOUND_SESSION),
    ],
)
def test_who_speaks_of_a_session_that_has_ended_is_told_how(
    error: SessionEndedError | None, is_client: bool, told: EndReason
) -> None:
    ended = EndedSessions(by_conv=True)
    ended.add(gone(7, error=error, is_client=is_client), now=1.0)
    assert ended.reason(7, now=2.0) == told
    assert ended.reason(8, now=2.0) == EndReason.NOT_FOUND_SESSION, "of one that there never was"
    assert (ended.has_conv(7), ended.has_conv(8)) == (True, False)


def test_so_many_a_second_are_told() -> None:
    ended = EndedSessions(by_conv=True)
    for second in (1, 2):
        told = [ended.reason(7, now=second + i / 10_000) for i in range(RESETS_PER_S + 5)]
        assert told.count(None) == 5
        assert None not in told[:-5]


def test_the_oldest_are_forgotten() -> None:
    ended = EndedSessions(by_conv=True)
    for conv in (1, 2, 1, *range(3, ENDED + 2)):
        ended.add(gone(conv), now=0.0)
    assert [ended.has_conv(conv) for conv in (1, 2, 3, ENDED + 1)] == [True, False, True, True]


def test_classic_session_is_its_peers_and_may_come_again_after_a_while() -> None:
    ended = EndedSessions(by_conv=False)
    ended.add(gone(7), now=10.0)
    assert ended.is_recent(7, PEER, now=10.0 + ENDED_S - 0.1)
    assert not ended.is_recent(7, PEER, now=10.0 + ENDED_S)
    assert not ended.is_recent(7, OTHER, now=11.0)
    assert not ended.is_recent(8, PEER, now=11.0)


def test_session_that_found_no_room_may_come_again_at_once() -> None:
    ended = EndedSessions(by_conv=False)
    ended.add(gone(7), now=10.0)
    ended.discard(gone(7))
    ended.discard(gone(8))
    assert not ended.is_recent(7, PEER, now=10.0)
