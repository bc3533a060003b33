# SPDX-License-Identifier: Apache-2.0
"""Forward error correction under KCP, compatible with kcp-go's: lost datagrams are made from others. No RFC.

    encoder = FecEncoder(FecSettings(data=10, parity=3))
    for datagram in encoder.encode(from_kcp, now_ms):   # one, and after each tenth three more
        send(datagram)

    for datagram in decoder.decode(from_peer):          # what it carries, and what it made whole
        session.input(datagram)

Sans-I/O. Any `data` of a group of `data + parity` datagrams are enough for all. Eight octets of each datagram are
ours, and KCP's MTU has to be smaller by `OVERHEAD`. What is refused raises nothing: it gives nothing, and is counted.
Nothing is authenticated here, no check covers what was made from others; KCP's own headers and checks have the say.

A datagram names its type where the classic format of KCP has command and fragment, values that no such header has:
`is_fec` tells them apart. In halo's format the conv lies there, and both ends have to know by their settings.

The native side (native/kcp/fec.c) owns all memory: at most `groups` groups of datagrams, given back with the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from halo_mp._native import ffi, lib

OVERHEAD: Final[int] = lib.HALO_KCP_FEC_OVERHEAD
"""Octets by which a datagram grows: number and type, and the size of what it carries."""
MAX_SHARDS: Final[int] = lib.HALO_KCP_FEC_MAX_SHARDS


@dataclass(frozen=True, slots=True)
class FecSettings:
    """Both ends need the same `data` and `parity`, unless the decoder may `tune`. ValueError: they can not be.

    size_octets: of the longest datagram, OVERHEAD among them; longer ones are refused, and counted.
    gap_ms: a group whose last datagram came so long after the one before is sent without its parity; 0: never.
    groups: that the decoder keeps of those not yet whole, 1 to 64; more when datagrams overtake many others.
    tune: the decoder finds out the peer's numbers of data and parity, and goes over to them.
    """

    data: int = 10
    parity: int = 3
    size_octets: int = 1500
    gap_ms: int = 0
    groups: int = 8
    tune: bool = True

    def __post_init__(self) -> None:
        wrong = lib.halo_kcp_fec_check(self.native(0)) if self._fit() else ffi.NULL
        if not self._fit() or wrong:
            raise ValueError(
                f"FEC of {self.data} data and {self.parity} parity datagrams of {self.size_octets} octets in "
                f"{self.groups} groups: data and parity are at least 1 and together at most {MAX_SHARDS}, "
                f"of {OVERHEAD} to {lib.HALO_KCP_FEC_MAX_OCTETS} octets, "
                f"in 1 to {lib.HALO_KCP_FEC_MAX_GROUPS} groups"
            )

    def _fit(self) -> bool:
        numbers = (self.data, self.parity, self.size_octets, self.gap_ms, self.groups)
        return all(0 <= number < 2**32 for number in numbers)

    def native(self, first: int) -> Any:
        """The same for C; `first` is the number that an encoder begins with."""
        return ffi.new(
            "struct halo_kcp_fec_settings *",
            {
                "data": self.data,
                "parity": self.parity,
                "octets": self.size_octets,
                "gap_ms": self.gap_ms,
                "groups": self.groups,
                "tune": self.tune,
                "first": first,
            },
        )


@dataclass(frozen=True, slots=True)
class FecCounters:
    """What an encoder or a decoder has done; `struct halo_kcp_fec_counters` says what each means."""

    data: int
    parity: int
    skipped: int
    whole: int
    recovered: int
    repeated: int
    late: int
    incomplete: int
    errors: int
    misplaced: int
    tuned: int


_COUNTERS = tuple(FecCounters.__dataclass_fields__)


def _counters(raw: Any) -> FecCounters:
    return FecCounters(*(getattr(raw, name) for name in _COUNTERS))


def is_fec(datagram: bytes | bytearray | memoryview) -> bool:
    """Whether a datagram is one of FEC's, where the other kind is KCP's classic format."""
    return len(datagram) >= OVERHEAD and datagram[4] in (0xF1, 0xF2) and datagram[5] == 0


class FecEncoder:
    """The sender's side. `first` is what `next_number` of a predecessor was, so that numbers go on."""

    __slots__ = ("_encoder", "_pointer")

    def __init__(self, settings: FecSettings | None = None, *, first: int = 0) -> None:
        encoder = lib.halo_kcp_fec_encoder_create((settings or FecSettings()).native(first))
        if not encoder:
            raise MemoryError("no memory for an encoder of FEC")
        self._encoder = ffi.gc(encoder, lib.halo_kcp_fec_encoder_free)
        self._pointer = ffi.new("const uint8_t **")

    def encode(self, datagram: bytes | bytearray | memoryview, now_ms: int = 0) -> list[bytes]:
        """What to send in the place of this datagram. Raises ValueError when it is too long."""
        now_ms &= 0xFFFFFFFF
        octets = ffi.from_buffer(datagram)
        count = lib.halo_kcp_fec_encode(self._encoder, octets, len(octets), now_ms)
        if count < 0:
            raise ValueError(
                f"a datagram of {len(octets)} octets and {OVERHEAD} of FEC is longer than the settings say"
            )
        return [self._encoded(i) for i in range(count)]

    def _encoded(self, i: int) -> bytes:
        length = lib.halo_kcp_fec_encoded(self._encoder, i, self._pointer)
        return bytes(ffi.buffer(self._pointer[0], length))

    @property
    def next_number(self) -> int:
        """Where a successor begins: the group that is open now is left without parity."""
        return lib.halo_kcp_fec_encoder_next(self._encoder)

    @property
    def counters(self) -> FecCounters:
        """What has gone so far."""
        raw = ffi.new("struct halo_kcp_fec_counters *")
        lib.halo_kcp_fec_encoder_counters(self._encoder, raw)
        return _counters(raw)


class FecDecoder:
    """The receiver's side."""

    __slots__ = ("_decoder", "_pointer")

    def __init__(self, settings: FecSettings | None = None) -> None:
        decoder = lib.halo_kcp_fec_decoder_create((settings or FecSettings()).native(0))
        if not decoder:
            raise MemoryError("no memory for a decoder of FEC")
        self._decoder = ffi.gc(decoder, lib.halo_kcp_fec_decoder_free)
        self._pointer = ffi.new("const uint8_t **")

    def decode(self, datagram: bytes | bytearray | memoryview) -> list[bytes]:
        """What is there for KCP now: one at most that came in this datagram, and any that were made whole."""
        octets = ffi.from_buffer(datagram)
        count = lib.halo_kcp_fec_decode(self._decoder, octets, len(octets))
        return [self._decoded(i) for i in range(count)]  # while `octets` holds the datagram

    def _decoded(self, i: int) -> bytes:
        length = lib.halo_kcp_fec_decoded(self._decoder, i, self._pointer)
        return bytes(ffi.buffer(self._pointer[0], length))

    @property
    def shards(self) -> tuple[int, int]:
        """Data and parity of the peer's groups, as far as we know."""
        numbers = ffi.new("uint32_t[2]")
        lib.halo_kcp_fec_decoder_shards(self._decoder, numbers, numbers + 1)
        return numbers[0], numbers[1]

    @property
    def counters(self) -> FecCounters:
        """What has gone so far."""
        raw = ffi.new("struct halo_kcp_fec_counters *")
        lib.halo_kcp_fec_decoder_counters(self._decoder, raw)
        return _counters(raw)
