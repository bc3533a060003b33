# SPDX-License-Identifier: Apache-2.0
"""`bench hooks`: one worker whose application looks at each packet, in three forms; against none at all.

Frames of 60 octets from a net_pcap port leave by a net_null port, as in `bench io`. Each hook filters on two fields and
rewrites one. Peers that a user could use instead, Scapy and dpkt, parse a frame, change the TTL and build it again, in
a process of their own, where they are installed.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.frames import udp_frame, write_pcap
from bench.instance import Instance
from bench.io import FRAMES, MEASURE_S, SETTLE_S
from bench.machine import pick_cores
from bench.rows import Row, interval, row_at_least

OCTETS = 60
APP = Path(__file__).with_name("hook_app.py")
FORMS = ("none", "packet", "burst", "jit")
PEER_S = 0.5


def run(rounds: int) -> list[Row]:
    """Return the rates of the three forms, and what compiled code costs."""
    rates: dict[str, list[float]] = {form: [] for form in FORMS}
    peers: dict[str, list[float]] = {name: [] for name in PEERS if importlib.util.find_spec(name)}
    with tempfile.TemporaryDirectory() as directory:
        pcap = Path(directory) / "frames.pcap"
        write_pcap(pcap, octets=OCTETS, count=FRAMES)
        for _ in range(rounds):
            for form, found in rates.items():
                found.append(measure(form, pcap))
            for name, found in peers.items():
                found.append(_peer_rate(PEERS[name]))
    return [*_rows(rates), *_peer_rows(rates, peers)]


def measure(form: str, pcap: Path) -> float:
    """Start an instance, measure, stop it; return frames per second that left."""
    driver_core, worker_core = pick_cores(2)
    arguments = ["--ports", "0,1", "--macswap", "0=1", "--slot", "0=0", "--slot", "1=1", "--spare", "0"]
    arguments += ["--driver-cores", str(driver_core), "--cores", f"{worker_core},{worker_core}"]
    arguments += ["--vdev", f"net_pcap0,rx_pcap={pcap},infinite_rx=1", "--vdev", "net_null1,no-rx=1"]
    if form != "none":
        arguments += ["--app", f"{APP}:{form}"]
    with Instance(arguments, slots=2) as instance:
        time.sleep(SETTLE_S)
        rate = instance.tx_rate(MEASURE_S)
        if form != "none" and instance.slot().hook[0].packets == 0:
            raise RuntimeError(f"the hook of form {form} was shown nothing:\n{instance.log()}")
        return rate


def _rows(rates: dict[str, list[float]]) -> Iterator[Row]:
    none = statistics.median(rates["none"])
    for form, least in (("packet", 1.0), ("burst", 8.0)):
        found = rates[form]
        yield row_at_least(
            f"hooks.{form}.mpps", statistics.median(found) / 1e6, "Mpps", least,
            peer="no application, frames/s", peer_value=none, note=interval(found),
        )  # fmt: skip
    ratios = [ours / its for ours, its in zip(rates["jit"], rates["none"], strict=True)]
    yield row_at_least(
        "hooks.jit.ratio_none", statistics.median(ratios), "ratio", 0.8,
        peer="no application, frames/s", peer_value=none, note=interval(ratios),
    )  # fmt: skip
    yield Row(
        metric="hooks.jit.mpps",
        value=statistics.median(rates["jit"]) / 1e6,
        unit="Mpps",
        note=interval(rates["jit"]),
    )


def _peer_rows(rates: dict[str, list[float]], peers: dict[str, list[float]]) -> Iterator[Row]:
    ours = statistics.median(rates["packet"])
    for name, found in peers.items():
        its = statistics.median(found)
        yield Row(
            metric=f"hooks.packet.ratio_{name}",
            value=ours / its,
            unit="ratio",
            peer=f"{name}, frames/s",
            peer_value=its,
            note=interval(found),
        )


def _peer_rate(make: Callable[[], Callable[[bytes], object]]) -> float:
    handle = make()
    frames = [udp_frame(number, OCTETS) for number in range(FRAMES)]
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < PEER_S:
        for frame in frames:
            handle(frame)
        count += len(frames)
    return count / elapsed


def _scapy() -> Callable[[bytes], object]:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    def handle(frame: bytes) -> bytes | None:
        packet = Ether(frame)
        if packet[UDP].dport == 9 and packet[IP].src.startswith("10."):
            return None
        packet[IP].ttl -= 1
        del packet[IP].chksum
        return bytes(packet)

    return handle


def _dpkt() -> Callable[[bytes], object]:
    import dpkt

    def handle(frame: bytes) -> bytes | None:
        packet = dpkt.ethernet.Ethernet(frame)
        ip = packet.data
        if ip.data.dport == 9 and ip.src[0] == 10:
            return None
        ip.ttl -= 1
        ip.sum = 0
        return bytes(packet)

    return handle


PEERS: dict[str, Callable[[], Callable[[bytes], object]]] = {"dpkt": _dpkt, "scapy": _scapy}
