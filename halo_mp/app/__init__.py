# SPDX-License-Identifier: Apache-2.0
"""Your Python in the workers: what an application imports. docs/embedding.md teaches it.

NumPy is imported when a name that needs it is first asked for: applications without it need not have it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from halo_mp.app.application import App
from halo_mp.app.blaster import Blaster, Vary
from halo_mp.app.fields import NO_INTERFACE, address, format_address, reason
from halo_mp.app.frames import Frame, FrameBurst, Port
from halo_mp.app.packet import Packet
from halo_mp.app.trial import Settled
from halo_mp.app.udp import Datagram
from halo_mp.app.verdict import Stage, Verdict
from halo_mp.app.worker import Worker

if TYPE_CHECKING:
    from halo_mp.app.burst import Burst
    from halo_mp.app.udp_burst import DatagramBurst

__all__ = [
    "NO_INTERFACE",
    "App",
    "Blaster",
    "Burst",
    "Datagram",
    "DatagramBurst",
    "Frame",
    "FrameBurst",
    "Packet",
    "Port",
    "Settled",
    "Stage",
    "Vary",
    "Verdict",
    "Worker",
    "address",
    "format_address",
    "reason",
]

_WITH_NUMPY = {"Burst": "halo_mp.app.burst", "DatagramBurst": "halo_mp.app.udp_burst"}


def __getattr__(name: str) -> object:
    module = _WITH_NUMPY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ImportError("bursts are NumPy columns; type: pip install 'halo-mp[numpy]'") from None
