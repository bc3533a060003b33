# SPDX-License-Identifier: Apache-2.0
"""Being asked to stop: the first SIGINT or SIGTERM asks for an ordered end, the second for one at once.

SIGHUP comes when the terminal goes away, and then it asks for the end as well; else it means what it means to services:
read the configuration anew. Which one it is shows in whether the terminal that there was is still there.
"""

from __future__ import annotations

import asyncio
import os
import signal

from halo_mp import logs

log = logs.get("supervisor")


class StopSignals:
    """Two events. SIGHUP counts too, unless it was ignored from the start, as nohup does.

    A third is set by SIGUSR1: every worker is to be replaced by a fresh one. A fourth by a SIGHUP that asks for the
    configuration to be read anew, which it does only where there is a file: `reloads`.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        self._reloads = reloads
        self._had_terminal = _has_terminal()
        self.replace = asyncio.Event()
        self.reload = asyncio.Event()
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
        hung_up = self._had_terminal and not _has_terminal()
        if number == signal.SIGHUP and self._reloads and not hung_up:
            self.reload.set()
        else:
            self.on_asked(number.name)

    def on_asked(self, who: str) -> None:
        """Stop, or, the second time, at once; `who` is a signal's name, or another way to be asked."""
        if self.requested.is_set():
            log.warning("instance.forced", signal=who)
            self.forced.set()
        else:
            log.info("instance.stopping", signal=who)
            self.requested.set()


def _has_terminal() -> bool:
    """Tell whether this process has a controlling terminal that is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
