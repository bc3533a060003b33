# SPDX-License-Identifier: Apache-2.0
"""Two blocks and an epoch: what readers see while the writer writes."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from halo_mp.shm.layout import MAX_ADDRESSES, MAX_INTERFACES
from halo_mp.shm.region import Region
from halo_mp.shm.tables import Interface, InterfaceFlag, TablesWriter, create_tables, read_interfaces

MAC = bytes.fromhex("02aabbccddee")


@pytest.fixture
def region(instance: str) -> Iterator[Region]:
    made = create_tables(instance, generation=1)
    yield made
    made.unlink()
    made.close()


def tagged(tag: int, count: int) -> dict[int, Interface]:
    return {i: Interface(port=i % 64, mac=MAC, mtu=1500, addresses=((tag, 24),)) for i in range(count)}


def test_new_tables_are_empty_at_epoch_one(region: Region) -> None:
    assert read_interfaces(region) == {}
    assert TablesWriter(region).epoch == 1


def test_write_is_read_back_whole(region: Region) -> None:
    wanted = {
        0: Interface(port=3, mac=MAC, mtu=9000, addresses=((0x0A4D0001, 24), (0x0A4E0001, 31)), vlan=100),
        7: Interface(port=255, mac=bytes(6), mtu=65535, flags=InterfaceFlag.PROXY_ARP, home_slot=3),
        2: Interface(port=4, mac=MAC, mtu=1500, addresses=((0x0A4F0001, 32),)),
    }
    assert TablesWriter(region).write(wanted) == 2
    assert read_interfaces(region) == wanted


def test_write_switches_blocks_and_leaves_the_other_alone(region: Region) -> None:
    writer = TablesWriter(region)
    writer.write(tagged(1, 2))
    first = region.pointer.active
    writer.write(tagged(2, 1))
    assert region.pointer.active == 1 - first
    assert region.pointer.interfaces[first].count == 2
    assert region.pointer.interfaces[first].address[0].address == 1


def test_write_shorter_list_hides_the_old_rest(region: Region) -> None:
    writer = TablesWriter(region)
    for tag, count in ((1, 5), (2, 5), (3, 1)):
        writer.write(tagged(tag, count))
    assert read_interfaces(region) == tagged(3, 1)


def test_write_too_many_is_refused_and_changes_nothing(region: Region) -> None:
    writer = TablesWriter(region)
    writer.write(tagged(1, MAX_INTERFACES))
    with pytest.raises(ValueError, match="257 interfaces"):
        writer.write(tagged(2, MAX_INTERFACES + 1))
    assert writer.epoch == 2
    assert read_interfaces(region) == tagged(1, MAX_INTERFACES)


def test_write_too_many_addresses_is_refused(region: Region) -> None:
    crowd = Interface(port=0, mac=MAC, mtu=1500, addresses=((1, 32),) * (MAX_ADDRESSES + 1))
    with pytest.raises(ValueError, match="1025 addresses"):
        TablesWriter(region).write({0: crowd})


def test_advance_moves_the_epoch_and_no_block(region: Region) -> None:
    writer = TablesWriter(region)
    writer.write(tagged(1, 1))
    generation = region.pointer.interface_generation
    assert writer.advance() == writer.epoch == 3
    assert region.pointer.interface_generation == generation
    assert writer.can_write([2])


def test_can_write_waits_for_every_reader_of_the_old_block(region: Region) -> None:
    writer = TablesWriter(region)
    assert writer.can_write([0, 1, 1])
    epoch = writer.write(tagged(1, 1))
    assert not writer.can_write([epoch, epoch - 1])
    assert not writer.can_write([epoch - 1, 0])
    assert writer.can_write([epoch, 0, epoch])
    assert writer.can_write([])


def test_attached_writer_goes_on_where_its_predecessor_was(region: Region) -> None:
    epoch = TablesWriter(region).write(tagged(1, 1))
    successor = TablesWriter(region)
    assert not successor.can_write([epoch - 1])
    assert successor.write(tagged(2, 1)) == epoch + 1


WRITER = """
import sys
from halo_mp.shm.region import Region, RegionKind
from halo_mp.shm.tables import Interface, TablesWriter
writer = TablesWriter(Region.attach(sys.argv[1], RegionKind.TABLES, writable=True))
for tag in range(1, 1 << 30):
    interface = Interface(port=0, mac=bytes(6), mtu=1500, addresses=((tag, 24),))
    writer.write({number: interface for number in range(1 + tag % 5)})
"""


def test_read_while_written_never_mixes_two_versions(region: Region) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, region.name]) as writer:
        tags: set[int] = set()
        while len(tags) < 50:
            found = read_interfaces(region)
            if found:
                ((tag, _),) = {interface.addresses[0] for interface in found.values()}
                assert len(found) == 1 + tag % 5
                tags.add(tag)
        writer.kill()
