# SPDX-License-Identifier: Apache-2.0
"""`halo-mp`: the table of its commands, and what becomes of errors.

Exit codes are the same for all commands: 0 done; 1 it was refused, or what was looked at is not well; 2 the words make
no sense; 3 there is nobody to ask, or the machine does not allow it; 130 interrupted. `run` ends with those of the
supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

import halo_mp
from halo_mp.cli.lazy import Lazy, LazyGroup
from halo_mp.errors import HaloError

EXIT_DONE = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NOBODY = 3
EXIT_INTERRUPTED = 130

COMMANDS = {
    "run": Lazy("halo_mp.cli.run:run", "Start an instance and stay in the foreground."),
    "stop": Lazy("halo_mp.cli.stop:stop", "End an instance in order."),
    "reload": Lazy(
        "halo_mp.cli.config_commands:reload", "Read the configuration file anew, while packets flow."
    ),
    "status": Lazy(
        "halo_mp.cli.status:status", "How an instance is: processes, ports, drops, what has died."
    ),
    "top": Lazy("halo_mp.cli.top:top", "Watch an instance live, in the terminal or a browser."),
    "watch": Lazy("halo_mp.cli.watch:watch", "Print events, changes and statistics as they come."),
    "show": Lazy("halo_mp.cli.show:show", "Interfaces, neighbors, routes, the configuration."),
    "set": Lazy("halo_mp.cli.set:set_", "Change interfaces, addresses, neighbors, routes."),
    "config": Lazy(
        "halo_mp.cli.config_commands:config", "Compare, apply, roll back and save configurations."
    ),
    "capture": Lazy("halo_mp.cli.capture:capture", "Copy frames at rx, tx or drop into pcapng files."),
    "trace": Lazy("halo_mp.cli.trace:trace", "Show what happens to packets, stage by stage, and why."),
    "ping": Lazy("halo_mp.cli.ping:ping", "Ping a host, or name the routers on the way to it."),
    "doctor": Lazy("halo_mp.cli.doctor:doctor", "What of this machine is in the way, and what mends it."),
    "unit": Lazy("halo_mp.cli.unit:unit", "Print a systemd unit that runs instances as services."),
    "completion": Lazy("halo_mp.cli.completion:completion", "Print what a shell needs to complete all this."),
}
"""Name: where it is, and what it does. A command's module is imported when it is typed."""


WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class UnwrittenError(Exception):
    """Standard output takes no more. Not an OSError: of some of those click has an opinion of its own."""

    def __init__(self, reason: str) -> None:
        """`reason` is empty where whoever read it has seen enough."""
        super().__init__(reason)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (*WRITE_ERRORS, errno.EPIPE) or error.filename is not None:
            raise
        raise UnwrittenError("" if error.errno == errno.EPIPE else os.strerror(error.errno)) from None


class _Main(LazyGroup):
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _writing():  # --help is printed here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _writing():
            return super().invoke(ctx)


@click.command(
    cls=_Main,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 refused, or not well; 2 the words make no sense; 3 nobody to ask, or the machine "
    "does not allow it.",
)
@click.version_option(halo_mp.__version__, "-V", "--version", message="halo-mp %(version)s")
def main() -> None:
    """Run, watch and change instances of halo-mp, a userspace network stack."""


def run(argv: Sequence[str] | None = None) -> int:
    """Do what the words say and return the exit code: an error is a sentence on standard error, behind `halo-mp:`."""
    _have_outputs()
    try:
        code = main.main(None if argv is None else list(argv), prog_name="halo-mp", standalone_mode=False)
        with _writing():
            sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_DONE
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # which older versions of click print by themselves
            click.echo(error.format_message(), err=True)
            return EXIT_USAGE
        return _complain(_advice(error), error.exit_code)
    except HaloError as error:
        return _complain(str(error), _exit_code(error))
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except UnwrittenError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the flush at exit would complain once more
        reason = str(error)
        return (
            _complain(f"standard output can not be written: {reason}.", EXIT_REFUSED) if reason else EXIT_DONE
        )


def _have_outputs() -> None:
    """Where a descriptor was closed (`>&-`) Python has no stream, and what we open next would get its number."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor, inheritable=True)
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115 - for good


def _exit_code(error: HaloError) -> int:
    from halo_mp.control.calls import NotReachableError  # `run` and `completion` need none of it

    return EXIT_NOBODY if isinstance(error, NotReachableError) else error.exit_code


def _advice(error: click.ClickException) -> str:
    """Return what click complains of as a sentence, and where help is."""
    sentence = error.format_message().strip()
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        sentence += f"\n{context.command_path} --help lists what there is."
    return sentence


def _complain(sentences: str, code: int) -> int:
    for sentence in sentences.splitlines():
        click.echo(f"halo-mp: {sentence}", err=True)
    return code
