# SPDX-License-Identifier: Apache-2.0
"""HTTP/3 by aioquic, unmodified, on the stack of a worker: QUIC is UDP, and aioquic opens its endpoint by asyncio.

    pip install aioquic
    python examples/http3_server.py --ports 0       then any HTTP/3 client for  https://10.77.0.1:4433/

The certificate is made at start and signed by nobody: tell the client not to verify it.
"""

from __future__ import annotations

import datetime

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from halo_mp.app import App, Worker

app = App("http3")
PORT = 4433


class Http3Server(QuicConnectionProtocol):
    """Answers each request with its path; GET /<number> with so many octets."""

    _http: H3Connection | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        if self._http is not None:
            for each in self._http.handle_event(event):
                self.http_event_received(self._http, each)

    def http_event_received(self, http: H3Connection, event: H3Event) -> None:
        """Answer as soon as a request's headers are there."""
        if not isinstance(event, HeadersReceived):
            return
        path = dict(event.headers).get(b":path", b"/")
        body = bytes(min(int(path[1:]), 1 << 24)) if path[1:].isdigit() else b"you asked for " + path + b"\n"
        http.send_headers(
            event.stream_id, [(b":status", b"200"), (b"content-length", str(len(body)).encode())]
        )
        http.send_data(event.stream_id, body, end_stream=True)
        self.transmit()


def configuration() -> QuicConfiguration:
    """Return a server's configuration with a certificate of its own making."""
    made = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "halo-mp")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    made.certificate, made.private_key = certificate, key
    return made


@app.on_start
async def listen(worker: Worker) -> None:
    """One worker serves all: aioquic does not ask for reuse_port, and a connection is one worker's."""
    if worker.slot == 0:
        await serve("0.0.0.0", PORT, configuration=configuration(), create_protocol=Http3Server)
        worker.log.info("HTTP/3 at UDP port %d", PORT)


if __name__ == "__main__":
    app.run()
