# SPDX-License-Identifier: Apache-2.0
"""What an application may do that nobody has told it to: its worker goes on, with the same pid and whole books."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proc.conftest import ADDRESSES
from tests.proc.test_app import app_errors, hooks, printed, running, send, wait_for_print, write
from tests.support import lives
from tests.support.flows import send_paced, sender
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until

RAISES = """
import asyncio

class Mute(Exception):
    def __str__(self):
        raise ValueError("there is no text")

@app.hook("ingress")
def mute(packet):
    if packet.udp.dport == 2001: raise Mute

@app.hook("ingress")
def cancelled(packet):
    if packet.udp.dport == 2001: raise asyncio.CancelledError

@app.hook("ingress", form="burst")
def interrupted(burst):
    if (burst.udp.dport == 2001).any(): raise KeyboardInterrupt

@app.hook("ingress")
def long(packet):
    if packet.udp.dport == 2001: raise ValueError("long" * 1_000_000)
"""


@pytest.mark.parametrize("debug", [False, True])
def test_whatever_a_hook_raises_costs_its_packet_alone(
    namespace: Namespace, tmp_path: Path, debug: bool
) -> None:
    flags = ["--app-debug"] if debug else []
    with running(namespace, tmp_path, RAISES, *flags) as instance:
        ledger, worker = Ledger(instance), lives.pid(instance, "worker")
        send(namespace, 2001)
        instance.wait_for("hook.failed", count=4)
        errors = {entry["name"]: entry["error"] for entry in instance.events("hook.failed")}
        assert errors["mute"] == "Mute: <its __str__ raised ValueError>"
        assert errors["cancelled"] == "CancelledError: "
        assert errors["interrupted"] == "KeyboardInterrupt: "
        assert len(errors["long"]) < 20_000
        assert {name: entry["errors"] for name, entry in hooks(instance).items()} == dict.fromkeys(errors, 1)
        namespace.pinged(ADDRESSES[0])
        ledger.assert_balanced()
        assert lives.pid(instance, "worker") == worker


def test_hook_that_removes_itself_again_and_again_is_no_fault_of_the_worker(
    namespace: Namespace, tmp_path: Path
) -> None:
    """In one burst, so that it fails on most of what it is shown when it is no hook any more."""
    held, go = tmp_path / "held", tmp_path / "go"
    tmp_path.chmod(0o777)  # the worker is nobody
    text = f"""
import os, time

@app.hook("ingress", priority=-1)
def hold(packet):
    while packet.udp.dport == 2001 and not os.path.exists({str(go)!r}):
        open({str(held)!r}, "w").close()
        time.sleep(0.01)

@app.hook("ingress")
def once(packet):
    if packet.udp.dport == 2002:
        app.worker.hooks.remove(once)
"""
    with running(namespace, tmp_path, text, "--hang-timeout", "30") as instance:
        ledger, worker = Ledger(instance), lives.pid(instance, "worker")
        send(namespace, 2001)
        wait_until(held.exists, what="the hook that holds")
        send(namespace, 2002, count=300)
        wait_until(lambda: instance.slot()["rx_fill"] >= 300, what="300 frames on the ring")
        go.touch()
        namespace.pinged(ADDRESSES[0])
        assert hooks(instance)["once"]["errors"] >= 100
        assert "there is no hook once in this worker" in instance.events("hook.failed")[0]["error"]
        assert instance.events("hook.quarantined") == []
        ledger.assert_balanced()
        assert lives.pid(instance, "worker") == worker


def test_timer_goes_on_when_what_it_awaits_was_cancelled(namespace: Namespace, tmp_path: Path) -> None:
    text = """
import asyncio

@app.every(0.02)
async def tick(worker):
    print("tick")
    task = worker.loop.create_task(asyncio.sleep(60))
    task.cancel()
    await task
"""
    with running(namespace, tmp_path, text) as instance:
        wait_for_print(instance, "tick", count=3)
        assert app_errors(instance) >= 2
        assert instance.events("app.timer_failed")[0]["name"] == "tick"
        assert instance.stop() == 0


def test_print_without_an_end_takes_no_longer_each_time(namespace: Namespace, tmp_path: Path) -> None:
    """100 MB in all, had they been kept; and a library that asks for the encoding is told one."""
    text = """
import sys

@app.on_start
def say(worker):
    for _ in range(100_000):
        print("." * 1000, end="")
    print("!")
    print(sys.stdout.encoding)
"""
    with running(namespace, tmp_path, text) as instance:
        wait_until(lambda: "utf-8" in printed(instance) or instance.events("log.dropped"), what="its end")
        assert max(map(len, printed(instance))) <= 8192
        namespace.pinged(ADDRESSES[0])


FORKS = """
import os, sys

def fork(worker):
    child = os.fork()
    if child == 0:
        {child}
    worker.loop.run_in_executor(None, lambda: print("status", os.waitpid(child, 0)[1]))

@app.every(0.05)
def once(worker):
    if not worker.context.__dict__.setdefault("forked", False):
        worker.context.forked = True
        fork(worker)
"""


@pytest.mark.parametrize(
    ("child", "status"),
    [("os._exit(3)", 3 << 8), ("sys.exit(0)", 0), ("return", 0), ("raise ValueError", 1 << 8)],
)
def test_child_of_an_application_is_no_second_worker(
    namespace: Namespace, tmp_path: Path, child: str, status: int
) -> None:
    with running(namespace, tmp_path, FORKS.format(child=child)) as instance:
        ledger, worker = Ledger(instance), lives.pid(instance, "worker")
        send(namespace, 2001, count=300)
        wait_for_print(instance, f"status {status}")
        namespace.pinged(ADDRESSES[0])
        ledger.assert_balanced()
        assert lives.pid(instance, "worker") == worker


def test_other_threads_are_refused(namespace: Namespace, tmp_path: Path) -> None:
    """C has no lock: two threads in it would lose buffers."""
    text = """
def hook(packet): ...

def tried(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except RuntimeError as error:
        print(str(error).partition(";")[0])

@app.on_start
async def begin(worker):
    port, frame = worker.port(0), bytes(60)
    calls = [
        lambda: tried(worker.inject, "tx", frame, port=0),
        lambda: tried(worker.hooks.add, hook, "ingress"),
        lambda: tried(port.transmit, frame),
        lambda: tried(port.frames),
        lambda: tried(port.blaster, frame),
    ]
    for call in calls:
        await worker.loop.run_in_executor(None, call)
    worker.hooks.add(hook, "ingress")
    worker.hooks.remove(hook)
    print(worker.inject("tx", frame, port=0))
"""
    with running(namespace, tmp_path, text) as instance:
        ledger = Ledger(instance)
        wait_for_print(instance, "True")
        said = "packets, hooks and ports belong to the thread of the worker's event loop"
        assert printed(instance) == [*[said] * 5, "True"]
        ledger.assert_balanced()


def test_start_that_does_not_return_is_named(namespace: Namespace, tmp_path: Path) -> None:
    text = """
import asyncio

@app.on_start
async def serve(worker):
    await asyncio.sleep(3600)
"""
    file = write(tmp_path, text)
    with Instance(namespace, "--app", file, "--ports", "0", wait=False) as instance:
        [event] = instance.wait_for("app.start_waits", timeout_s=30)
        assert event["name"] == "serve"
        assert "is an @app.task" in event["reason"]
        assert instance.events("worker.ready") == []


BUSY = """
@app.hook("ingress", form="burst")
def busy(burst):
    for _ in range(40_000):
        pass

@app.hook("ingress")
def look(packet): ...

@app.udp(2001, form="burst")
def take(burst): ...
"""


@contextmanager
def flood(namespace: Namespace) -> Iterator[None]:
    """Datagrams all the while, some more than the hooks can be done with at once."""
    enough = threading.Event()

    def send_on() -> None:
        with sender(namespace) as out:
            while not enough.is_set():
                send_paced(out, [(ADDRESSES[0], 2001)] * 1000, b"halo", 13_000)

    thread = threading.Thread(target=send_on)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_worker_that_is_replaced_under_load_loses_nothing_that_a_hook_was_shown(
    namespace: Namespace, tmp_path: Path
) -> None:
    with running(namespace, tmp_path, BUSY, "--spare", "1") as instance:
        ledger = Ledger(instance)
        with flood(namespace):
            for count in (1, 2, 3):
                instance.wait_for("spare.ready", count=count, timeout_s=30)
                instance.signal(signal.SIGUSR1)
                instance.wait_for("worker.replaced", count=count, timeout_s=30)
        ledger.assert_balanced()
        assert instance.slot()["worker"]["drops"]["punt_lost"] == 0
        assert instance.events("worker.died") == []
