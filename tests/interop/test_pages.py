# SPDX-License-Identifier: Apache-2.0
"""The web mode of the dashboard: its pages, each a process, when they end and how many there may be."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.interop.conftest import Tap
from tests.support.namespace import wait_until

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1:8098"  # of a namespace of its own
URL = f"http://{ADDRESS}"
OPEN = f"""
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect("{URL}/ws?width=80&height=24") as page:
            await page.receive_bytes()
            print("shown", flush=True)
            async for _ in page:
                pass
            print("closed", flush=True)
asyncio.run(main())
"""
ASK = f"""
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("{URL}/", timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code, error.headers["Retry-After"], error.read().decode())
"""
KNOCK = f"""
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect("{URL}/ws"):
                print("open")
        except aiohttp.WSServerHandshakeError as error:
            print(error.status)
asyncio.run(main())
"""


class Server:
    """`python -m halo_mp.dashboard --web` for a test's instance, with browsers."""

    def __init__(self, tap: Tap, log: Path, ends: ExitStack, *flags: str) -> None:
        self._tap = tap
        self._log = log
        self._ends = ends
        command = (sys.executable, "-m", "halo_mp.dashboard", "--name", tap.instance.name, "--web", ADDRESS)
        with log.open("wb") as file:
            self.process = self._popen(*command, *flags, stderr=file)
        ends.callback(self._stop)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{URL}\n".encode()

    def browser(self) -> subprocess.Popen[bytes]:
        """Open a page; return when it shows something."""
        browser = self._popen(sys.executable, "-c", OPEN)
        assert browser.stdout is not None
        assert browser.stdout.readline() == b"shown\n"
        return browser

    def ask(self, program: str) -> str:
        """Run a client to its end."""
        return self._tap.namespace.run(sys.executable, "-c", program).stdout

    def pages(self) -> list[psutil.Process]:
        """Return the processes of pages; they are killed at the end of the test."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        self._ends.callback(end, *found)
        return found

    def log(self) -> str:
        """Return what it logged."""
        return self._log.read_text()

    def _stop(self) -> None:
        """End it with its pages: those of a server that was killed take some seconds."""
        self.process.terminate()
        self.process.wait(30)

    def _popen(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        process = self._tap.namespace.popen(*command, stdout=subprocess.PIPE, **options)
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)
        assert process.stdout is not None
        self._ends.callback(process.stdout.close)
        return process


@contextmanager
def serving(tap: Tap, log: Path, *flags: str) -> Iterator[Server]:
    """Serve; end everything behind it."""
    with ExitStack() as ends:
        yield Server(tap, log, ends, *flags)


def end(*processes: psutil.Process) -> None:
    """Kill those that are still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for_end(pages: list[psutil.Process]) -> None:
    """Wait until no process of these is left."""
    wait_until(lambda: not any(page.is_running() for page in pages), what="the end of pages")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_told_to_end_takes_its_pages_along(tap: Tap, tmp_path: Path, number: int) -> None:
    """Though the browser of one does not answer, and the process of another hangs."""
    with serving(tap, tmp_path / "log") as server:
        silent = server.browser()
        [other] = server.pages()
        browser = server.browser()
        pages = server.pages()
        silent.send_signal(signal.SIGSTOP)
        [hung] = [page for page in pages if page != other]
        hung.suspend()
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert not any(page.is_running() for page in pages)
        assert browser.communicate(timeout=30)[0] == b"closed\n"
        assert server.log() == "", "nothing of that is worth a line"


def test_page_of_a_process_that_hangs_ends_with_its_browser(tap: Tap, tmp_path: Path) -> None:
    with serving(tap, tmp_path / "log") as server:
        browser = server.browser()
        pages = server.pages()
        assert len(pages) == 1
        pages[0].suspend()
        browser.kill()
        wait_for_end(pages)


def test_browser_is_told_when_the_process_of_its_page_dies(tap: Tap, tmp_path: Path) -> None:
    with serving(tap, tmp_path / "log") as server:
        browser = server.browser()
        [page] = server.pages()
        page.kill()
        assert browser.communicate(timeout=30)[0] == b"closed\n"


def test_who_comes_when_all_pages_are_open_is_refused_until_one_is_closed(tap: Tap, tmp_path: Path) -> None:
    with serving(tap, tmp_path / "log", "--web-pages", "1") as server:
        browser = server.browser()
        pages = server.pages()
        code, again, *text = server.ask(ASK).split(" ")
        assert (code, again) == ("503", "5")
        assert "as many pages are open as --web-pages allows, 1." in " ".join(text)
        assert server.ask(KNOCK) == "503\n"
        assert server.pages() == pages, "who is refused gets no process"
        browser.kill()
        wait_until(lambda: "pages.free" in server.log(), what="a free place")
        wait_for_end(pages)
        server.browser()
        assert server.log().count("pages.full pages=1") == 1
        assert "pages.free pages=0 refused=2" in server.log()


def test_real_browser_that_came_too_late_shows_it_when_a_page_is_closed(tap: Tap, tmp_path: Path) -> None:
    with serving(tap, tmp_path / "log", "--web-pages", "1") as server:
        browser = server.browser()
        picture = str(tmp_path / "page.png")
        look = (sys.executable, "-m", "tests.support.browser", picture, f"{URL}/", "4")
        late = tap.namespace.popen("env", f"--chdir={ROOT}", *look, stdout=subprocess.PIPE)
        try:
            wait_until(lambda: "pages.full" in server.log(), what="a refusal")
            browser.kill()
            seen = json.loads(late.communicate(timeout=60)[0])
        finally:
            late.kill()
            late.wait()
        assert f"{tap.instance.name} up" in seen["before"]
        assert "pages.free pages=0" in server.log()
