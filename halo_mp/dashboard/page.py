# SPDX-License-Identifier: Apache-2.0
"""A page of the web mode is a process that nobody may forget: it ends with who shows it, whatever it is doing.

The application ends itself when it can. This is for when it can not: a loop that its library is in, a write that waits.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Final

LOOK_S: Final = 1.0
GRACE_S: Final = 5.0
"""So long it may take to end by itself."""


def end_with_server(server: int) -> None:
    """Have this process end soon after its parent is `server` no more, or nobody can write to its standard input."""
    threading.Thread(target=_watch, args=(server,), name="page", daemon=True).start()


def _watch(server: int) -> None:
    pipe = select.poll()
    pipe.register(0, 0)  # POLLHUP comes unasked
    while os.getppid() == server and not pipe.poll(LOOK_S * 1000):
        pass
    time.sleep(GRACE_S)
    os._exit(0)
