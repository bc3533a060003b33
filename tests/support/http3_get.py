# SPDX-License-Identifier: Apache-2.0
"""Get paths by HTTP/3, all at once, over sockets of the kernel: aioquic's client as it is. Prints what came of each.

python tests/support/http3_get.py 10.77.0.1 4433 / /100000
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


class Client(QuicConnectionProtocol):
    """Collects answers by stream."""

    def start(self, host: str, paths: list[str]) -> None:
        """Ask for all paths."""
        self.http = H3Connection(self._quic)
        self.status: dict[int, str] = {}
        self.body: dict[int, bytes] = {}
        self.open = set()
        self.done = asyncio.Event()
        for path in paths:
            stream = self._quic.get_next_available_stream_id()
            headers = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
            self.http.send_headers(
                stream, [(k.encode(), v.encode()) for k, v in headers.items()], end_stream=True
            )
            self.open.add(stream)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        if not hasattr(self, "http"):
            return
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                self.status[each.stream_id] = dict(each.headers)[b":status"].decode()
            elif isinstance(each, DataReceived):
                self.body[each.stream_id] = self.body.get(each.stream_id, b"") + each.data
            if getattr(each, "stream_ended", False):
                self.open.discard(each.stream_id)
        if not self.open:
            self.done.set()


async def main(host: str, port: int, paths: list[str]) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with (
        asyncio.timeout(30),
        connect(host, port, configuration=configuration, create_protocol=Client) as client,
    ):
        assert isinstance(client, Client)
        client.start(host, paths)
        await client.done.wait()
        answers = [
            (client.status[stream], len(body), body[:40].decode())
            for stream, body in sorted(client.body.items())
        ]
        print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
