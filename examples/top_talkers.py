# SPDX-License-Identifier: Apache-2.0
"""Who sends most? Counted by a hook that looks at whole bursts with NumPy, and told every ten seconds in the log.

    sudo python examples/top_talkers.py --ports 0,1
    sudo python -m halo_mp.supervisor --app examples/top_talkers.py --ports 0,1

Each worker counts what comes in by its own ports. Other flags are those of the supervisor.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from halo_mp.app import App, Burst, Worker, format_address

TOLD = 5
INTERVAL_S = 10.0

app = App("top_talkers")


@app.on_start
def begin(worker: Worker) -> None:
    """Have a worker count for itself."""
    worker.context.octets = Counter()


@app.hook("ingress", form="burst")
def count(burst: Burst) -> None:
    """Add the octets of each source up: once for the burst, not for each packet."""
    rows = burst.ipv4.version == 4
    sources, places = np.unique(burst.ipv4.src[rows], return_inverse=True)
    octets = np.bincount(places, weights=burst.length[rows])
    app.worker.context.octets.update(dict(zip(sources.tolist(), octets.tolist(), strict=True)))


@app.every(INTERVAL_S)
def tell(worker: Worker) -> None:
    """Say who sent most since the last time."""
    for source, octets in worker.context.octets.most_common(TOLD):
        worker.log.info("%s sent %d octets", format_address(source), octets)
    worker.context.octets.clear()


if __name__ == "__main__":
    app.run()
