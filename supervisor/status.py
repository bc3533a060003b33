# SPDX-License-Identifier: Apache-2.0
"""Print how an instance is: its processes, its ports, what it counts, and what has died.

Nobody is asked and nothing is disturbed: it is read from the instance's files and shared memory, so this has to run as
the user that started the instance, or as root. Exit code: 0 everything is well; 1 something has failed, is not ready
yet, or has no supervisor; 2 the flags make no sense; 3 there is no such instance, or it is not running.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from halo_mp.errors import HaloError
from halo_mp.runtime import runtime_base
from halo_mp.supervisor import status_reader, status_text
from halo_mp.supervisor.instance import NAME
from halo_mp.supervisor.status_reader import Found, Verdict

EXIT_WELL = 0
EXIT_UNWELL = 1
EXIT_USAGE = 2
EXIT_NONE = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Look, print, and return the exit code."""
    options = _parse(argv)
    try:
        base = runtime_base()
        found = status_reader.look(base, options.name)
        names = status_reader.others(base)
    except HaloError as error:
        return _complain(str(error), error.exit_code)
    except PermissionError as error:
        return _complain(f"{error.filename} is not yours to read. Ask as its owner, or as root.", EXIT_NONE)
    if options.json:
        sys.stdout.write(json.dumps(as_json(found, reports=options.reports), indent=2) + "\n")
    elif options.reports and found.status is not None:
        sys.stdout.write(status_text.reports_text(found.reports) or "Nothing has died.\n")
    else:
        sys.stdout.write(status_text.text(found, names, time.time()))
    return exit_code(found)


def exit_code(found: Found) -> int:
    """Return what a script should know."""
    if found.verdict in (Verdict.UNKNOWN, Verdict.DEAD):
        return EXIT_NONE
    return EXIT_WELL if found.verdict is Verdict.WELL else EXIT_UNWELL


def as_json(found: Found, *, reports: bool) -> dict[str, Any]:
    """Return everything as a map; reports in full only when asked for."""
    status = None if found.status is None else dataclasses.asdict(found.status)
    return {
        "name": found.name,
        "verdict": found.verdict.value,
        "pid": found.pid,
        "alive": list(found.alive),
        "status": status,
        "counters": {number: dataclasses.asdict(each) for number, each in found.counters.items()},
        "counters_missing": found.counters_missing,
        **({"reports": [dataclasses.asdict(report) for report in found.reports]} if reports else {}),
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m halo_mp.supervisor.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="default", help="of the instance (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="everything there is, for programs")
    parser.add_argument(
        "--reports", action="store_true", help="what has died: last log lines and tracebacks, in full"
    )
    options = parser.parse_args(argv)
    if not NAME.fullmatch(options.name):
        parser.error(f"--name {options.name}: that is no name of an instance")
    return options


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"halo-mp: {sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
