# SPDX-License-Identifier: Apache-2.0
"""Echo by bursts: up to 512 datagrams at once as NumPy columns, changed and sent back without a loop.

    python examples/udp_echo_burst.py --ports 0       then, from another shell:  nc -u 10.77.0.1 7

Capital letters at the start come back small; what comes from port 0 is dropped, for nobody could answer there.
"""

from __future__ import annotations

from halo_mp.app import App, DatagramBurst

app = App("echo")


@app.udp(7, form="burst")
def echo(burst: DatagramBurst) -> None:
    """Send back what has octets, its first one as a small letter."""
    burst.drop(burst.sport == 0)
    some = (burst.length > 0).nonzero()[0]
    first = burst.payload[some, 0]
    capital = (first >= ord("A")) & (first <= ord("Z"))
    first[capital] += 32
    burst.payload[some, 0] = first
    burst.reply()


if __name__ == "__main__":
    app.run()
