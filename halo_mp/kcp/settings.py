# SPDX-License-Identifier: Apache-2.0
"""What a session is set to: KCP's own settings by the names of `struct halo_kcp_settings`, and those of what is above.

Both ends must agree on `format`, `check`, and forward error correction; the rest is each end's own affair. The MTU is
that of a datagram's payload: 1400 fits an Ethernet with tunnels, 1472 is what IPv4 leaves of 1500.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final, Literal

Format = Literal["halo", "classic"]
Check = Literal["off", "zero", "crc32", "xxh3"]
Congestion = Literal["none", "classic"]

FORMATS: Final[dict[str, int]] = {"classic": 0, "halo": 1}
CHECKS: Final[dict[str, int]] = {"off": 0, "zero": 1, "crc32": 2, "xxh3": 3}
CONGESTIONS: Final[dict[str, int]] = {"none": 0, "classic": 1}

_WORDS: Final = {"format": FORMATS, "check": CHECKS, "congestion": CONGESTIONS}
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "mtu": (50, 65507),
    "send_window": (1, 65535),
    "receive_window": (1, 65535),
    "interval_ms": (1, 5000),
    "nodelay": (0, 2),
    "min_rto_ms": (0, 60000),
    "resend": (0, 65535),
    "fast_limit": (0, 65535),
    "dead_link": (1, 65535),
    "most_fragments": (1, 255),
    "probe_ms": (0, 120000),
}
_FLAGS: Final = ("stream", "conserve", "early", "ack_no_delay", "write_delay", "flush_on_ack")
_HEADER_OCTETS: Final = {"classic": 24, "halo": 28}
_CHECK_OCTETS: Final = 4
_FEC_OCTETS: Final = 8
_LEAST_MTU: Final = 50
_MOST_SHARDS: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times in seconds, but where the name says milliseconds. Raises ValueError for what can not be.

    The defaults are for latency: time-outs grow by half, lost segments are sent again after two later acknowledgements.
    """

    format: Format = "halo"
    """halo: 28 octets of header, convs of 64 bits, control packets. classic: 24 and 32, as the reference and kcp-go."""
    check: Check = "off"
    """What the payload of a segment is checked with, beyond UDP's checksum."""
    mtu: int = 1400
    stream: bool = True
    """Octets, not messages: what is written may be merged and is read in pieces of any size."""
    send_window: int = 512
    receive_window: int = 512
    interval_ms: int = 10
    nodelay: int = 1
    min_rto_ms: int = 0
    resend: int = 2
    fast_limit: int = 5
    conserve: bool = True
    early: bool = False
    congestion: Congestion = "classic"
    dead_link: int = 20
    most_fragments: int = 127
    ack_no_delay: bool = False
    write_delay: bool = False
    flush_on_ack: bool = True
    probe_ms: int = 500
    """Until a peer whose window is shut is asked for it first; as kcp-go. 0: the reference's 7 s."""

    fec_data: int = 0
    """Forward error correction as kcp-go's: after so many datagrams come `fec_parity` more. 0: none."""
    fec_parity: int = 0

    connect_timeout_s: float = 10.0
    """For the handshake of halo's format; the classic one has none."""
    keep_alive_s: float = 10.0
    """A session that is silent for so long is asked whether its peer lives. 0: never."""
    idle_timeout_s: float = 30.0
    """A session that nothing was heard of for so long has ended. 0: never."""
    close_timeout_s: float = 10.0
    """For what was written to be delivered, when a session is closed."""
    write_buffer_segments: int = 0
    """So many unacknowledged segments, and `drain()` waits. 0: twice the send window."""

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of: {', '.join(words)}")
        for name, (least, most) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} to {most}")
        for name in ("connect_timeout_s", "keep_alive_s", "idle_timeout_s", "close_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 86400):
                raise ValueError(f"{name} is {value}; expected seconds, 0 to 86400")
        shards = self.fec_data, self.fec_parity
        if (
            (shards != (0, 0) and min(shards) < 1)
            or sum(shards) > _MOST_SHARDS
            or self._core_mtu < _LEAST_MTU
        ):
            raise ValueError(
                f"fec_data is {self.fec_data} and fec_parity {self.fec_parity}, with an mtu of {self.mtu}; expected "
                f"both 0, or both 1 or more and together at most {_MOST_SHARDS}, and an mtu of "
                f"{_LEAST_MTU + _FEC_OCTETS}"
            )
        if self.write_buffer_segments < 0:
            raise ValueError(f"write_buffer_segments is {self.write_buffer_segments}; expected 0 or more")

    @classmethod
    def reference(cls, **changes: Any) -> Settings:
        """Those that the reference implementation has when nothing is set: classic, slow and careful."""
        settings: dict[str, Any] = {
            "format": "classic",
            "stream": False,
            "send_window": 32,
            "receive_window": 128,
            "interval_ms": 100,
            "nodelay": 0,
            "resend": 0,
            "write_delay": True,
            "flush_on_ack": False,
            "probe_ms": 0,
        }
        return cls(**{**settings, **changes})

    @property
    def header_octets(self) -> int:
        """Of a segment, without FEC's."""
        return _HEADER_OCTETS[self.format] + (0 if self.check == "off" else _CHECK_OCTETS)

    @property
    def segment_octets(self) -> int:
        """Of payload that one segment carries."""
        return self._core_mtu - self.header_octets

    @property
    def _core_mtu(self) -> int:
        """What FEC leaves of the MTU."""
        return self.mtu - (_FEC_OCTETS if self.fec_data else 0)

    @property
    def message_octets(self) -> int:
        """Of the longest message."""
        return self.segment_octets * self.most_fragments

    @property
    def high_water_segments(self) -> int:
        """So many wait, and writers are paused."""
        return self.write_buffer_segments or 2 * self.send_window

    def replace(self, **changes: Any) -> Settings:
        """The same, with some things changed. Raises ValueError."""
        return dataclasses.replace(self, **changes)

    def emit(self, pointer: Any) -> None:
        """Write them to a `struct halo_kcp_settings`."""
        for name, words in _WORDS.items():
            setattr(pointer, name, words[getattr(self, name)])
        for name in (*_BOUNDS, *_FLAGS):
            setattr(pointer, name, int(getattr(self, name)))
        pointer.mtu = self._core_mtu
        pointer.reserved = 0
