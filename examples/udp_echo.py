# SPDX-License-Identifier: Apache-2.0
"""Echo by callback: a function that gets each datagram in its buffer, and sends it back in the same one.

python examples/udp_echo.py --ports 0       then, from another shell:  nc -u 10.77.0.1 7
"""

from __future__ import annotations

from halo_mp.app import App, Datagram

app = App("echo")


@app.udp(7)
def echo(datagram: Datagram) -> None:
    """Send it back; what asks for the time gets how long this machine has been up when it came."""
    if bytes(datagram.data[:4]) == b"time":
        datagram.reply(b"%.6f s\n" % (datagram.timestamp_ns / 1e9))
    else:
        datagram.reply()


if __name__ == "__main__":
    app.run()
