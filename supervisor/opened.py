# SPDX-License-Identifier: Apache-2.0
"""What a request may leave behind that ends with its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Opened(dict[str, Any]):
    """The fields of a reply, with descriptors that ride on it, and what is to be done when the client is gone."""

    def __init__(self, fields: Mapping[str, Any], *, fds: Sequence[int], close: Callable[[], None]) -> None:
        """The descriptors stay their owner's."""
        super().__init__(fields)
        self.fds = fds
        self.close = close
