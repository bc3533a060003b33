# SPDX-License-Identifier: Apache-2.0
"""The dashboard in browsers, by textual-serve: each page has a process of its own, and there are so many at most.

The page may load nothing from elsewhere, so it works without the Internet and tells nobody who looks; and pages of
others may not open its socket: a browser that is on the same machine would do it for them.
"""

from __future__ import annotations

import asyncio
import html
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server, to_int

from halo_mp import logs
from halo_mp.dashboard.pages import CLOSE_S, Page, Places, Socket
from halo_mp.listen import in_url

log = logs.get("dashboard")

RETRY_S: Final = 5
"""Who comes too late asks again then. So does who loads a page anew: the old one is open until this is answered."""

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

LATE = """<!DOCTYPE html>
<title>{title}: too many pages</title>
<p>{title}: as many pages are open as --web-pages allows, {most}.
<p>Close one, or have it served anew with a higher --web-pages. This page asks again by itself.
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer(Server):
    """Serves the dashboard of one instance."""

    def __init__(self, command: str, host: str, port: int, title: str, url: str | None, most: int) -> None:
        """`command` is what each page runs; `url` is what browsers call it, None: its address."""
        super().__init__(command, host=host, port=port, title=title, public_url=url)
        self.places = Places(most)
        self._pages: set[Page] = set()
        self._ends = False

    def serve(self, debug: bool = False) -> None:
        """Serve until SIGINT or SIGTERM. Raises OSError when the address can not be listened at."""
        logs.configure("dashboard", "info")
        try:
            asyncio.run(self._serve())
        finally:
            logs.flush()

    async def _serve(self) -> None:
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=CLOSE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            sys.stdout.write(f"{self.public_url}\n")
            sys.stdout.flush()
            await told.wait()
        finally:
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(refuse_strangers)
        app.on_response_prepare.append(_add_policy)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: it does not listen yet."""

    async def on_shutdown(self, app: web.Application) -> None:
        """End all pages, all at once."""
        self._ends = True
        for page in self._pages:
            page.kill()
        await asyncio.gather(*(page.socket.hang_up() for page in self._pages))

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Serve what opens the socket."""
        self._refuse_late()
        answer: web.StreamResponse = await super().handle_index(request)
        return answer

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Have a process draw for a browser until one of them ends."""
        self._refuse_late()
        self.places.take()
        try:
            socket = Socket(request.transport)
            await socket.prepare(request)
            await self._show(Page(self.command, socket, self.download_manager), request)
        finally:
            self.places.leave()
        return socket

    async def _show(self, page: Page, request: web.Request) -> None:
        self._pages.add(page)
        try:
            await page.start(
                to_int(request.query.get("width", ""), 80), to_int(request.query.get("height", ""), 24)
            )
            await self._process_messages(page.socket, page)
        except Exception as error:  # what the browser sent makes no sense, or there can be no process
            log.warning("page.failed", reason=f"{type(error).__name__}: {error}")
        finally:
            await page.stop()
            self._pages.discard(page)

    def _refuse_late(self) -> None:
        if self._ends:
            raise web.HTTPServiceUnavailable(text="The server ends.")
        if not self.places.full:
            return
        self.places.refuse()
        raise web.HTTPServiceUnavailable(
            text=LATE.format(title=html.escape(self.title), most=self.places.most),
            content_type="text/html",
            headers={"Retry-After": str(RETRY_S), "Refresh": str(RETRY_S)},
        )


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


def serve(instance: str, host: str, port: int, url: str | None, most: int) -> None:
    """Serve `most` pages until SIGINT or SIGTERM. `url` is what browsers call it, where that is not the address."""
    page_server(instance, host, port, url, most).serve()


def page_server(instance: str, host: str, port: int, url: str | None, most: int) -> PageServer:
    """Return the server of an instance's dashboard."""
    if url is None and ":" in host:  # the library would write it without brackets
        url = f"http://{in_url(host)}:{port}"
    command = shlex.join([sys.executable, "-m", "halo_mp.dashboard", "--name", instance])
    return PageServer(command, host, port, f"halo-mp {instance}", url, most)
