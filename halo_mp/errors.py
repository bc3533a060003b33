# SPDX-License-Identifier: Apache-2.0
"""What halo-mp raises when it cannot do what was asked, and the exit code that each of them stands for.

The text of an error is one or two sentences for the person at the terminal: what was found, what was
expected, what to type next. Mistakes of our own are not HaloErrors: they keep their traceback.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_STOPPED = 0
EXIT_FORCED = 6
EXIT_NO_MEMORY = 7
"""Of a worker, which is started anew then; no instance ends with it."""


class HaloError(Exception):
    """Something outside the program is not as it must be; `str()` is the sentence that says so."""

    exit_code: ClassVar[int] = 1


class RuntimeFailure(HaloError):  # noqa: N818
    """It ran, and then it could not go on."""

    exit_code = 1


class UsageError(HaloError):
    """Flags or a configuration that contradict themselves or each other."""

    exit_code = 2


class EnvironmentProblem(HaloError):  # noqa: N818
    """This machine does not allow it: memory, privileges, a missing package, a name that is taken."""

    exit_code = 3


class InstanceRunning(HaloError):  # noqa: N818
    """An instance of that name is alive. It was not touched."""

    exit_code = 4

    def __init__(self, sentence: str, *, pid: int | None = None) -> None:
        super().__init__(sentence)
        self.pid = pid


class BootFailed(HaloError):  # noqa: N818
    """The driver or a worker could not start with this configuration."""

    exit_code = 5
