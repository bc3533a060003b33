# SPDX-License-Identifier: Apache-2.0
"""EAL's command line, and where its log goes.

EAL keeps all memory private: no hugepage file, no shared configuration, nothing left behind when the driver is
killed. That is `--in-memory`, or `--no-shconf` without hugepages, where 22.11 refuses the former. Forwarding lcores
are EAL worker lcores; lcore 0 is the main thread, floating over all its cores.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from typing import Any

from halo_mp import logs

log = logs.get("eal")

_KEPT_LINES = 12
_READ_OCTETS = 65536
# What net_tap says in every healthy start: of a queue discipline that only tc rules need, and of secondary processes.
_HARMLESS = re.compile(r"failed to create multiq qdisc|tap_mp_req_on_rxtx")
_ERROR = re.compile(r"error|fail|cannot|invalid|not found|not compatible|unable", re.IGNORECASE)


def eal_arguments(message: dict[str, Any]) -> list[str]:
    """Return argv for rte_eal_init from a `configure` message."""
    main = ",".join(str(core) for core in message["main_cores"])
    lcores = [f"0@({main})"] + [f"{index + 1}@{core}" for index, core in enumerate(message["lcores"])]
    arguments = ["halo-mp", "--lcores=" + ",".join(lcores), "--main-lcore=0", "--no-telemetry"]
    arguments.append(f"--file-prefix=halo-mp-{message['instance']}")
    if message["hugepages"] is None:
        arguments += ["--no-huge", "--no-shconf", "-m", str(message["memory_mb"])]
    else:
        arguments.append("--in-memory")
    if message["mem_channels"] is not None:
        arguments += ["-n", str(message["mem_channels"])]
    if message["pcis"]:
        for address in message["pcis"]:
            arguments += ["-a", address]
    else:
        arguments.append("--no-pci")
    arguments += [f"--vdev={device}" for device in message["vdevs"]]
    return arguments + [str(word) for word in message["eal"]]


class EalLog:
    """A pipe that DPDK logs into. Its lines become our debug or warning events; the last ones explain a failed start.

    The write end never blocks: a driver must not stop for its own log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._rest = b""
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        loop.add_reader(self._read_fd, self.drain)

    def drain(self) -> None:
        """Log what is in the pipe."""
        while True:
            try:
                octets = os.read(self._read_fd, _READ_OCTETS)
            except BlockingIOError:
                return
            if not octets:
                return
            *lines, self._rest = (self._rest + octets).split(b"\n")
            for line in lines:
                self._write(line.decode(errors="replace").rstrip())

    def reason(self) -> str:
        """Return the last lines that look like an error, for a sentence."""
        self.drain()
        lines = [line for line in self.last_lines if _ERROR.search(line) and not _HARMLESS.search(line)]
        return "; ".join(lines[-3:])

    def forget(self) -> None:
        """Let what was said so far explain nothing that fails from here on."""
        self.drain()
        self.last_lines.clear()

    def close(self) -> None:
        """Close the reading end. The other belongs to DPDK, which writes to it until the process ends."""
        self.drain()
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)

    def _write(self, line: str) -> None:
        if not line:
            return
        self.last_lines.append(line)
        write = log.warning if _ERROR.search(line) and not _HARMLESS.search(line) else log.debug
        write("dpdk", line=line)
