# SPDX-License-Identifier: Apache-2.0
"""A namespace as a user without privileges gets it: user, mount and network, by tools/enter-namespace."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.namespace import Namespace

IN_FIRST_USER_NAMESPACE = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
"""Whether the tests run where the kernel asks for nobody's leave: XDP programs, for one, are loaded only there."""

ENTER = Path(__file__).parents[2] / "tools" / "enter-namespace"
NOBODY = 65534


class UserNamespace(Namespace):
    """What runs inside is root there, and nobody outside; /run and /dev/shm are its own.

    Made by root, who gives up everything first. Where the tests themselves have no privileges they are in such
    a namespace already, and this is one more network namespace in it.
    """

    def __init__(self) -> None:
        self.is_whole = IN_FIRST_USER_NAMESPACE
        super().__init__()
        if self.is_whole:
            self.root = Path(f"/proc/{self.pid}/root")
            self.shared_memory = self.root / "dev/shm"

    @property
    def uid(self) -> int:
        """Whose processes they are, as seen from here."""
        return NOBODY if self.is_whole else os.getuid()

    def _entering(self) -> list[str]:
        return [*_nobody(), str(ENTER)] if self.is_whole else super()._entering()

    def inside(self, command: Sequence[str]) -> list[str]:
        if not self.is_whole:
            return super().inside(command)
        # As the script itself tells its user to.
        enter = ["nsenter", "-t", str(self.pid), "-U", "-n", "-m", "--preserve-credentials"]
        return [*_nobody(), *enter, f"--wd={Path.cwd()}", "--", *command]


def _nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--"]
