# SPDX-License-Identifier: Apache-2.0
import dataclasses
from typing import Any

import pytest

from halo_mp.stack.interface import Address, Interface
from halo_mp.wire import ethernet
from halo_mp.wire.ipv4 import format_address, parse_address
from tests.unit.stack.harness import ADDRESS, INTERFACE, MAC, PEER_MAC


def interface(text: str) -> Interface:
    address, _, prefix_length = text.partition("/")
    return Interface(port=0, mac=MAC, addresses=(Address(parse_address(address), int(prefix_length)),))


@pytest.mark.parametrize(
    ("text", "network", "netmask", "broadcast"),
    [
        ("192.0.2.1/24", "192.0.2.0", "255.255.255.0", "192.0.2.255"),
        ("10.1.2.3/8", "10.0.0.0", "255.0.0.0", "10.255.255.255"),
        ("192.0.2.5/30", "192.0.2.4", "255.255.255.252", "192.0.2.7"),
        ("192.0.2.5/31", "192.0.2.4", "255.255.255.254", None),
        ("192.0.2.5/32", "192.0.2.5", "255.255.255.255", None),
        ("192.0.2.5/0", "0.0.0.0", "0.0.0.0", "255.255.255.255"),
    ],
)
def test_network_netmask_broadcast(text: str, network: str, netmask: str, broadcast: str | None) -> None:
    [made] = interface(text).addresses
    assert format_address(made.network) == network
    assert format_address(made.netmask) == netmask
    assert (None if made.broadcast is None else format_address(made.broadcast)) == broadcast
    assert str(made) == text


@pytest.mark.parametrize(
    ("text", "address", "contains", "is_broadcast", "is_neighbor"),
    [
        ("192.0.2.1/24", "192.0.2.2", True, False, True),
        ("192.0.2.1/24", "192.0.2.1", True, False, False),
        ("192.0.2.1/24", "192.0.2.255", True, True, False),
        ("192.0.2.1/24", "192.0.2.0", True, True, False),
        ("192.0.2.1/24", "192.0.3.255", False, False, True),
        ("192.0.2.1/24", "255.255.255.255", False, True, False),
        ("192.0.2.1/24", "224.0.0.1", False, False, False),
        ("192.0.2.1/24", "240.0.0.1", False, False, False),
        ("192.0.2.1/24", "127.0.0.1", False, False, False),
        ("192.0.2.1/24", "0.0.0.0", False, False, False),
        ("10.1.0.1/16", "10.1.2.255", True, False, True),
        ("10.1.0.1/16", "10.1.255.255", True, True, False),
        ("192.0.2.4/31", "192.0.2.5", True, False, True),
        ("192.0.2.5/31", "192.0.2.4", True, False, True),
        ("192.0.2.5/31", "255.255.255.255", False, True, False),
        ("192.0.2.5/32", "192.0.2.5", True, False, False),
        ("192.0.2.5/32", "192.0.2.6", False, False, True),
    ],
)
def test_address_relations(
    text: str, address: str, contains: bool, is_broadcast: bool, is_neighbor: bool
) -> None:
    made, number = interface(text), parse_address(address)
    relations = (made.contains(number), made.is_broadcast(number), made.is_neighbor(number))
    assert relations == (contains, is_broadcast, is_neighbor)


def test_without_address_nothing_is_local_or_on_link() -> None:
    made = Interface(port=0, mac=MAC)
    assert (made.address, str(made)) == (0, "unnumbered")
    assert not made.is_local(0)
    assert not made.contains(parse_address("192.0.2.1"))
    assert made.is_broadcast(0xFFFFFFFF)
    assert not made.is_broadcast(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mac": bytes(5)},
        {"mac": bytes(6)},
        {"mac": b"\xff" * 6},
        {"mac": bytes.fromhex("01005e000001")},
        {"vlan": 4095},
        {"vlan": -1},
        {"mtu": 67},
        {"mtu": 65536},
        {"addresses": (Address(ADDRESS, 24), Address(ADDRESS, 32))},
        {"addresses": (Address(ADDRESS, 24), Address(parse_address("192.0.2.255"), 16))},
    ],
)
def test_construct_impossible_values_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        dataclasses.replace(INTERFACE, **wrong)


@pytest.mark.parametrize("prefix_length", [33, -1])
def test_address_with_an_impossible_prefix_is_refused(prefix_length: int) -> None:
    with pytest.raises(ValueError, match="prefix_length"):
        Address(ADDRESS, prefix_length)


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.255", "192.0.2.0"]
)
def test_address_of_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        Address(parse_address(text), 24)


def test_several_addresses_each_have_their_subnet() -> None:
    made = dataclasses.replace(
        INTERFACE, addresses=(Address(ADDRESS, 24), Address(parse_address("10.1.0.1"), 16))
    )
    near, far, group = (parse_address(text) for text in ("10.1.2.255", "10.2.0.1", "10.1.255.255"))
    assert (made.address, str(made)) == (ADDRESS, "192.0.2.1/24, 10.1.0.1/16")
    assert made.contains(near)
    assert made.is_neighbor(near)
    assert not made.contains(far)
    assert made.is_broadcast(group)
    assert not made.is_neighbor(parse_address("10.1.0.1"))


def test_frame_untagged_is_padded_with_zeros() -> None:
    frame = INTERFACE.frame(dst=PEER_MAC, ethertype=0x0800, payload=b"data")
    assert frame == PEER_MAC + MAC + b"\x08\x00data" + bytes(42)


def test_frame_of_a_vlan_is_tagged() -> None:
    tagged = dataclasses.replace(INTERFACE, vlan=10)
    parsed = ethernet.parse(tagged.frame(dst=PEER_MAC, ethertype=0x0806, payload=bytes(28)))
    assert [tag.vid for tag in parsed.tags] == [10]
    assert parsed.ethertype == 0x0806
    assert len(parsed.payload) == 60 - 18
