# SPDX-License-Identifier: Apache-2.0
"""What a function is, as text: its code, that of what it calls, and the values that it takes from outside.

numba looks at the file of a function alone when it asks its cache; a helper or a constant of another file may have
changed. So each fingerprint has a cache of its own.
"""

from __future__ import annotations

import enum
import hashlib
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_PLAIN = (int, float, complex, bool, str, bytes, type(None), BuiltinFunctionType, type)
_RELEASED = ("numba", "numpy")  # nobody changes a value of theirs: the release says it all


class Unknown(Exception):  # noqa: N818
    """A value of which nobody can say whether it is the same next time."""


class Fingerprint:
    """Of one function. `names` are all that occur in its code and in what it calls."""

    def __init__(self, function: Any) -> None:
        """Raises Unknown."""
        self._hash = hashlib.sha256()
        self._seen: set[int] = set()
        self.names: set[str] = set()
        self._add(function)

    @property
    def text(self) -> str:
        """Hexadecimal."""
        return self._hash.hexdigest()[:32]

    def _add(self, value: Any) -> None:
        if isinstance(value, enum.EnumMeta):
            members: list[Any] = list(value)
            self._say(f"{value.__name__} {[(each.name, each.value) for each in members]}")
        elif isinstance(value, _PLAIN):
            self._say(repr(value))
        elif isinstance(value, enum.Enum):
            self._say(f"{value!r}")
        elif isinstance(value, tuple | frozenset):
            for each in sorted(value, key=repr) if isinstance(value, frozenset) else value:
                self._add(each)
            self._say(f"of {len(value)}")
        elif isinstance(value, CodeType):
            self._add_code(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(getattr(value, "py_func", None), FunctionType):  # compiled by numba
            self._add_function(value.py_func)
        elif hasattr(value, "tobytes") and hasattr(value, "dtype"):
            self._say(f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")
        else:
            raise Unknown(type(value).__name__)

    def _add_function(self, function: FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        self._add_code(function.__code__)
        self._add(function.__defaults__)
        for cell in function.__closure__ or ():
            self._add(cell.cell_contents)
        names = _names(function.__code__)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType):
                self._add_module(value, names)
            elif name in function.__globals__:
                self._say(name)
                self._add(value)

    def _add_module(self, module: ModuleType, names: list[str]) -> None:
        """Add what a function may take out of a module."""
        package = module.__name__.partition(".")[0]
        self._say(f"{module.__name__} {getattr(sys.modules.get(package), '__version__', '')}")
        if package in _RELEASED or package in sys.stdlib_module_names or id(module) in self._seen:
            return
        self._seen.add(id(module))
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                self._add_module(value, names)
            elif name in vars(module):
                self._say(name)
                self._add(value)

    def _add_code(self, code: CodeType) -> None:
        self.names |= {*code.co_names}
        self._say(f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars}")
        for constant in code.co_consts:
            self._add(constant)

    def _say(self, text: str) -> None:
        self._hash.update(text.encode() + b"\n")


def _names(code: CodeType) -> list[str]:
    """Return what code, and the code inside of it, may look up outside, each once and in their order."""
    found = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.update(dict.fromkeys(_names(constant)))
    return list(found)
