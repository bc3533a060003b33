# SPDX-License-Identifier: Apache-2.0
"""Octets to values and back, one module per protocol: no clock, no I/O, no state.

Each protocol module has the same shape:

* ``check(octets)`` names what is wrong with the octets, in the words of the drop counters
  (`halo_mp.wire.reasons`), or returns None. It never raises, whatever the octets are.
* ``parse(octets)`` returns a frozen value, or raises `WireError` with the name that ``check`` would return.
  The header is read once into private memory, so a value is consistent with itself even when somebody
  writes to the buffer meanwhile.
* the value's ``emit()`` returns octets; ``emit_into(buffer)`` writes them to the start of a writable buffer,
  every one of them, and returns how many. Lengths and checksums are computed, never carried.

Memory: a parsed payload is a `memoryview` of the caller's octets, valid as long as those are. Who keeps a
value beyond the life of the buffer copies the payload first. Everything else in a value is its own.

IPv4 addresses are `int` in host order, MAC addresses are `bytes` of six octets.
"""

from halo_mp.wire.octets import Octets, WireError

__all__ = ["Octets", "WireError"]
