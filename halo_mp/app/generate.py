# SPDX-License-Identifier: Apache-2.0
"""A traffic generator on the command line: `python -m halo_mp.app.generate 0=1Mpps,size=60`.

It becomes a supervisor with --tx-only whose workers run this module as their application, each the streams of its
ports. Everything else on the command line goes to the supervisor. Addresses are those that RFC 2544 keeps for
benchmarks, and the station is nobody's, unless a stream says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from halo_mp.app import App, Vary, Worker
from halo_mp.app.launch import SUPERVISOR
from halo_mp.wire import ethernet, ipv4, udp

STREAMS: Final = "HALO_MP_GENERATE"
"""In the environment of the workers: the streams, as they were typed."""

app = App("generate")

_HEADERS_OCTETS: Final = 42
_MOST_OCTETS: Final = 9000
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)([pb]ps)", re.ASCII)
_SCALES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_FIELDS: Final = "size, count, dst-mac, src-mac, src, dst, sport, dport"
_EXAMPLE: Final = "write for example 0=1Mpps,size=60,sport=1024-2047"


@dataclass(frozen=True, slots=True)
class Stream:
    """What leaves by a port: UDP, so much of it a second. 0 is no limit."""

    port: int
    pps: float = 0
    bps: float = 0
    size: int = 60
    count: int = 0
    dst_mac: bytes = bytes.fromhex("02fe00000001")
    src_mac: bytes = bytes.fromhex("02fe00000002")
    src: int = 0xC6120001  # 198.18.0.1
    dst: int = 0xC6130001
    sport: tuple[int, int] = (1024, 1024)
    dport: tuple[int, int] = (9, 9)

    def template(self) -> bytes:
        """Return a frame of it."""
        datagram = udp.UdpDatagram(self.sport[0], self.dport[0], bytes(self.size - _HEADERS_OCTETS))
        octets = datagram.emit(src=self.src, dst=self.dst)
        packet = ipv4.Ipv4Packet(src=self.src, dst=self.dst, protocol=ipv4.PROTOCOL_UDP, payload=octets)
        return ethernet.EthernetFrame(
            self.dst_mac, self.src_mac, ethernet.ETHERTYPE_IPV4, packet.emit()
        ).emit()

    def vary(self) -> list[Vary]:
        """Return the ports that differ from frame to frame."""
        ranges = (("udp.sport", self.sport), ("udp.dport", self.dport))
        return [Vary.field(name, low, count=high - low + 1) for name, (low, high) in ranges if high > low]


def parse(text: str) -> Stream:
    """Return the stream that `PORT=RATE[,NAME=VALUE...]` says. Raises ValueError with a sentence."""
    head, *settings = text.split(",")
    port, _, rate = head.partition("=")
    if not (port.isdecimal() and int(port) < 64 and rate):
        raise ValueError(f"{text!r}: a stream begins with PORT=RATE; {_EXAMPLE}")
    stream = _with_rate(Stream(int(port)), rate)
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            stream = _with(stream, name, value)
        except ValueError as error:
            raise ValueError(f"{text!r}: {name}={value}: {error}") from None
    return stream


def _with_rate(stream: Stream, rate: str) -> Stream:
    if rate == "max":
        return stream
    if found := _RATE.fullmatch(rate):
        number, scale, unit = found.groups()
        value = float(number) * _SCALES[scale]
        if 1 <= value <= 1e12:
            return replace(stream, pps=value) if unit == "pps" else replace(stream, bps=value)
    raise ValueError(f"{rate!r} is no rate: write a number with pps or bps, such as 500kpps or 1Gbps, or max")


def _with(stream: Stream, name: str, value: str) -> Stream:
    match name:
        case "size":
            return replace(stream, size=_number(value, _HEADERS_OCTETS, _MOST_OCTETS))
        case "count":
            return replace(stream, count=_number(value, 1, 10**15))
        case "dst-mac":
            return replace(stream, dst_mac=ethernet.parse_mac(value))
        case "src-mac":
            return replace(stream, src_mac=ethernet.parse_mac(value))
        case "src":
            return replace(stream, src=ipv4.parse_address(value))
        case "dst":
            return replace(stream, dst=ipv4.parse_address(value))
        case "sport":
            return replace(stream, sport=_range(value))
        case "dport":
            return replace(stream, dport=_range(value))
    raise ValueError(f"there are {_FIELDS}")


def _number(value: str, least: int, most: int) -> int:
    if not (value.isdecimal() and least <= int(value) <= most):
        raise ValueError(f"a number from {least} to {most} was expected")
    return int(value)


def _range(value: str) -> tuple[int, int]:
    low, _, high = value.partition("-")
    found = _number(low, 0, 65535), _number(high or low, 0, 65535)
    if found[0] > found[1]:
        raise ValueError("a range goes from the lower to the higher port")
    return found


@app.task
async def generate(worker: Worker) -> None:
    """Run the streams of this worker's ports."""
    streams = [parse(text) for text in os.environ[STREAMS].split()]
    await asyncio.gather(*(run(worker, stream) for stream in streams if stream.port in worker.ports))


async def run(worker: Worker, stream: Stream) -> None:
    """Send one stream to its end."""
    with worker.port(stream.port).blaster(stream.template(), vary=stream.vary()) as blaster:
        await blaster.run(pps=stream.pps, bps=stream.bps, count=stream.count)
    sent = blaster.sent
    worker.log.info("port %d: sent %d frames, %d octets", stream.port, sent.frames, sent.octets)


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the supervisor that generates."""
    parser = argparse.ArgumentParser(
        prog="python -m halo_mp.app.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"RATE is max, or a number with pps or bps: 500kpps, 1.5Mpps, 1Gbps of the frames' own octets.\n"
        f"NAME is one of {_FIELDS}; sport and dport may be ranges, A-B. Ctrl-C ends it.",
    )
    parser.add_argument(
        "streams", nargs="+", metavar="PORT=RATE[,NAME=VALUE...]", help="what leaves by a port"
    )
    options, flags = parser.parse_known_args(arguments)
    try:
        ports = sorted({parse(text).port for text in options.streams})
    except ValueError as error:
        parser.error(str(error))
    os.environ[STREAMS] = " ".join(options.streams)
    command = [sys.executable, *SUPERVISOR, "--app", "halo_mp.app.generate", "--tx-only"]
    os.execv(sys.executable, [*command, "--ports", ",".join(map(str, ports)), *flags])


if __name__ == "__main__":
    main(sys.argv[1:])
