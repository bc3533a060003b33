# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: the first SIGINT or SIGTERM asks for an ordered end, the second for one at once."""

from __future__ import annotations

import asyncio
import signal

from halo_mp import logs

log = logs.get("supervisor")


class StopSignals:
    """Two events. SIGHUP counts too, unless it was ignored from the start, as nohup does.

    A third is set by SIGUSR1: every worker is to be replaced by a fresh one.
    """

    def __init__(self) -> None:
        self.replace = asyncio.Event()
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def install(self) -> None:
        """Handle the signals in the running loop, until it is closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self.on_signal, number)
        loop.add_signal_handler(signal.SIGUSR1, self.replace.set)
        # In the background of a terminal with `stty tostop` the first line of the log would stop us.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)

    def on_signal(self, number: signal.Signals) -> None:
        """Take note of a signal."""
        if self.requested.is_set():
            log.warning("instance.forced", signal=number.name)
            self.forced.set()
        else:
            log.info("instance.stopping", signal=number.name)
            self.requested.set()
