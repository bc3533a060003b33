# SPDX-License-Identifier: Apache-2.0
"""The applications of docs/embedding.md's section on UDP, and the examples of the same, answer a kernel."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace
from tests.support.station import socket_in

OURS = "10.77.0.1"


def blocks() -> dict[str, str]:
    """Return the Python of the section by the file name that each block starts with."""
    section = re.split(r"^## ", (ROOT / "docs/embedding.md").read_text(), flags=re.MULTILINE)
    [udp] = [part for part in section if part.startswith("UDP\n")]
    found = re.findall(r'```python\n("""([\w.]+):.*?)```', udp, re.DOTALL)
    return {name: code for code, name in found}


@contextmanager
def answering(app: Path) -> Iterator[socket.socket]:
    """An instance with this application, and a socket of the kernel behind its port."""
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0", "--app", f"{app}:app") as instance:
            ledger = Ledger(instance, 0)
            with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.settimeout(10.0)
                yield peer
            assert not instance.events("protocol.error")
            ledger.assert_balanced()
            assert instance.stop() == 0


def ask(peer: socket.socket, port: int, data: bytes) -> bytes:
    peer.sendto(data, (OURS, port))
    answer, source = peer.recvfrom(65536)
    assert source == (OURS, port)
    return answer


def test_there_is_something_to_run() -> None:
    assert set(blocks()) == {"echo_server.py", "services.py"}


def test_echo_server(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    app = tmp_path / "echo_server.py"
    app.write_text(blocks()["echo_server.py"])
    _open_up(app)
    with answering(app) as peer:
        for data in (b"hello", b"", bytes(3000)):
            assert ask(peer, 7, data) == data


def test_services(tmp_path: Path) -> None:
    app = tmp_path / "services.py"
    app.write_text(blocks()["services.py"])
    _open_up(app)
    with answering(app) as peer:
        for data in (b"hello", b"", bytes(3000)):
            assert ask(peer, 7, data) == data
        for octets in (4, 1472, 3000):
            assert ask(peer, 9, bytes(octets)) == b"\xff" * 4 + bytes(octets - 4)
        peer.sendto(b"abc", (OURS, 9))
        assert ask(peer, 7, b"next") == b"next", "what is too short is not answered"


@pytest.mark.parametrize(
    ("example", "data", "answer"),
    [
        ("udp_echo_asyncio.py", b"HELLO", b"HELLO"),
        ("udp_echo.py", b"HELLO", b"HELLO"),
        ("udp_echo.py", b"time", rb"\d+\.\d{6} s\n"),
        ("udp_echo_burst.py", b"HELLO", b"hELLO"),
    ],
)
def test_example(example: str, data: bytes, answer: bytes) -> None:
    with answering(ROOT / "examples" / example) as peer:
        assert re.fullmatch(answer, ask(peer, 7, data))


def test_http3_server_answers_a_client_on_sockets_of_the_kernel() -> None:
    with Namespace() as namespace:
        namespace.silence()
        program = sys.executable, str(ROOT / "examples/http3_server.py")
        with Instance(namespace, "--ports", "0,1", program=program) as instance:
            ledger = Ledger(instance, 0, 1)
            for own in (OURS, "10.77.1.1"):  # by the other worker's port too: it hands over
                got = namespace.run(
                    sys.executable, str(ROOT / "tests/support/http3_get.py"), own, "4433", "/hello", "/300000"
                )
                assert json.loads(got.stdout) == [
                    ["200", 21, "you asked for /hello\n"],
                    ["200", 300000, "\0" * 40],
                ]
            assert not instance.events("protocol.error")
            ledger.assert_balanced()
            assert instance.stop() == 0


def _open_up(path: Path) -> None:
    """Let the workers' user read it: pytest keeps its folders to itself."""
    path.chmod(0o644)
    for parent in list(path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
