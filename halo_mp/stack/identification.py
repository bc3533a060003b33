# SPDX-License-Identifier: Apache-2.0
"""Identifications for the IPv4 packets that we make: RFC 6864 section 4.3, RFC 7739 section 5.

A value must not come again for the same source, destination and protocol while fragments of its last bearer
may be on their way, and strangers should not be able to guess it. So there are many counters, each begun at
random, and a keyed hash of those three says which of them counts: what is sent to others hardly brings a value
back sooner, and what one peer is sent tells little of what another is.
"""

import random
from typing import Final

COUNTERS: Final = 1024


class Identifications:
    """16-bit numbers, each different from the 65,535 before it for the same peers and protocol."""

    def __init__(self, rng: random.Random) -> None:
        self._key = rng.getrandbits(62)
        self._counters = [rng.getrandbits(16) for _ in range(COUNTERS)]

    def take(self, src: int, dst: int, protocol: int) -> int:
        """The identification of the next packet between these addresses."""
        which = hash((self._key, src, dst, protocol)) % COUNTERS
        taken = self._counters[which]
        self._counters[which] = taken + 1 & 0xFFFF
        return taken
