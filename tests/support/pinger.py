# SPDX-License-Identifier: Apache-2.0
"""`ping` in the background, and which of its requests were answered."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.namespace import Namespace, wait_until

INTERVAL_S = 0.01
_ANSWERED = re.compile(r"bytes from .* icmp_seq=(\d+) ")


class Pinger:
    """Use as a context manager. Requests are numbered from 1; what came last may still be under way."""

    def __init__(
        self,
        namespace: Namespace,
        address: str = "10.77.0.1",
        *,
        interval_s: float = INTERVAL_S,
        options: Sequence[str] = (),
    ) -> None:
        self.address = address
        self._command = ["ping", "-n", "-i", str(interval_s), *options, address]
        self._namespace = namespace
        self._output = tempfile.NamedTemporaryFile(prefix="halo-mp-test-", suffix=".ping")  # noqa: SIM115
        self._said = ""  # everything, once it has ended
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = self._namespace.popen(*self._command, stdout=self._output, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def answered(self) -> Counter[int]:
        """How often each request was answered."""
        return Counter(int(number) for number in _ANSWERED.findall(self._text()))

    @property
    def lost(self) -> set[int]:
        """Requests without an answer though a later one had its own."""
        answered = self.answered
        return set(range(1, max(answered, default=0) + 1)) - set(answered)

    def wait_for_more(self, count: int = 10, *, timeout_s: float = 10.0) -> None:
        """Wait until so many more requests are answered."""
        before = len(self.answered)
        wait_until(
            lambda: len(self.answered) >= before + count,
            timeout_s=timeout_s,
            what=f"{count} answers from {self.address}",
        )

    def stop(self) -> None:
        """Ping no more. May be called twice."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait()
        if not self._said:
            self._said = self._text()
            self._output.close()

    def _text(self) -> str:
        return self._said or Path(self._output.name).read_text(errors="replace")
