# SPDX-License-Identifier: Apache-2.0
"""The pictures of the dashboard in docs/images, of an instance that is made up: `python -m tests.docs.pictures`."""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
import tempfile
from collections import deque
from dataclasses import replace
from html import unescape
from pathlib import Path

from halo_mp.control.public import NeighborInfo, RouteInfo
from halo_mp.dashboard.app import Dashboard
from halo_mp.dashboard.feed import Asked, Feed, Frame
from halo_mp.shm.layout import DROP_NAMES
from halo_mp.stats.processes import ProcessStats
from halo_mp.stats.reader import Reader
from halo_mp.stats.status_model import ReportLine
from tests.support.regions import Regions

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
PICTURES = {
    "dashboard-80x24": ((80, 24), "ports", ()),
    "dashboard-80x24-now": ((80, 24), "now", ()),
    "dashboard-120x30": ((120, 30), "drops", ()),
    "dashboard-200x24": ((200, 24), "workers", ("space",)),
}
SECONDS = 61
STARTED = 1_763_820_000.0
PORTS = 4


class Scene(Feed):
    """A feed whose frames are there already."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = deque(frames)
        self.asked = frames[-1].asked

    def frame(self, *, lines: bool = True) -> Frame:
        """Return the last one."""
        return self.frames[-1]


def scene(base: Path) -> Scene:
    """Return a minute of a router with four ports, one of which is quiet."""
    with Regions(f"p{os.getpid() % 100000}", base, slots=PORTS, ring_size=16384) as regions:
        return Scene(_frames(regions))


def _frames(regions: Regions) -> list[Frame]:
    frames: list[Frame] = []
    before = None
    with Reader(regions.instance, base=regions.base) as reader:
        for second in range(SECONDS):
            for port in range(PORTS):
                _pass(regions, port, second)
            read = reader.read()
            status = replace(read.status, since=STARTED, reports=(DIED,))
            now = replace(
                read, instance="default", now=float(second), at=STARTED + 8000 + second, status=status
            )
            frames.append(
                Frame(
                    now=now,
                    before=before or now,
                    processes=_processes(second),
                    processes_before=_processes(second - 1),
                    peaks={port: 900 + 150 * port for port in range(PORTS - 1)},
                    asked=ASKED,
                    events=EVENTS,
                )
            )
            before = now
    return frames[1:]


def _pass(regions: Regions, port: int, second: int) -> None:
    """Have a second of frames pass."""
    wave = 1 + 0.6 * math.sin(second / (4 + 3 * port)) + 0.2 * math.sin(second * 1.7 + port)
    frames = round(2_400_000 * wave / (port + 1)) if port < PORTS - 1 else 0
    other = (port + 1) % (PORTS - 1)
    status, slot = regions.ports.pointer.port[port], regions.slots[port].pointer
    status.rx_frames += frames
    status.rx_octets += 412 * frames
    regions.ports.pointer.port[other].tx_frames += frames
    regions.ports.pointer.port[other].tx_octets += 412 * frames
    slot.worker.rx_frames += frames
    slot.worker.tx_frames += frames
    slot.worker.rx_bursts += frames // 51
    slot.worker.neighbors = 12 - 3 * port
    slot.driver.outstanding = 600 + 40 * port
    for name, share in (("ipv4_no_route", 4000), ("ipv4_ttl", 70000), ("rx_ring_full", 900000)):
        slot.worker.drops[DROP_NAMES.index(name)] += frames // (share * (port + 1))
    slot.rx.producer = slot.rx.consumer + frames // 20000
    slot.load.burst[6] += frames // 51
    slot.load.lag[3 + port] += 80
    slot.load.lag_max_ns = 1_900_000 + 310_000 * port
    slot.load.rx_depth_max = 2300 + 512 * port
    slot.load.timed_frames += frames // 64
    for stage, cycles in enumerate((9, 12, 8, 11, 14, 13)):
        slot.load.cycles[stage] += (cycles + port) * (frames // 64)
    slot.status.place = 2 if port == PORTS - 1 else 0


def _processes(second: int) -> list[ProcessStats]:
    def process(name: str, cpu: float, mebibytes: int, core: int) -> ProcessStats:
        role, _, slot = name.partition(" ")
        return ProcessStats(
            name=name,
            role=role,
            slot=int(slot) if slot else None,
            pid=4200 + core * 3 + len(name),
            state="ready",
            since=STARTED + 2,
            restarts=0,
            note="",
            cpu_s=cpu * second,
            affinity=(core,),
            core=core,
            resident_octets=mebibytes << 20,
            threads=3,
            open_files=24,
            switches=30 * second,
            minor_faults=5000,
        )

    workers = [process(f"worker {at}", 0.97 / (at + 1), 26, 2 + at) for at in range(PORTS)]
    return [process("supervisor", 0.011, 47, 0), process("driver", 0.99, 58, 1), *workers]


DIED = ReportLine(
    name="the worker of slot 2", pid=4219, ended_at=STARTED + 8058, reason="was killed by SIGKILL"
)
EVENTS = (
    "2025-11-22T14:20:00.112Z INFO  supervisor instance.up instance=default workers=4",
    "2025-11-22T15:58:11.030Z INFO  supervisor port.link port=3 device=0000:03:00.1 up=no",
    "2025-11-22T15:58:41.907Z INFO  supervisor port.link port=3 device=0000:03:00.1 up=yes",
    '2025-11-22T16:14:18.001Z WARN  supervisor worker.died slot=2 pid=4219 reason="was killed by SIGKILL"',
    "2025-11-22T16:14:18.044Z INFO  supervisor worker.ready slot=2 pid=4220",
)
ASKED = Asked(
    neighbors=tuple(
        NeighborInfo(
            interface=str(at % 3),
            address=f"10.77.{at % 3}.{20 + at}",
            mac=f"02:00:00:00:01:{at:02x}",
            static=at == 0,
        )
        for at in range(12)
    ),
    routes=tuple(
        RouteInfo(prefix=f"10.{at}.0.0/16", hops=(f"10.77.{at % 3}.20",), origin="static") for at in range(40)
    ),
)


def draw(name: str, feed: Feed) -> str:
    """Return a picture as SVG."""
    size, tab, keys = PICTURES[name]

    async def run() -> str:
        app = Dashboard(feed, lambda: feed.asked, ticking=False)
        async with app.run_test(size=size) as pilot:
            app.action_show(tab)
            await pilot.pause()
            await pilot.press(*keys)
            await pilot.pause()
            return app.export_screenshot(title=f"halo-mp, {size[0]} by {size[1]}")

    return asyncio.run(run())


def text_of(svg: str) -> str:
    """Return the text in a picture, without its colours and places."""
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return " ".join(" ".join(unescape(part).replace("\xa0", " ").split()) for part in found).strip()


def main() -> int:
    """Write the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        feed = scene(Path(base))
    for name in PICTURES:
        (IMAGES / f"{name}.svg").write_text(draw(name, feed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
