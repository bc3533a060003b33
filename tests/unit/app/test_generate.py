# SPDX-License-Identifier: Apache-2.0
"""Streams of the generator on the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from halo_mp.app.generate import Stream, parse
from halo_mp.wire import ethernet, ipv4, udp


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("0=max", Stream(0)),
        ("63=1pps", Stream(63, pps=1)),
        ("1=1.5Mpps", Stream(1, pps=1.5e6)),
        ("1=500kpps,size=1514", Stream(1, pps=5e5, size=1514)),
        ("1=10Gbps,count=7", Stream(1, bps=1e10, count=7)),
        ("1=max,dst-mac=02:00:00:00:00:09", Stream(1, dst_mac=bytes.fromhex("020000000009"))),
        ("1=max,src=10.0.0.1,dst=10.0.0.2", Stream(1, src=0x0A000001, dst=0x0A000002)),
        ("1=max,sport=5,dport=7-9", Stream(1, sport=(5, 5), dport=(7, 9))),
    ],
)
def test_stream(text: str, stream: Stream) -> None:
    assert parse(text) == stream
    packet = ipv4.parse(ethernet.parse(stream.template()).payload)
    datagram = udp.parse(packet.payload, src=packet.src, dst=packet.dst)
    assert (len(stream.template()), packet.src, packet.dst) == (stream.size, stream.src, stream.dst)
    assert (datagram.src_port, datagram.dst_port) == (stream.sport[0], stream.dport[0])
    assert [field.count for field in stream.vary()] == [
        high - low + 1 for low, high in (stream.sport, stream.dport) if high > low
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "a stream begins with PORT=RATE"),
        ("0", "a stream begins with PORT=RATE"),
        ("64=max", "a stream begins with PORT=RATE"),
        ("0=fast", "'fast' is no rate"),
        ("0=5", "'5' is no rate"),
        ("0=pps", "'pps' is no rate"),
        ("0=0pps", "'0pps' is no rate"),
        ("0=-1pps", "'-1pps' is no rate"),
        ("0=nanpps", "'nanpps' is no rate"),
        ("0=1xpps", "'1xpps' is no rate"),
        ("0=5kMpps", "'5kMpps' is no rate"),
        ("0= 5pps", "' 5pps' is no rate"),
        ("0=max,size=41", "size=41: a number from 42 to 9000"),
        ("0=max,colour=red", "colour=red: there are size, count"),
        ("0=max,sport=9-7", "from the lower to the higher"),
        ("0=max,dport=65536", "a number from 0 to 65535"),
        ("0=max,src=10.0.0", "src=10.0.0"),
        ("0=max,dst-mac=02:00", "dst-mac=02:00"),
    ],
)
def test_stream_that_makes_no_sense(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_command_line_says_what_is_wrong() -> None:
    command = [sys.executable, "-m", "halo_mp.app.generate", "0=1kpps,size=5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "size=5: a number from 42 to 9000 was expected" in done.stderr
