# SPDX-License-Identifier: Apache-2.0
"""A driver or worker that speaks the private protocol and misbehaves on cue; no frames move.

    fake_child.py driver|worker --plan FILE [--slot N] --runtime DIR --instance NAME

The plan, JSON, says for each role ("driver", "worker.0") what each of its lives does; the last goes on for the lives
behind it. A cue is "action@stage" or "action:argument@stage", several with spaces between. What happens is appended to
FILE.journal, a JSON object on each line.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from halo_mp.control.channel import ChannelError, connect
from halo_mp.control.inbox import close_all
from halo_mp.control.messages import PRIVATE_VERSION
from halo_mp.shm.identity import boot_id
from halo_mp.shm.layout import Place, RegionKind, SlotState, WorkerState
from halo_mp.shm.region import Region


class Child:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name = options.role if options.slot is None else f"worker.{options.slot}"
        self.life = sum(
            entry["name"] == self.name and entry["event"] == "start" for entry in self.read_journal()
        )
        lives = json.loads(options.plan.read_text()).get(self.name, [""])
        self.cues = dict(reversed(cue.split("@")) for cue in lives[min(self.life, len(lives) - 1)].split())
        self.end = asyncio.get_running_loop().create_future()
        self.progressing = True
        self.regions: list[Region] = []

    def read_journal(self) -> list[dict[str, Any]]:
        path = self.options.plan.with_suffix(".journal")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def note(self, event: str, **fields: object) -> None:
        entry = {"name": self.name, "life": self.life, "pid": os.getpid(), "event": event, **fields}
        fd = os.open(self.options.plan.with_suffix(".journal"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, (json.dumps(entry) + "\n").encode())
        os.close(fd)

    async def stage(self, stage: str) -> None:
        """Do what the plan has for this stage."""
        cue, _, argument = self.cues.get(stage, "").partition(":")
        if not cue:
            return
        self.note("cue", cue=cue, stage=stage)
        match cue:
            case "exit":
                os._exit(int(argument))
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "block":
                time.sleep(1000)  # noqa: ASYNC251
            case "wait":
                await asyncio.sleep(1000)
            case "freeze":
                self.progressing = False
            case "ignore":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "failed":
                await self.channel.send(
                    {"type": "failed", "kind": "test", "error": argument.replace("_", " ")}
                )
                os._exit(5)
            case "grandchild":
                process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])  # noqa: ASYNC220
                self.note("grandchild", child=process.pid)
            case "garbage":
                self.socket().send(b"\xff" * 100)
            case "fds":
                for _ in range(50):
                    await self.channel.send({"type": "attached", "pid": 0}, [0, 1, 2])
            case (
                "repeat"
            ):  # everything that it may say, each so many times, with descriptors nobody asked for
                learned = {"type": "learned", "neighbors": [[0, 0, 1, b"\2\0\0\0\0\1"]]}
                for message in ({"type": "attached", "pid": 0}, {"type": "ready"}, learned):
                    for _ in range(int(argument)):
                        await self.channel.send(message, [0, 1, 2])
                self.note("repeated")
            case "learn":
                await self.channel.send(
                    {"type": "learned", "neighbors": [[0, 0, int(argument), b"\2\0\0\0\0\1"]]}
                )
            case "lose":
                lost = {"type": "port.lost", "port": int(argument), "device": "gone", "reason": "test"}
                await self.channel.send(lost)
            case "linger":
                await asyncio.sleep(float(argument))
            case "say":
                await self.channel.send({"type": argument})
            case "wrong" | "python":
                pass  # looked at elsewhere
            case "break":
                self.slot.pointer.life.state = SlotState.BROKEN
            case _:
                raise AssertionError(cue)

    async def soon(self) -> None:
        """A stage for what shall happen once progress has been seen."""
        await asyncio.sleep(0.4)
        await self.stage("soon")

    def socket(self) -> socket.socket:
        return self.channel._socket

    async def run(self) -> int:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.on_term)
        self.note("start", cores=sorted(os.sched_getaffinity(0)), session=os.getsid(0) == os.getpid())
        await self.stage("start")
        self.channel = await connect(self.options.runtime / "private.sock")
        hello = {"type": "hello", "role": self.options.role, "pid": os.getpid(), "version": PRIVATE_VERSION}
        if self.options.slot is not None:
            hello["slot"] = self.options.slot
        if self.cues.get("hello") == "wrong":
            hello["version"] = 999
        await self.channel.send(hello | {"boot_id": boot_id()})
        await self.stage("hello")
        serving = asyncio.create_task(self.serve())
        status = await self.end
        serving.cancel()
        for region in self.regions:
            region.close()
        return int(status)

    def on_term(self) -> None:
        self.note("term")
        self.finish(0)

    def finish(self, status: int) -> None:
        if not self.end.done():
            self.end.set_result(status)

    async def serve(self) -> None:
        try:
            await self.channel.serve(self.handle)
        except ChannelError:
            pass
        self.note("lost")
        if "lost" in self.cues:  # an orphan, as long as it is let
            await asyncio.sleep(1000)
        self.finish(1)

    async def handle(self, message: dict[str, Any], fds: list[int]) -> None:
        if message["type"] == "stop":
            self.note("stop")
            if self.cues.get("configured") == "ignore":
                return
            await self.channel.reply(message)
            self.finish(0)
        elif message["type"] == "configure":
            self.note("configured", fds=len(fds))
            await self.configure(message, fds)
        else:
            close_all(fds)
            await self.command(message)

    def attach(self, fd: int, kind: RegionKind, *, writable: bool = True) -> Region:
        region = Region.attach(fd, kind, writable=writable)
        self.regions.append(region)
        return region

    async def configure(self, message: dict[str, Any], fds: list[int]) -> None:
        raise NotImplementedError

    async def command(self, message: dict[str, Any]) -> None:
        raise NotImplementedError


class Driver(Child):
    async def configure(self, message: dict[str, Any], fds: list[int]) -> None:
        pool, owners, ports, *rest = fds
        self.ports = self.attach(ports, RegionKind.PORTS)
        self.attach(owners, RegionKind.OWNERS)
        count = len(message["slots"])
        self.slots = {
            slot["slot"]: self.attach(fd, RegionKind.SLOT)
            for slot, fd in zip(message["slots"], rest[: 2 * count : 2], strict=True)
        }
        close_all([pool, *rest[1 : 2 * count : 2], *rest[2 * count :]])
        await self.stage("configured")
        self.ports.pointer.driver_pid = os.getpid()
        self.progress_task = asyncio.create_task(self.progress())
        ready = [
            {
                "port": port["port"],
                "device": port["device"],
                "driver": "fake",
                "mac": bytes([2, 0, 0, 0, 0, self.life]),
            }
            | {"mtu": port["mtu"], "mode": "direct", "rx_queues": 1, "tx_queues": 1, "spread_queues": 0}
            | {"link_up": True}
            for port in message["ports"]
        ]
        self.note("ready")
        await self.channel.send({"type": "ready", "ports": ready, "lost": [], "withheld": 0})
        await self.stage("ready")
        self.soon_task = asyncio.create_task(self.soon())

    async def progress(self) -> None:
        lcore = self.ports.pointer.lcore[0]
        lcore.running, lcore.place = 1, Place.NATIVE
        while True:
            lcore.progress += self.progressing
            await asyncio.sleep(0.02)

    async def command(self, message: dict[str, Any]) -> None:
        life = self.slots[message["slot"]].pointer.life
        self.note(message["type"], slot=message["slot"], state=life.state)
        if message["type"] == "slot.enable":
            await self.stage("enable")
            life.state = SlotState.ENABLED
            await self.channel.reply(message)
        else:
            await self.stage("reset")
            life.state = SlotState.DISABLED
            life.generation += 1
            await self.channel.reply(message, reclaimed=7)


class Worker(Child):
    async def configure(self, message: dict[str, Any], fds: list[int]) -> None:
        pool, slot, tables, fib, doorbell, home = fds
        self.slot = self.attach(slot, RegionKind.SLOT)
        self.tables = self.attach(tables, RegionKind.TABLES, writable=False)
        self.fib = self.attach(fib, RegionKind.FIB, writable=False)
        close_all([pool, doorbell, home])
        self.note("region", state=self.slot.pointer.life.state, generation=self.slot.pointer.life.generation)
        await self.stage("configured")
        status = self.slot.pointer.status
        status.pid, status.state = os.getpid(), WorkerState.ATTACHED
        status.place = Place.PYTHON if self.cues.get("place") == "python" else Place.NATIVE
        self.progress_task = asyncio.create_task(self.progress())
        await self.channel.send({"type": "attached", "pid": os.getpid()})
        await self.stage("attached")

    async def progress(self) -> None:
        status, life, ready = self.slot.pointer.status, self.slot.pointer.life, False
        while True:
            status.progress += self.progressing
            status.epoch = self.tables.pointer.epoch
            if not ready and life.state == SlotState.ENABLED:
                ready = True
                self.note("ready")  # first: who is up may be killed at once
                await self.channel.send({"type": "ready"})
                await self.stage("ready")
                self.soon_task = asyncio.create_task(self.soon())
            await asyncio.sleep(0.02)

    async def command(self, message: dict[str, Any]) -> None:
        self.note(message["type"], neighbors=len(message.get("neighbors", [])))


async def main(options: argparse.Namespace) -> int:
    return await (Driver if options.role == "driver" else Worker)(options).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--slot", type=int)
    parser.add_argument("--runtime", type=Path)
    parser.add_argument("--instance")
    sys.exit(asyncio.run(main(parser.parse_args())))
