# SPDX-License-Identifier: Apache-2.0
"""The names of a packet's fields, for all forms of hooks: one list of what stands where in struct halo_packet.

Host byte order. Fields of a protocol that a packet has not are 0. What may be written: ipv4.src, dst, ttl, tos, the
ports of UDP and TCP, mark, tx_port, reason, length; what else is written is as it was when the hook has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo_mp.shm.layout import DROP_NAMES, ffi, lib
from halo_mp.wire import ipv4

if TYPE_CHECKING:
    import numpy as np

NO_INTERFACE: int = lib.HALO_NO_INTERFACE
"""`interface` of a packet that came in where no interface is, or whose interface is not known yet."""

FIELDS = {
    "port": "port",
    "length": "length",
    "vlan": "vlan",
    "ethertype": "ethertype",
    "interface": "interface",
    "tx_port": "tx_port",
    "tx_interface": "tx_interface",
    "mark": "mark",
    "hash": "hash",
    "timestamp_ns": "timestamp_ns",
    "l3_offset": "l3_offset",
    "l4_offset": "l4_offset",
    "offset": "offset",
    "injected": "injected",
    "verdict": "verdict",
    "reason": "reason",
}
"""Name in hooks -> name in struct halo_packet."""

VIEWS = {
    "ipv4": ("src", "dst", "ttl", "tos", "protocol", "length", "fragment", "version"),
    "udp": ("sport", "dport"),
    "tcp": ("sport", "dport"),
    "icmp": ("type", "code"),
}
"""Name of a view -> its fields, as in struct halo_view_<name>."""

_FORMATS = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}


def reason(name: str) -> int:
    """Return the number of a drop reason, to be set as packet.reason. Raises ValueError when there is none."""
    try:
        return DROP_NAMES.index(name)
    except ValueError:
        raise ValueError(f"{name!r} is no drop reason; docs/shared-memory.md lists them") from None


def address(text: str) -> int:
    """Return an IPv4 address as a number, as packets have it. Raises ValueError."""
    return ipv4.parse_address(text)


def format_address(number: int) -> str:
    """Return an IPv4 address, which may be NumPy's, as text. Raises ValueError for a number that is none."""
    return ipv4.format_address(int(number))


def record_dtype() -> np.dtype[Any]:
    """Return the NumPy dtype of a packet: fields by name, and those of protocols one level below."""
    import numpy as np

    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    for name, field in FIELDS.items():
        names.append(name)
        formats.append(_format("halo_packet", field))
        offsets.append(ffi.offsetof("struct halo_packet", field))
    for view, fields in VIEWS.items():
        struct = f"halo_view_{view}"
        names.append(view)
        formats.append(
            np.dtype(
                {
                    "names": list(fields),
                    "formats": [_format(struct, field) for field in fields],
                    "offsets": [ffi.offsetof(f"struct {struct}", field) for field in fields],
                    "itemsize": ffi.sizeof(f"struct {struct}"),
                }
            )
        )
        offsets.append(0)
    return np.dtype(
        {
            "names": names,
            "formats": formats,
            "offsets": offsets,
            "itemsize": ffi.sizeof("struct halo_packet"),
        }
    )


def _format(struct: str, field: str) -> str:
    kinds = {name: entry.type for name, entry in ffi.typeof(f"struct {struct}").fields}
    kind = kinds[field]
    return _FORMATS[ffi.sizeof(kind.item if kind.kind == "array" else kind)]
