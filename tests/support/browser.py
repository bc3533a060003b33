# SPDX-License-Identifier: Apache-2.0
"""Opens a page in headless Chromium and types into it: `python -m tests.support.browser PICTURE URL KEY...`.

Run where the page can be reached. Prints JSON: what the page's sockets were sent before and after the keys, and
addresses that it loaded something from. Speaks the browser's own protocol.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

TIMEOUT_S = 50.0
REST_S = 1.0  # a screen comes in several frames, and is drawn in several steps
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=1000,700",
)


class Page:
    """A page, through the browser's debugging socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self.received = ""
        self.loaded: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: object) -> Any:
        """Make a call, and return its result."""
        self._number += 1
        reply = self._replies[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return await reply

    async def settle(self, wanted: str) -> str:
        """Wait for a text in what the sockets were sent, and for the rest of that screen; return it all."""
        while wanted not in self.received:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.1)
        await asyncio.sleep(REST_S)
        found, self.received = self.received, ""
        return found

    async def close(self) -> None:
        """Stop reading."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._replies.pop(said["id"]).set_result(said.get("result"))
            elif said["method"] == "Network.webSocketFrameReceived":
                self._hear(said["params"]["response"])
            elif said["method"] == "Network.responseReceived":
                self.loaded.append(said["params"]["response"]["url"])

    def _hear(self, frame: dict[str, Any]) -> None:
        octets = (
            base64.b64decode(frame["payloadData"]) if frame["opcode"] == 2 else frame["payloadData"].encode()
        )
        # Without colours and places: the words in between.
        self.received += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", octets.decode("utf-8", "replace"))


async def browse(url: str, keys: list[str]) -> dict[str, Any]:
    """Open the page, type, take a picture (PNG, base64)."""
    with tempfile.TemporaryDirectory() as profile:
        browser = await asyncio.create_subprocess_exec(
            *(shutil.which("chromium") or "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        try:
            assert browser.stderr is not None
            while not (found := re.search(rb"ws://\S+", await browser.stderr.readline())):
                assert browser.returncode is None
            draining = asyncio.create_task(browser.stderr.read())
            debugger = found.group().decode().split("/")[2]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{debugger}/json") as answer:
                    [target] = [each for each in await answer.json() if each["type"] == "page"]
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    return await _look(Page(socket), url, keys)
        finally:
            browser.terminate()
            await browser.wait()
            draining.cancel()


async def _look(page: Page, url: str, keys: list[str]) -> dict[str, Any]:
    await page.call("Network.enable")
    await page.call("Page.navigate", url=url)
    before = await page.settle("Quit")
    for kind in ("mousePressed", "mouseReleased"):  # or nobody listens to keys
        await page.call("Input.dispatchMouseEvent", type=kind, x=500, y=400, button="left", clickCount=1)
    for key in keys:
        await page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        await page.call("Input.dispatchKeyEvent", type="keyUp", key=key)
    after = await page.settle("supervisor")
    shot = await page.call("Page.captureScreenshot")
    await page.close()
    return {"before": before, "after": after, "loaded": page.loaded, "picture": shot["data"]}


def main() -> None:
    """Browse, and print what was seen."""
    picture, url, *keys = sys.argv[1:]
    found = asyncio.run(asyncio.wait_for(browse(url, keys), TIMEOUT_S))
    Path(picture).write_bytes(base64.b64decode(found.pop("picture")))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
