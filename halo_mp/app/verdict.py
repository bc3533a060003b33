# SPDX-License-Identifier: Apache-2.0
"""What a hook may decide, and where hooks are. The numbers are those of native/include/halo/packet_def.h."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from halo_mp.shm.layout import lib

StageName = Literal["ingress", "forward", "egress"]
Form = Literal["packet", "burst"]
OnError = Literal["pass", "drop", "stop"]


class Verdict(IntEnum):
    """What becomes of a packet. A hook that returns None, or sets nothing, lets it pass."""

    PASS = lib.HALO_VERDICT_NONE
    """Go on, to the next hook and then where it would have gone."""
    TRANSMIT = lib.HALO_VERDICT_TRANSMIT
    """Leave by `tx_port` as it is; at egress, by another port."""
    DROP = lib.HALO_VERDICT_DROP
    """End, counted: as the reason given, or hook_drop."""
    PUNT = lib.HALO_VERDICT_PUNT
    """Go to the Python stack."""
    CONSUME = lib.HALO_VERDICT_CONSUME
    """End on purpose: it was what the hook had waited for."""


class Stage(IntEnum):
    """Where hooks are, and where frames can be put in."""

    INGRESS = lib.HALO_STAGE_INGRESS
    FORWARD = lib.HALO_STAGE_FORWARD
    EGRESS = lib.HALO_STAGE_EGRESS
    TX = lib.HALO_STAGE_TX
    """To put in only: behind all hooks."""
