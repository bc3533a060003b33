# SPDX-License-Identifier: Apache-2.0
"""KCP over kernel UDP, both ends processes in a namespace: ours by batches, and the reference's from PyPI.

HALO_KCP_RUNS and HALO_KCP_OCTETS make the transfers between the reference and our streams more and longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.namespace import Namespace

PORT = "4000"
RELAY = "4001"
RUNS = int(os.environ.get("HALO_KCP_RUNS", "1"))
OCTETS = int(os.environ.get("HALO_KCP_OCTETS", "1000000"))
CLASSIC = {"format": "classic", "congestion": "none", "send_window": 128, "receive_window": 128}
FAST = {"congestion": "none", "send_window": 1024, "receive_window": 1024}


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


@pytest.fixture
def relay(namespace: Namespace) -> Iterator[Callable[..., None]]:
    """Have a relay lose so many per cent of what goes to RELAY."""
    running = []

    def start(percent: float, seed: int = 7) -> None:
        words = ("tests.support.kcp_ends", "relay", RELAY, "127.0.0.1", PORT, str(percent), str(seed))
        running.append(namespace.popen(sys.executable, "-m", *words, stdout=subprocess.PIPE))
        assert running[-1].stdout.readline() == b"bound\n"

    yield start
    for each in running:
        each.kill()
        each.wait()
        each.stdout.close()


def end(whose: str, what: str, host: str, count: int, options: dict[str, Any], port: str = PORT) -> list[str]:
    words = [sys.executable, "-m", "tests.support.kcp_ends", whose, what, host, port, str(count)]
    return words if whose == "reference" else [*words, json.dumps(options)]


def transfer(
    namespace: Namespace,
    sender: str,
    receiver: str,
    *,
    count: int,
    host: str = "127.0.0.1",
    port: str = PORT,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Send so many octets; return what the sender says, once both have ended well."""
    words = end(receiver, "receive", host, count, options or {})
    with namespace.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receiving:
        assert receiving.stdout is not None
        assert receiving.stderr is not None
        try:
            assert receiving.stdout.readline() == b"bound\n", receiving.stderr.read()
            sent = namespace.run(*end(sender, "send", host, count, options or {}, port), check=False)
            assert sent.returncode == 0, sent.stderr
            _, complaints = receiving.communicate(timeout=30)
            assert (receiving.returncode, complaints) == (0, b"")
        finally:
            receiving.kill()
    found: dict[str, Any] = json.loads(sent.stdout)
    assert found["intact"]
    return found


def test_transfer_goes_by_few_system_calls(namespace: Namespace) -> None:
    found = transfer(namespace, "ours", "ours", count=20_000_000, options=FAST)
    assert found["offloads"] == 3
    assert found["sent"] > 10_000
    assert found["sent"] > 20 * found["send_calls"]
    assert found["received"] > 100


def test_transfer_over_a_path_that_refuses_segmentation(namespace: Namespace) -> None:
    namespace.run(
        "ip", "link", "set", "lo", "mtu", "1000"
    )  # less than a datagram: the kernel has to cut each
    found = transfer(namespace, "ours", "ours", count=2_000_000, options=FAST)
    assert found["offloads"] == 1, "segmentation was given up"
    assert found["sent"] > found["send_calls"]


def test_transfer_over_ipv6(namespace: Namespace) -> None:
    transfer(namespace, "ours", "ours", count=2_000_000, host="::1", options=FAST)


@pytest.mark.parametrize("check", ["crc32", "xxh3"])
def test_transfer_over_a_link_that_loses(
    namespace: Namespace, relay: Callable[[float], None], check: str
) -> None:
    relay(10)
    options = {"check": check, "congestion": "none"}
    found = transfer(namespace, "ours", "ours", count=300_000, port=RELAY, options=options)
    assert found["retransmitted"] > 0


@pytest.mark.parametrize(("sender", "receiver"), [("ours", "reference"), ("reference", "ours")])
@pytest.mark.parametrize("loss", [0, 5])
def test_reference_talks_to_ours(
    namespace: Namespace, relay: Callable[[float], None], sender: str, receiver: str, loss: int
) -> None:
    relay(loss)
    transfer(namespace, sender, receiver, count=1_000_000, port=RELAY, options=CLASSIC)


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize(("sender", "receiver"), [("streams", "reference"), ("reference", "streams")])
def test_reference_talks_to_streams(
    namespace: Namespace, relay: Callable[..., None], sender: str, receiver: str, run: int
) -> None:
    relay(3, seed=100 + run)
    found = transfer(namespace, sender, receiver, count=OCTETS, port=RELAY, options=CLASSIC)
    assert sender == "reference" or found["retransmitted"] > 0


def test_nobody_listens_is_told_at_once(namespace: Namespace) -> None:
    sent = namespace.run(*end("ours", "send", "127.0.0.1", 1, {}), check=False, timeout_s=30)
    assert "RefusedError: nobody has the peer's address and port" in sent.stderr
