# SPDX-License-Identifier: Apache-2.0
"""What an operator may set about reassembly, with our defaults. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReassemblySettings:
    """``timeout_s`` runs from the first fragment that comes (RFC 1122 section 3.3.2 asks for 60 to 120 s; 30 s
    is what Linux does, and enough for any path of today). ``datagrams`` and ``octets`` bound what waits in all,
    ``fragments`` what one datagram may come in.
    """

    timeout_s: float = 30.0
    datagrams: int = 256
    octets: int = 256 * 1024
    fragments: int = 64

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, not above 0")
        for name in ("datagrams", "octets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not at least 1")
        if self.fragments < 2:
            raise ValueError(f"fragments is {self.fragments}, but a datagram in fragments has at least 2")
