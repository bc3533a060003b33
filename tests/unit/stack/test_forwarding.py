# SPDX-License-Identifier: Apache-2.0
"""Packets from one link to another: what goes on, as what, and what does not."""

import dataclasses

import pytest

from halo_mp.stack.forwarding import lower_ttl
from halo_mp.stack.fragmentation import fragment
from halo_mp.stack.interface import Address
from halo_mp.stack.outputs import Drop, IcmpError, Transmit
from halo_mp.stack.route import ConnectedRoutes, Route, RouteKind
from halo_mp.wire import ethernet, icmpv4, ipv4
from halo_mp.wire.checksum import internet_checksum
from halo_mp.wire.ipv4 import Ipv4Packet, parse_address
from tests.unit.stack.checklist import meets
from tests.unit.stack.harness import ADDRESS, MAC, NOW, OTHER, PEER, PEER_MAC, of_type, run
from tests.unit.stack.lab import (
    FAR,
    GATEWAY,
    GATEWAY_MAC,
    HOST,
    HOST_MAC,
    LAN,
    NOWHERE,
    VIA_GATEWAY,
    WAN,
    WAN_ADDRESS,
    Routes,
    changed,
    datagram,
    dropped,
    forwarded,
    framed,
    packets_in,
    quiet_router,
    router,
    told,
)


@meets("ttl.forward")
@pytest.mark.parametrize("ttl", [2, 64, 255])
def test_packet_goes_on_with_a_lower_ttl_and_nothing_else_changed(ttl: int) -> None:
    packet = datagram(ttl=ttl, tos=0xB9, identification=0x1234, flags=ipv4.FLAG_DONT_FRAGMENT)
    port, mac, onward = forwarded(router(), packet)
    assert (port, mac) == (1, HOST_MAC)
    assert onward == dataclasses.replace(packet, ttl=ttl - 1)


@meets("ttl.checksum")
def test_checksum_is_right_for_every_ttl_protocol_and_identification() -> None:
    for ttl in range(1, 256):
        for protocol in (0, 1, 17, 255):
            for identification in (0, 1, 0xFEFF, 0xFFFF, ttl << 8):
                packet = datagram(ttl=ttl, protocol=protocol, identification=identification).emit()
                lowered = lower_ttl(packet)
                assert internet_checksum(lowered[:20]) == 0
                assert lowered[8] == ttl - 1
    for identification in range(0x10000):  # each value that the checksum can have
        packet = datagram(identification=identification).emit()
        assert internet_checksum(lower_ttl(packet)[:20]) == 0


@meets("ttl.exceeded")
@pytest.mark.parametrize("ttl", [0, 1])
def test_packet_whose_time_is_over_is_told(ttl: int) -> None:
    reason, message = told(router(), datagram(ttl=ttl))
    assert (reason, message.type, message.code) == ("ipv4_ttl", 11, 0)


@meets("error.original")
def test_quote_is_the_packet_as_it_was_received() -> None:
    packet = datagram(ttl=1, options=bytes.fromhex("07 07 04 00000000 00"), data=bytes(400))
    assert told(router(), packet)[1].payload == packet.emit()


@meets("forward.longest", "forward.default")
def test_longest_prefix_wins_and_the_default_has_the_rest() -> None:
    other = parse_address("198.51.100.253")
    via_other = Route(RouteKind.GATEWAY, 1, 0, other)
    made = router(routes={"0.0.0.0/0": VIA_GATEWAY, "10.0.0.0/8": VIA_GATEWAY, "10.9.0.0/16": via_other})
    made.set_static(1, other, HOST_MAC, NOW)
    assert forwarded(made, datagram(dst=FAR))[1] == HOST_MAC
    assert forwarded(made, datagram(dst=parse_address("10.8.0.1")))[1] == GATEWAY_MAC
    assert forwarded(made, datagram(dst=parse_address("9.9.9.9")))[1] == GATEWAY_MAC
    assert forwarded(made, datagram(dst=HOST))[1] == HOST_MAC


def test_lookup_gets_the_packet_to_choose_by_its_flow() -> None:
    routes = Routes(ConnectedRoutes((LAN, WAN)), {"10.0.0.0/8": VIA_GATEWAY})
    packet = datagram(dst=FAR)
    forwarded(router(lookup=routes), packet)
    asked = routes.asked[-1]
    assert (asked.src, asked.dst, asked.protocol, bytes(asked.payload)) == (PEER, FAR, 17, packet.payload)


@meets("error.no-route")
def test_no_route_is_told() -> None:
    reason, message = told(router(), datagram(dst=NOWHERE))
    assert (reason, message.type, message.code) == ("ipv4_no_route", 3, 0)


@meets("error.prohibited")
@pytest.mark.parametrize(
    ("kind", "reason", "code"),
    [(RouteKind.UNREACHABLE, "ipv4_unreachable", 1), (RouteKind.PROHIBIT, "ipv4_prohibited", 13)],
)
def test_route_that_refuses_is_told(kind: RouteKind, reason: str, code: int) -> None:
    found, message = told(router(routes={"172.16.0.0/12": Route(kind)}), datagram(dst=NOWHERE))
    assert (found, message.type, message.code) == (reason, 3, code)


def test_blackhole_is_silent() -> None:
    made = router(routes={"172.16.0.0/12": Route(RouteKind.BLACKHOLE)})
    assert dropped(made, datagram(dst=NOWHERE)) == "ipv4_blackhole"


def test_route_out_of_an_interface_that_is_not_there_is_no_route() -> None:
    made = router(routes={"172.16.0.0/12": Route(RouteKind.GATEWAY, 7, 0, GATEWAY)})
    assert told(made, datagram(dst=NOWHERE))[0] == "ipv4_no_route"


@meets("error.too-big")
def test_packet_too_big_for_the_next_link_is_told_its_mtu() -> None:
    made = router(LAN, changed(WAN, mtu=600))
    packet = datagram(data=bytes(573), flags=ipv4.FLAG_DONT_FRAGMENT)
    assert packet.size_octets == 601
    reason, message = told(made, packet)
    assert (reason, message.type, message.code, message.next_hop_mtu) == ("ipv4_too_big", 3, 4, 600)
    fits = datagram(data=bytes(572), flags=ipv4.FLAG_DONT_FRAGMENT)
    assert forwarded(made, fits)[2].size_octets == 600


@meets("fragment.offsets", "fragment.flags")
def test_packet_that_may_be_cut_leaves_in_fragments() -> None:
    made = router(LAN, changed(WAN, mtu=600))
    packet = datagram(data=bytes(range(250)) * 5, identification=7, ttl=9)
    parts = [part for _, _, part in packets_in(made.receive(0, framed(packet), NOW))]
    assert b"".join(part.payload for part in parts) == packet.payload
    assert [part.fragment_offset_octets for part in parts] == [0, 576, 1152]
    assert [part.flags for part in parts] == [1, 1, 0]
    assert {(part.ttl, part.identification, part.src) for part in parts} == {(8, 7, PEER)}
    assert all(part.size_octets <= 600 for part in parts)


@meets("fragment.flags")
def test_fragment_is_cut_again() -> None:
    made = router(LAN, changed(WAN, mtu=600))
    first, last = fragment(datagram(data=bytes(2000), identification=7), 1500)
    parts = [part for each in (first, last) for _, _, part in packets_in(made.receive(0, framed(each), NOW))]
    offsets = [0]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part.payload))
    assert [part.fragment_offset_octets for part in parts] == offsets
    assert [part.flags for part in parts] == [1] * (len(parts) - 1) + [0]


def test_fragments_go_on_without_waiting_for_each_other() -> None:
    made = router()
    parts = fragment(datagram(data=bytes(3000), identification=7), 1500)
    assert [forwarded(made, part)[2] for part in parts] == [
        dataclasses.replace(part, ttl=63, payload=bytes(part.payload)) for part in parts
    ]


@meets("options.unknown", "fragment.options")
def test_unknown_options_and_router_alert_go_on_unchanged() -> None:
    options = bytes.fromhex("9e 04 abcd 94 04 0000 5e 03 ff 01")
    made = router(LAN, changed(WAN, mtu=600))
    assert forwarded(made, datagram(options=options))[2].options == options
    parts = packets_in(made.receive(0, framed(datagram(options=options, data=bytes(1000))), NOW))
    assert parts[0][2].options == options
    assert [part.options for _, _, part in parts[1:]] == [bytes.fromhex("9e 04 abcd 94 04 0000")]


@meets("options.records")
def test_record_route_and_timestamp_get_the_address_that_the_packet_leaves_by() -> None:
    text = "07 07 04 00000000 44 0c 05 01 00000000 00000000 00"
    onward = forwarded(router(), datagram(options=bytes.fromhex(text)))[2]
    own = WAN_ADDRESS.to_bytes(4, "big")
    stamp = (0x80000000 | int(NOW * 1000)).to_bytes(4, "big")
    assert onward.options == b"\7\7\x08" + own + b"\x44\x0c\x0d\x01" + own + stamp + b"\0"


def test_full_record_route_goes_on_as_it_is() -> None:
    options = bytes.fromhex("07 07 08 0a000001 00")
    assert forwarded(router(), datagram(options=options))[2].options == options


@meets("error.options")
@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("07 00 00 00", 21),
        ("01 07 07 03 00000000", 23),
        ("01 44 04 04", 22),
        ("44 08 09 f0 11223344", 23),
        ("44 08 05 01 00000000", 22),
        ("94 03 00 00", 21),
        ("07 07 08 00000000 07 07 08 00000000 0000", 27),
    ],
)
def test_malformed_option_is_told_where_it_is(text: str, pointer: int) -> None:
    reason, message = told(router(), datagram(options=bytes.fromhex(text)))
    assert (reason, message.type, message.code, message.pointer) == ("ipv4_options", 12, 0, pointer)


@meets("options.source-route")
@pytest.mark.parametrize("text", ["83 07 04 c6336407 00", "89 07 04 c6336407 00", "83 07 08 c6336407 00"])
def test_source_route_is_dropped_and_told(text: str) -> None:
    reason, message = told(router(), datagram(options=bytes.fromhex(text)))
    assert (reason, message.type, message.code) == ("ipv4_source_route", 3, 5)


@meets("forward.martians", "error.sources")
@pytest.mark.parametrize(
    "src",
    ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.255", "192.0.2.0",
     "198.51.100.255", "198.51.100.0", "192.0.2.1", "198.51.100.1"],
)  # fmt: skip
def test_martian_source_is_dropped_without_a_word(src: str) -> None:
    made = router(routes={"0.0.0.0/0": VIA_GATEWAY})
    assert dropped(made, datagram(src=parse_address(src), dst=FAR)) == "ipv4_martian"
    assert dropped(made, datagram(src=parse_address(src), dst=FAR, ttl=1)) == "ipv4_martian"


@meets("forward.martians")
@pytest.mark.parametrize("dst", ["0.0.0.0", "0.1.2.3", "127.0.0.1", "240.0.0.1", "255.255.255.254"])
def test_martian_destination_is_dropped_without_a_word(dst: str) -> None:
    made = router(routes={"0.0.0.0/0": VIA_GATEWAY})
    assert dropped(made, datagram(dst=parse_address(dst))) == "ipv4_martian"


@meets("forward.link-local")
def test_link_local_addresses_are_not_forwarded() -> None:
    made = router(routes={"0.0.0.0/0": VIA_GATEWAY})
    local = parse_address("169.254.1.2")
    assert dropped(made, datagram(dst=local)) == "ipv4_link_local"
    assert dropped(made, datagram(src=local)) == "ipv4_link_local"


@meets("forward.l2-group", "error.groups")
@pytest.mark.parametrize("mac", [ethernet.BROADCAST, bytes.fromhex("01005e010203")])
@pytest.mark.parametrize("ttl", [1, 64])
def test_packet_in_a_frame_for_a_group_is_never_forwarded(mac: bytes, ttl: int) -> None:
    assert dropped(router(), datagram(ttl=ttl), dst=mac) == "l2_multicast"
    assert dropped(router(), datagram(dst=NOWHERE, ttl=ttl), dst=mac) == "l2_multicast"


@meets("forward.directed-broadcast", "old.broadcast")
@pytest.mark.parametrize("dst", ["198.51.100.255", "198.51.100.0"])
def test_directed_broadcast_is_forwarded_only_where_that_is_on(dst: str) -> None:
    packet = datagram(dst=parse_address(dst))
    assert dropped(router(), packet) == "ipv4_directed_broadcast"
    assert dropped(router(), dataclasses.replace(packet, ttl=1)) == "ipv4_directed_broadcast"
    on = router(LAN, changed(WAN, directed_broadcast=True))
    port, mac, onward = forwarded(on, packet)
    assert (port, mac, onward.ttl) == (1, ethernet.BROADCAST, 63)
    assert dropped(on, dataclasses.replace(packet, ttl=1)) == "ipv4_ttl"


@meets("forward.directed-broadcast")
def test_directed_broadcast_to_the_link_that_it_comes_from_stays_there() -> None:
    made = router(changed(LAN, directed_broadcast=True), WAN)
    assert dropped(made, datagram(dst=parse_address("192.0.2.255"))) == "no_listener"


@meets("forward.limited-broadcast")
def test_limited_broadcast_and_groups_stay_on_their_link() -> None:
    made = router(LAN, changed(WAN, directed_broadcast=True), routes={"0.0.0.0/0": VIA_GATEWAY})
    for dst in ("255.255.255.255", "224.0.0.1", "239.1.2.3"):
        assert dropped(made, datagram(dst=parse_address(dst)), dst=ethernet.BROADCAST) == "no_listener"


@meets("forward.255", "old.broadcast")
def test_255_inside_a_16_is_a_host() -> None:
    wide = changed(WAN, addresses=(Address(parse_address("10.1.0.1"), 16),))
    made = quiet_router(LAN, wide)
    host = parse_address("10.1.2.255")
    made.set_static(1, host, HOST_MAC, NOW)
    assert forwarded(made, datagram(dst=host))[:2] == (1, HOST_MAC)
    assert dropped(made, datagram(dst=parse_address("10.1.255.255"))) == "ipv4_directed_broadcast"


@meets("forward.31-32")
def test_both_ends_of_a_31_are_hosts() -> None:
    pair = changed(WAN, addresses=(Address(parse_address("198.51.100.4"), 31),))
    made = quiet_router(LAN, pair)
    other = parse_address("198.51.100.5")
    made.set_static(1, other, HOST_MAC, NOW)
    assert forwarded(made, datagram(dst=other))[:2] == (1, HOST_MAC)


@meets("forward.31-32")
def test_gateway_outside_every_prefix_is_asked_for_by_the_address_there_is() -> None:
    single = changed(WAN, addresses=(Address(WAN_ADDRESS, 32),))
    made = quiet_router(LAN, single)
    [asked] = of_type(Transmit, made.receive(0, framed(datagram(dst=FAR)), NOW))
    body = ethernet.parse(asked.frame).payload
    assert (asked.port, bytes(body[14:18])) == (1, WAN_ADDRESS.to_bytes(4, "big"))
    made.adopt(1, GATEWAY, GATEWAY_MAC, NOW)
    assert forwarded(made, datagram(dst=FAR))[:2] == (1, GATEWAY_MAC)


def test_unnumbered_interface_speaks_as_the_router() -> None:
    made = quiet_router(LAN, changed(WAN, addresses=()))
    [asked] = of_type(Transmit, made.receive(0, framed(datagram(dst=FAR)), NOW))
    body = ethernet.parse(asked.frame).payload
    assert (asked.port, bytes(body[14:18])) == (1, ADDRESS.to_bytes(4, "big"))
    made.adopt(1, GATEWAY, GATEWAY_MAC, NOW)
    back = datagram(src=FAR, dst=NOWHERE)
    outputs = made.receive(1, framed(back, dst=WAN.mac, src=GATEWAY_MAC), NOW)
    [(port, mac, error)] = packets_in(outputs)
    assert (port, mac, error.src, error.dst) == (1, GATEWAY_MAC, ADDRESS, FAR)


@meets("error.source")
def test_error_comes_from_the_interface_that_it_leaves_by() -> None:
    second = Address(parse_address("203.0.113.1"), 24)
    made = quiet_router(changed(LAN, addresses=(*LAN.addresses, second)), WAN)
    src = parse_address("203.0.113.9")
    for address in (PEER, src):
        made.set_static(0, address, PEER_MAC, NOW)
    for sender, own in ((PEER, ADDRESS), (src, second.address)):
        [(_, _, error)] = packets_in(made.receive(0, framed(datagram(src=sender, ttl=1)), NOW))
        assert error.src == own


def test_error_goes_where_the_route_to_the_source_leads() -> None:
    """The packet came in by the LAN; its source is behind the WAN."""
    outputs = router().receive(0, framed(datagram(src=FAR, dst=NOWHERE)), NOW)
    [(port, mac, error)] = packets_in(outputs)
    assert (port, mac, error.src) == (1, GATEWAY_MAC, WAN_ADDRESS)


@meets("error.redirect")
def test_redirect_only_where_it_is_on_and_on_one_link() -> None:
    gateway = parse_address("192.0.2.254")
    routes = {"10.0.0.0/8": Route(RouteKind.GATEWAY, 0, 0, gateway)}
    packet = datagram(dst=FAR)
    for on, src, errors in ((False, PEER, 0), (True, PEER, 1), (True, HOST, 0)):
        made = router(changed(LAN, redirects=on), WAN, routes=routes)
        made.set_static(0, gateway, GATEWAY_MAC, NOW)
        sent = packets_in(made.receive(0, framed(dataclasses.replace(packet, src=src)), NOW))
        assert (sent[0][:2], sent[0][2].ttl) == ((0, GATEWAY_MAC), 63)
        messages = [icmpv4.parse(error.payload) for _, _, error in sent[1:]]
        assert [(each.type, each.code, each.rest) for each in messages] == [(5, 1, gateway)] * errors
    across = router(changed(LAN, redirects=True), changed(WAN, redirects=True))
    assert forwarded(across, packet)[0] == 1


@meets("error.host", "arp.failure", "arp.hold")
def test_unanswered_neighbor_is_told_after_the_third_request_and_not_before() -> None:
    made = quiet_router()
    made.set_static(0, PEER, PEER_MAC, NOW)
    packet = datagram()
    assert packets_in(made.receive(0, framed(packet), NOW)) == []
    outputs = run(made, NOW + 3)
    drops = [(at, out.reason) for at, out in outputs if isinstance(out, Drop)]
    assert drops == [(NOW + 3, "neighbor_unresolved")]
    [(_, _, error)] = packets_in([out for _, out in outputs])
    message = icmpv4.parse(error.payload)
    assert (error.dst, message.type, message.code) == (PEER, 3, 1)
    # RFC 1812 section 4.3.2.3: what forwarding has changed before need not be undone.
    assert message.payload == dataclasses.replace(packet, ttl=63).emit()
    later = made.receive(0, framed(packet), NOW + 4)
    assert [out.reason for out in of_type(Drop, later)] == ["neighbor_unresolved"]
    assert icmpv4.parse(packets_in(later)[0][2].payload).code == 1


@meets("arp.hold")
def test_held_packet_goes_on_when_its_neighbor_answers() -> None:
    made = quiet_router()
    made.receive(0, framed(datagram()), NOW)
    assert packets_in(made.adopt(1, HOST, HOST_MAC, NOW))[0] == (1, HOST_MAC, datagram(ttl=63))


@pytest.mark.parametrize(
    ("kwargs", "interface"), [({"forwarding": False}, LAN), ({}, changed(LAN, forward=False))]
)
def test_without_forwarding_nothing_goes_on(kwargs: dict[str, bool], interface: object) -> None:
    made = router(interface, WAN, **kwargs)  # type: ignore[arg-type]
    assert dropped(made, datagram()) == "ipv4_not_local"
    assert dropped(made, datagram(ttl=1)) == "ipv4_not_local"
    assert told(made, datagram(dst=ADDRESS))[0] == "no_listener"
    assert told(made, datagram(dst=WAN_ADDRESS))[0] == "no_listener"


def test_interface_that_is_down_neither_sends_nor_receives() -> None:
    made = router(LAN, changed(WAN, up=False))
    reason, message = told(made, datagram())
    assert (reason, message.code) == ("interface_down", 1)
    reason, message = told(made, datagram(dst=FAR))
    assert (reason, message.code) == ("interface_down", 0)
    frame = framed(datagram(src=HOST, dst=PEER), dst=WAN.mac)
    assert made.receive(1, frame, NOW) == [Drop(1, "interface_down", frame)]


def test_local_route_is_delivered_here() -> None:
    made = router(routes={"172.16.0.1/32": Route(RouteKind.LOCAL, 0)})
    assert told(made, datagram(dst=NOWHERE))[0] == "no_listener"


@meets("old.loopback")
def test_packet_to_ourselves_arrives_at_once() -> None:
    made = router()
    made.listen_to_echo(5)
    echo = icmpv4.Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 5 << 16 | 1, b"data").emit()
    for dst in (ADDRESS, WAN_ADDRESS):
        [reply] = made.send(Ipv4Packet(src=0, dst=dst, protocol=1, payload=echo), NOW)
        assert (reply.src, reply.identifier, reply.payload) == (dst, 5, b"data")  # type: ignore[union-attr]


def test_own_packet_that_cannot_be_sent_says_why() -> None:
    made = router(LAN, changed(WAN, mtu=600))
    for fields, reason, code in (
        ({"dst": NOWHERE}, "ipv4_no_route", 0),
        ({"dst": HOST, "data": bytes(600), "flags": ipv4.FLAG_DONT_FRAGMENT}, "originate_too_long", 4),
    ):
        drop, error = made.send(datagram(src=0, **fields), NOW)  # type: ignore[arg-type]
        assert isinstance(drop, Drop)
        assert isinstance(error, IcmpError)
        assert (drop.reason, error.src, error.type, error.code) == (reason, 0, 3, code)
    assert error.rest == 600


def test_own_packet_gets_the_source_of_its_link_and_an_identification() -> None:
    made = router()
    sent = [
        packets_in(made.send(datagram(src=0, dst=dst), NOW))[0][2] for dst in (PEER, HOST, FAR, OTHER)[:3]
    ]
    assert [packet.src for packet in sent] == [ADDRESS, WAN_ADDRESS, WAN_ADDRESS]
    [drop] = made.send(datagram(src=PEER, dst=HOST), NOW)
    assert isinstance(drop, Drop)
    assert drop.reason == "address_tentative"


def test_buffer_may_be_reused_at_once() -> None:
    made = quiet_router()
    buffer = bytearray(framed(datagram()))
    made.receive(0, memoryview(buffer), NOW)
    buffer[:] = b"\xa5" * len(buffer)
    assert packets_in(made.adopt(1, HOST, HOST_MAC, NOW))[0][2] == datagram(ttl=63)
    buffer[:] = framed(datagram(ttl=1))
    made.set_static(0, PEER, PEER_MAC, NOW)
    drop, _ = outputs = made.receive(0, memoryview(buffer), NOW)
    buffer[:] = b"\xa5" * len(buffer)
    assert isinstance(drop, Drop)
    assert drop.octets == framed(datagram(ttl=1))
    assert icmpv4.parse(packets_in(outputs)[0][2].payload).payload == datagram(ttl=1).emit()
    assert MAC in drop.octets
