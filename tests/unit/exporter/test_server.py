# SPDX-License-Identifier: Apache-2.0
"""Metrics over HTTP to those who scrape as they should, and to others."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import prometheus_client
import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from halo_mp.exporter import server
from halo_mp.exporter.collector import InstanceCollector
from tests.support.namespace import wait_until
from tests.support.regions import Regions

SHORT_S = 0.5  # of the server's patience, in tests


@pytest.fixture
def address(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(server._Handler, "timeout", SHORT_S)
    registry = prometheus_client.CollectorRegistry()
    collector = InstanceCollector([regions.instance], regions.base)
    registry.register(collector)
    listening = server.listen(registry, "127.0.0.1", 0)
    # So that an answer does not fit into what the kernel keeps for who does not read.
    listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield "127.0.0.1", listening.server_port
    listening.shutdown()
    listening.server_close()
    thread.join()
    collector.close()


def scrape(address: tuple[str, int]) -> bytes:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_several_scrape_at_once(address: tuple[str, int]) -> None:
    found: list[bytes] = []
    scrapers = [threading.Thread(target=lambda: found.append(scrape(address))) for _ in range(8)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert len(found) == 8
    assert all(b"halo_mp_up{" in text for text in found)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
        b"\0" * 70000,
        b"\r\n" * 50,
        b"BREW / HTTP/9.9\r\n\r\n",
    ],
)
def test_who_says_nothing_or_nonsense_is_let_go_and_others_are_served(
    address: tuple[str, int], said: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        for _ in range(5):
            other = stack.enter_context(socket.create_connection(address))
            other.sendall(said)
        assert b"halo_mp_up{" in scrape(address)
        wait_until(lambda: threads() == 0, what="the end of their threads")
    assert capfd.readouterr().err == ""


def test_who_asks_and_does_not_read_is_let_go(
    address: tuple[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        other.connect(address)
        other.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"halo_mp_up{" in scrape(address)
        wait_until(lambda: threads() == 0, what="the end of its thread")
    assert capfd.readouterr().err == ""


def test_more_than_can_be_served_are_closed(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._Handler, "timeout", 30)
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address)) for _ in range(server.MOST_REQUESTS)]
        wait_until(lambda: threads() == server.MOST_REQUESTS, what="a thread for each")
        with socket.create_connection(address) as one_more:
            one_more.settimeout(30)
            assert one_more.recv(1) == b""
        held[0].close()
        wait_until(lambda: threads() < server.MOST_REQUESTS, what="a free one")
        assert b"halo_mp_up{" in scrape(address)


def test_fault_of_ours_is_an_answer_and_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Collector):
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            raise ZeroDivisionError

    registry = prometheus_client.CollectorRegistry()
    registry.register(Broken())
    with server.listen(registry, "127.0.0.1", 0) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", listening.server_port, timeout=30)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 500
        connection.close()
        thread.join()
        wait_until(lambda: threads() == 0, what="the end of its thread")
    assert "ZeroDivisionError" in capfd.readouterr().err
