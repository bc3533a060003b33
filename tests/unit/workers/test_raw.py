# SPDX-License-Identifier: Apache-2.0
"""Raw frames and blasters as an application uses them, on a fast path in private memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from halo_mp.app import Blaster, FrameBurst, Port, Vary
from halo_mp.app.frames import QUEUE
from halo_mp.shm.layout import DROP_NAMES, ffi, lib
from halo_mp.wire import ethernet, ipv4, udp
from halo_mp.workers.raw import RawFrames
from tests.unit.workers.rig import Rig, rig

TRANSMIT, RELEASE = lib.HALO_ACTION_TRANSMIT, lib.HALO_ACTION_RELEASE
ETHERTYPE = 0x88B5
OUT = 1


@pytest.fixture
def made(instance: str) -> Iterator[Rig]:
    with rig(instance, {}) as started:
        yield started


@contextmanager
def raw_of(made: Rig, *, debug: bool = False, turn: bool = True) -> Iterator[RawFrames]:
    """RawFrames whose loop is the running one, or none."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        loop.close()

    def run(timeout_ns: int) -> bool:
        raw.on_poll(made.fastpath.poll(timeout_ns))
        return True

    raw = RawFrames(
        made.fastpath,
        loop,
        made.pool,
        ffi.addressof(made.slot.geometry, "pool"),
        run if turn else None,
        debug=debug,
    )
    yield raw
    raw.close()


@pytest.fixture
def port(made: Rig) -> Iterator[Port]:
    with raw_of(made) as raw:
        yield raw.open(0)


def frame(number: int, octets: int = 60) -> bytes:
    return bytes(12) + ETHERTYPE.to_bytes(2, "big") + bytes([number]) * (octets - 14)


def received(made: Rig, port: Port, count: int = 4) -> FrameBurst:
    port.receive()
    for number in range(count):
        made.deliver(frame(number, 60 + number))
    burst = port.receive()
    assert len(burst) == count
    return burst


def dropped(made: Rig) -> dict[str, int]:
    counts = made.slot.worker.drops
    return {name: counts[i] for i, name in enumerate(DROP_NAMES) if counts[i]}


# ---- bursts


def test_burst_is_what_came_in(made: Rig, port: Port) -> None:
    burst = received(made, port)
    assert [bytes(each.octets) for each in burst] == [frame(number, 60 + number) for number in range(4)]
    assert [(each.length, each.port, each.ethertype, each.vlan) for each in burst] == [
        (60 + number, 0, ETHERTYPE, 0) for number in range(4)
    ]
    assert burst[-1].octets[14] == 3
    assert len({each.timestamp_ns for each in burst}) == 4
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"frame {index} of a burst of 4"):
            burst[index]


def test_frames_go_where_each_is_sent(made: Rig, port: Port) -> None:
    with received(made, port, 5) as burst:
        burst[0].forward(OUT)
        burst[1].drop()
        burst[2].consume()
        burst[3].replace(b"\x02" * 100)
        burst[3].forward(2)
    assert [(action, out, len(octets)) for action, out, octets in made.sent() if action == TRANSMIT] == [
        (TRANSMIT, OUT, 60),
        (TRANSMIT, 2, 100),
    ]
    assert dropped(made) == {"app_drop": 2}, "the one that was dropped, and the one that nobody decided"
    assert made.slot.worker.consumed == 1
    assert made.slot.worker.held == 0


@pytest.mark.parametrize(
    "mask",
    [
        [True, False, True, False],
        (1, 0, 5, 0),
        b"\x01\x00\xff\x00",
        np.array([True, False, True, False]),
        np.array([[True, True], [False, False], [True, True], [False, False]])[:, 0],
        np.array([256, 0, -1, 0]),
    ],
    ids=["list", "ints", "bytes", "numpy", "numpy with strides", "numpy of ints"],
)
def test_mask_says_which(made: Rig, port: Port, mask: Any) -> None:
    with received(made, port) as burst:
        assert burst.consume() == 4
        assert burst.transmit(OUT, mask) == 2
    sent = [octets[14] for action, _, octets in made.sent() if action == TRANSMIT]
    assert sent == [0, 2]
    assert (made.slot.worker.consumed, dropped(made)) == (2, {})


def test_mask_of_another_length_is_refused(made: Rig, port: Port) -> None:
    burst = received(made, port)
    with pytest.raises(ValueError, match="a mask of 3 for a burst of 4 frames"):
        burst.drop([True] * 3)
    with pytest.raises(ValueError, match="port 64: ports are 0 to 63"):
        burst.transmit(64)
    with pytest.raises(ValueError, match="port -1"):
        burst[0].forward(-1)


def test_octets_are_written_in_place(made: Rig, port: Port) -> None:
    with received(made, port, 1) as burst:
        burst[0].octets[0:6] = b"\x02halo!"
        burst.transmit(OUT)
    [(_, _, octets)] = made.sent()
    assert octets == b"\x02halo!" + frame(0)[6:]


@pytest.mark.parametrize("octets", [b"", bytes(13), bytes(4096), bytes(100_000)])
def test_replacement_that_is_no_frame(made: Rig, port: Port, octets: bytes) -> None:
    burst = received(made, port)
    with pytest.raises(ValueError, match=f"{len(octets)} octets are no frame"):
        burst[0].replace(octets)


def test_columns_are_those_of_hooks(made: Rig, port: Port) -> None:
    for _ in range(2):
        with received(made, port) as burst:
            columns = burst.columns
            assert columns.length.tolist() == [60, 61, 62, 63]
            assert set(columns.ethertype.tolist()) == {ETHERTYPE}
            assert columns.octets[:, 14:16].tolist() == [[number] * 2 for number in range(4)]
            columns.octets[1:3, 14] = 0x77
            assert columns.udp.dport.tolist() == [0] * 4
            burst.transmit(OUT, columns.length % 2 == 0)
            columns.tx_port[0] = 9
        sent = [(out, octets[14:16]) for action, out, octets in made.sent() if action == TRANSMIT]
        assert sent == [(9, bytes(2)), (OUT, b"\x77\x02")]


def test_columns_of_packets_and_their_checksums(made: Rig, port: Port) -> None:
    port.receive()
    made.deliver(datagram())
    with port.receive() as burst:
        columns = burst.columns
        assert (columns.udp.dport[0], columns.ipv4.ttl[0], columns.ipv4.src[0]) == (2, 64, 0xC6120001)
        columns.octets[:, 36:38] = [0x12, 0x34]
        columns.update_checksums()
        burst.transmit(OUT)
    [(_, _, octets)] = made.sent()
    assert parse(octets)[1].dst_port == 0x1234


def test_columns_that_are_kept_do_no_harm(made: Rig, port: Port) -> None:
    kept = []
    for _ in range(3):
        with received(made, port) as burst:
            kept += [burst.columns.length, burst.columns.pool]
        port.close()
    assert [column.sum() > 0 for column in kept[::2]] == [True] * 3


# ---- their end


def test_next_burst_ends_the_one_before(made: Rig, port: Port) -> None:
    first = received(made, port)
    kept, view = first[0], first[1].octets
    assert not port.receive()
    assert dropped(made) == {"app_drop": 4}
    for use in (lambda: kept.octets, lambda: kept.length, lambda: first.columns, first.drop, kept.drop):
        with pytest.raises(RuntimeError, match="this burst has ended"):
            use()
    with pytest.raises(ValueError, match="released"):
        view[0]
    first.end()


@pytest.mark.parametrize(
    ("keep", "leaks"),
    [
        (lambda view: bytes(view), False),
        (lambda view: view, False),
        (lambda view: view[2:4], True),
        (lambda view: np.frombuffer(view, np.uint8), True),
    ],
    ids=["a copy", "the view", "a part of it", "an array"],
)
def test_view_that_is_kept_is_told_of(made: Rig, keep: Any, leaks: bool) -> None:
    told = []
    with raw_of(made, debug=True) as raw:
        raw.view_kept = told.append  # type: ignore[method-assign]
        with received(made, raw.open(0)) as burst:
            kept = keep(burst[0].octets)
        assert told == ([0] if leaks else [])
        del kept


def test_view_that_is_kept_costs_nobody_anything(made: Rig, port: Port) -> None:
    kept = []
    for _ in range(3):
        with received(made, port) as burst:
            kept += [np.frombuffer(each.octets, np.uint8) for each in burst]
            burst.consume()
    assert len(kept) == 12
    assert made.slot.worker.consumed == 12


# ---- ports


def test_claim_lasts_until_the_port_is_closed(made: Rig, port: Port) -> None:
    made.deliver(frame(0))
    assert dropped(made) == {"no_interface": 1}
    port.receive()
    made.deliver(frame(1))
    port.close()
    port.close()
    made.deliver(frame(2))
    assert dropped(made) == {"no_interface": 2, "app_drop": 1}
    assert len(received(made, port)) == 4, "and it may be claimed again"


def test_queue_is_bounded(made: Rig) -> None:
    assert 0 < QUEUE <= 4096


def test_receive_waits_for_frames_without_asyncio(made: Rig, port: Port) -> None:
    assert len(port.receive(timeout=0.01)) == 0
    made.deliver(frame(0))
    assert len(port.receive(timeout=10.0)) == 1


def test_receive_is_refused_where_the_packet_loop_runs(made: Rig) -> None:
    with raw_of(made, turn=False) as raw:
        with pytest.raises(RuntimeError, match="called by it"):
            raw.open(0).receive()


@pytest.mark.parametrize("limit", [0, 513, -1])
def test_limit_that_makes_no_sense(port: Port, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit={limit}: a burst has 1 to 512 frames"):
        port.receive(limit)
    with pytest.raises(ValueError, match=f"limit={limit}"):
        port.frames(limit)


def test_ports_that_can_not_be(made: Rig) -> None:
    with raw_of(made) as raw:
        assert raw.open(7) is raw.open(7)
        for number in (-1, 64):
            with pytest.raises(ValueError, match=f"port {number}: ports are 0 to 63"):
                raw.open(number)


def test_transmit_sends_and_says_how_many(made: Rig, port: Port) -> None:
    made.give_spares(3)
    assert port.transmit(frame(1)) == 1
    assert port.transmit([frame(2), bytearray(frame(3)), memoryview(frame(4))]) == 2
    assert [octets[14] for _, _, octets in made.sent()] == [1, 2, 3]
    assert dropped(made) == {"no_spare_buffer": 1}
    with pytest.raises(ValueError, match="13 octets are no Ethernet frame"):
        port.transmit(bytes(13))


def test_everything_is_refused_when_the_worker_has_left(made: Rig) -> None:
    with raw_of(made) as raw:
        port = raw.open(0)
        burst = received(made, port)
        blaster = port.blaster(frame(0))
    assert made.slot.worker.held == 0
    burst.end()
    port.close()
    blaster.close()
    for use in (port.receive, lambda: port.transmit(frame(0)), lambda: port.blaster(frame(0))):
        with pytest.raises(RuntimeError, match="left its slot"):
            use()


# ---- async


def test_iterator_wakes_up_for_frames_and_gives_the_port_back(made: Rig) -> None:
    async def read() -> list[int]:
        with raw_of(made) as raw:
            port = raw.open(0)
            found: list[int] = []

            async def take() -> None:
                async for burst in port.frames(limit=2):
                    found.extend(each.octets[14] for each in burst)
                    burst.consume()
                    if 4 in found:
                        return

            task = asyncio.create_task(take())
            for number in range(5):
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                raw.on_poll(made.deliver(frame(number)))
            await task
            await asyncio.sleep(0)
            made.deliver(frame(9))
            return found

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]
    assert dropped(made) == {"no_interface": 1}, "the iterator is gone, and so is its claim"


def test_one_iterator_of_a_port_at_a_time(made: Rig, port: Port) -> None:
    first = port.frames()
    with pytest.raises(RuntimeError, match="frames of port 0 are read already"):
        port.frames()
    first.close()
    second = port.frames()
    first.close()  # it is not the first's any more
    made.deliver(frame(0))
    assert dropped(made) == {}
    del second
    assert dropped(made) == {"app_drop": 1}


# ---- blasters


def datagram() -> bytes:
    src, dst = ipv4.parse_address("198.18.0.1"), ipv4.parse_address("198.19.0.1")
    octets = udp.UdpDatagram(1, 2, b"payload").emit(src=src, dst=dst)
    packet = ipv4.Ipv4Packet(src=src, dst=dst, protocol=ipv4.PROTOCOL_UDP, payload=octets).emit()
    return ethernet.EthernetFrame(bytes(6), bytes(6), ethernet.ETHERTYPE_IPV4, packet).emit()


def parse(octets: bytes) -> tuple[ipv4.Ipv4Packet, udp.UdpDatagram]:
    """Raises WireError when a checksum is wrong."""
    packet = ipv4.parse(ethernet.parse(octets).payload)
    return packet, udp.parse(packet.payload, src=packet.src, dst=packet.dst)


def test_blaster_varies_fields_by_their_names(made: Rig, port: Port) -> None:
    made.give_spares(6)
    vary = [
        Vary.field("ipv4.src", 0x0A000001, count=2),
        Vary.field("udp.dport", 65535),
        Vary.field("ipv4.ttl", 9),
    ]
    with port.blaster(datagram(), vary=vary) as blaster:
        assert blaster.send(10) == 6
        assert (blaster.sent.frames, blaster.sent.octets, blaster.sent.starved) == (6, 6 * len(datagram()), 1)
    assert blaster.sent.frames == 6
    found = [parse(octets) for _, _, octets in made.sent()]
    assert [packet.src & 0xFF for packet, _ in found] == [1, 2] * 3
    assert [datagram.dst_port for _, datagram in found] == [65535, 0, 1, 2, 3, 4]
    assert [packet.ttl for packet, _ in found] == list(range(9, 15))
    with pytest.raises(RuntimeError, match="this blaster is closed"):
        blaster.send(1)


def test_blaster_counts_to_the_end_of_its_run(made: Rig) -> None:
    async def run() -> tuple[int, int]:
        with raw_of(made) as raw, raw.open(0).blaster(datagram()) as blaster:
            made.give_spares(8)
            task = asyncio.create_task(blaster.run(count=5, pps=1e6))
            while not task.done():
                raw.on_poll(made.fastpath.poll(1000))
                await asyncio.sleep(0)
            return await task, blaster.sent.frames

    assert asyncio.run(run()) == (5, 5)


def test_blaster_stops_when_its_time_is_up_or_its_task_ends(made: Rig) -> None:
    async def run() -> list[int]:
        with raw_of(made) as raw, raw.open(0).blaster(datagram()) as blaster:
            made.give_spares(8)
            sent = await blaster.run(seconds=0.001)
            task = asyncio.create_task(blaster.run())
            await asyncio.sleep(0)
            made.fastpath.poll(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            before = blaster.sent.frames
            made.give_spares(8)
            made.fastpath.poll(0)
            return [sent, before, blaster.sent.frames]

    assert asyncio.run(run()) == [0, 8, 8]


@pytest.mark.parametrize(
    ("vary", "sentence"),
    [
        ([Vary(offset=0, octets=9)], "a field has 1 to 8 octets"),
        ([Vary(offset=43, octets=8)], "one of 8 an even offset"),
        ([Vary(offset=48, octets=2)], "behind the shortest template, which has 49 octets"),
        ([Vary(offset=0, octets=2, random=True)], "random values want a count"),
        ([Vary(offset=0, octets=1, first=256)], "fit into 1 octets"),
        ([Vary(offset=0, octets=1)] * 9, "9 fields: a blaster varies 8 at most"),
        ([Vary(offset=32, octets=4)], "across two headers, or across another field"),
        ([Vary(offset=42, octets=2), Vary(offset=43, octets=2)], "across another field"),
    ],
)
def test_fields_that_can_not_be(port: Port, vary: list[Vary], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        port.blaster(datagram(), vary=vary)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ([], "0 templates: a blaster has 1 to 1024"),
        (bytes(13), "13 octets is no Ethernet frame"),
        ([bytes(60), bytes(5000)], "5000 octets is longer than a buffer; see --mtu"),
    ],
)
def test_templates_that_can_not_be(port: Port, template: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        port.blaster(template)


def test_paces_that_can_not_be(port: Port) -> None:
    with port.blaster(datagram()) as blaster:
        for pace in ({"pps": -1}, {"bps": 0.5}, {"count": -1}, {"catch_up_s": 2}):
            with pytest.raises(ValueError, match=next(iter(pace))):
                blaster.start(**pace)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'udp\.port' is none of eth\.dst"):
        Vary.field("udp.port", 1)


def test_blasters_are_bounded(made: Rig, port: Port) -> None:
    blasters: list[Blaster] = [port.blaster(datagram()) for _ in range(16)]
    with pytest.raises(RuntimeError, match=r"16 blasters at most; close\(\)"):
        port.blaster(datagram())
    blasters[3].close()
    port.blaster(datagram())
