# SPDX-License-Identifier: Apache-2.0
"""`halo-mp config` and `halo-mp reload`: the configuration of an instance that runs."""

from __future__ import annotations

import contextlib
import os
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from halo_mp.cli.lazy import AdvisingGroup
from halo_mp.cli.options import json_option, name_option
from halo_mp.cli.output import write_json, write_table
from halo_mp.control.client import Client
from halo_mp.control.public import MAX_CONFIRM_S, DiffInfo
from halo_mp.errors import UsageError

STANDARD_INPUT = "-"


@click.group(cls=AdvisingGroup)
def config() -> None:
    """Show, compare, replace and save the configuration of a running instance.

    A configuration is applied whole or not at all, while packets flow. What only a restart can change is refused, with
    a list of it, and nothing is changed.
    """


@config.command
@click.option("--routes", is_flag=True, help="Only the static routes, as a routes file has them.")
@click.option("--no-routes", is_flag=True, help="All but the static routes.")
@name_option
@json_option
def show(*, routes: bool, no_routes: bool, name: str, as_json: bool) -> None:
    """Print the configuration as it is now, as a file that leads to the same state."""
    if routes and no_routes:
        raise UsageError("--routes and --no-routes leave nothing; write one of them.")
    with Client(name) as client:
        text = client.config.show("routes" if routes else "settings" if no_routes else "all")
    if as_json:
        write_json(text.splitlines() if routes else tomllib.loads(text))
    else:
        sys.stdout.write(text)


@config.command
@click.argument("file", type=click.Path(allow_dash=True))
@name_option
@json_option
def diff(*, file: str, name: str, as_json: bool) -> int:
    """Print what FILE would change. Exit code 0: nothing; 1: something."""
    with Client(name) as client:
        found = client.config.diff(_staged(client, file))
    if as_json:
        write_json(found)
    else:
        _write(found)
        for phrase in found.restart:
            click.echo(f"! needs a restart: {phrase}")
    return 1 if found.count or found.restart else 0


@config.command
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--confirm",
    "confirm_s",
    metavar="SECONDS",
    type=click.IntRange(1, MAX_CONFIRM_S),
    help="Take it back after so long, unless halo-mp config confirm comes.",
)
@name_option
@json_option
def apply(*, file: str, confirm_s: int | None, name: str, as_json: bool) -> None:
    """Make the configuration what FILE says, and print what that changed; - is standard input.

    The flags that the instance was started with do not count here. What was there before can be had back by
    `halo-mp config rollback`.

    With --confirm it is taken back by itself after SECONDS, for one who may lock himself out: whatever becomes of this
    command, and of the supervisor.
    """
    with Client(name) as client:
        found = client.config.apply(_staged(client, file), confirm_s=confirm_s)
    _write_done(found, as_json=as_json)
    if found.confirm_until is not None and not as_json:
        click.echo(f"In {confirm_s} s all of it is taken back, unless: halo-mp config confirm --name {name}")


@config.command
@name_option
def confirm(*, name: str) -> None:
    """Keep what was applied with --confirm. Exit code 1: there is nothing to confirm, or no more."""
    with Client(name) as client:
        client.config.confirm()
    click.echo("It stays.")


@config.command
@click.argument("steps", type=click.IntRange(1), default=1)
@name_option
@json_option
def rollback(*, steps: int, name: str, as_json: bool) -> None:
    """Bring back what was there before the last STEPS applications, 1 by default, changes by hand included.

    That is an application itself: a second rollback undoes the first.
    """
    with Client(name) as client:
        found = client.config.rollback(steps)
    _write_done(found, as_json=as_json)


@config.command
@name_option
@json_option
def history(*, name: str, as_json: bool) -> None:
    """List what rollback can bring back."""
    with Client(name) as client:
        found = client.config.history()
    if as_json:
        write_json(found)
        return
    rows = (
        (
            each.number,
            datetime.fromtimestamp(each.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            each.by,
            each.changes,
        )
        for each in found
    )
    write_table(("steps", "there until", "replaced by", "changes"), rows, numbers=("steps", "changes"))


@config.command
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--routes-file", type=click.Path(dir_okay=False), help="Where routes go: for very many of them."
)
@name_option
def save(*, file: str, routes_file: str | None, name: str) -> None:
    """Write the configuration as it is now to FILE, for `halo-mp run --config FILE`; there is never half of one."""
    with Client(name) as client:
        text = client.config.show("settings" if routes_file else "all")
        routes = client.config.show("routes") if routes_file else ""
    if routes_file:
        _replace(Path(routes_file), routes)
        text = _with_routes_file(text, os.path.relpath(routes_file, Path(file).absolute().parent))
    _replace(Path(file), text)


@click.command
@name_option
@json_option
def reload(*, name: str, as_json: bool) -> None:
    """Have the instance read the file that it was started with anew.

    Its flags count as they did then, and what was changed at run time is gone, as after a start. SIGHUP to the
    supervisor does the same, and says in the log what came of it.
    """
    with Client(name) as client:
        found = client.config.reload()
    _write_done(found, as_json=as_json)


def _staged(client: Client, file: str) -> int:
    """Send a file, and the routes file that it names; return the number of the candidate."""
    try:
        octets = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        text = octets.decode()
    except OSError as error:
        raise UsageError(f"{file}: it can not be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: it is not TOML, which is text in UTF-8.") from None
    called = "standard input" if file == STANDARD_INPUT else Path(file).name
    routes_file = _routes_file(text.removeprefix("\ufeff"))
    if routes_file is None:
        return client.config.stage(text, file=called)
    path = Path(file).absolute().parent / routes_file
    return client.config.stage(text, file=called, routes=_routes(path))


def _routes_file(text: str) -> str | None:
    """Return the routes file that a configuration names; what is no configuration the instance says better."""
    try:
        found: Any = tomllib.loads(text).get("routing")
    except (ValueError, RecursionError):
        return None
    name = found.get("routes_file") if isinstance(found, dict) else None
    return name if isinstance(name, str) and "\0" not in name else None


def _routes(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.partition("#")[0].replace(",", " ").split()
                if words:
                    yield words[0], words[1:]
    except OSError as error:
        raise UsageError(f"{path}: it can not be read: {error.strerror}.") from None


def _with_routes_file(text: str, name: str) -> str:
    import json

    return text.replace(
        "[routing]\n", f"[routing]\nroutes_file = {json.dumps(name, ensure_ascii=False)}\n", 1
    )


def _replace(path: Path, text: str) -> None:
    """Replace a file by a whole one, of the same owner and mode; of a symbolic link, the file that it leads to."""
    place = path.resolve()
    if place.exists() and not place.is_file():  # a device would be gone afterwards
        raise UsageError(f"{path}: that is no ordinary file; write halo-mp config show > {path} instead.")
    new = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with new.open("w", encoding="utf-8") as file:
            if place.exists():
                _take_after(place.stat(), file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a loss of power soon after may leave an empty one
        new.rename(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise UsageError(f"{path}: it can not be written: {error.strerror}.") from None


def _take_after(before: os.stat_result, fd: int) -> None:
    """Give a file another one's mode, and, as far as that is allowed, its owner."""
    with contextlib.suppress(PermissionError):
        os.fchown(fd, before.st_uid, before.st_gid)
    os.fchmod(fd, before.st_mode & 0o777)


def _write_done(found: DiffInfo, *, as_json: bool) -> None:
    if as_json:
        done = {"changes": found.changes, "count": found.count}
        if found.confirm_until is not None:
            done["confirm_until"] = found.confirm_until
        write_json(done)
    else:
        _write(found)


def _write(found: DiffInfo) -> None:
    if not found.count:
        click.echo("Nothing changes." if not found.restart else "Nothing else changes.")
    for line in found.changes:
        click.echo(line)
