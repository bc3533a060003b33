# SPDX-License-Identifier: Apache-2.0
"""`bench forward`: a router in one worker, from a net_pcap port to another port, against testpmd's macswap.

Ours looks up routes, checks, lowers the TTL, mends the checksum, and writes the neighbor's header; testpmd swaps MAC
addresses. One driver core and one worker core for us, one forwarding core for testpmd, on the same virtual devices and
hugepages, in alternating rounds. Frames have 60 octets and random destinations: 64 of them, as in `bench io`, against
testpmd, and 65,536 of them to compare one route with a million and with 64 equal paths. So many frames are colder, for
everybody: net_pcap keeps each in a buffer of its own.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bench import testpmd
from bench.frames import write_pcap_to
from bench.instance import Instance
from bench.io import HUGEPAGES, MEASURE_S, SETTLE_S
from bench.machine import hugepages, pick_cores, wait_until
from bench.rows import Row, interval, row_at_least, row_at_most, row_skipped
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import Region, region_name

FEW_FRAMES = 64
MANY_FRAMES = 65536
OCTETS = 60
BUFFERS = 2 * MANY_FRAMES
"""net_pcap keeps the frames of the file in buffers of the pool."""
ROUTES = 1_000_000
PATHS = 64
GO_MPPS = 7.9
"""What the Go ancestor reached in memory on this kind of machine."""
LOAD_TIMEOUT_S = 60.0
SEED = 20261122
_MAC = "02:00:00:00:00:{:02x}"
_ROUTER_MAC = "02:00:00:00:01:00"

# Prefixes of the lengths that are seen in the routing tables of the Internet, about as often as there.
_LENGTHS = (
    [24] * 60 + [23] * 8 + [22] * 11 + [21] * 5 + [20] * 5 + [19] * 3 + [18] * 2 + [17] * 2 + [16] * 3 + [12]
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A table of routes to forward by."""

    name: str
    devices: tuple[str, str]
    flags: tuple[str, ...]


def run(rounds: int) -> list[Row]:
    """Return rates, ratios, and what a million routes cost."""
    if not testpmd.is_there():
        return [row_skipped("forward", f"{testpmd.PROGRAM} is not installed")]
    with hugepages(HUGEPAGES) as there:
        if not there:
            return [row_skipped("forward", f"{HUGEPAGES} hugepages of 2 MiB cannot be had")]
        with tempfile.TemporaryDirectory() as directory:
            return _compare(Path(directory), rounds)


def _compare(directory: Path, rounds: int) -> list[Row]:
    dice = random.Random(SEED)
    routes = directory / "routes"
    write_routes(routes, dice)
    few, many = (
        pcap_devices(directory / f"{count}.pcap", count, dice) for count in (FEW_FRAMES, MANY_FRAMES)
    )
    default = ("--route", "default=10.1.0.2")
    paths = ",".join(f"10.1.0.{2 + number}" for number in range(PATHS))
    variants = [
        Variant("1_route", few, default),
        Variant("cold.1_route", many, default),
        Variant("1M_routes", many, (*default, "--routes-file", str(routes))),
        Variant("ecmp64", many, ("--route", f"default={paths}")),
    ]
    rates: dict[str, list[float]] = {variant.name: [] for variant in variants}
    theirs: dict[int, list[float]] = {32: [], 64: []}
    loads: list[tuple[float, float]] = []
    for _ in range(rounds):
        for variant in variants:
            with router(variant.devices, variant.flags) as instance:
                if "--routes-file" in variant.flags:
                    loads.append(_loaded(instance))
                time.sleep(SETTLE_S)
                rates[variant.name].append(instance.tx_rate(MEASURE_S))
        for burst, found in theirs.items():
            found.append(testpmd.tx_rate(few, mode="macswap", burst=burst, huge=True))
    return [*_rate_rows(rates, theirs), *_load_rows(loads)]


def pcap_devices(path: Path, frames: int, dice: random.Random) -> tuple[str, str]:
    """Write so many frames; return the virtual devices of a port that receives them and one that sends."""
    write_pcap_to(path, [_destination(dice) for _ in range(frames)], octets=OCTETS, dst_mac=_ROUTER_MAC)
    return f"net_pcap0,rx_pcap={path},infinite_rx=1", "net_null1,no-rx=1"


def _rate_rows(rates: dict[str, list[float]], theirs: dict[int, list[float]]) -> Iterator[Row]:
    burst = max(theirs, key=lambda each: statistics.median(theirs[each]))
    peer = statistics.median(theirs[burst])
    one = statistics.median(rates["1_route"])
    note = f"testpmd: {interval(theirs[burst])}"
    yield row_at_least(
        "forward.1_route.ratio_testpmd", one / peer, "ratio", 0.45,
        peer=f"testpmd macswap, burst {burst}, frames/s", peer_value=peer, note=note,
    )  # fmt: skip
    yield row_at_least(
        "forward.1_route.mpps", one / 1e6, "Mpps", 2.5 * GO_MPPS,
        peer="the Go ancestor in memory, Mpps", peer_value=GO_MPPS, note=interval(rates["1_route"]),
    )  # fmt: skip
    cold = statistics.median(rates["cold.1_route"])
    for metric, name, least in (
        ("forward.1M_routes.ratio_1_route", "1M_routes", 0.7),
        ("forward.ecmp64.ratio_1_route", "ecmp64", 0.9),
    ):
        yield row_at_least(
            metric, statistics.median(rates[name]) / cold, "ratio", least,
            peer="1 route, same frames, frames/s", peer_value=cold,
            note=f"{interval(rates[name])}; 1 route: {interval(rates['cold.1_route'])}",
        )  # fmt: skip


def _load_rows(loads: list[tuple[float, float]]) -> Iterator[Row]:
    seconds, megabytes = ([pair[i] for pair in loads] for i in (0, 1))
    yield row_at_most("routes.load_s", statistics.median(seconds), "s", 5.0, note=interval(seconds))
    yield row_at_most("routes.memory_mb", statistics.median(megabytes), "MB", 200.0, note=interval(megabytes))


@contextlib.contextmanager
def router(vdevs: Sequence[str], flags: Sequence[str]) -> Iterator[Instance]:
    """An instance on two ports, each with its own slot; the neighbors behind port 1 are known."""
    driver_core, worker_core = pick_cores(2)
    arguments = [
        "--log-format",
        "json",
        "--ports",
        "0,1",
        "--slot",
        "0=0",
        "--slot",
        "1=1",
        "--hugepages",
        "2M",
        "--spare",
        "0",
    ]
    arguments += ["--driver-cores", str(driver_core), "--cores", f"{worker_core},{worker_core}"]
    arguments += [
        "--pool-size",
        str(BUFFERS),
        "--address",
        "0=10.0.0.1/24",
        "--address",
        "1=10.1.0.1/24",
        "--mac",
        f"0={_ROUTER_MAC}",
    ]
    arguments += [word for device in vdevs for word in ("--vdev", device)]
    for number in range(PATHS):
        arguments += ["--neighbor", f"1=10.1.0.{2 + number},{_MAC.format(2 + number)}"]
    with Instance([*arguments, *flags], slots=2) as instance:
        yield instance


def write_routes(path: Path, dice: random.Random) -> None:
    """Write a million routes to different prefixes, spread over the paths."""
    seen: set[tuple[int, int]] = set()
    while len(seen) < ROUTES:
        length = dice.choice(_LENGTHS)
        seen.add((_destination(dice) & 0xFFFFFFFF << (32 - length), length))
    lines = (
        f"{IPv4Address(prefix)}/{length} 10.1.0.{2 + number % PATHS}\n"
        for number, (prefix, length) in enumerate(sorted(seen))
    )
    path.write_text("".join(lines))


def _destination(dice: random.Random) -> int:
    """An address that anybody may have, and that none of our links has."""
    while True:
        address = dice.getrandbits(32)
        if 11 <= address >> 24 < 224 and address >> 24 != 127 and address >> 16 != 0xA9FE:
            return address


def _loaded(instance: Instance) -> tuple[float, float]:
    """Return the seconds that loading took, as the supervisor says, and the memory that the tables take, in MB."""
    wait_until(lambda: _events(instance, "routes.loaded"), LOAD_TIMEOUT_S, "the routes")
    (event,) = _events(instance, "routes.loaded")
    regions = [
        Region.attach(region_name(instance.name, kind.name.lower()), kind, writable=False)
        for kind in (RegionKind.FIB, RegionKind.ROUTES)
    ]
    try:
        octets = sum(region.resident_octets for region in regions)
    finally:
        for region in regions:
            region.close()
    return float(event["seconds"]), octets / 1e6


def _events(instance: Instance, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in instance.log().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]
