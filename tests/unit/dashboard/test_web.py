# SPDX-License-Identifier: Apache-2.0
"""Who may open the page and its socket, and when a page ends, over a unix socket."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from halo_mp.dashboard import pages
from halo_mp.dashboard.web import PageServer, page_server

HOST = "127.0.0.1:8080"
TIMEOUT_S = 30.0
Opened = aiohttp.ClientWebSocketResponse
DRAW = """
import os
os.write(1, b"__GANGLION__\\n")
while True:
    os.write(1, b"D" + (32768).to_bytes(4, "big") + bytes(32768))
"""
FLOOD = shlex.join([sys.executable, "-c", DRAW])
"""Draws without an end."""


@asynccontextmanager
async def served(server: PageServer, path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve at a unix socket."""
    runner = web.AppRunner(await server._make_app(), shutdown_timeout=pages.CLOSE_S)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            yield session
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve; `true` stands for the dashboard."""
    async with served(PageServer("true", "127.0.0.1", 8080, "halo-mp", None, 8), path) as session:
        yield session


async def status(path: Path, target: str, **headers: str) -> tuple[int, str]:
    async with browser(path) as session, session.get(f"http://{HOST}{target}", headers=headers) as answer:
        return answer.status, answer.headers.get("Content-Security-Policy", "")


@pytest.mark.parametrize("headers", [{}, {"Origin": f"http://{HOST}"}, {"Origin": f"https://{HOST}"}])
def test_own_page_is_served_and_may_load_nothing_from_elsewhere(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    code, policy = asyncio.run(status(tmp_path / "socket", "/", **headers))
    assert code == 200
    assert "default-src 'self'" in policy
    assert "googleapis" not in policy


@pytest.mark.parametrize(
    "origin", ["http://example.com", "null", "http://127.0.0.1", f"http://{HOST}.example.com"]
)
@pytest.mark.parametrize("target", ["/", "/ws"])
def test_pages_of_others_are_refused(tmp_path: Path, origin: str, target: str) -> None:
    code, _ = asyncio.run(status(tmp_path / "socket", target, Origin=origin))
    assert code == 403


def test_socket_is_not_opened_for_others(tmp_path: Path) -> None:
    async def open_socket() -> None:
        async with browser(tmp_path / "socket") as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"http://{HOST}/ws", headers={"Origin": "http://example.com"})
            assert refused.value.status == 403

    asyncio.run(open_socket())


@pytest.mark.parametrize(
    ("host", "url", "expected"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8080"),
        ("::1", None, "http://[::1]:8080"),
        ("::1", "https://halo.example", "https://halo.example"),
    ],
)
def test_url_that_browsers_are_told(host: str, url: str | None, expected: str) -> None:
    assert page_server("default", host, 8080, url, 8).public_url == expected


@asynccontextmanager
async def page(path: Path, command: str, **options: Any) -> AsyncIterator[tuple[PageServer, Opened]]:
    """Open the page of a command that stands for the dashboard; the server must have no page at the end."""
    server = PageServer(command, "127.0.0.1", 8080, "halo-mp", None, 8)
    async with served(server, path) as session, session.ws_connect(f"http://{HOST}/ws", **options) as opened:
        assert server.places.taken == 1
        yield server, opened


async def ended(server: PageServer) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while server.places.taken:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.01)


def test_browser_that_answers_no_heartbeat_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "HEARTBEAT_S", 0.1)

    async def open_page() -> None:
        async with page(tmp_path / "socket", "sleep 1000", autoping=False) as (server, _):
            await ended(server)

    asyncio.run(open_page())


def test_browser_that_takes_nothing_ends_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "STUCK_S", 0.2)

    async def open_page() -> None:
        async with page(tmp_path / "socket", FLOOD) as (server, opened):
            opened._conn.transport.pause_reading()
            await ended(server)

    asyncio.run(open_page())


def test_process_that_takes_nothing_ends_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "STUCK_S", 0.2)

    async def open_page() -> None:
        async with page(tmp_path / "socket", "sleep 1000") as (server, opened):
            for _ in range(32):  # of 32 KiB: more than a pipe and the queue before it have room for
                with suppress(ConnectionError):
                    await opened.send_json(["stdin", "k" * 32768])
            await ended(server)

    asyncio.run(open_page())


@pytest.mark.parametrize(
    "text", ["{", '"no list"', "[]", '["resize", {}]', '["resize", {"width": "x", "height": 1}]']
)
def test_message_without_sense_ends_its_page_alone(tmp_path: Path, text: str) -> None:
    async def open_page() -> None:
        async with page(tmp_path / "socket", "sleep 1000") as (server, opened):
            await opened.send_str(text)
            await ended(server)
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(tmp_path / "socket"))
            ) as other:
                async with other.get(f"http://{HOST}/") as answer:
                    assert answer.status == 200

    asyncio.run(open_page())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((80, 24), (80, 24)), ((0, -1), (1, 1)), ((10**9, 10**9), (pages.MOST_COLUMNS, pages.MOST_ROWS))],
)
def test_screen_is_no_larger_than_may_be(asked: tuple[int, int], expected: tuple[int, int]) -> None:
    assert pages.screen(*asked) == expected
