# SPDX-License-Identifier: Apache-2.0
"""UDP services and destinations of datagrams: what makes no sense is refused in a sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from halo_mp.app import App, Datagram, DatagramBurst
from halo_mp.app.udp import parse_destination


def take(datagram: Datagram) -> None:
    del datagram


async def wait(datagram: Datagram) -> None:
    del datagram


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": 0}, "port 0 is none; UDP ports are 1 to 65535"),
        ({"port": 65536}, "port 65536 is none"),
        ({"port": 7, "form": "frame"}, "form 'frame' is neither 'datagram' nor 'burst'"),
        ({"port": 7, "address": "10.0.0"}, "'10.0.0' is not an IPv4 address"),
    ],
)
def test_service_that_makes_no_sense_is_refused(options: dict[str, Any], sentence: str) -> None:
    app = App()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        app.udp(**options)(take)
    assert app.services == []


def test_service_that_is_a_coroutine_is_refused() -> None:
    with pytest.raises(TypeError, match="a coroutine can not be waited for here"):
        App().udp(7)(wait)


def test_destination_is_two_numbers() -> None:
    assert parse_destination(("10.0.0.1", 65535)) == (0x0A000001, 65535)


class Sends:
    """Stands for the buffers of a poll, of which nothing may be asked."""

    def send(self, octets: bytes, address: int, port: int) -> bool:
        raise AssertionError(f"{octets!r} would go to {address:#x}, port {port}")


@pytest.mark.parametrize("form", ["datagram", "burst"])
@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        (("10.0.0.1", 0), "port 0 is none"),
        (("10.0.0.1", -1), "port -1 is none"),
        (("10.0.0.1", 70000), "port 70000 is none"),
        (("a.name", 7), "'a.name' is not an IPv4 address"),
    ],
)
def test_destination_that_is_none_is_refused(form: str, to: tuple[str, int], sentence: str) -> None:
    parked: Any = Sends()
    records: Any = dict.fromkeys(("src", "sport", "dst", "length", "interface", "offset"))
    made: Datagram | DatagramBurst = (
        Datagram(parked, 0, (0, 0, 0, 0, 0, 0), 0)
        if form == "datagram"
        else DatagramBurst(parked, records, [], b"")
    )
    with pytest.raises(ValueError, match=sentence):
        made.send(b"x", to)
