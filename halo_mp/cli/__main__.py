# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.cli` is `halo-mp`."""

from __future__ import annotations

import sys

from halo_mp.cli.main import run

if __name__ == "__main__":
    sys.exit(run())
