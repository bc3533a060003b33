# SPDX-License-Identifier: Apache-2.0
"""Show an instance live, in the terminal or a browser; or once, as text or JSON.

Above the tables stands what is wrong now, if anything is. An instance that
ends is waited for.

Keys: 0 shows all that is wrong and the last events, 1 to 8 choose a table,
s sorts by the next column, r turns the order around, / filters, the space bar
freezes what is shown, comma and full stop step back and forward through the
last five minutes, Escape goes on live, q quits.

Counters are read from shared memory and disturb nobody, so this has to run as
the user that started the instance, or as root. Whoever can open the page of
--web sees what that user sees.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from halo_mp.dashboard.asking import ask
from halo_mp.dashboard.feed import FRAME_S, SAMPLE_S, Feed, Frame
from halo_mp.dashboard.page import end_with_server
from halo_mp.dashboard.plain import as_json, as_text
from halo_mp.errors import EnvironmentProblem, HaloError, UsageError
from halo_mp.listen import listen_address
from halo_mp.runtime import runtime_base
from halo_mp.stats.reader import Reader

WEB = "127.0.0.1:8080"
PAGES = 8
MOST_PAGES = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Show it; return the exit code."""
    options = _parse(argv)
    try:
        return run(options)
    except HaloError as error:
        sys.stderr.write(f"dashboard: {error}\n")
        return error.exit_code
    except BrokenPipeError:  # who read has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 0


def run(options: argparse.Namespace) -> int:
    """Show it as the options say; return the exit code. Raises HaloError."""
    if options.web is not None:
        return _serve(options)
    directory = runtime_base() / options.name
    try:
        with Reader(options.name) as reader:
            feed = Feed(reader, directory)
            return (
                _print(options, feed, directory) if options.once or options.json else _show(feed, directory)
            )
    except PermissionError as error:
        raise EnvironmentProblem(
            f"{error.filename} is not yours to read. Ask as its owner, or as root."
        ) from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m halo_mp.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="default", help="the instance (default: %(default)s)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="print all tables as plain text, and end")
    how.add_argument("--json", action="store_true", help="print everything as JSON, and end")
    how.add_argument(
        "--web", nargs="?", const=WEB, metavar="ADDRESS:PORT", help=f"serve it to browsers (default: {WEB})"
    )
    parser.add_argument(
        "--web-url", metavar="URL", help="what browsers call it, behind a proxy or under another name"
    )
    parser.add_argument(
        "--web-pages",
        type=_count,
        default=PAGES,
        metavar="COUNT",
        help="pages that may be open at once, each a process (default: %(default)s)",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=FRAME_S,
        metavar="SECONDS",
        help="what the rates of --once and --json are over (default: %(default)g)",
    )
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MOST_PAGES:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MOST_PAGES}")
    return value


def _print(options: argparse.Namespace, feed: Feed, directory: Path) -> int:
    deadline = time.monotonic() + options.interval
    while (left := deadline - time.monotonic()) > 0:
        feed.sample()
        time.sleep(min(left, SAMPLE_S))
    feed.asked = ask(directory)
    frame: Frame = feed.frame()
    if options.json:
        sys.stdout.write(json.dumps(as_json(frame), indent=2) + "\n")
    else:
        sys.stdout.write(as_text([frame], shutil.get_terminal_size().columns))
    sys.stdout.flush()
    return 0


def _show(feed: Feed, directory: Path) -> int:
    try:
        from halo_mp.dashboard.app import Dashboard
    except ImportError as error:
        raise _missing(error) from None
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("This is no terminal. --once and --json print, --web serves.")
    server = os.getppid() if "TEXTUAL_DRIVER" in os.environ else None
    if server is not None:
        end_with_server(server)
    app = Dashboard(feed, lambda: ask(directory), server=server)
    app.run()
    return app.return_code or 0


def _serve(options: argparse.Namespace) -> int:
    try:
        from halo_mp.dashboard.web import serve
    except ImportError as error:
        raise _missing(error) from None
    host, port = listen_address("--web", options.web, WEB, least_port=1)
    Reader(options.name).close()  # says what is wrong before a browser does
    try:
        serve(options.name, host, port, options.web_url, options.web_pages)
    except OSError as error:
        raise EnvironmentProblem(
            f"{options.web} can not be listened at: {error.strerror}. Take another with --web."
        ) from None
    return 0


def _missing(error: ImportError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"The dashboard needs Textual ({error}): pip install 'halo-mp[dashboard]'. --once and --json do not."
    )


if __name__ == "__main__":
    sys.exit(main())
