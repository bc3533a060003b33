# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest

from halo_mp.kcp.control import CLIENT_CONNECT_KEY, EDITOR_CONNECT_KEY, ControlKind, ControlPacket
from halo_mp.kcp.handshake import ClientHandshake, ClientState, PendingTable

SYN = ControlPacket(ControlKind.SYN, 0, CLIENT_CONNECT_KEY)
HOST = "192.0.2.1"
PEER = (HOST, 4000)


def est(conv: int, event: int = CLIENT_CONNECT_KEY) -> ControlPacket:
    return ControlPacket(ControlKind.EST, conv, event)


def table(**bounds: int) -> PendingTable:
    return PendingTable(itertools.count(1).__next__, **bounds)


# ---- client


def test_connecting_poll_retries_with_back_off_until_the_deadline() -> None:
    client = ClientHandshake(now=100.0, timeout_s=10.0)
    sent = []
    while (deadline := client.next_deadline()) is not None:
        assert client.poll(deadline - 0.001) is None
        if client.poll(deadline) is not None:
            sent.append(deadline)
    assert sent == [100.0, 100.25, 100.75, 101.75, 103.75, 105.75, 107.75, 109.75]
    assert client.state is ClientState.FAILED
    assert client.poll(200.0) is None


def test_connecting_est_gives_the_conv() -> None:
    client = ClientHandshake(now=0.0)
    assert client.poll(0.0) == SYN
    assert client.receive(est(7 << 32 | 1), from_server=True)
    assert (client.state, client.conv, client.next_deadline()) == (ClientState.CONNECTED, 7 << 32 | 1, None)
    assert client.poll(1.0) is None


@pytest.mark.parametrize(
    ("packet", "from_server"),
    [
        (est(9), False),  # from another address
        (est(9, EDITOR_CONNECT_KEY), True),  # for somebody who sent another key
        (est(5), True),  # of a session that there is already
        (SYN, True),
        (ControlPacket(ControlKind.FIN, 9, CLIENT_CONNECT_KEY), True),
        (ControlPacket(ControlKind.PING, 9, CLIENT_CONNECT_KEY), True),
    ],
)
def test_connecting_what_is_no_answer_is_counted(packet: ControlPacket, from_server: bool) -> None:
    client = ClientHandshake(now=0.0, is_used=lambda conv: conv == 5)
    client.poll(0.0)
    assert not client.receive(packet, from_server=from_server)
    assert (client.state, client.refused) == (ClientState.CONNECTING, 1)
    assert client.receive(est(9), from_server=True)


def test_connected_est_is_not_taken_again() -> None:
    client = ClientHandshake(now=0.0)
    client.poll(0.0)
    client.receive(est(1), from_server=True)
    assert not client.receive(est(2), from_server=True)
    assert (client.conv, client.refused) == (1, 1)


def test_failed_est_comes_too_late() -> None:
    client = ClientHandshake(now=0.0, timeout_s=1.0)
    client.poll(1.0)
    assert not client.receive(est(1), from_server=True)
    assert client.conv is None


# ---- server


def test_unknown_syn_is_answered_and_a_repeated_one_the_same() -> None:
    pending = table()
    first = pending.receive(SYN, PEER, HOST, 0.0)
    assert first == est(1)
    assert pending.receive(SYN, PEER, HOST, 59.9) == first
    assert pending.receive(SYN, (HOST, 4001), HOST, 59.9) == est(2)
    assert (pending.counters.syns, pending.counters.syns_repeated, len(pending)) == (3, 1, 2)


@pytest.mark.parametrize("event", [0, 1, EDITOR_CONNECT_KEY])
def test_unknown_syn_without_the_key_is_refused(event: int) -> None:
    pending = table()
    assert pending.receive(ControlPacket(ControlKind.SYN, 0, event), PEER, HOST, 0.0) is None
    assert (len(pending), pending.counters.syns_refused, pending.counters.syns) == (0, 1, 0)


def test_pending_expires_after_a_minute_from_the_first_syn() -> None:
    pending = table()
    pending.receive(SYN, PEER, HOST, 0.0)
    pending.receive(SYN, PEER, HOST, 30.0)
    assert pending.is_expected(PEER, 1, 59.9)
    assert not pending.is_expected(PEER, 1, 60.0)
    assert pending.receive(SYN, PEER, HOST, 60.0) == est(2)
    assert pending.counters.pending_expired == 1


def test_pending_only_its_own_conv_from_its_own_address_makes_a_session() -> None:
    pending = table()
    pending.receive(SYN, PEER, HOST, 0.0)
    assert not pending.is_expected(PEER, 2, 1.0)
    assert not pending.is_expected((HOST, 4001), 1, 1.0)
    assert pending.is_expected(PEER, 1, 1.0)


def test_accepted_address_that_starts_anew_gets_another_conv() -> None:
    pending = table()
    pending.receive(SYN, PEER, HOST, 0.0)
    pending.accept(PEER)
    assert not pending.is_expected(PEER, 1, 1.0)
    assert pending.receive(SYN, PEER, HOST, 1.0) == est(2)
    assert pending.counters.accepted == 1


def test_flood_of_one_host_evicts_its_own() -> None:
    pending = table(most=100, most_of_host=10)
    pending.receive(SYN, PEER, HOST, 0.0)
    for port in range(1000):
        pending.receive(SYN, ("198.51.100.1", port), "198.51.100.1", 1.0)
    assert (len(pending), pending.counters.pending_evicted) == (11, 990)
    assert pending.is_expected(PEER, 1, 1.0)


def test_flood_of_many_hosts_evicts_the_oldest() -> None:
    pending = table(most=100, most_of_host=10)
    for host in range(1000):
        pending.receive(SYN, (host, 1), host, 1.0)
    assert (len(pending), pending.counters.pending_evicted) == (100, 900)
    assert not pending.has((899, 1))
    assert pending.has((900, 1))


def test_empty_table_keeps_nothing_of_what_went_through() -> None:
    pending = table(most=50)
    for port in range(200):
        pending.receive(SYN, (HOST, port), HOST, 0.0)
    pending.expire(60.0)
    assert len(pending) == 0
    assert not pending._of_host
    assert pending.counters.pending_evicted + pending.counters.pending_expired == 200
