# SPDX-License-Identifier: Apache-2.0
"""The dashboard in browsers, by textual-serve: each page has a process of its own.

The page may load nothing from elsewhere, so it works without the Internet and tells nobody who looks; and pages of
others may not open its socket: a browser that is on the same machine would do it for them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

from halo_mp.listen import in_url

POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "script-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self' ws: wss:",
        "frame-ancestors 'none'",
    )
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer(Server):
    """Serves the dashboard of one instance."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(refuse_strangers)
        app.on_response_prepare.append(_add_policy)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say where it is."""
        sys.stdout.write(f"{self.public_url}\n")
        sys.stdout.flush()


@web.middleware
async def refuse_strangers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what the page of another server asks for."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise web.HTTPForbidden(text=f"{origin} has no business here.")
    return await handler(request)


async def _add_policy(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"


def serve(instance: str, host: str, port: int, url: str | None) -> None:
    """Serve until SIGINT or SIGTERM. `url` is what browsers call it, where that is not the address."""
    page_server(instance, host, port, url).serve()


def page_server(instance: str, host: str, port: int, url: str | None) -> PageServer:
    """Return the server of an instance's dashboard."""
    if url is None and ":" in host:  # the library would write it without brackets
        url = f"http://{in_url(host)}:{port}"
    # The library has a shell start it, which would stand between us and a page that ends when we do.
    command = f"exec {shlex.join([sys.executable, '-m', 'halo_mp.dashboard', '--name', instance])}"
    return PageServer(command, host=host, port=port, title=f"halo-mp {instance}", public_url=url)
