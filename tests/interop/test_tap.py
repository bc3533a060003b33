# SPDX-License-Identifier: Apache-2.0
"""The embedded default: one TAP per port, and the kernel of the namespace as its peer."""

from __future__ import annotations

import socket

import pytest

from halo_mp.wire import icmpv4, ipv4, ipv4_options
from halo_mp.wire.ipv4_options import SOURCE_ROUTES
from tests.interop.conftest import Tap, is_arp_reply
from tests.support import frames
from tests.support.accounts import balanced, tally
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.station import socket_in

SIZES = (0, 1, 7, 8, 55, 56, 57, 1471, 1472)
"""Octets of data behind the ICMP header: the odd ones, those around ping's default, and the MTU's."""


def test_default_ports_answer_the_kernel(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1") as instance:
        sent = namespace.pinged("10.77.0.1") + namespace.pinged("10.77.0.1", size=1472)
        assert tally(instance, 0).worker["echo_replies"] == sent
        sent = namespace.pinged("10.77.1.1")
        assert tally(instance, 1).worker["echo_replies"] == sent
        assert instance.stop() == 0


def test_started_announces_its_address_twice(tap: Tap) -> None:
    first, second = tap.announcements
    assert first.octets == second.octets == frames.announcement(mac=tap.mac, address=tap.ours)
    assert first.interface == tap.interface
    # Two seconds, less what may have delayed the first one more than the second.
    assert second.at - first.at > 1.5
    assert tap.at_start.worker["originated"] == tap.at_start.driver["tx_sent"] == 2
    assert tap.mac[0] & 3 == 2, "an individual, locally administered address"
    assert tap.mac != tap.station.mac, "the kernel's side has the device's"


@pytest.mark.parametrize("size", SIZES)
def test_ping_of_size_is_answered(tap: Tap, size: int) -> None:
    before = tap.tally()
    sent = tap.namespace.pinged(tap.ours, size=size)
    happened = tap.since(before)
    assert happened.worker["echo_replies"] == sent
    assert not happened.drops


def test_flood_is_answered_whole(tap: Tap) -> None:
    before = tap.tally()
    sent = tap.namespace.pinged(tap.ours, count=2000, interval_s=0.002)
    happened = tap.since(before)
    assert happened.worker["echo_replies"] == sent
    assert happened.driver["tx_sent"] == happened.worker["tx_frames"]
    assert not happened.drops
    tap.wait_for_buffers()


def test_burst_is_answered_whole(tap: Tap) -> None:
    request = frames.packet(src=tap.kernel, dst=tap.ours, payload=frames.echo_request())
    happened, heard = tap.send(*[tap.frame(request)] * 2000)
    assert happened.worker["echo_replies"] == 2000
    assert len([frame for frame in heard if frame.ethertype == frames.IPV4]) == 2000
    assert not happened.drops


def test_echo_reply_mirrors_the_request(tap: Tap) -> None:
    echo = frames.echo_request(b"odd", sequence=7)
    request = frames.packet(src=tap.kernel, dst=tap.ours, payload=echo, ttl=1, tos=0xB8, flags=2)
    _, heard = tap.send(tap.frame(request + b"\xa5" * 9))  # and what lies behind the packet is link padding
    reply = frames.packet(
        src=tap.ours, dst=tap.kernel, payload=frames.icmp(0, rest=0x4D500007, data=b"odd"), tos=0xB8, flags=2
    )
    [answer] = [frame for frame in heard if frame.ethertype == frames.IPV4]
    assert answer.octets[:14] == tap.station.mac + tap.mac + b"\x08\x00"
    assert answer.octets[14 : 14 + len(reply)] == reply


def test_priority_tagged_frames_are_answered(tap: Tap) -> None:
    """VLAN 0 is none: IEEE 802.1Q clause 6.9."""
    tags = frames.tag(0, priority=6)
    asks = frames.arp_packet(1, sender_mac=tap.station.mac, sender=tap.kernel, target=tap.ours)
    _, heard = tap.send(tap.frame(asks, ethertype=frames.ARP, tags=tags, dst=frames.BROADCAST))
    assert [reply.dst for reply in heard if is_arp_reply(reply)] == [tap.station.mac]
    for options in (b"", b"\1"):  # answered by C, and by Python
        echo = frames.packet(src=tap.kernel, dst=tap.ours, payload=frames.echo_request(), options=options)
        happened, heard = tap.send(tap.frame(echo, tags=tags))
        assert not happened.drops
        [answer] = [frame for frame in heard if frame.ethertype in (frames.IPV4, 0x8100)]
        assert answer.dst == tap.station.mac
        assert answer.ethertype == frames.IPV4 or answer.octets[14:18] == tags[2:] + b"\x08\0"


def test_arping_is_answered_once_by_unicast(tap: Tap) -> None:
    before = tap.tally()
    tap.station.heard()
    said = tap.namespace.run("arping", "-I", tap.interface, "-c", "2", tap.ours).stdout
    assert said.lower().count(f"unicast reply from {tap.ours} [{tap.mac.hex(':')}]") == 2
    replies = [frame for frame in tap.station.heard() if is_arp_reply(frame)]
    body = frames.arp_packet(
        2, sender_mac=tap.mac, sender=tap.ours, target_mac=tap.station.mac, target=tap.kernel
    )
    wanted = frames.frame(dst=tap.station.mac, src=tap.mac, ethertype=frames.ARP, payload=body)
    assert [reply.octets for reply in replies] == [wanted.ljust(60, b"\0")] * 2
    assert tap.since(before).worker["consumed"] == 2


def test_duplicate_address_detection_finds_us_once(tap: Tap) -> None:
    tap.station.heard()
    detection = tap.namespace.run(
        "arping", "-D", "-I", tap.interface, "-c", "1", "-w", "2", tap.ours, check=False
    )
    assert detection.returncode == 1, "arping says that somebody has the address"
    tap.tally()
    assert len([frame for frame in tap.station.heard() if is_arp_reply(frame)]) == 1


def test_record_route_gets_our_entry(tap: Tap) -> None:
    before = tap.tally()
    said = tap.namespace.run("ping", "-n", "-c", "1", "-R", tap.ours).stdout
    route = said[said.index("RR:") : said.index("---")].split()[1:]
    assert route == [tap.kernel, tap.ours, tap.kernel]
    assert tap.since(before).worker["punted"] >= 1, "the Python stack answers what has options"


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (("tsonly",), 2),
        (("tsandaddr",), 2),
        (("tsprespec", "10.77.0.2", "10.77.0.1"), 2),
        (
            ("tsprespec", "10.77.0.2", "10.77.0.99"),
            1,
        ),  # we are not the second one: the option stays as it came
    ],
)
def test_timestamp_gets_our_entry(tap: Tap, kind: tuple[str, ...], entries: int) -> None:
    tap.station.heard()
    said = tap.namespace.run("ping", "-n", "-c", "1", "-T", *kind, tap.ours).stdout
    assert ", 1 received," in said
    [reply] = [frame for frame in tap.station.heard() if frame.ethertype == frames.IPV4]
    option = reply.octets[34:74]
    assert option[0] == 68
    entry_octets = 4 if kind[0] == "tsonly" else 8
    assert option[2] == 5 + entries * entry_octets, "the pointer stands behind the last entry"
    if entry_octets == 8 and entries == 2:
        assert option[12:16] == bytes((10, 77, 0, 1))
    assert (option[entry_octets * 2] & 0x80 != 0) == (entries == 2), "no time since midnight, and it says so"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.77.0.255", "icmp_broadcast_echo"),
        ("255.255.255.255", "icmp_broadcast_echo"),
        ("224.0.0.1", "l2_multicast"),
    ],
)
def test_ping_of_a_group_is_counted_and_not_answered(tap: Tap, address: str, reason: str) -> None:
    before = tap.tally()
    tap.station.heard()
    assert tap.namespace.ping(address, options=("-b", "-W", "0.1", "-I", tap.interface)) == 0
    happened = tap.since(before, 3)
    assert happened.drops == {reason: 3}
    assert not [frame for frame in tap.station.heard() if frame.ethertype == frames.IPV4]


@pytest.mark.parametrize("octets", [0, 1, 1472])
def test_datagram_to_a_closed_port_is_counted(tap: Tap, octets: int) -> None:
    before = tap.tally()
    with socket_in(tap.namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in (7, 53, 40000):
            sender.sendto(bytes(octets), (tap.ours, port))
    happened = tap.since(before, 3)
    assert happened.drops == {"no_listener": 3}


def test_connection_to_a_closed_port_is_counted(tap: Tap) -> None:
    before = tap.tally()
    with socket_in(tap.namespace, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect((tap.ours, 80))
        happened = tap.since(before, 1)
    assert happened.drops == {"no_listener": 1}


def test_kernel_forgets_us_and_finds_us_again(tap: Tap) -> None:
    tap.namespace.run("ip", "neigh", "flush", "dev", tap.interface)
    before = tap.tally()
    tap.station.heard()
    tap.namespace.pinged(tap.ours, count=1)
    happened = tap.since(before)
    assert len([frame for frame in tap.station.heard() if is_arp_reply(frame)]) == 1
    assert happened.worker["consumed"] == 1
    assert tap.mac.hex(":") in tap.namespace.run("ip", "neigh", "show", tap.ours).stdout


def test_every_option_at_odd_lengths_is_answered_or_counted(tap: Tap) -> None:
    lengths = (0, 1, 2, 3, 39, 40, 41)
    options = [bytes((kind, length)).ljust(40, b"\0") for kind in range(256) for length in lengths]
    stranger, mac = "10.77.0.50", bytes.fromhex("020000000050")  # the kernel would answer odd options itself
    asks = frames.arp_packet(1, sender_mac=mac, sender=stranger, target=tap.ours)
    tap.send(tap.frame(asks, ethertype=frames.ARP, src=mac, dst=frames.BROADCAST))
    requests = [
        tap.frame(
            frames.packet(src=stranger, dst=tap.ours, payload=frames.echo_request(), options=each), src=mac
        )
        for each in options
    ]
    happened, heard = tap.send(*requests)
    answers = [ipv4.parse(frame.octets[14:]) for frame in heard if frame.ethertype == frames.IPV4]
    replies = [answer for answer in answers if answer.payload[0] == icmpv4.ECHO_REPLY]
    bad = sum(ipv4_options.check(each) is not None for each in options)
    assert set(happened.drops) == {"ipv4_options"}
    # What is well formed may yet have no room for our entry.
    assert bad <= happened.drops["ipv4_options"] <= bad + 2 * len(lengths)
    assert len(replies) + happened.drops["ipv4_options"] == len(options)
    assert not {reply.options[0] for reply in replies if reply.options} & SOURCE_ROUTES
    # Who sent the others hears of it, as often as the rate allows.
    assert {answer.payload[0] for answer in answers} == {icmpv4.ECHO_REPLY, icmpv4.PARAMETER_PROBLEM}


def test_frame_longer_than_ours_may_be_is_counted(tap: Tap) -> None:
    def echo(octets: int) -> bytes:
        data = bytes(octets - 14 - 20 - 8)
        return tap.frame(frames.packet(src=tap.kernel, dst=tap.ours, payload=frames.echo_request(data)))

    def too_long_for_a_buffer() -> int:
        return tap.instance.ports()["ports"][0]["stats"]["rx_errors"]

    tap.pin()
    tap.namespace.run("ip", "link", "set", tap.interface, "mtu", "9000")
    try:
        before = tap.tally()
        happened, heard = tap.send(echo(2048))
        lengths = [len(frame.octets) for frame in heard if frame.ethertype == frames.IPV4]
        assert lengths == [1514, 14 + 20 + 2034 - 20 - 1480], "it fits a buffer, but not the MTU: fragments"
        assert not happened.drops
        for octets in (2049, 4096, 9014):  # the PMD counts these: the port has scattering off
            tap.station.send(echo(octets))
        wait_until(lambda: too_long_for_a_buffer() == 3, what="three errors of the port")
        assert tap.since(before).worker["rx_frames"] == 1
        tap.wait_for_buffers()
    finally:
        tap.namespace.run("ip", "link", "set", tap.interface, "mtu", "1500")
    tap.namespace.pinged(tap.ours)


def test_after_everything_the_accounts_balance(tap: Tap) -> None:
    [slot] = balanced(tap.instance)
    assert slot["state"] == "enabled"
    assert slot["driver"]["counters"]["resets"] == 0
    assert slot["worker"]["drops"]["stack_error"] == 0
    port = tap.instance.ports()["ports"][0]
    assert (port["mode"], port["driver"], port["whole"]) == ("direct", "net_tap", True)
    assert port["promiscuous"]
    assert "PROMISC" in tap.namespace.run("ip", "link", "show", tap.interface).stdout
    assert [port["stats"][name] for name in ("tx_errors", "rx_missed", "rx_no_mbuf")] == [0, 0, 0]
