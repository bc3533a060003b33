# SPDX-License-Identifier: Apache-2.0
"""Flags that change what the kernel sees: each with the traffic that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.conftest import Tap, is_announcement, running_tap
from tests.interop.test_drops import CASES, TOLD, Case, errors_in
from tests.support import frames
from tests.support.accounts import Tally, tally
from tests.support.instance import Instance, run_supervisor
from tests.support.namespace import Namespace, wait_until
from tests.support.station import Heard, Station

MAC = "02:00:00:00:77:01"


def test_tx_only_receives_nothing(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--tx-only", "--mac", f"0={MAC}") as instance:
        assert "Frames are sent, nothing is received." in instance.text()
        interface = f"{instance.name}.0"
        namespace.run("ip", "neigh", "add", "10.77.0.1", "lladdr", MAC, "dev", interface)
        with Station(namespace, interface) as station:
            assert namespace.ping("10.77.0.1", options=("-W", "0.2")) == 0
            assert not [frame for frame in station.heard() if frame.ethertype == frames.IPV4]
        happened = tally(instance)
        assert (happened.worker["rx_frames"], happened.worker["echo_replies"], happened.arrived) == (0, 0, 0)
        assert instance.stop() == 0


def test_not_promiscuous_answers_ping(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--no-promiscuous") as instance:
        assert not instance.ports()["ports"][0]["promiscuous"]
        assert "PROMISC" not in namespace.run("ip", "link", "show", f"{instance.name}.0").stdout
        assert tally(instance).worker["echo_replies"] == 0
        sent = namespace.pinged("10.77.0.1")
        assert tally(instance).worker["echo_replies"] == sent


@pytest.mark.parametrize("policy", ["poll", "adaptive", "sleep"])
def test_idle_policy_answers_ping(namespace: Namespace, policy: str) -> None:
    namespace.silence()
    with Instance(namespace, "--idle", policy) as instance:
        sent = namespace.pinged("10.77.0.1", count=20)
        happened = tally(instance)
        lcore = instance.ports()["lcores"][0]
        assert happened.worker["echo_replies"] == sent
        assert not happened.drops
        sleeps = happened.worker["wakeups"], lcore["sleeps"]
        if policy == "poll":
            assert sleeps == (0, 0)
            assert instance.slot()["place"] != "asleep"
        else:
            assert min(sleeps) > 0
            wait_until(lambda: instance.slot()["place"] == "asleep", what="a worker that sleeps")
            wait_until(
                lambda: instance.ports()["lcores"][0]["place"] == "asleep", what="a driver that sleeps"
            )


def test_addresses_of_small_subnets_are_answered(namespace: Namespace) -> None:
    namespace.silence()
    flags = ("--ports", "0,1", "--address", "0=10.5.0.0/31", "--address", "1=10.5.1.1/30")
    with Instance(namespace, *flags) as instance:
        addresses = namespace.run("ip", "-4", "-brief", "address").stdout.split()
        assert {"10.5.0.1/31", "10.5.1.2/30"} <= set(addresses)
        for slot, address in enumerate(("10.5.0.0", "10.5.1.1")):
            sent = namespace.pinged(address)
            namespace.pinged(address, options=("-R",))
            assert tally(instance, slot).worker["echo_replies"] == sent
        before = tally(instance, 1)
        assert namespace.ping("10.5.1.3", options=("-b", "-W", "0.1")) == 0
        wait_until(lambda: tally(instance, 1).since(before).drops, what="a drop")
        assert set(tally(instance, 1).since(before).drops) == {"icmp_broadcast_echo"}
        assert not tally(instance, 0).drops


def test_address_of_two_interfaces_is_refused(namespace: Namespace) -> None:
    flags = ("--address", "0=10.77.0.1/24", "--address", "0.7=10.77.0.1/24")
    ended = run_supervisor(namespace, flags)
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "halo-mp: --address: 10.77.0.1 is named for interface 0 and for interface 0.7; name an address once."
    )


def test_named_tap_has_a_mac_of_its_own(namespace: Namespace) -> None:
    namespace.silence()
    flags = ("--vdev", "net_tap0,iface=tap5", "--address", "0=10.79.0.1/24")
    with Station(namespace) as everywhere, Instance(namespace, *flags) as instance:
        namespace.run("ip", "address", "add", "10.79.0.2/24", "dev", "tap5")
        namespace.run("ip", "link", "set", "tap5", "up")
        with Station(namespace, "tap5") as station:
            device = instance.ports()["ports"][0]["mac"]
            assert station.mac == device
            namespace.pinged("10.79.0.1")
            namespace.run("ip", "neigh", "flush", "dev", "tap5")
            namespace.pinged("10.79.0.1")
            neighbor = namespace.run("ip", "neigh", "show", "10.79.0.1").stdout
            assert device.hex(":") not in neighbor
        assert {frame.src for frame in everywhere.heard()} == {
            bytes.fromhex(neighbor.split()[4].replace(":", ""))
        }
        assert not tally(instance).drops


def test_mac_given_is_used(namespace: Namespace) -> None:
    namespace.silence()
    mac = bytes.fromhex(MAC.replace(":", ""))
    with Station(namespace) as everywhere, Instance(namespace, "--mac", f"0={MAC}") as instance:
        [announcement] = everywhere.listen(is_announcement, what="an announcement")
        assert announcement.octets == frames.announcement(mac=mac, address="10.77.0.1")
        namespace.pinged("10.77.0.1")
        assert f"lladdr {MAC} " in namespace.run("ip", "neigh", "show", "10.77.0.1").stdout
        assert not tally(instance).drops


@pytest.fixture(scope="module")
def busy_tap() -> Iterator[Tap]:
    """A TAP with what changes the way of a frame, but not its end: checksums by the port, and a log."""
    with running_tap("--rx-checksum", "--tx-checksum", "--debug-log") as tap:
        tap.introduce()
        yield tap


def test_checksums_by_the_port_change_no_verdict(busy_tap: Tap) -> None:
    tap = busy_tap
    wrong = [_wrong_verdict(case, *tap.send(case.make(tap))) for case in CASES]
    assert not list(filter(None, wrong))
    before = tap.tally()
    sent = sum(tap.namespace.pinged(tap.ours, count=2, size=size) for size in (0, 1, 56, 57, 1472))
    assert tap.since(before).worker["echo_replies"] == sent
    tap.namespace.pinged(tap.ours, options=("-R",))
    tap.wait_for_buffers()


def _wrong_verdict(case: Case, happened: Tally, heard: list[Heard]) -> str:
    told = [TOLD[case.reason]] if case.reason in TOLD else []
    if happened.drops == {case.reason: 1} and errors_in(heard) == told:
        return ""
    return f"{case.name}: {dict(happened.drops)}, told {errors_in(heard)}, instead of {case.reason}, {told}"


def test_debug_log_shows_each_frame_and_its_end(busy_tap: Tap) -> None:
    tap = busy_tap
    echo = tap.frame(frames.packet(src=tap.kernel, dst=tap.ours, payload=frames.echo_request(bytes(100))))
    other = tap.frame(b"\x60" + b"halo" * 10, ethertype=0x86DD)
    asks = frames.arp_packet(1, sender_mac=tap.station.mac, sender=tap.kernel, target=tap.ours)
    request = tap.frame(asks, ethertype=frames.ARP, dst=frames.BROADCAST)
    _, _, [reply] = [tap.send(each)[1] for each in (echo, other, request)]
    sent = [echo, other, request, reply.octets]

    def told() -> list[dict[str, Any]]:
        known = [(len(each), each[:64].hex()) for each in sent]
        shown = [(event["length"], event["octets"][:128]) for event in tap.instance.events("frame")]
        # Stack and kernel were introduced with a request, too: from the echo request on.
        begin = shown.index(known[0]) if known[0] in shown else len(shown)
        events = tap.instance.events("frame")[begin:]
        return [event for event in events if (event["length"], event["octets"][:128]) in known]

    wait_until(lambda: len(told()) == len(sent), what="four frames in the log")
    assert [event["port"] for event in told()] == [0] * 4
    assert [event["verdict"] for event in told()] == ["transmit", "drop", "punt", "originate"]
    assert [event.get("reason") for event in told()] == [None, "ethertype_unknown", None, None]
    # Each as it came, before it was answered in its own buffer.
    assert [event["length"] for event in told()] == [len(each) for each in sent]
    assert [each.hex().startswith(event["octets"]) for event, each in zip(told(), sent, strict=True)] == [
        True
    ] * 4


def test_stats_log_adds_up(namespace: Namespace) -> None:
    namespace.silence()
    with Instance(namespace, "--ports", "0,1", "--stats-log", "0.5") as instance:
        sent = namespace.pinged("10.77.0.1", count=50)
        namespace.pinged("10.77.1.1", count=10)
        assert namespace.ping("10.77.1.255", count=4, options=("-b", "-W", "0.1")) == 0

        def totals() -> dict[int, tuple[int, int]]:
            ports = instance.ports()["ports"]
            return {n: (ports[n]["stats"]["rx_octets"], ports[n]["stats"]["tx_octets"]) for n in (0, 1)}

        def last_line(port: int) -> dict[str, object]:
            return [event for event in instance.events("stats") if event["port"] == port][-1]

        def agrees(port: int) -> bool:
            line = last_line(port)
            return (line["rx_octets"], line["tx_octets"]) == totals()[port]

        instance.wait_for("stats", count=2)
        wait_until(lambda: totals()[1][0] > 14 * 98 and agrees(0) and agrees(1), what="lines with all octets")
        assert totals()[0][1] >= sent * 98
        assert last_line(0)["drops"] == {}
        wait_until(lambda: last_line(1)["drops"] == {"icmp_broadcast_echo": 4}, what="the drops in a line")
        lines = [event for event in instance.events("stats") if event["port"] == 0]
        octets = [line["rx_octets"] for line in lines]
        assert octets == sorted(octets)
        assert lines[0]["rx_pps"] == 0
        # Rates are over the time between two lines: half a second each.
        frames_in = sum(line["rx_pps"] for line in lines) * 0.5
        assert sent * 0.5 <= frames_in <= (sent + 10) * 2
