# SPDX-License-Identifier: Apache-2.0
"""Sessions with forward error correction, both formats, over a network in memory that loses."""

from __future__ import annotations

import asyncio

import pytest

from halo_mp import kcp
from halo_mp.kcp import Settings
from halo_mp.kcp.fec import FecEncoder, is_fec
from halo_mp.kcp.fec_carrier import FecCarrier
from tests.support.datagram_net import NetLoop, run

SERVER = ("10.0.0.1", 4000)
FEC = Settings(stream=False, fec_data=5, fec_parity=2, congestion="none")
FORMATS = [FEC, FEC.replace(format="classic"), FEC.replace(check="xxh3")]


async def transfer(
    loop: NetLoop, settings: Settings, server_settings: Settings | None = None
) -> kcp.Listener:
    """Send 400 messages; return the listener, closed."""
    listener = await kcp.listen(*SERVER, settings=server_settings or settings)
    conv = {"conv": 9} if settings.format == "classic" else {}
    client = await kcp.connect(*SERVER, settings=settings, **conv)
    sent = [bytes([i & 255]) * (i * 31 % 3000) for i in range(400)]
    for message in sent:
        await client.send(message)
    server = await listener.accept_connection()
    assert [await server.receive() for _ in sent] == sent
    await server.send(b"thanks")
    assert await client.receive() == b"thanks"
    loop.net.loss = 0
    client.close()
    await client.wait_closed()
    return listener


@pytest.mark.parametrize("settings", FORMATS)
def test_lost_datagrams_are_made_from_others(settings: Settings) -> None:
    async def program(loop: NetLoop) -> None:
        loop.net.loss = 0.1
        listener = await transfer(loop, settings)
        carrier = listener.endpoint.carrier
        assert isinstance(carrier, FecCarrier)
        [(_, decoded)] = carrier.counters
        assert decoded.recovered > 10
        listener.abort()
        await listener.wait_closed()

    run(program, seed=3)


def test_every_datagram_fits_the_mtu() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await transfer(loop, FEC)
        lengths = {len(data) for _, _, data in loop.net.log}
        assert max(lengths) == FEC.mtu
        assert all(len(data) == 20 or is_fec(data) for _, _, data in loop.net.log)
        listener.abort()
        await listener.wait_closed()

    run(program)


def test_output_that_the_carrier_does_not_take_is_lost_and_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode, lengths = FecEncoder.encode, list[int]()

    def fail_first(encoder: FecEncoder, datagram: bytes, now_ms: int = 0) -> list[bytes]:
        lengths.append(len(datagram))
        if len(lengths) == 1:
            raise MemoryError("no memory for once")
        return encode(encoder, datagram, now_ms)

    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=FEC)
        client = await kcp.connect(*SERVER, settings=FEC)
        server = await listener.accept_connection()
        await client.send(b"first")
        assert await server.receive() == b"first"
        await client.drain()
        await asyncio.sleep(1)
        monkeypatch.setattr(FecEncoder, "encode", fail_first)
        client.send_nowait(bytes(4000))
        assert await server.receive() == bytes(4000)
        assert sum(length > 500 for length in lengths) == 1 + 3, lengths
        assert [type(each["exception"]) for each in loop.errors] == [MemoryError]
        loop.errors.clear()
        client.abort()
        listener.abort()
        await listener.wait_closed()

    run(program)


def test_classic_peer_without_fec_is_understood() -> None:
    async def program(loop: NetLoop) -> None:
        classic = FEC.replace(format="classic")
        listener = await kcp.listen(*SERVER, settings=classic)
        client = await kcp.connect(*SERVER, settings=classic.replace(fec_data=0, fec_parity=0), conv=9)
        client.send_nowait(b"plain")
        server = await listener.accept_connection()
        assert await server.receive() == b"plain"
        client.abort()
        listener.abort()
        await listener.wait_closed()

    run(program)


def test_strangers_cost_no_memory() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=FEC)
        for port in range(500):
            for head in ("00000000f100", "00000000f200", "ffffffff0000", "00"):
                for size in ("0200", "0000", "ffff", "1c00"):
                    octets = bytes.fromhex(head + size) + bytes(28)
                    loop.net.inject(("10.0.0.3", port), SERVER, octets)
        await asyncio.sleep(1)
        carrier = listener.endpoint.carrier
        assert isinstance(carrier, FecCarrier)
        assert carrier.counters == []
        assert not listener.endpoint.sessions
        listener.close()
        await listener.wait_closed()

    run(program)


def test_coders_of_sessions_that_are_gone_are_forgotten() -> None:
    async def program(loop: NetLoop) -> None:
        listener = await kcp.listen(*SERVER, settings=FEC, backlog=1000)
        for _ in range(200):
            client = await kcp.connect(*SERVER, settings=FEC)
            await client.send(b"x")
            await client.drain()
            client.close()
            await client.wait_closed()
        carrier = listener.endpoint.carrier
        assert isinstance(carrier, FecCarrier)
        assert 0 < len(carrier.counters) <= 64
        listener.close()
        await listener.wait_closed()

    run(program)


@pytest.mark.parametrize(
    "changes",
    [
        {"fec_data": 3},
        {"fec_parity": 1},
        {"fec_data": 200, "fec_parity": 100},
        {"fec_data": 1, "fec_parity": 1, "mtu": 57},
    ],
)
def test_numbers_that_can_not_be_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected both 0, or both 1 or more"):
        Settings(**changes)
