# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that a test makes for itself. Traffic of tests goes nowhere else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

COMMAND_TIMEOUT_S = 60.0


class Namespace:
    """A network namespace, held by a process of its own; it and all its interfaces end with `close`."""

    shared_memory = Path("/dev/shm")
    """Where shared memory that was made inside is found from outside."""

    def __init__(self) -> None:
        # The holder says when it is inside: before that, a command would run in the namespace that we came from.
        holder = [*self._entering(), "sh", "-c", "echo inside; exec sleep 3600"]
        self._holder = subprocess.Popen(holder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"inside\n":
            raise RuntimeError(
                "no network namespace could be made: tests with traffic need root, or tools/enter-namespace"
            )
        self.path = f"/proc/{self._holder.pid}/ns/net"
        if os.readlink(self.path) == os.readlink("/proc/self/ns/net"):
            raise RuntimeError("the namespace is the one that the tests run in")
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The pid whose namespace it is, for `ip link set ... netns`."""
        return self._holder.pid

    def _entering(self) -> list[str]:
        """Return the command that makes the namespace and runs another in it, without a process in between."""
        return ["unshare", "--net", "--"]

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` inside."""
        return ["nsenter", f"--net={self.path}", "--", *command]

    def run(
        self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; its output is text."""
        return subprocess.run(
            self.inside(command),
            check=check,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command inside."""
        return subprocess.Popen(self.inside(command), **{"stdin": subprocess.DEVNULL, **options})

    def ping(self, address: str, *, count: int = 3, size: int = 56, options: Sequence[str] = ()) -> int:
        """Ping from inside; return how many replies came."""
        command = [
            "ping",
            "-n",
            "-c",
            str(count),
            "-i",
            "0.05",
            "-W",
            "2",
            "-s",
            str(size),
            *options,
            address,
        ]
        output = self.run(*command, check=False).stdout
        for line in output.splitlines():
            if "packets transmitted" in line:
                return int(line.split(",")[1].split()[0])
        raise AssertionError(f"ping said nothing of replies:\n{output}")

    def pinged(
        self,
        address: str,
        *,
        count: int = 3,
        size: int = 56,
        interval_s: float = 0.02,
        options: Sequence[str] = (),
    ) -> int:
        """Ping until `count` replies came; return how many requests were sent. Fail after 20 s.

        Where every reply should come this is the call: `ping` alone waits for its last reply no longer than the
        interval or twice the longest round trip. Here a late one costs another request.
        """
        command = ["ping", "-n", "-q", "-c", str(count), "-i", str(interval_s), "-w", "20", "-s", str(size)]
        output = self.run(*command, *options, address, check=False).stdout
        found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        assert found, f"ping said nothing of replies:\n{output}"
        assert int(found[2]) >= count, output
        return int(found[1])

    def silence(self) -> None:
        """Have the kernel send nothing of its own accord (IPv6 does): what is heard is then the test's doing."""
        for which in ("all", "default"):
            self.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{which}/disable_ipv6")

    def close(self) -> None:
        """End the namespace. May be called twice."""
        if self._holder.poll() is None:
            self._holder.send_signal(signal.SIGKILL)
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


def connect(left: Namespace, right: Namespace, *, name: str = "veth0", queues: int = 1) -> None:
    """Make a veth pair, called the same on both sides and up, with the offloads off that leave frames unfinished."""
    many = ("numrxqueues", str(queues), "numtxqueues", str(queues)) if queues > 1 else ()
    left.run(
        *(
            "ip",
            "link",
            "add",
            name,
            *many,
            "type",
            "veth",
            "peer",
            "name",
            name,
            *many,
            "netns",
            str(right.pid),
        )
    )
    for side in (left, right):
        side.run("ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        side.run("ip", "link", "set", name, "up")


def wait_until(condition: Any, *, timeout_s: float = 10.0, what: str) -> None:
    """Poll until `condition()` is true; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)
