# SPDX-License-Identifier: Apache-2.0
"""Watching an instance that works: its dashboard as text and in a browser, and its metrics over HTTP."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.interop.conftest import Tap
from tests.support.namespace import wait_until

COMMAND = (sys.executable, "-m", "halo_mp.dashboard")
ROOT = Path(__file__).resolve().parents[2]
PORT = 8099  # of a namespace of its own
ASK = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Accept": "application/openmetrics-text; version=1.0.0"})
with urllib.request.urlopen(asked, timeout=30) as answer:
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    sys.stdout.write(answer.read().decode())
"""


def test_once_and_json_say_what_was_counted(tap: Tap) -> None:
    assert tap.namespace.ping(tap.ours, count=3) == 3
    name = ("--name", tap.instance.name, "--interval", "0.6")
    shown = tap.namespace.run(*COMMAND, *name, "--once").stdout
    assert f"{tap.instance.name} up" in shown
    [neighbors] = [part for part in shown.split("\n\n") if part.startswith("Neighbors")]
    assert tap.kernel in neighbors
    top = tap.namespace.run(sys.executable, "-m", "halo_mp.cli", "top", *name, "--once").stdout
    assert top.startswith(f"{tap.instance.name} up")
    assert tap.kernel in top
    found = json.loads(tap.namespace.run(*COMMAND, *name, "--json").stdout)
    assert found["slots"]["0"]["worker"]["echo_replies"] >= 3
    assert [each["address"] for each in found["neighbors"]] == [tap.kernel]
    assert "connected" in {each["origin"] for each in found["routes"]}


def test_what_is_no_terminal_is_refused(tap: Tap) -> None:
    done = tap.namespace.run(*COMMAND, "--name", tap.instance.name, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "dashboard: This is no terminal. --once and --json print, --web serves.\n",
    )


def test_name_that_does_not_run_is_a_sentence(tap: Tap) -> None:
    for flags in (("--once",), ("--web",), ()):
        done = tap.namespace.run(*COMMAND, "--name", "nobody", *flags, check=False)
        assert done.returncode == 3
        assert "'nobody' is not running" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exporter_serves_openmetrics_until_it_is_told_to_end(tap: Tap, number: int) -> None:
    names = ("--name", tap.instance.name, "--name", "absent")
    exporter = tap.namespace.popen(
        *(sys.executable, "-m", "halo_mp.exporter", *names, "--listen", "127.0.0.1:0"), stdout=subprocess.PIPE
    )
    try:
        assert exporter.stdout is not None
        url = exporter.stdout.readline().decode().strip()
        answer = tap.namespace.run(sys.executable, "-c", ASK, url).stdout
    finally:
        exporter.send_signal(number)
        assert exporter.wait(30) == 0
    families = {family.name: family for family in text_string_to_metric_families(answer)}
    up = {sample.labels["name"]: sample.value for sample in families["halo_mp_up"].samples}
    assert up == {tap.instance.name: 1, "absent": 0}
    cpu = {
        sample.labels["process"]: sample.value for sample in families["halo_mp_process_cpu_seconds"].samples
    }
    assert set(cpu) == {"supervisor", "driver", "worker 0"}
    assert all(cpu.values())


def test_browser_shows_it_and_hears_keys(tap: Tap, tmp_path: Path) -> None:
    address = f"127.0.0.1:{PORT}"
    server = tap.namespace.popen(
        *COMMAND, "--name", tap.instance.name, "--web", address, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"http://{address}\n".encode()
        picture = tmp_path / "page.png"
        browser = (sys.executable, "-m", "tests.support.browser", str(picture))
        seen = json.loads(
            tap.namespace.run("env", f"--chdir={ROOT}", *browser, f"http://{address}/", "4").stdout
        )
        assert {urlsplit(url).netloc for url in seen["loaded"]} == {address}, "the page is whole by itself"
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert f"{tap.instance.name} up" in seen["before"]
    for tab in ("Ports", "Workers", "Drops", "Logs"):
        assert tab in seen["before"]
    assert "worker 0" in seen["after"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000, "a picture of nothing is small"


OPEN = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(sys.argv[1] + "/ws?width=80&height=24") as page:
            async for _ in page:
                print(flush=True)
asyncio.run(main())
"""


def test_pages_of_a_server_that_was_killed_end(tap: Tap) -> None:
    address = f"127.0.0.1:{PORT}"
    server = tap.namespace.popen(
        *COMMAND, "--name", tap.instance.name, "--web", address, stdout=subprocess.PIPE
    )
    browser = None
    pages: list[psutil.Process] = []
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"http://{address}\n".encode()
        browser = tap.namespace.popen(sys.executable, "-c", OPEN, f"http://{address}", stdout=subprocess.PIPE)
        assert browser.stdout is not None
        assert browser.stdout.readline() == b"\n", "a page shows something"
        pages = psutil.Process(server.pid).children(recursive=True)
        assert pages
        server.kill()
        browser.wait(30)
        server.wait(30)
        wait_until(lambda: not any(page.is_running() for page in pages), what="the end of its page")
    finally:
        for process in filter(None, (server, browser)):
            process.kill()
            process.wait()
        for page in pages:
            with contextlib.suppress(psutil.NoSuchProcess):
                page.kill()
