# SPDX-License-Identifier: Apache-2.0
"""Record route and timestamp in the options of packets that we forward or answer: RFC 791 section 3.1, RFC 1122
section 3.2.1.8, RFC 1812 sections 5.3.13.5 and 5.3.13.6.

All other options stay as they are. Refused as `ipv4_options`: malformed ones, and a record with room for a
part of an entry.
"""

from typing import Final

from halo_mp.wire import ipv4_options
from halo_mp.wire.ipv4_options import Option, OptionError

_POINTER_AT: Final = 2  # within an option; the pointer itself counts from 1
_FLAG_AT: Final = 3
_ADDRESS_OCTETS: Final = 4
_MAX_OVERFLOW: Final = 15
_NOT_SINCE_MIDNIGHT: Final = 0x80000000


def record(options: bytes, address: int, now: float) -> bytes:
    """``options`` with our ``address`` and the time recorded where asked for; OptionError for bad ones."""
    recorded = bytearray(options)
    for option in ipv4_options.parse(options):
        if option.kind == ipv4_options.RECORD_ROUTE:
            updated = _record_route(option, address)
        elif option.kind == ipv4_options.TIMESTAMP:
            updated = _record_timestamp(option, address, now)
        else:
            continue
        recorded[option.offset : option.offset + len(updated)] = updated
    return bytes(recorded)


def _record_route(option: Option, address: int) -> bytes:
    """RFC 791: a full record is passed on as it is."""
    if option.octets[_POINTER_AT] > len(option.octets):
        return option.octets
    return _put(option, address.to_bytes(_ADDRESS_OCTETS, "big"))


def _record_timestamp(option: Option, address: int, now: float) -> bytes:
    """RFC 791: a full record counts who found no room; one whose count is full too is in error."""
    octets = option.octets
    flag = octets[_FLAG_AT] & 0xF
    own = address.to_bytes(_ADDRESS_OCTETS, "big")
    if octets[_POINTER_AT] > len(octets):
        return _count_overflow(option)
    if flag == ipv4_options.TIMESTAMP_ONLY:
        return _put(option, _timestamp(now))
    at = octets[_POINTER_AT] - 1
    if flag == ipv4_options.TIMESTAMP_PRESPECIFIED and octets[at : at + _ADDRESS_OCTETS] != own:
        return octets
    return _put(option, own + _timestamp(now))


def _put(option: Option, entry: bytes) -> bytes:
    at = option.octets[_POINTER_AT] - 1
    if at + len(entry) > len(option.octets):
        raise OptionError(option.offset + _POINTER_AT)
    recorded = bytearray(option.octets)
    recorded[at : at + len(entry)] = entry
    recorded[_POINTER_AT] += len(entry)
    return bytes(recorded)


def _count_overflow(option: Option) -> bytes:
    octets = option.octets
    if octets[_FLAG_AT] >> 4 == _MAX_OVERFLOW:
        raise OptionError(option.offset + _FLAG_AT)
    return octets[:_FLAG_AT] + bytes((octets[_FLAG_AT] + 0x10,)) + octets[_FLAG_AT + 1 :]


def _timestamp(now: float) -> bytes:
    """Milliseconds of the monotonic clock. There is no midnight in it, which the high bit says (RFC 791)."""
    return (_NOT_SINCE_MIDNIGHT | int(now * 1000) & ~_NOT_SINCE_MIDNIGHT & 0xFFFFFFFF).to_bytes(4, "big")
