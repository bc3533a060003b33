# SPDX-License-Identifier: Apache-2.0
"""What every protocol module shares: the type of octets, the error for bad ones, and checks of field widths.

Two exception types say whose fault it is: `WireError` means that the peer sent something wrong, `ValueError`
that our own caller asked for a value that no octets can carry.
"""

Octets = bytes | bytearray | memoryview


class WireError(Exception):
    """Octets that are wrong, or refused by who got them; ``reason`` is the name of their drop counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def view(octets: Octets) -> memoryview:
    """A view that counts and slices in octets, without copying."""
    return memoryview(octets).cast("B")


def require_width(name: str, value: int, bits: int) -> None:
    """Raise ValueError unless ``value`` fits into an unsigned field of so many bits."""
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} is {value}, which does not fit into {bits} bits")


def require_mac(name: str, mac: bytes) -> None:
    """Raise ValueError unless ``mac`` is six octets (`struct` would cut or pad it without a word)."""
    if len(mac) != 6:
        raise ValueError(f"{name} has {len(mac)} octets, a MAC address has 6")


def writable(buffer: bytearray | memoryview, size_octets: int) -> memoryview:
    """The first ``size_octets`` of ``buffer``; ValueError when there are not so many."""
    whole = view(buffer)
    if len(whole) < size_octets:
        raise ValueError(f"the buffer has {len(whole)} octets, {size_octets} are needed")
    return whole[:size_octets]
