# SPDX-License-Identifier: Apache-2.0
"""A carrier between an endpoint and another carrier: forward error correction of what goes and comes, for each peer.

An encoder and a decoder belong to each address that KCP sends to; what comes from others is only unpacked, so that a
stranger costs no memory. In the classic format a datagram without FEC is KCP's as it is, as kcp-go takes it. Control
packets (halo's format) go beside FEC. Per datagram there is Python here: FEC is for links that lose, not for speed.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from typing import Any, Final

from halo_mp._native import ffi, lib
from halo_mp.kcp.carriers import DATAGRAM, Owner, StartableCarrier
from halo_mp.kcp.fec import OVERHEAD, FecCounters, FecDecoder, FecEncoder, FecSettings, is_fec
from halo_mp.kcp.peers import Address, Peers
from halo_mp.kcp.settings import Settings

GAP_MS: Final = 500
"""kcp-go's: a group that is older is sent without its parity."""
LEAST_PEERS: Final = 64
_DATA: Final = 0xF1
_SIZE_AT: Final = 6


@dataclass(frozen=True, slots=True)
class _Pair:
    encoder: FecEncoder
    decoder: FecDecoder


class FecCarrier:
    """A carrier and the owner of another one. `Settings.mtu` is that of datagrams with FEC."""

    by_reference = True

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: StartableCarrier, settings: Settings) -> None:
        """Raises ValueError for numbers of shards that can not be."""
        self._fec = FecSettings(
            data=settings.fec_data, parity=settings.fec_parity, size_octets=settings.mtu, gap_ms=GAP_MS
        )
        self._inner = inner
        self._loop = loop
        self._is_classic = settings.format == "classic"
        self._owner: Owner | None = None
        self._addresses = Peers()
        self._pairs: dict[bytes, _Pair] = {}
        self._most_pairs = LEAST_PEERS
        self._room = LEAST_PEERS
        self._incoming = ffi.new("struct halo_kcp_incoming[]", self._room)
        self._sending: Any = None

    @property
    def transport(self) -> Any:
        """The other carrier's."""
        return self._inner.transport

    @property
    def is_blocked(self) -> bool:
        """Whether the other carrier is."""
        return self._inner.is_blocked

    @property
    def counters(self) -> list[tuple[FecCounters, FecCounters]]:
        """Of each peer, what was encoded and what was decoded."""
        return [(pair.encoder.counters, pair.decoder.counters) for pair in self._pairs.values()]

    def start(self, owner: Owner) -> None:
        """Tell an endpoint what comes, from now on."""
        self._owner = owner
        self._inner.start(self)

    def send_to(self, octets: bytes, address: Address) -> None:
        self._inner.send_to(octets, address)

    def forget(self, number: int) -> None:
        self._inner.forget(number)

    def close(self) -> None:
        self._owner = None
        self._inner.close()

    # ---- what the other carrier says

    @property
    def has_control(self) -> bool:
        """As the endpoint's."""
        return self._owner is not None and self._owner.has_control

    def take_error(self, error: OSError) -> None:
        if self._owner is not None:
            self._owner.take_error(error)

    def address_of(self, number: int) -> Address | None:
        return None if self._owner is None else self._owner.address_of(number)

    def addresses(self) -> set[Address]:
        return set() if self._owner is None else self._owner.addresses()

    def room(self) -> None:
        if self._owner is not None:
            self._owner.room()

    def lost(self, error: Exception | None) -> None:
        if self._owner is not None:
            self._owner.lost(error)

    def take(self, incoming: Any, count: int, control: list[tuple[bytes, Address]]) -> None:
        """Unpack, make whole what can be, and pass it on."""
        octets: list[bytes] = []
        peers: list[bytes] = []
        for i in range(count):
            one = incoming[i]
            peer = ffi.buffer(ffi.addressof(one, "peer"))[:]
            found = self._decode(ffi.buffer(one.octets, one.length)[:], peer)
            octets += found
            peers += [peer] * len(found)
        if self._owner is None:
            return
        if len(octets) > self._room:
            self._room = 2 * len(octets)
            self._incoming = ffi.new("struct halo_kcp_incoming[]", self._room)
        joined, froms = b"".join(octets), b"".join(peers)
        lengths = array("I", map(len, octets))
        lib.halo_kcp_incoming_fill(
            self._incoming,
            ffi.from_buffer(joined),
            ffi.from_buffer("uint32_t[]", lengths),
            ffi.cast("struct halo_kcp_peer *", ffi.from_buffer(froms)),
            len(octets),
        )
        self._owner.take(self._incoming, len(octets), control)

    def _decode(self, datagram: bytes, peer: bytes) -> list[bytes]:
        if self._is_classic and not is_fec(datagram):
            return [datagram]
        pair = self._pairs.get(peer)
        if pair is not None:
            return pair.decoder.decode(datagram)
        return _unpacked(datagram)

    # ---- what the endpoint sends

    def send_output(self, output: Any, group: Any) -> None:
        now_ms = int(self._loop.time() * 1000)
        coded: list[tuple[bytes, int]] = []
        for i in range(output.count):
            one = output.datagram[i]
            pair = self._pair_of(one.session)
            if pair is not None:
                octets = ffi.buffer(one.octets, one.length)
                coded += [(each, one.session) for each in pair.encoder.encode(octets, now_ms)]
        lib.halo_kcp_output_clear(output)
        if coded:
            self._inner.send_output(self._output(coded), group)

    def _pair_of(self, number: int) -> _Pair | None:
        address = self.address_of(number)
        if address is None:
            return None
        peer = self._addresses[address]
        pair = self._pairs.get(peer)
        if pair is None:
            if len(self._pairs) >= self._most_pairs:
                self._forget_strangers()
            pair = self._pairs[peer] = _Pair(FecEncoder(self._fec), FecDecoder(self._fec))
        return pair

    def _forget_strangers(self) -> None:
        """Keep what belongs to sessions that there are."""
        live = {self._addresses[address] for address in self.addresses()}
        self._pairs = {peer: pair for peer, pair in self._pairs.items() if peer in live}
        self._most_pairs = max(LEAST_PEERS, 2 * len(self._pairs))

    def _output(self, coded: list[tuple[bytes, int]]) -> Any:
        """Return a `struct halo_kcp_output *` of these, which stays until the next one: only one is on its way."""
        joined = b"".join(octets for octets, _ in coded)
        octets = ffi.from_buffer(joined)
        at, records = int(ffi.cast("uintptr_t", octets)), []
        for each, number in coded:
            records.append(DATAGRAM.pack(at, len(each), number))
            at += len(each)
        datagrams = ffi.from_buffer(b"".join(records))
        pointer = ffi.new("struct halo_kcp_output *")
        pointer.octets, pointer.used = ffi.cast("uint8_t *", octets), len(joined)
        pointer.datagram = ffi.cast("struct halo_kcp_datagram *", datagrams)
        pointer.count = len(coded)
        self._sending = (pointer, octets, datagrams)
        return pointer


def _unpacked(datagram: bytes) -> list[bytes]:
    """What a datagram of data carries; nothing of one of parity, or where its size lies."""
    if not is_fec(datagram) or datagram[4] != _DATA:
        return []
    size = int.from_bytes(datagram[_SIZE_AT:OVERHEAD], "little")
    end = _SIZE_AT + size
    return [datagram[OVERHEAD:end]] if OVERHEAD <= end <= len(datagram) else []
