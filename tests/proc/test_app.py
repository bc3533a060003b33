# SPDX-License-Identifier: Apache-2.0
"""An application in real workers: its life, its hooks, and what its faults cost: a packet, a burst, a worker, no more.

The kernel's side of a TAP pings and sends datagrams; hooks of the application look at them. What happens in the workers
is seen in the log and in the counters of their slots.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from halo_mp.shm.layout import RegionKind, ffi, lib
from tests.proc.conftest import ADDRESSES, assert_recovered
from tests.support import lives
from tests.support.flows import sender
from tests.support.instance import Instance, run_supervisor
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until

TOP = "from halo_mp.app import App, Burst, Packet, Verdict\napp = App()\n"
HOOKS = """
import numpy as np

def is_port(packet, port):
    return packet.ipv4.protocol == 17 and packet.udp.dport == port

@app.hook("ingress")
def one(packet):
    return Verdict.DROP if is_port(packet, 1001) else None

@app.hook("ingress", form="burst")
def many(burst):
    burst.drop(burst.udp.dport == 1002)
    burst.consume(burst.udp.dport == 1003)

@app.hook("ingress", jit=True)
def compiled(packet):
    return Verdict.DROP if packet.udp.dport == 1004 else None
"""


def write(path: Path, text: str) -> str:
    file = path / "application.py"
    file.write_text(TOP + text)
    return str(file)


@contextmanager
def running(namespace: Namespace, path: Path, text: str, *flags: str) -> Iterator[Instance]:
    """An instance with this application on one port, unless flags say otherwise."""
    ports = () if "--ports" in flags else ("--ports", "0")
    with Instance(namespace, "--app", write(path, text), *ports, *flags) as instance:
        yield instance


def printed(instance: Instance, process: str | None = None) -> list[str]:
    """What the application has printed, everywhere or in one process."""
    return [
        entry["text"] for entry in instance.events("print") if process is None or entry["process"] == process
    ]


def wait_for_print(instance: Instance, text: str, count: int = 1) -> None:
    wait_until(
        lambda: printed(instance).count(text) >= count,
        timeout_s=30,
        what=f"{count} x {text} in\n{instance.text()}",
    )


def hooks(instance: Instance, slot: int = 0) -> dict[str, dict[str, int]]:
    """The counters of the hooks of a slot, by name."""
    found = {}
    with instance.region(f"slot.{slot}", RegionKind.SLOT) as region:
        for entry in region.pointer.hook:
            if entry.state != lib.HALO_HOOK_FREE:
                fields = ("state", "calls", "packets", "dropped", "rewritten", "errors")
                found[ffi.string(entry.name).decode()] = {name: int(getattr(entry, name)) for name in fields}
    return found


def app_errors(instance: Instance) -> int:
    with instance.region("slot.0", RegionKind.SLOT) as region:
        return int(region.pointer.worker.app_errors)


def send(namespace: Namespace, port: int, count: int = 1) -> None:
    """Send datagrams to the instance, one by one."""
    with sender(namespace) as out:
        for _ in range(count):
            out.sendto(b"halo", (ADDRESSES[0], port))


def wait_for_drops(instance: Instance, name: str, count: int) -> None:
    wait_until(
        lambda: hooks(instance)[name]["dropped"] >= count,
        what=f"{count} drops of {name}: {hooks(instance)}\n{instance.text()}",
    )


# ---- life


LIFE = """
import asyncio, logging

@app.on_start
def begin(worker):
    worker.context.ticks = 0
    print("start", worker.slot, *worker.ports)
    logging.getLogger(__name__).info("told by a logger")

@app.on_start
async def prepare(worker):
    await asyncio.sleep(0.01)
    print("prepared")
    try:
        asyncio.run(asyncio.sleep(0))
    except RuntimeError as error:
        print(error)

@app.every(0.05)
def tick(worker):
    assert app.worker is worker
    worker.context.ticks += 1
    if worker.context.ticks == 3:
        print("three ticks")
    if worker.context.ticks == 4:
        raise ValueError("a tick")

@app.task
async def beside(worker):
    try:
        await asyncio.sleep(3600)
    finally:
        print("task ends")

@app.on_stop
async def end(worker):
    await asyncio.sleep(0)
    print("stop", worker.slot)
"""


def test_application_lives_with_its_workers(namespace: Namespace, tmp_path: Path) -> None:
    with running(namespace, tmp_path, LIFE, "--ports", "0,1") as instance:
        wait_for_print(instance, "three ticks", count=2)
        instance.wait_for("app.timer_failed", count=2)
        namespace.pinged(ADDRESSES[0])
        assert app_errors(instance) == 1
        assert instance.stop() == 0
        for slot in (0, 1):
            said = printed(instance, f"worker.{slot}")
            assert said[:2] == [f"start {slot} {slot}", "prepared"]
            assert said[2].startswith("asyncio.run() is refused in a worker: its event loop runs already")
            assert said[3:] == ["three ticks", "task ends", f"stop {slot}"]
        assert {entry["message"] for entry in instance.events("log")} == {"told by a logger"}


def test_application_goes_on_in_the_next_worker(namespace: Namespace, tmp_path: Path) -> None:
    """Killed, replaced in order, and with a spare: each process imports and starts it, and who leaves stops it."""
    with running(namespace, tmp_path, LIFE + HOOKS, "--spare", "1") as instance:
        ledger = Ledger(instance)
        instance.wait_for("spare.ready")
        first = lives.pid(instance, "worker")
        lives.kill(first)
        lives.wait_for_successor(instance, "worker", first)
        wait_for_print(instance, "start 0 0", count=2)
        assert "stop 0" not in printed(instance)
        instance.wait_for("spare.ready", count=2)
        instance.signal(signal.SIGUSR1)
        instance.wait_for("worker.replaced")
        wait_for_print(instance, "start 0 0", count=3)
        assert printed(instance).count("stop 0") == 1
        send(namespace, 1001)
        send(namespace, 1004)
        wait_for_drops(instance, "one", 1)
        wait_for_drops(instance, "compiled", 1)
        assert_recovered(ledger, namespace)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import there_is_no_such_module", "could not be imported: ModuleNotFoundError: No module named"),
        ("def broken(:", "could not be imported: SyntaxError"),
        ("app = 5", "the file has one of type int, and an App is needed"),
        ("other, app = app, None", "an App is needed; name other instead"),
        ("import sys; sys.exit(0)", "ended Python while it was imported"),
        ("app.run(ports=[0])", "app.run() was called in a worker, which runs the application already"),
        ("@app.on_start\ndef f(worker): 1 / 0", "on_start of the application, f, raised ZeroDivisionError"),
    ],
)
def test_application_that_can_not_start_is_a_sentence(
    namespace: Namespace, tmp_path: Path, text: str, sentence: str
) -> None:
    ended = run_supervisor(namespace, ["--name", "noapp", "--app", write(tmp_path, text), "--spare", "0"])
    assert ended.returncode == 5, ended.stderr
    assert sentence in ended.stderr.splitlines()[-1]
    assert ended.stderr.count("worker.spawned") == 1


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        (("--app", "no/such/file.py:app"), 3, "there is no file"),
        (("--app", "nosuchmodule:app"), 3, "there is no module nosuchmodule in"),
        (("--app", "a b:app"), 2, "expected a module or a file that ends in .py"),
        (("--app", "a:1"), 2, "'1' can not be the name of a variable"),
        (("--app", "a", "--app-dir", "/no/such"), 2, "there is no such directory"),
        (("--app-debug",), 2, "there is no application for it"),
    ],
)
def test_application_that_is_not_there_is_refused_before_anything_starts(
    namespace: Namespace, flags: tuple[str, ...], status: int, sentence: str
) -> None:
    ended = run_supervisor(namespace, ["--name", "noapp", *flags])
    assert ended.returncode == status, ended.stderr
    assert sentence in ended.stderr
    assert "spawned" not in ended.stderr


def test_module_of_a_directory_is_found_with_its_neighbors(namespace: Namespace, tmp_path: Path) -> None:
    package = tmp_path / "service"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(
        TOP.replace("app =", "mine =") + "from service import words\nwords.say(mine)\n"
    )
    (package / "words.py").write_text("def say(app): app.on_start(lambda worker: print('found'))\n")
    with Instance(namespace, "--app", "service.main:mine", "--app-dir", str(tmp_path)) as instance:
        wait_for_print(instance, "found")


# ---- hooks


def test_hooks_of_each_form_decide(namespace: Namespace, tmp_path: Path) -> None:
    with running(namespace, tmp_path, HOOKS, "--spare", "0") as instance:
        ledger = Ledger(instance)
        for port, count in ((1001, 3), (1002, 4), (1003, 2), (1004, 5)):
            send(namespace, port, count)
        namespace.pinged(ADDRESSES[0])
        for name, count in (("one", 3), ("many", 4), ("compiled", 5)):
            wait_for_drops(instance, name, count)
        ledger.assert_balanced()
        found = hooks(instance)
        assert {name: (entry["dropped"], entry["errors"]) for name, entry in found.items()} == {
            "one": (3, 0),
            "many": (4, 0),
            "compiled": (5, 0),
        }
        assert instance.slot()["worker"]["drops"]["hook_drop"] == 12
        assert instance.events("hook.not_compiled") == []


def test_hooks_see_their_ports_and_can_change_at_run_time(namespace: Namespace, tmp_path: Path) -> None:
    text = """
def seven(packet):
    return Verdict.DROP if packet.udp.dport == 7 else None

@app.hook("ingress", ports=[1])
def elsewhere(packet): ...

@app.hook("ingress", interface="0")
def here(packet): ...

@app.hook("ingress", interface="0.77")
def nowhere(packet): ...

@app.on_start
def begin(worker):
    worker.hooks.add(seven, "ingress", jit=True)

@app.every(0.05)
def look(worker):
    if worker.context.__dict__.pop("end", False):
        worker.hooks.remove(seven)
        print("removed")

@app.hook("ingress", priority=-1)
def command(packet):
    if packet.udp.dport == 8:
        app.worker.context.end = True
"""
    with running(namespace, tmp_path, text) as instance:
        send(namespace, 7)
        wait_for_drops(instance, "seven", 1)
        instance.wait_for("hook.compiled", timeout_s=60)
        send(namespace, 7)
        wait_for_drops(instance, "seven", 2)
        send(namespace, 8)
        wait_for_print(instance, "removed")
        before = hooks(instance)["here"]["packets"]
        send(namespace, 7)
        wait_until(lambda: hooks(instance)["here"]["packets"] > before, what="the datagram")
        found = hooks(instance)
        assert (found["seven"]["state"], found["seven"]["dropped"]) == (lib.HALO_HOOK_REMOVED, 2)
        assert found["elsewhere"]["packets"] == found["nowhere"]["packets"] == 0


# ---- faults


RAISES = """
@app.hook("ingress", form={form!r}, jit={jit}, on_error={on_error!r}, name="bad")
def bad(view):
    raise ValueError("no such thing")
"""


@pytest.mark.parametrize(
    ("form", "jit", "on_error"),
    [
        ("packet", False, "pass"),
        ("burst", False, "pass"),
        ("packet", True, "pass"),
        ("packet", False, "drop"),
    ],
)
def test_hook_that_always_raises_is_quarantined(
    namespace: Namespace, tmp_path: Path, form: str, jit: bool, on_error: str
) -> None:
    with running(namespace, tmp_path, RAISES.format(form=form, jit=jit, on_error=on_error)) as instance:
        ledger, worker = Ledger(instance), lives.pid(instance, "worker")
        with sender(namespace) as out:

            def fail_once_more() -> bool:
                out.sendto(b"halo", (ADDRESSES[0], 9))
                return bool(instance.events("hook.quarantined"))

            wait_until(fail_once_more, timeout_s=30, what=f"a quarantine in\n{instance.text()}")
        [event] = instance.events("hook.quarantined")
        assert (event["name"], event["policy"]) == ("bad", on_error)
        assert event["errors"] >= 100
        assert hooks(instance)["bad"]["state"] == lib.HALO_HOOK_QUARANTINED
        assert 1 <= len(instance.events("hook.failed")) < 20
        if not jit:
            assert "no such thing" in instance.events("hook.failed")[0]["traceback"]
        assert lives.pid(instance, "worker") == worker
        if on_error == "pass":
            namespace.pinged(ADDRESSES[0])
        ledger.assert_balanced()
        drops = instance.slot()["worker"]["drops"]
        assert (drops["hook_error"] > 0) is (on_error == "drop")


def test_hook_that_must_not_fail_ends_its_worker(namespace: Namespace, tmp_path: Path) -> None:
    text = RAISES.format(form="packet", jit=False, on_error="stop").replace(
        "    raise", "    if view.udp.dport == 9: raise"
    )
    with running(namespace, tmp_path, text) as instance:
        worker = lives.pid(instance, "worker")
        with sender(namespace) as out:

            def fail_once_more() -> bool:
                out.sendto(b"halo", (ADDRESSES[0], 9))
                return bool(instance.events("worker.died"))

            wait_until(fail_once_more, timeout_s=30, what=f"the end of the worker in\n{instance.text()}")
        assert "the hook bad of the application failed" in instance.events("worker.died")[0]["reason"]
        lives.wait_for_successor(instance, "worker", worker)
        namespace.pinged(ADDRESSES[0])


def test_hook_that_hangs_costs_its_worker(namespace: Namespace, tmp_path: Path) -> None:
    text = """
import time

@app.hook("ingress")
def hang(packet):
    if packet.udp.dport == 9:
        time.sleep(3600)
"""
    with running(namespace, tmp_path, text, "--hang-timeout", "1", "--ports", "0,1") as instance:
        ledger = Ledger(instance, 0, 1)
        worker, other = lives.pid(instance, "worker", 0), lives.pid(instance, "worker", 1)
        send(namespace, 9)
        lives.wait_for_successor(instance, "worker", worker, 0)
        [died] = instance.events("worker.died")
        assert "in Python, and was killed by SIGKILL" in died["reason"]
        assert lives.pid(instance, "worker", 1) == other
        assert_recovered(ledger, namespace, *ADDRESSES)


LEAKS = """
kept = []

@app.hook("ingress")
def keep(packet):
    kept.append((packet, packet.ipv4, packet.octets))

@app.hook("ingress", form="burst")
def keep_columns(burst):
    kept.append((burst, burst.ipv4.src, burst.pool[:100]))

@app.every(0.05)
def use(worker):
    for each in kept[-50:]:
        try:
            for view in each[1:]:
                repr(view)
            (each[0].length, each[1].src, bytes(each[2]))
        except (RuntimeError, ValueError, AttributeError) as error:
            print(error)

@app.on_stop
def end(worker):
    use(worker)

import atexit
atexit.register(use, None)
"""


@pytest.mark.parametrize("debug", [False, True])
def test_views_that_are_kept_do_no_harm_and_are_told_in_debug_mode(
    namespace: Namespace, tmp_path: Path, debug: bool
) -> None:
    flags = ["--app-debug"] if debug else []
    with running(namespace, tmp_path, LEAKS, *flags) as instance:
        ledger, worker = Ledger(instance), lives.pid(instance, "worker")
        namespace.pinged(ADDRESSES[0], count=5)
        if debug:
            instance.wait_for("hook.leaked", count=2)
            assert {entry["name"] for entry in instance.events("hook.leaked")} == {"keep", "keep_columns"}
            wait_for_print(
                instance, "this burst has ended: hook keep kept a view of it; copy what is needed later"
            )
        else:
            assert instance.events("hook.leaked") == []
        ledger.assert_balanced()
        assert lives.pid(instance, "worker") == worker
        assert instance.stop() == 0
        assert instance.events("worker.died") == []


def test_exceptions_beside_the_packets_are_counted(namespace: Namespace, tmp_path: Path) -> None:
    text = """
import sys

@app.task
async def fails(worker):
    raise ValueError("in a task")

@app.task
async def leaves(worker):
    sys.exit("in a task")

@app.on_start
def later(worker):
    worker.loop.call_later(0.01, lambda: 1 / 0)
"""
    with running(namespace, tmp_path, text) as instance:
        wait_until(lambda: app_errors(instance) == 3, what=f"three errors in\n{instance.text()}")
        assert {entry["name"] for entry in instance.events("app.task_failed")} == {"fails", "leaves"}
        namespace.pinged(ADDRESSES[0])


def test_without_numba_a_hook_runs_as_python(namespace: Namespace, tmp_path: Path) -> None:
    text = "import sys\nsys.modules['numba'] = None\n" + HOOKS
    with running(namespace, tmp_path, text) as instance:
        [event] = instance.events("hook.not_compiled")
        assert event["name"] == "compiled"
        assert "pip install 'halo-mp[jit]'" in event["reason"]
        send(namespace, 1004)
        wait_for_drops(instance, "compiled", 1)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_python_of_the_tests_has_what_the_extras_bring(name: str) -> None:
    """Else tests above would look at a fallback."""
    importlib.import_module(name)
