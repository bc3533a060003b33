# SPDX-License-Identifier: Apache-2.0
"""Octets of KCP segments and of halo's control packets, written from the description of the formats.

No program printed them: each row of hexadecimal digits is one field, worked out by hand from these rules, and
`test_golden.py` compares them with what our code emits and takes.

A segment, little-endian throughout:

    conv   4 octets in the classic format; 8 in halo's: session id (low half) first, then the random half
    cmd    1 octet: 81 PUSH, 82 ACK, 83 WASK (asks for the window), 84 WINS (tells it)
    frg    1 octet: fragments of this message that follow
    wnd    2 octets: free places in the sender's receive queue
    ts     4 octets: the sender's clock in ms; in an ACK, that of the PUSH which it answers
    sn     4 octets: number of the segment; in an ACK, of the PUSH which it answers; else 0
    una    4 octets: first number that the sender has not received
    len    4 octets: payload after the header
    check  4 octets, only when a check is chosen: of the payload alone, in PUSH; 0 in all other commands

A control packet, 20 octets, big-endian: head magic, session id, random half of the conv, event, tail magic. The conv
keeps its order there: session id first, as in the segment, but each half has its most significant octet first.
"""

from __future__ import annotations

from dataclasses import dataclass

SESSION_ID = 0x11223344
RANDOM_HALF = 0xAABBCCDD
HALO_CONV = 0xAABBCCDD_11223344  # random half << 32 | session id
CLASSIC_CONV = 0x11223344

PUSH, ACK, WASK, WINS = 81, 82, 83, 84


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: values in host order, and all its octets. `check` is "off", "zero", "crc32" or "xxh3"."""

    name: str
    format: str
    check: str
    conv: int
    cmd: int
    frg: int
    wnd: int
    ts: int
    sn: int
    una: int
    payload: bytes
    octets: bytes


# CRC-32 (IEEE 802.3, reflected, 0xffffffff before and after) of "abc" is 0x352441c2, a published check value, and of
# "123456789" it is 0xcbf43926, the check value by which catalogues know this CRC. Of no octets at all it is 0.
#
# XXH3-64 of 1 to 3 octets with seed 0:
#   combined = c1 << 16 | c2 << 24 | c3 | length << 8,   c1 the first, c2 the one at length // 2, c3 the last
#   keyed    = combined ^ (0x396cfeb8 ^ 0xbe4ba423)      the first two words of the default secret
#   then ^= >> 33, *= 0xc2b2ae3d27d4eb4f, ^= >> 29, *= 0x165667b19e3779f9, ^= >> 32, all modulo 2^64.
# "abc": c1 0x61, c2 0x62, c3 0x63, so combined is 0x62610363 and keyed 0xe54659f8, and the hash 0x78af5f94892f3950:
# low half 0x892f3950. Of no octets XXH3-64 is 0x2d06800538d394c2: low half 0x38d394c2.
CRC32_ABC = 0x352441C2
CRC32_DIGITS = 0xCBF43926
XXH3_ABC = 0x892F3950
XXH3_EMPTY = 0x38D394C2

SEGMENTS = (
    Segment(
        "classic PUSH", "classic", "off",
        CLASSIC_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex(
            "44332211"  # conv 0x11223344
            "51"        # cmd 81
            "00"        # frg
            "2000"      # wnd 32 = 0x0020
            "40420f00"  # ts 1,000,000 = 0x000f4240
            "07000000"  # sn
            "05000000"  # una
            "03000000"  # len
            "616263"
        ),
    ),
    Segment(
        "classic ACK", "classic", "off",
        CLASSIC_CONV, ACK, 0, 1024, 0xFFFFFFFE, 0xFFFFFFFF, 0, b"",
        bytes.fromhex(
            "44332211"
            "52"        # cmd 82
            "00"
            "0004"      # wnd 1024 = 0x0400
            "feffffff"  # ts two ms before the wrap
            "ffffffff"  # sn, the last before the wrap
            "00000000"  # una, past the wrap
            "00000000"
        ),
    ),
    Segment(
        "classic PUSH with CRC-32", "classic", "crc32",
        CLASSIC_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex("44332211 51 00 2000 40420f00 07000000 05000000 03000000 c2412435 616263"),
    ),
    Segment(
        "halo PUSH", "halo", "off",
        HALO_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex(
            "44332211"  # conv, low half: session id 0x11223344
            "ddccbbaa"  # conv, high half: 0xaabbccdd
            "51"
            "00"
            "2000"
            "40420f00"
            "07000000"
            "05000000"
            "03000000"
            "616263"
        ),
    ),
    Segment(
        "halo PUSH, more fragments follow", "halo", "off",
        HALO_CONV, PUSH, 254, 0, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, b"\x00",
        bytes.fromhex(
            "44332211 ddccbbaa"
            "51"
            "fe"        # frg 254: the first of 255 fragments
            "0000"      # wnd 0: the peer is to stop
            "ffffffff"  # ts
            "00000080"  # sn 2^31
            "ffffff7f"  # una 2^31 - 1
            "01000000"
            "00"
        ),
    ),
    Segment(
        "halo ACK", "halo", "off",
        HALO_CONV, ACK, 0, 128, 1_000_000, 7, 8, b"",
        bytes.fromhex("44332211 ddccbbaa 52 00 8000 40420f00 07000000 08000000 00000000"),
    ),
    Segment(
        "halo WASK", "halo", "off",
        HALO_CONV, WASK, 0, 128, 0, 0, 8, b"",
        bytes.fromhex("44332211 ddccbbaa 53 00 8000 00000000 00000000 08000000 00000000"),
    ),
    Segment(
        "halo WINS", "halo", "off",
        HALO_CONV, WINS, 0, 65535, 0, 0, 8, b"",
        bytes.fromhex("44332211 ddccbbaa 54 00 ffff 00000000 00000000 08000000 00000000"),
    ),
    Segment(
        "halo PUSH with zero check", "halo", "zero",
        HALO_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex(
            "44332211 ddccbbaa 51 00 2000 40420f00 07000000 05000000 03000000"
            "00000000"  # check: always 0, at octet 28
            "616263"
        ),
    ),
    Segment(
        "halo PUSH with CRC-32", "halo", "crc32",
        HALO_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex(
            "44332211 ddccbbaa 51 00 2000 40420f00 07000000 05000000 03000000"
            "c2412435"  # check 0x352441c2
            "616263"
        ),
    ),
    Segment(
        "halo PUSH with CRC-32 of nine digits", "halo", "crc32",
        HALO_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"123456789",
        bytes.fromhex(
            "44332211 ddccbbaa 51 00 2000 40420f00 07000000 05000000"
            "09000000"  # len
            "2639f4cb"  # check 0xcbf43926
            "313233343536373839"
        ),
    ),
    Segment(
        "halo PUSH with XXH3", "halo", "xxh3",
        HALO_CONV, PUSH, 0, 32, 1_000_000, 7, 5, b"abc",
        bytes.fromhex(
            "44332211 ddccbbaa 51 00 2000 40420f00 07000000 05000000 03000000"
            "50392f89"  # check 0x892f3950
            "616263"
        ),
    ),
    Segment(
        "halo ACK with CRC-32", "halo", "crc32",
        HALO_CONV, ACK, 0, 128, 1_000_000, 7, 8, b"",
        bytes.fromhex(
            "44332211 ddccbbaa 52 00 8000 40420f00 07000000 08000000 00000000"
            "00000000"  # no payload, no check
        ),
    ),
    Segment(
        "halo ACK with XXH3", "halo", "xxh3",
        HALO_CONV, ACK, 0, 128, 1_000_000, 7, 8, b"",
        bytes.fromhex(
            "44332211 ddccbbaa 52 00 8000 40420f00 07000000 08000000 00000000"
            "00000000"  # 0, although XXH3 of nothing is not
        ),
    ),
    Segment(
        "halo WASK with XXH3", "halo", "xxh3",
        HALO_CONV, WASK, 0, 128, 0, 0, 8, b"",
        bytes.fromhex("44332211 ddccbbaa 53 00 8000 00000000 00000000 08000000 00000000 00000000"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """One control packet: `kind` is "syn", "est", "fin" or "ping"."""

    name: str
    kind: str
    session_id: int
    random_half: int
    event: int
    octets: bytes


CLIENT_CONNECT_KEY = 1_234_567_890  # event that a SYN must carry: 0x499602d2
EDITOR_KEY = 987_654_321  # reason of a FIN: 0x3ade68b1

CONTROL_PACKETS = (
    ControlPacket(
        "SYN of a client that has no conv yet", "syn", 0, 0, CLIENT_CONNECT_KEY,
        bytes.fromhex(
            "000000ff"  # head
            "00000000"  # session id: the server gives it
            "00000000"  # random half: the server gives it
            "499602d2"  # event 1,234,567,890
            "ffffffff"  # tail
        ),
    ),
    ControlPacket(
        "EST", "est", SESSION_ID, RANDOM_HALF, CLIENT_CONNECT_KEY,
        bytes.fromhex(
            "00000145"
            "11223344"  # session id: here its most significant octet is first
            "aabbccdd"
            "499602d2"
            "14514545"
        ),
    ),
    ControlPacket(
        "FIN for a timeout", "fin", SESSION_ID, RANDOM_HALF, 0,
        bytes.fromhex("00000194 11223344 aabbccdd 00000000 19419494"),
    ),
    ControlPacket(
        "FIN for too much that waits to be sent", "fin", SESSION_ID, RANDOM_HALF, 20,
        bytes.fromhex("00000194 11223344 aabbccdd 00000014 19419494"),
    ),
    ControlPacket(
        "FIN for the editor's key", "fin", SESSION_ID, RANDOM_HALF, EDITOR_KEY,
        bytes.fromhex("00000194 11223344 aabbccdd 3ade68b1 19419494"),
    ),
    ControlPacket(
        "PING", "ping", SESSION_ID, RANDOM_HALF, 0,
        bytes.fromhex("00000227 11223344 aabbccdd 00000000 22722727"),
    ),
)  # fmt: skip
