# SPDX-License-Identifier: Apache-2.0
"""What tests of faults share with those of processes."""

from __future__ import annotations

from tests.proc.conftest import pair

__all__ = ["pair"]
