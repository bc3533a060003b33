# SPDX-License-Identifier: Apache-2.0
"""Where instances have their runtime directories."""

from __future__ import annotations

import os
from pathlib import Path

from halo_mp.errors import EnvironmentProblem

ROOT_BASE = Path("/run/halo-mp")


def runtime_base() -> Path:
    """Return where instances of this user have their directories. Raises EnvironmentProblem."""
    if os.geteuid() == 0 and os.access(ROOT_BASE.parent, os.W_OK):
        return ROOT_BASE
    # Also root of a user namespace, whose /run belongs to somebody else.
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(directory) / "halo-mp"
    raise EnvironmentProblem(
        f"there is nowhere to keep runtime files: {ROOT_BASE.parent} is not writable and XDG_RUNTIME_DIR is "
        "not set. Run as root, or set XDG_RUNTIME_DIR to a directory of yours."
    )
