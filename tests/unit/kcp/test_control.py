# SPDX-License-Identifier: Apache-2.0
import pytest

from halo_mp.kcp import control
from halo_mp.kcp.control import ControlKind, ControlPacket, EndReason
from tests.unit.wire.harness import emit_into_poison, reason_of

# Each octet by hand: magic, session id (low half), conv (high half), event, magic; all big-endian.
ROWS = [
    (
        ControlPacket(ControlKind.SYN, 0, control.CLIENT_CONNECT_KEY),
        "000000ff 00000000 00000000 499602d2 ffffffff",
    ),
    (
        ControlPacket(ControlKind.EST, 0xA1B2C3D4_00000007, control.CLIENT_CONNECT_KEY),
        "00000145 00000007 a1b2c3d4 499602d2 14514545",
    ),
    (
        ControlPacket(ControlKind.FIN, 0xA1B2C3D4_00000007, EndReason.SERVER_KICK),
        "00000194 00000007 a1b2c3d4 00000005 19419494",
    ),
    (
        ControlPacket(ControlKind.PING, 0xFFFFFFFF_FFFFFFFE, 0x01020304),
        "00000227 fffffffe ffffffff 01020304 22722727",
    ),
]
VALUE, OCTETS = ROWS[1][0], bytes.fromhex(ROWS[1][1])


@pytest.mark.parametrize(("packet", "octets"), ROWS)
def test_emit_known_value(packet: ControlPacket, octets: str) -> None:
    assert packet.emit() == bytes.fromhex(octets)
    assert emit_into_poison(packet.size_octets, packet.emit_into) == bytes.fromhex(octets)


@pytest.mark.parametrize(("packet", "octets"), ROWS)
def test_parse_known_octets(packet: ControlPacket, octets: str) -> None:
    assert control.check(bytes.fromhex(octets)) is None
    assert control.parse(memoryview(bytes.fromhex(octets))) == packet


def test_session_id_is_the_low_half() -> None:
    assert VALUE.session_id == 7


@pytest.mark.parametrize("length", [*range(20), 21, 24, 28, 1400])
def test_another_length_is_refused(length: int) -> None:
    octets = (OCTETS * 70)[:length]
    assert control.check(octets) == "kcp_control_length"
    assert reason_of(control.parse, octets) == "kcp_control_length"


@pytest.mark.parametrize("at", [0, 1, 2, 3, 16, 17, 18, 19])
@pytest.mark.parametrize("bit", range(8))
def test_magic_with_a_wrong_bit_is_refused(at: int, bit: int) -> None:
    octets = bytearray(OCTETS)
    octets[at] ^= 1 << bit
    assert control.check(octets) == "kcp_control_magic"
    assert reason_of(control.parse, octets) == "kcp_control_magic"


@pytest.mark.parametrize("head", range(4))
@pytest.mark.parametrize("tail", range(4))
def test_magics_of_two_kinds_are_refused(head: int, tail: int) -> None:
    octets = bytes.fromhex(ROWS[head][1])[:16] + bytes.fromhex(ROWS[tail][1])[16:]
    assert control.check(octets) == (None if head == tail else "kcp_control_magic")


@pytest.mark.parametrize(("conv", "event"), [(-1, 0), (1 << 64, 0), (0, -1), (0, 1 << 32)])
def test_construct_refuses_what_no_octets_carry(conv: int, event: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        ControlPacket(ControlKind.FIN, conv, event)


def test_reasons_have_names_and_others_stay_numbers() -> None:
    assert control.reason_name(20) == "wait_send_max"
    assert control.reason_name(control.EDITOR_CONNECT_KEY) == "987654321"
