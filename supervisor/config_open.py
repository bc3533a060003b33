# SPDX-License-Identifier: Apache-2.0
"""Opening the files that a configuration is read from. They are read again by each reload, while the supervisor has an
instance to watch: what could make it wait, or never end, is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TextIO

MAX_OCTETS = 64 << 20
"""Of a TOML file: some hundred thousand routes. More of them are read much faster from a routes file."""


def open_file(path: str, *, errors: str = "strict") -> TextIO:
    """Open a file to read its text. Raises OSError, also for what is no ordinary file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for its writer
    except ValueError:
        raise OSError(errno.EINVAL, "a name without a NUL was expected") from None
    file = open(fd, encoding="utf-8-sig", errors=errors)  # noqa: SIM115 - the caller closes it
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise OSError(errno.EINVAL, "an ordinary file was expected, which a reload can read anew")
    return file


def read_file(path: str) -> str:
    """Return the whole text of a file. Raises OSError and UnicodeDecodeError."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_OCTETS:
            raise OSError(
                errno.EFBIG,
                f"it has more than {MAX_OCTETS >> 20} MiB; put its routes into a routing.routes_file",
            )
        return file.read()
