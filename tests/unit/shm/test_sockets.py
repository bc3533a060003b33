# SPDX-License-Identifier: Apache-2.0
"""Sockets in the tables: what is written is read, in order, and which two can not be."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from halo_mp.shm.region import Region
from halo_mp.shm.sockets import MAX_SOCKETS, Socket, SocketFlag, read_sockets
from halo_mp.shm.tables import TablesWriter, create_tables

SHARED = SocketFlag.SHARED


@pytest.fixture
def region() -> Iterator[Region]:
    made = create_tables(f"s{os.getpid() % 100000}", generation=1)
    made.unlink()
    yield made
    made.close()


def udp(port: int = 53, address: int = 0, *, slot: int = 0, shared: bool = False) -> Socket:
    return Socket(
        protocol=17, port=port, address=address, slot=slot, flags=SHARED if shared else SocketFlag.NONE
    )


def test_written_sockets_are_read_in_order(region: Region) -> None:
    writer = TablesWriter(region)
    full = Socket(protocol=17, port=9, address=1, peer_port=65535, peer=2**32 - 1, slot=63, flags=SHARED)
    for wanted in ([udp(53), udp(9, 5), full], [udp(9)], []):
        before, generation = writer.epoch, region.pointer.socket_generation
        epoch = writer.write_sockets(wanted)
        assert epoch == writer.epoch == before + 1
        assert region.pointer.socket_generation == generation + 1
        assert sorted(read_sockets(region)) == sorted(wanted)
        assert not writer.can_write([epoch - 1])
        assert writer.can_write([0, epoch])


def test_too_many_sockets_are_refused_and_change_nothing(region: Region) -> None:
    writer = TablesWriter(region)
    writer.write_sockets([udp()])
    with pytest.raises(ValueError, match=f"{MAX_SOCKETS + 1} sockets"):
        writer.write_sockets([udp()] * (MAX_SOCKETS + 1))
    assert read_sockets(region) == [udp()]
    writer.write_sockets([udp()] * MAX_SOCKETS)
    assert len(read_sockets(region)) == MAX_SOCKETS


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (udp(), udp(), True),
        (udp(), udp(54), False),
        (udp(address=1), udp(address=2), False),
        (udp(address=1), udp(), True),
        (udp(shared=True), udp(shared=True), False),
        (udp(shared=True), udp(), True),
        (udp(), Socket(protocol=6, port=53), False),
    ],
)
def test_conflicts_are_those_of_bind(one: Socket, other: Socket, conflict: bool) -> None:
    assert one.conflicts(other) == other.conflicts(one) == conflict
