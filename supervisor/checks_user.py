# SPDX-License-Identifier: Apache-2.0
"""As whom will the workers run?

A worker that is set up needs no privilege: it holds its regions and its doorbells. By default it becomes
nobody. Where the kernel refuses that (one mapped user, a container without CAP_SETUID), or where nobody could
not read what Python imports later, it keeps its user and gives up every capability instead.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor.checks_app import read_paths
from halo_mp.supervisor.checks_privileges import Capability, effective_capabilities, has_capability
from halo_mp.supervisor.config_model import Config

DEFAULT_USER = "nobody"


class PrivilegesPlan(NamedTuple):
    """What a worker does with its privileges once it is set up."""

    mode: Literal["setuid", "capabilities", "keep"]
    uid: int
    gid: int
    warning: str | None


def privileges_plan(config: Config) -> PrivilegesPlan:
    """Return as whom workers run; raises EnvironmentProblem when --user names somebody that does not work."""
    if config.user is not None:
        return _named(config)
    own = PrivilegesPlan(
        "capabilities" if effective_capabilities() else "keep", os.geteuid(), os.getegid(), None
    )
    if own.uid != 0:
        return own
    try:
        uid, gid = _lookup(DEFAULT_USER)
    except KeyError:
        return own._replace(warning=f"{_fallback(own)}: there is no user {DEFAULT_USER}.")
    if _kernel_refusal(uid, gid):
        return own
    found = unreadable(uid, gid, _needed_paths(config))
    if found:
        reason = f"{_fallback(own)}: the user {DEFAULT_USER} could not read {found}"
        what = "Python, halo-mp and the application" if config.app else "Python and halo-mp"
        return own._replace(warning=f"{reason}. Install {what} where everybody can read them.")
    return PrivilegesPlan("setuid", uid, gid, None)


def _fallback(own: PrivilegesPlan) -> str:
    return f"Workers keep user {own.uid}, without capabilities"


def _needed_paths(config: Config) -> Iterator[Path]:
    """Yield what a worker must read when it is set up."""
    yield from import_paths()
    if config.app is not None:
        yield from read_paths(config.app)


def _named(config: Config) -> PrivilegesPlan:
    """Return the plan for --user, which the user wants to work and not to fall back."""
    user = str(config.user)
    try:
        uid, gid = _lookup(user)
    except KeyError:
        raise EnvironmentProblem(
            f"--user {user}: there is no such user. Name one of /etc/passwd, or leave --user out."
        ) from None
    if uid == os.geteuid():
        return PrivilegesPlan("keep", uid, gid, None)
    refusal = _kernel_refusal(uid, gid)
    if refusal:
        raise EnvironmentProblem(
            f"--user {user}: {refusal}. Leave --user out: workers then give up capabilities."
        )
    found = unreadable(uid, gid, _needed_paths(config))
    if found:
        raise EnvironmentProblem(
            f"--user {user}: that user can not read {found}, which the workers need. Install halo-mp where "
            "everybody can read (not below /root), name another --user, or leave it out."
        )
    return PrivilegesPlan("setuid", uid, gid, None)


def control_group(config: Config, plan: PrivilegesPlan) -> int:
    """Return the group whose members may use the control socket. Raises EnvironmentProblem when it is not there."""
    name = config.control_group
    if name is None:
        return plan.gid if config.user is not None else os.getegid()
    try:
        return (grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name)).gr_gid
    except KeyError:
        raise EnvironmentProblem(
            f"--control-group {name}: there is no such group. Name one of /etc/group, or leave it out."
        ) from None


def _lookup(user: str) -> tuple[int, int]:
    """Return uid and group of a user by name or number. Raises KeyError."""
    entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def _kernel_refusal(uid: int, gid: int) -> str:
    """Say why the kernel would not let us become somebody, or nothing."""
    if not (has_capability(Capability.SETUID) and has_capability(Capability.SETGID)):
        return "only root can become another user"
    for file, number in (("uid_map", uid), ("gid_map", gid)):
        if not _mapped(Path("/proc/self") / file, number):
            return f"this user namespace has no {file[:3]} {number}"
    if Path("/proc/self/setgroups").read_text().strip() == "deny":
        return "this user namespace does not let go of groups"
    return ""


def _mapped(file: Path, number: int) -> bool:
    extents = [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
    return any(first <= number < first + count for first, _, count in extents)


def import_paths() -> Iterator[Path]:
    """Yield what a worker may still read when it is set up: the interpreter, its path, and this package."""
    yield from (Path(entry) for entry in (sys.executable, sys.prefix, sys.base_prefix) if entry)
    yield from (Path(entry) for entry in sys.path if entry and Path(entry).exists())
    for package in ("halo_mp", "halo_mp.workers"):
        spec = importlib.util.find_spec(package)
        for directory in (spec.submodule_search_locations if spec else None) or ():
            yield from Path(directory).rglob("*.py")
            yield from Path(directory).rglob("*.so")


def unreadable(uid: int, gid: int, paths: Iterable[Path]) -> str:
    """Name the first path that a user without further groups can not use, or nothing."""
    passed: set[Path] = set()
    for path in paths:
        path = path.resolve()
        if not path.exists():
            continue
        for folder in reversed(path.parents):
            if folder not in passed and not _may(uid, gid, folder, stat.S_IXOTH):
                return f"{path} (because of {folder})"
            passed.add(folder)
        if not _may(uid, gid, path, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)):
            return str(path)
    return ""


def _may(uid: int, gid: int, path: Path, bits: int) -> bool:
    """Compare mode bits as the kernel does: of the owner, else of the group, else of the others."""
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return found.st_mode >> shift & bits == bits
