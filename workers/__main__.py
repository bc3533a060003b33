# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.workers`: started by the supervisor, by nobody else.

Exit status: 0 stopped as asked, 1 a fault, 5 could not boot.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from halo_mp import blackbox, logs
from halo_mp.control.channel import ChannelError
from halo_mp.workers.loop import WorkerLoop
from halo_mp.workers.selector import RingSelector
from halo_mp.workers.settings import CommandLine, parse_command_line
from halo_mp.workers.worker import EXIT_CANNOT_BOOT, Worker


async def _run(command_line: CommandLine, selector: RingSelector, box: blackbox.Inherited | None) -> int:
    worker = Worker(command_line, selector, box)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    return await worker.run()


def main() -> int:
    """Run a worker to its end."""
    box = blackbox.install()
    command_line = parse_command_line(sys.argv[1:])
    selector = RingSelector()
    try:
        with asyncio.Runner(loop_factory=lambda: WorkerLoop(selector)) as runner:
            status = runner.run(_run(command_line, selector, box))
    except (OSError, ChannelError) as error:
        who = "spare worker" if command_line.slot is None else f"worker {command_line.slot}"
        logs.say(f"halo-mp {who}: cannot reach its supervisor: {error}\n", fd=2, wait_s=1.0)
        return EXIT_CANNOT_BOOT
    logs.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
