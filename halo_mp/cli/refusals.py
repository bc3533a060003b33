# SPDX-License-Identifier: Apache-2.0
"""Workers that copy nothing for a capture or a trace: said when that is known, and once more at its end."""

from __future__ import annotations

import contextlib

import click

from halo_mp.control.capture_client import CaptureClient
from halo_mp.control.client import ControlError
from halo_mp.control.public import CaptureInfo


class Refusals:
    """Those of one capture; `reasons` by slot, as they were looked at last."""

    def __init__(self, client: CaptureClient, info: CaptureInfo) -> None:
        """Say which workers have refused to begin."""
        self._client = client
        self._number = info.number
        self.reasons = dict(info.refused)
        for slot, reason in sorted(self.reasons.items()):
            click.echo(f"worker {slot} copies nothing: {reason} The others go on.", err=True)

    def look(self) -> None:
        """Ask once more, as the capture ends: a worker may have been replaced. Without an answer it stays as it was."""
        with contextlib.suppress(ControlError):
            self.reasons = self._client.refused(self._number)

    def texts(self) -> list[str]:
        """Return a sentence for each worker that copies nothing."""
        return [
            f"nothing is here of worker {slot}: {reason}" for slot, reason in sorted(self.reasons.items())
        ]
