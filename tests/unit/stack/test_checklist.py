# SPDX-License-Identifier: Apache-2.0
"""Every requirement has a test that says so."""

import re
from pathlib import Path

from tests.unit.stack.checklist import REQUIREMENTS

UNIT = Path(__file__).parents[1]


def test_every_requirement_is_met_by_a_test() -> None:
    met: set[str] = set()
    for page in UNIT.glob("*/test_*.py"):
        # The decorator is followed by other decorators at most, and by a test.
        for names in re.findall(
            r"^@meets\(([^)]*)\)\n(?:@.*\n(?:[ \])].*\n)*)*def test_", page.read_text(), re.MULTILINE
        ):
            met |= set(re.findall(r'"([^"]+)"', names))
    assert sorted(met) == sorted(REQUIREMENTS)
