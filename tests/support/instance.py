# SPDX-License-Identifier: Apache-2.0
"""A whole instance, started as a user starts it, watched through its log and its shared memory."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from halo_mp.shm.counters import PortsSnapshot, SlotSnapshot, read_ports, read_slot
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import Region, region_name
from tests.support.namespace import Namespace, wait_until

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
_numbers = itertools.count()


class Instance:
    """`python -m halo_mp.supervisor` in a namespace. Use as a context manager; `events` are its log lines."""

    def __init__(
        self,
        namespace: Namespace,
        *flags: str,
        name: str | None = None,
        wait: bool = True,
        via: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "halo_mp.supervisor"),
        **options: Any,
    ) -> None:
        """`via` is a command that starts the supervisor in its own place, as taskset(1); options are Popen's.

        `program` is the supervisor, or what becomes one.

        There is no spare worker unless a flag says so: it would come some time after the instance is up.
        """
        self.namespace = namespace
        self.name = name or f"t{os.getpid() % 100000}-{next(_numbers)}"  # short: TAPs are named after it
        self._flags = flags
        self._wait = wait
        self._via = via
        self._program = program
        self._options = options
        self._log = tempfile.NamedTemporaryFile(prefix="halo-mp-test-", suffix=".log")  # noqa: SIM115
        self._text = ""  # the log, once the instance has ended
        self._events: list[dict[str, Any]] = []  # of the lines before _read_to
        self._read_to = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        spare = () if "--spare" in self._flags else ("--spare", "0")
        flags = ["--name", self.name, "--log-format", "json", *spare, *self._flags]
        # Whoever runs the tests may ignore a signal (nohup does), and children inherit that.
        clean = ("env", "--default-signal")
        command = [*clean, *self._via, *self._program, *flags]
        options = {"stdout": self._log, "stderr": self._log, **self._options}
        self.process = self.namespace.popen(*command, **options)
        if self._wait:
            try:
                self.wait_for("instance.up", timeout_s=START_TIMEOUT_S)
            except BaseException:
                self.stop()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def runtime(self) -> Path:
        """Its runtime directory."""
        return Path("/run/halo-mp") / self.name

    @property
    def log_path(self) -> str:
        """The file that its processes write to, unless an option said otherwise."""
        return self._log.name

    def text(self) -> str:
        """Everything that its processes wrote."""
        return self._text or Path(self._log.name).read_text(errors="replace")

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log as a list of maps, all or those of one event."""
        self._read_on()
        return [entry for entry in self._events if event in (None, entry.get("event"))]

    def _read_on(self) -> None:
        """Parse the lines that came since the last look: a log of thousands of deaths is looked at often."""
        if self._log.file.closed:
            return
        octets = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, self._read_to)
        octets = octets[: octets.rfind(b"\n") + 1]
        self._read_to += len(octets)
        for line in octets.decode(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                self._events.append(entry)

    def wait_for(self, event: str, *, count: int = 1, timeout_s: float = 10.0) -> list[dict[str, Any]]:
        """Wait until an event was logged `count` times; return them."""

        def arrived() -> bool:
            assert self.process is not None
            ended = self.process.poll()
            if len(self.events(event)) >= count:
                return True
            assert ended is None, f"the instance ended with {ended} before {event}:\n{self.text()}"
            return False

        wait_until(arrived, timeout_s=timeout_s, what=f"{count} x {event} in\n{self.text()}")
        return self.events(event)

    def slot(self, number: int = 0) -> SlotSnapshot:
        """Counters and state of a slot."""
        with self.region(f"slot.{number}", RegionKind.SLOT) as region:
            return read_slot(region)

    def ports(self) -> PortsSnapshot:
        """What the driver says of ports, lcores and the pool."""
        with self.region("ports", RegionKind.PORTS) as region:
            return read_ports(region)

    @contextmanager
    def region(self, name: str, kind: RegionKind) -> Iterator[Region]:
        """Map a region of its shared memory, to be read."""
        file = self.namespace.shared_memory / region_name(self.name, name).lstrip("/")
        region = Region.attach(os.open(file, os.O_RDONLY | os.O_CLOEXEC), kind, writable=False)
        try:
            yield region
        finally:
            region.close()

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send a signal to the supervisor."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the supervisor's end; return its exit status."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """End it as Ctrl-C does, and insist where that fails; return the exit status. May be called twice."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.signal()
                self.wait()
        if not self._text:
            self._read_on()
            self._text = self.text()
            self._log.close()
        return self.process.returncode


def run_supervisor(
    namespace: Namespace, flags: Sequence[str], *, timeout_s: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run the supervisor where it is expected to end by itself; return its status and output."""
    return namespace.run(sys.executable, "-m", "halo_mp.supervisor", *flags, check=False, timeout_s=timeout_s)
