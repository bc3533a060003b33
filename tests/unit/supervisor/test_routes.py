# SPDX-License-Identifier: Apache-2.0
"""Routes follow interfaces, gateways find theirs, groups spread: seen through the lookup that workers do."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from halo_mp.plain import from_plain, to_plain
from halo_mp.shm.fib import Columns, FibWriter, Target, TargetKind, create_fib, create_routes
from halo_mp.shm.layout import lib
from halo_mp.shm.region import Region
from halo_mp.shm.tables import Interface, InterfaceFlag, TablesWriter, create_tables
from halo_mp.supervisor.routes import Routes, WaitingRoute
from halo_mp.supervisor.targets import Hop, RouteError, Via

MAC = bytes.fromhex("02aabbccddee")


def ip(text: str) -> int:
    return int(IPv4Address(text))


def interface(port: int, *addresses: str, vlan: int = 0) -> Interface:
    pairs = [(ip(text.partition("/")[0]), int(text.partition("/")[2])) for text in addresses]
    return Interface(port=port, vlan=vlan, mac=MAC, mtu=1500, addresses=tuple(pairs))


PORTS = {0: interface(0, "10.0.0.1/24"), 1: interface(1, "10.0.1.1/24"), 5: interface(2, "10.0.2.1/24")}


class Rig:
    """The regions, and readers whose epochs the test says."""

    def __init__(self, instance: str) -> None:
        self.regions = (
            create_fib(instance, generation=1, hash_seed=7),
            create_routes(instance, generation=1),
            create_tables(instance, generation=1),
        )
        self.epochs: list[int] = []
        self.open()

    def open(self) -> None:
        fib, routes, tables = self.regions
        self.fib = FibWriter(fib, routes)
        self.tables = TablesWriter(tables)
        self.routes = Routes(self.fib, self.tables, lambda: self.epochs)

    def reopen(self) -> None:
        self.fib.close()
        self.open()

    def close(self) -> None:
        self.fib.close()
        for region in self.regions:
            region.unlink()
            region.close()

    @property
    def region(self) -> Region:
        return self.regions[0]

    def lookup(self, text: str, flow: int = 0) -> Target:
        return self.fib.target(lib.halo_fib_lookup_flow(self.region.pointer, ip(text), flow))

    def add(self, prefix: str, via: Via | str, *, replace: bool = False) -> None:
        network = IPv4Network(prefix)
        hops = (
            via
            if isinstance(via, tuple) or via in ("blackhole", "unreachable", "prohibit")
            else gateways(via)
        )
        self.routes.add(int(network.network_address), network.prefixlen, hops, replace=replace)  # type: ignore[arg-type]

    def delete(self, prefix: str) -> None:
        network = IPv4Network(prefix)
        self.routes.delete(int(network.network_address), network.prefixlen)

    def paths(self, text: str, flows: int = 4096) -> Counter[int]:
        return Counter(self.lookup(text, flow).address for flow in range(flows))


def gateways(*texts: str, weights: dict[str, int] | None = None) -> tuple[Hop, ...]:
    return tuple(Hop(ip(text), weight=(weights or {}).get(text, 1)) for text in texts)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(f"u{os.getpid() % 100000}")
    made.routes.set_interfaces(PORTS)
    yield made
    made.close()


# ---- connected routes


def test_interface_makes_its_address_its_subnet_and_two_broadcasts(rig: Rig) -> None:
    assert rig.lookup("10.0.0.1") == Target(TargetKind.LOCAL, 0, pinned=True)
    assert rig.lookup("10.0.1.255") == Target(TargetKind.BROADCAST, 1, pinned=True)
    assert rig.lookup("10.0.1.0") == Target(TargetKind.BROADCAST, 1, pinned=True)
    assert rig.lookup("10.0.2.77") == Target(TargetKind.CONNECTED, 5, pinned=True)
    assert rig.lookup("10.0.3.1").kind is TargetKind.NONE


def test_m_255_inside_a_16_is_a_host(rig: Rig) -> None:
    rig.routes.set_interfaces({0: interface(0, "172.16.0.1/16")})
    assert rig.lookup("172.16.5.255").kind is TargetKind.CONNECTED
    assert rig.lookup("172.16.255.255").kind is TargetKind.BROADCAST


def test_m_31_and_32_links_work(rig: Rig) -> None:
    rig.routes.set_interfaces({0: interface(0, "192.0.2.0/31", "198.51.100.7/32")})
    assert rig.lookup("192.0.2.0").kind is TargetKind.LOCAL
    assert rig.lookup("192.0.2.1").kind is TargetKind.CONNECTED
    assert rig.lookup("198.51.100.7").kind is TargetKind.LOCAL
    assert rig.lookup("198.51.100.6").kind is TargetKind.NONE


def test_address_goes_and_all_that_followed_from_it(rig: Rig) -> None:
    rig.routes.set_interfaces({0: PORTS[0], 1: replace(PORTS[1], addresses=())})
    for text in ("10.0.1.1", "10.0.1.255", "10.0.1.7", "10.0.2.1"):
        assert rig.lookup(text).kind is TargetKind.NONE, text
    assert rig.lookup("10.0.0.7").kind is TargetKind.CONNECTED


def test_interface_down_and_up_again(rig: Rig) -> None:
    rig.add("10.9.0.0/16", "10.0.1.2")
    down = replace(PORTS[1], flags=InterfaceFlag.FORWARD)
    rig.routes.set_interfaces(PORTS | {1: down})
    assert rig.lookup("10.0.1.7").kind is TargetKind.NONE
    assert rig.lookup("10.9.0.1").kind is TargetKind.UNREACHABLE
    rig.routes.set_interfaces(PORTS)
    assert rig.lookup("10.9.0.1") == Target(TargetKind.GATEWAY, 1, ip("10.0.1.2"))


def test_connected_route_has_precedence_and_what_was_asked_for_waits(rig: Rig) -> None:
    rig.add("10.7.0.0/24", "10.0.1.2")
    rig.routes.set_interfaces(PORTS | {7: interface(7, "10.7.0.1/24")})
    assert rig.lookup("10.7.0.9") == Target(TargetKind.CONNECTED, 7, pinned=True)
    with pytest.raises(RouteError, match="is connected"):
        rig.add("10.7.0.0/24", "10.0.0.2")
    rig.add("10.7.0.0/24", "10.0.0.2", replace=True)
    assert rig.lookup("10.7.0.9").interface == 7
    rig.routes.set_interfaces(PORTS)
    assert rig.lookup("10.7.0.9") == Target(TargetKind.GATEWAY, 0, ip("10.0.0.2"))


def test_routes_that_wait_are_told_and_wait_for_a_successor(rig: Rig) -> None:
    told: list[int] = []
    rig.routes.on_waiting = lambda: told.append(len(rig.routes.waiting()))
    rig.routes.set_interfaces(PORTS)
    rig.add("10.0.0.0/24", "10.0.1.9", replace=True)
    rig.add("10.0.2.0/24", (Hop(ip("10.0.0.7"), 0, 2), Hop(ip("10.0.1.7"))), replace=True)
    rig.add("10.8.0.0/16", "10.0.1.9")
    assert told == [1, 2]
    saved = rig.routes.waiting()
    rig.reopen()
    rig.routes.set_interfaces(PORTS)
    assert rig.routes.resume_waiting(from_plain(WaitingRoute, to_plain(each)) for each in saved) == []
    assert rig.routes.waiting() == saved
    rig.routes.set_interfaces({})
    assert rig.routes.waiting() == []
    rig.routes.set_interfaces({1: PORTS[1]})
    assert rig.lookup("10.0.0.5").address == ip("10.0.1.9")


def test_route_that_waited_for_what_is_gone_by_now_waits_no_more(rig: Rig) -> None:
    rig.routes.set_interfaces(PORTS)
    rig.add("10.0.0.0/24", "prohibit", replace=True)
    saved = rig.routes.waiting()
    rig.reopen()
    rig.routes.set_interfaces({1: PORTS[1]})
    assert rig.routes.resume_waiting(saved) == []
    assert rig.lookup("10.0.0.5").kind is TargetKind.PROHIBIT


def test_connected_route_is_not_deleted(rig: Rig) -> None:
    with pytest.raises(RouteError, match=r"10.0.0.0/24 is connected; it goes with the address"):
        rig.delete("10.0.0.0/24")


# ---- routes that were asked for


def test_gateway_is_reached_on_the_interface_that_has_it(rig: Rig) -> None:
    rig.add("10.9.0.0/16", "10.0.2.2")
    assert rig.lookup("10.9.1.1") == Target(TargetKind.GATEWAY, 5, ip("10.0.2.2"))


def test_gateway_moves_with_its_subnet(rig: Rig) -> None:
    rig.add("0.0.0.0/0", "10.0.1.2")
    rig.routes.set_interfaces({0: PORTS[0], 9: interface(1, "10.0.1.1/24", vlan=7)})
    assert rig.lookup("8.8.8.8") == Target(TargetKind.GATEWAY, 9, ip("10.0.1.2"))


def test_gateway_on_a_named_interface_needs_no_subnet(rig: Rig) -> None:
    rig.add("10.9.0.0/16", (Hop(ip("203.0.113.9"), interface=1),))
    assert rig.lookup("10.9.1.1") == Target(TargetKind.GATEWAY, 1, ip("203.0.113.9"), pinned=True)


def test_route_without_gateway_is_on_the_link(rig: Rig) -> None:
    rig.add("10.9.0.0/16", (Hop(0, interface=1),))
    assert rig.lookup("10.9.1.1").kind is TargetKind.CONNECTED
    rig.routes.set_interfaces({0: PORTS[0]})
    assert rig.lookup("10.9.1.1").kind is TargetKind.UNREACHABLE
    rig.reopen()
    rig.routes.set_interfaces(PORTS)
    assert rig.lookup("10.9.1.1") == Target(TargetKind.CONNECTED, 1, pinned=True)


@pytest.mark.parametrize("verdict", ["blackhole", "unreachable", "prohibit"])
def test_refusing_routes(rig: Rig, verdict: str) -> None:
    rig.add("10.9.0.0/16", verdict)
    assert rig.lookup("10.9.1.1").kind.name == verdict.upper()
    found = rig.routes.lookup(ip("10.9.1.1"))
    assert found is not None
    assert found.via == verdict


@pytest.mark.parametrize(
    ("via", "sentence"),
    [
        (gateways("10.9.9.9"), "no interface has the next hop 10.9.9.9 on its link"),
        (gateways("10.0.0.1"), "the next hop 10.0.0.1 is an address of our own"),
        ((Hop(ip("10.0.0.2"), interface=3),), "there is no interface 3"),
        ((Hop(0),), "needs an address, or an interface"),
        ((Hop(ip("10.0.0.2"), weight=0),), "weight 0 is not within 1 to 256"),
        ((), "0 next hops; name 1 to 512"),
        (gateways(*["10.0.0.2"] * 513), "513 next hops"),
    ],
)
def test_route_that_can_not_be_says_why_and_leaves_nothing(rig: Rig, via: Via, sentence: str) -> None:
    before = list(rig.fib.targets())
    with pytest.raises(RouteError, match=sentence):
        rig.routes.add(ip("10.9.0.0"), 16, via)
    assert list(rig.fib.targets()) == before
    assert rig.routes.find(ip("10.9.0.0"), 16) is None


def test_add_delete_replace_say_what_is_wrong(rig: Rig) -> None:
    rig.add("10.9.0.0/16", "10.0.0.2")
    with pytest.raises(RouteError, match=r"there is a route to 10.9.0.0/16 already; replace it"):
        rig.add("10.9.0.0/16", "10.0.1.2")
    with pytest.raises(RouteError, match=r"there is no route to 10.8.0.0/16"):
        rig.delete("10.8.0.0/16")
    with pytest.raises(RouteError, match=r"bits behind its length; write 10.9.0.0/16"):
        rig.routes.add(ip("10.9.0.1"), 16, gateways("10.0.0.2"))


def test_changes_have_each_their_own_result(rig: Rig) -> None:
    hops = gateways("10.0.0.2")
    refusals = rig.routes.change(
        [
            ("add", ip("10.9.0.0"), 16, hops),
            ("add", ip("10.9.0.0"), 16, hops),
            ("delete", ip("10.8.0.0"), 16, ()),
            ("replace", ip("10.8.0.0"), 16, hops),
        ]
    )
    assert [bool(refusal) for refusal in refusals] == [False, True, True, False]


def test_routes_are_paged(rig: Rig) -> None:
    for number in range(50):
        rig.add(f"10.{100 + number}.0.0/16", "10.0.0.2")
    found, place = [], 0
    while place is not None:
        page, place = rig.routes.routes(place, limit=7)
        found += page
    assert len({(route.prefix, route.length) for route in found}) == len(found) == 50 + 4 * len(PORTS)
    assert str(rig.routes.find(ip("10.100.0.0"), 16)) == "10.100.0.0/16"


# ---- several paths


def test_flows_are_spread_by_weight(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2", weights={"10.0.0.2": 3}))
    assert rig.paths("8.8.8.8") == {ip("10.0.0.2"): 3072, ip("10.0.1.2"): 1024}


def test_dead_gateway_loses_its_flows_and_gets_them_back(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2", "10.0.2.2"))
    before = [rig.lookup("8.8.8.8", flow).address for flow in range(64)]
    rig.routes.targets.set_hops([(1, ip("10.0.1.2"))], alive=False)
    during = [rig.lookup("8.8.8.8", flow).address for flow in range(64)]
    assert ip("10.0.1.2") not in during
    assert all(new == old for old, new in zip(before, during, strict=True) if old != ip("10.0.1.2"))
    assert not rig.routes.targets.is_alive(1, ip("10.0.1.2"))
    rig.routes.targets.set_hops([(1, ip("10.0.1.2"))], alive=True)
    assert rig.paths("8.8.8.8", 64)[ip("10.0.1.2")] in (21, 22)


def test_gateways_that_die_together_are_news_once(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2", "10.0.1.3"))
    dead = [(1, ip("10.0.1.2")), (1, ip("10.0.1.3"))]
    unknown = [(0, ip("10.0.1.2")), (0, ip("10.0.0.9"))]
    assert sorted(rig.routes.targets.set_hops([*dead, *unknown], alive=False)) == dead
    assert set(rig.paths("8.8.8.8")) == {ip("10.0.0.2")}
    assert rig.routes.targets.set_hops(dead, alive=False) == []
    assert sorted(rig.routes.targets.set_hops([*dead, (0, ip("10.0.0.2"))], alive=True)) == dead
    assert len(rig.paths("8.8.8.8")) == 3


def test_all_gateways_dead_keeps_sending_to_them(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2"))
    for number in (0, 1):
        rig.routes.targets.set_hops([(number, ip(f"10.0.{number}.2"))], alive=False)
    assert set(rig.paths("8.8.8.8")) <= {ip("10.0.0.2"), ip("10.0.1.2")}


def test_interface_of_a_path_goes_down_and_its_flows_move(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2"))
    rig.routes.set_interfaces({0: PORTS[0]})
    assert set(rig.paths("8.8.8.8")) == {ip("10.0.0.2")}
    rig.routes.set_interfaces(PORTS)
    assert set(rig.paths("8.8.8.8")) == {ip("10.0.0.2"), ip("10.0.1.2")}


def test_replaced_group_moves_only_the_flows_of_the_path_that_went(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2", "10.0.2.2"))
    before = [rig.lookup("8.8.8.8", flow).address for flow in range(64)]
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.2.2"), replace=True)
    after = [rig.lookup("8.8.8.8", flow).address for flow in range(64)]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != ip("10.0.1.2"))


def test_routes_with_the_same_next_hops_share_a_group(rig: Rig) -> None:
    hops = gateways("10.0.0.2", "10.0.1.2")
    before = len(list(rig.fib.targets()))
    for number in range(20):
        rig.add(f"10.{100 + number}.0.0/16", hops)
    assert len(list(rig.fib.targets())) == before + 3  # two gateways and one group


def test_gateways_of_groups_are_worth_watching(rig: Rig) -> None:
    rig.add("10.9.0.0/16", "10.0.2.2")
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2"))
    assert set(rig.routes.targets.gateways()) == {(0, ip("10.0.0.2")), (1, ip("10.0.1.2"))}


# ---- reuse and successors


def test_targets_come_back_when_every_reader_has_passed(rig: Rig) -> None:
    before = set(rig.fib.targets())
    rig.epochs = [rig.tables.epoch, 0]
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2"))
    rig.delete("0.0.0.0/0")
    assert set(rig.fib.targets()) == before
    assert rig.fib.has_waste  # one reader stands where it was
    assert rig.routes.collect()
    rig.epochs = [rig.tables.epoch, 0]
    assert not rig.routes.collect()
    assert not rig.fib.has_waste


def test_successor_goes_on_with_routes_groups_and_connected_ones(rig: Rig) -> None:
    rig.add("0.0.0.0/0", gateways("10.0.0.2", "10.0.1.2"))
    rig.add("10.9.0.0/16", "blackhole")
    listed, _ = rig.routes.routes()
    before = [rig.lookup("8.8.8.8", flow).address for flow in range(64)]
    rig.reopen()
    rig.routes.set_interfaces(PORTS)
    assert rig.routes.routes()[0] == listed
    assert [rig.lookup("8.8.8.8", flow).address for flow in range(64)] == before
    rig.routes.set_interfaces({0: PORTS[0]})
    assert rig.lookup("10.0.1.1").address == ip("10.0.0.2")  # the default route, by the gateway that is left
    rig.delete("0.0.0.0/0")
    rig.delete("10.9.0.0/16")
    assert len(list(rig.fib.targets())) == 3  # of the one interface that is left


# ---- very many


def test_load_takes_many_and_names_those_that_it_refuses(rig: Rig) -> None:
    vias: list[Via] = [gateways(f"10.0.0.{n}") for n in range(2, 12)]
    vias.append(gateways("192.0.2.1"))  # on no link
    prefixes = [(0x0B0000 + n) << 8 for n in range(20000)]
    which = [prefix >> 8 & 0xFFFF for prefix in prefixes]
    columns = Columns(array("I", prefixes), array("B", [24] * 20000), array("I", [n % 10 for n in which]))
    columns.prefixes[100] = ip("10.0.0.0")
    columns.prefixes[200] = ip("11.0.0.1")
    columns.which[300] = 10
    refused, sentences = rig.routes.load(columns, vias)
    assert refused == len(sentences) == 2
    assert "is no prefix" in sentences[0]
    _, waiting = next(rig.routes.static())  # behind the connected one
    assert (waiting.prefix, waiting.length) == (ip("10.0.0.0"), 24)
    assert sentences[-1].startswith("11.1.44.0/24: no interface has the next hop 192.0.2.1 on its link")
    assert rig.routes.usage().routes == 20000 - 3 + 4 * len(PORTS)
    assert rig.lookup("11.0.7.9").address == ip("10.0.0.2") + 7
    assert rig.lookup("11.1.44.1").kind is TargetKind.NONE


def test_load_names_the_first_of_very_many_refusals(rig: Rig) -> None:
    columns = Columns(array("I", range(1, 101)), array("B", [24] * 100), array("I", [0] * 100))
    refused, sentences = rig.routes.load(columns, [gateways("10.0.0.2")])
    assert (refused, len(sentences)) == (100, 20)
    assert len(list(rig.fib.targets())) == 3 * len(PORTS)
