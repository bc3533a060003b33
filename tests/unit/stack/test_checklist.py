# SPDX-License-Identifier: Apache-2.0
"""Every requirement has a test that says so."""

import ast
from pathlib import Path

from tests.unit.stack.checklist import REQUIREMENTS

UNIT = Path(__file__).parents[1]


def met_by(page: Path) -> set[str]:
    """The requirements that the tests of a file say they are for."""
    tests = [node for node in ast.parse(page.read_text()).body if isinstance(node, ast.FunctionDef)]
    calls = [
        call
        for test in tests
        if test.name.startswith("test_")
        for call in test.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "meets"
    ]
    return {name.value for call in calls for name in call.args if isinstance(name, ast.Constant)}


def test_every_requirement_is_met_by_a_test() -> None:
    met = set().union(*(met_by(page) for page in UNIT.glob("*/test_*.py")))
    assert sorted(met) == sorted(REQUIREMENTS)
