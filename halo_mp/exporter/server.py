# SPDX-License-Identifier: Apache-2.0
"""Metrics over HTTP: a thread for each request, bounded in number and in time.

Who connects and says nothing, or asks and does not read, is let go after TIMEOUT_S; more than MOST_REQUESTS at once are
closed. Otherwise each of them would keep a thread and a descriptor for ever.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client
from prometheus_client.registry import Collector

TIMEOUT_S = 10.0
MOST_REQUESTS = 32


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def setup(self) -> None:
        self._errors = io.StringIO()
        super().setup()

    def get_stderr(self) -> io.StringIO:
        """Return where the library puts the traceback of an answer that failed."""
        return self._errors

    def finish(self) -> None:
        text = self._errors.getvalue()
        if text and not text.rstrip().endswith("TimeoutError: timed out"):  # he did not read: that is no news
            sys.stderr.write(text)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Log no request."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: object) -> None:
        self._free = threading.Semaphore(MOST_REQUESTS)
        super().__init__(*arguments)  # type: ignore[arg-type]

    def process_request(self, request: object, client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._free.release()

    def handle_error(self, *_: object) -> None:
        """Who asked has gone, or was too slow: that is no news."""


def listen(registry: Collector, host: str, port: int) -> WSGIServer:
    """Return a server that listens; its `serve_forever` answers. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]

    class Server(_Server):
        address_family = family

    app = prometheus_client.make_wsgi_app(registry)
    return make_server(str(address[0]), port, app, Server, _Handler)
