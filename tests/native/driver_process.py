# SPDX-License-Identifier: Apache-2.0
"""The real driver in a process of its own, told what to do by its parent: EAL starts once per process.

Reads JSON lines from standard input, answers each with one on standard output. The first configures; its descriptors
are inherited. Ends, in order, when told to or when standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

from halo_mp.errors import HaloError
from halo_mp.supervisor.driver_eal import EalLog, eal_arguments
from halo_mp.supervisor.driver_ports import DriverPorts

COPIES_AT_ONCE = 64


def inject(interface: str, frame: bytes, count: int) -> None:
    """Send a frame from an interface of this namespace, some at a time so that the kernel's queues can follow."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        for _ in range(count):
            out.send(frame)


def obey(ports: DriverPorts, order: dict[str, Any]) -> Any:
    match order["do"]:
        case "enable":
            return ports.enable_slot(order["slot"])
        case "reset":
            return ports.reset_slot(order["slot"])
        case "feeds":
            return ports.set_feeds(order["slots"])
        case "lose":
            return ports.lose(order["port"], "the test wants it so")
        case "reopen":
            return ports.reopen(order["port"])
        case "status":
            return ports.update_status()
        case "inject":
            return inject(order["interface"], bytes.fromhex(order["frame"]), order["count"])
        case unknown:
            raise ValueError(unknown)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # EAL has things to say there
    loop = asyncio.new_event_loop()
    eal_log = EalLog(loop)
    ports: DriverPorts | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "stop":
            break
        try:
            if ports is None:
                ports = DriverPorts(order["message"], order["fds"])
                ports.start(eal_arguments(order["message"]), eal_log)
                result: Any = None
            else:
                result = obey(ports, order)
        except HaloError as error:
            answers.write(json.dumps({"error": str(error)}) + "\n")
        else:
            answers.write(json.dumps({"result": result}) + "\n")
    if ports is not None:
        ports.close()
    answers.write(json.dumps({"result": "stopped"}) + "\n")


if __name__ == "__main__":
    main()
