# SPDX-License-Identifier: Apache-2.0
"""Who may open the page and its socket, over a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from halo_mp.dashboard.web import PageServer, page_server

HOST = "127.0.0.1:8080"


@asynccontextmanager
async def browser(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve at a unix socket; `true` stands for the dashboard."""
    runner = web.AppRunner(await PageServer("true", host="127.0.0.1", port=8080)._make_app())
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            yield session
    finally:
        await runner.cleanup()


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
    assert page_server("default", host, 8080, url).public_url == expected
