# SPDX-License-Identifier: Apache-2.0
"""A hook that modifies what a router forwards, by the length of the IPv4 packet:

over 1000 octets     dropped
200 to 1000          16 octets of the payload are blanked, checksums kept right
below 200            goes on, and a copy of it follows one second later

sudo python examples/modifier.py --address 0=10.0.0.1/24 --address 1=10.1.0.1/24
"""

from __future__ import annotations

import numpy as np

from halo_mp.app import App, Burst, Worker

MOST, SMALL = 1000, 200
BLANKED = slice(60, 76)  # octets of the frame, behind the headers of TCP without options
DELAY_S = 1.0
MOST_WAITING = 10_000  # copies

app = App("modifier")


@app.on_start
def prepare(worker: Worker) -> None:
    """No copy waits yet."""
    worker.context.waiting = 0


@app.hook("forward", form="burst")
def modify(burst: Burst) -> None:
    """Look at lengths only, at all of the burst at once."""
    length, received = burst.ipv4.length, burst.injected == 0  # a copy has been here already
    middle = received & (length >= SMALL) & (length <= MOST)
    burst.octets[middle, BLANKED] = 0
    burst.update_checksums(middle)
    for row in np.flatnonzero(received & (length < SMALL)):
        delay(app.worker, int(burst.port[row]), frame_of(burst, row))
    burst.drop(received & (length > MOST))


def frame_of(burst: Burst, row: int) -> bytes:
    """Return a copy of the frame: what is in the pool is another's when the hook has ended."""
    start = int(burst.offset[row])
    return burst.pool[start : start + int(burst.length[row])].tobytes()


def delay(worker: Worker, port: int, frame: bytes) -> None:
    """Put a frame in again, later, where it is now."""
    if worker.context.waiting < MOST_WAITING:
        worker.context.waiting += 1
        worker.loop.call_later(DELAY_S, put_in, worker, port, frame)


def put_in(worker: Worker, port: int, frame: bytes) -> None:
    """Let it be routed as when it came; when there is no room, that is counted."""
    worker.context.waiting -= 1
    worker.inject("forward", frame, port=port)


if __name__ == "__main__":
    app.run(ports=[0, 1])
