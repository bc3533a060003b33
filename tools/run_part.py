# SPDX-License-Identifier: Apache-2.0
"""pytest, saying over a descriptor which test it runs and how each has ended: for tools/run_tests.py.

Usage: run_part.py <descriptor> [pytest's argument]...

Each line there is a JSON object: {"running": test}, {"outcome": "failed", "test": ..., "why": ...},
{"outcome": "deselected", "count": ...}, and at the end {"finished": true}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

import pytest


class Reporter:
    """A pytest plugin. What it counts, and under which word, is what pytest's own last line counts."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which programs that tests start do not inherit."""
        os.set_inheritable(descriptor, False)
        self._file = os.fdopen(descriptor, "w", buffering=1)
        self._config: pytest.Config | None = None

    def _say(self, **event: object) -> None:
        self._file.write(json.dumps(event) + "\n")

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._say(running=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self._config is not None
        outcome = self._config.hook.pytest_report_teststatus(report=report, config=self._config)[0]
        if outcome:
            self._say(outcome=outcome, test=report.nodeid, why=_why(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._say(outcome="error", test=report.nodeid, why=_why(report))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._say(outcome="deselected", count=len(items))

    def pytest_warning_recorded(self) -> None:
        self._say(outcome="warnings")

    def pytest_sessionfinish(self) -> None:
        self._say(finished=True)


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the first line of what went wrong, where pytest knows one."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message.partition("\n")[0] if crash else ""


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[2:], plugins=[Reporter(int(sys.argv[1]))]))
