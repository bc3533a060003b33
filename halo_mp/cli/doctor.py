# SPDX-License-Identifier: Apache-2.0
"""`halo-mp doctor`: what of this machine is in the way, and what to type about it. It only looks."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

import click

from halo_mp.cli.findings import Finding, Machine
from halo_mp.cli.options import json_option
from halo_mp.cli.output import write_json
from halo_mp.errors import HaloError

WIDTH = 80
_MARKS = {"good": "ok", "note": "note", "warning": "WARN", "failure": "FAIL"}


@click.command
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(),
    help="Look, too, whether this configuration could start here.",
)
@click.option("--all/--no-all", "everything", default=True, help="Whether to print what is well.")
@json_option
def doctor(*, file: str | None, everything: bool, as_json: bool) -> int:
    """Look at this machine, and print for each finding the command that mends it.

    Nothing is changed. It looks at DPDK and its drivers, /dev/shm, memory, limits, hugepages, NUMA, cores, frequencies,
    NICs, IOMMU, modules, TAPs and offloads. Exit code 0: an instance can start; 1: something prevents that (FAIL).
    """
    found = [*look(Machine()), *(configured(file) if file else [])]
    shown = [each for each in found if everything or each.level != "good"]
    if as_json:
        write_json(shown)
    else:
        sys.stdout.write(text(shown))
        counts = Counter(each.level for each in found)
        click.echo(f"{', '.join(_count(counts[level], level) for level in ('failure', 'warning', 'note'))}.")
    return 1 if any(each.level == "failure" for each in found) else 0


def _count(count: int, level: str) -> str:
    return f"{count} {level}{'' if count == 1 else 's'}"


def look(machine: Machine) -> list[Finding]:
    """Return everything that is to be said of a machine."""
    from halo_mp.cli import doctor_devices, doctor_machine, doctor_software

    checks = (*doctor_software.CHECKS, *doctor_machine.CHECKS, *doctor_devices.CHECKS)
    return [finding for check in checks for finding in check(machine)]


def configured(file: str) -> list[Finding]:
    """Return what the start of this configuration would be refused for."""
    from halo_mp.cli.run import with_name
    from halo_mp.runtime import runtime_base
    from halo_mp.supervisor import arguments, checks, config, instance, status_reader

    try:
        wanted = config.build(arguments.parse(with_name(["--config", file])))
        if (pid := status_reader.look(runtime_base(), wanted.instance).pid) is not None:
            raise instance.running(wanted.instance, pid)  # whatever it has would be refused as taken
        checks.check(wanted)
    except HaloError as error:
        return [Finding("configuration", "failure", sentence) for sentence in str(error).splitlines()]
    return [Finding("configuration", "good", f"{file} could start here.")]


def text(findings: Sequence[Finding]) -> str:
    """Return findings for people: a line each, and what to type below it."""
    lines = []
    for each in findings:
        head = f"{_MARKS[each.level]:5} {each.topic}: "
        lines += textwrap.wrap(head + each.text, WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)
        lines += [f"        {command}" for command in each.commands]
    return "".join(f"{line}\n" for line in lines)
