# SPDX-License-Identifier: Apache-2.0
"""`halo-mp` against an instance that runs, is dead, or was never there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.proc.conftest import everybody, kill_supervisor, wait_for_end
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until
from tests.support.unprivileged import IN_FIRST_USER_NAMESPACE

HALO = (sys.executable, "-m", "halo_mp.cli")
Halo = Callable[..., str]


@pytest.fixture
def halo(pair: Instance) -> Halo:
    """Run a command about the instance, expect an exit code, and return what it printed."""

    def run(*words: str, code: int = 0, **options: Any) -> str:
        found = command(pair.namespace, *words, "--name", pair.name)
        assert found.returncode == code, found
        return found.stdout if code != 2 else found.stderr

    return run


def command(namespace: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
    return namespace.run(*HALO, *words, check=False, timeout_s=60)


def test_looking_and_changing_by_words(pair: Instance, halo: Halo, tmp_path: Path) -> None:
    assert halo("status").startswith(f"Instance {pair.name!r} is up")
    assert "may change things" in halo("show", "instance")
    assert json.loads(halo("show", "instance", "--json"))["name"] == pair.name
    halo("set", "address", "0", "10.9.0.1/24")
    halo("set", "interface", "0", "--mtu", "1400", "--proxy-arp")
    [first, _] = json.loads(halo("show", "interfaces", "--json"))
    assert (first["addresses"], first["mtu"], first["proxy_arp"]) == (
        ["10.77.0.1/24", "10.9.0.1/24"],
        1400,
        True,
    )
    halo("set", "neighbor", "0", "10.9.0.9", "02:00:00:00:00:09")
    [line] = [line for line in halo("show", "neighbors", "0").splitlines() if "static" in line]
    assert line.split() == ["0", "10.9.0.9", "02:00:00:00:00:09", "static"]
    halo("set", "neighbor", "0", "10.9.0.9", "--delete")
    assert "forgotten" in halo("set", "flush-neighbors")
    halo("set", "route", "10.8.0.0/16", "10.9.0.9", "10.77.1.9*2")
    halo("set", "route", "10.8.0.0/16", "blackhole", "--new", code=1)
    assert "goes to" in halo("show", "route", "10.8.1.1")
    halo("show", "route", "192.0.2.1", code=1)
    file = tmp_path / "more.txt"
    file.write_text("# more\n10.20.0.0/16 10.9.0.9 10.77.1.9\n10.21.0.0/16 nowhere\n")
    assert halo("set", "routes", str(file), code=1) == "1 done, 1 refused.\n"
    static = json.loads(halo("show", "routes", "--static", "--json"))
    assert {route["prefix"] for route in static} == {"10.8.0.0/16", "10.20.0.0/16"}
    halo("set", "routes", str(file), "--delete", code=1)
    assert len(halo("show", "routes", "10.0.0.0/8", "--static").splitlines()) == 2  # with a head
    halo("set", "address", "0", "10.9.0.1/24", "--delete")


def test_ping_says_what_came_back(halo: Halo) -> None:
    lines = halo("ping", "10.77.0.2", "-c", "3", "-i", "0.01").splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["10.77.0.2"] * 3
    assert lines[3].startswith("3 sent, 3 answered; ")
    found = json.loads(halo("ping", "10.77.0.2", "-c", "2", "-i", "0.01", "--json"))
    assert [outcome["outcome"] for outcome in found] == ["reply", "reply"]
    assert "host unreachable" in halo("ping", "10.77.0.77", "-c", "1", "-W", "10", code=1)
    assert "network unreachable" in halo("ping", "192.0.2.1", "-c", "1", code=1)
    assert halo("ping", "10.77.1.2", "--trace").splitlines()[0].split()[:2] == ["1", "10.77.1.2"]


def test_configuration_is_saved_compared_and_applied(halo: Halo, tmp_path: Path) -> None:
    saved, routes = tmp_path / "saved.toml", tmp_path / "sub" / "routes.txt"
    routes.parent.mkdir()
    halo("set", "route", "10.8.0.0/16", "10.77.0.9")
    halo("config", "save", str(saved), "--routes-file", str(routes))
    assert routes.read_text() == "10.8.0.0/16 10.77.0.9\n"
    assert tomllib.loads(saved.read_text())["routing"]["routes_file"] == "sub/routes.txt"
    assert halo("config", "diff", str(saved)) == "Nothing changes.\n"
    routes.write_text("10.8.0.0/16 10.77.1.9\n10.9.0.0/16 blackhole\n")
    wanted = "+ route 10.9.0.0/16 via blackhole\n~ route 10.8.0.0/16 via 10.77.0.9 -> 10.77.1.9\n"
    assert halo("config", "diff", str(saved), code=1) == wanted
    assert halo("config", "apply", str(saved)) == wanted
    assert halo("config", "show", "--routes").splitlines() == [
        "10.8.0.0/16 10.77.1.9",
        "10.9.0.0/16 blackhole",
    ]
    assert "uid 0" in halo("config", "history")
    assert json.loads(halo("config", "rollback", "--json"))["count"] == 2
    assert halo("show", "config", "--routes") == "10.8.0.0/16 10.77.0.9\n"
    assert json.loads(halo("config", "show", "--json"))["ports"] == {"0": {"mtu": 1500}, "1": {"mtu": 1500}}
    saved.write_text(saved.read_text().replace('idle = "adaptive"', 'idle = "poll"'))
    assert "! needs a restart: --idle: it runs with adaptive" in halo("config", "diff", str(saved), code=1)
    halo("config", "apply", str(saved), code=1)
    saved.write_text("[ports.0]\nmak = 5\n")
    halo("config", "apply", str(saved), code=1)
    assert "can not be read" in halo("config", "apply", str(tmp_path / "none.toml"), code=2)
    assert halo("reload") == "- route 10.8.0.0/16\n"  # which was no flag


def test_saved_file_replaces_no_link_and_no_device(halo: Halo, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    place, link = tmp_path / "real" / "router.toml", tmp_path / "router.toml"
    place.write_text("# by somebody\n")
    os.chown(place, 65534, 65534)
    place.chmod(0o640)
    link.symlink_to(place)
    halo("config", "save", str(link))
    assert link.is_symlink()
    assert tomllib.loads(place.read_text())["instance"]["name"]
    found = place.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65534, 0o640)
    os.mkfifo(tmp_path / "pipe")
    assert "config show > " in halo("config", "save", str(tmp_path / "pipe"), code=2)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["pipe", "real", "router.toml", "router.toml"]


def test_candidate_that_is_nested_or_marked_is_an_answer(halo: Halo, tmp_path: Path) -> None:
    (tmp_path / "router.toml").write_text("a = " + "[" * 100_000)
    halo("config", "diff", str(tmp_path / "router.toml"), code=1)
    (tmp_path / "router.toml").write_text(halo("config", "show"), "utf-8-sig")
    assert halo("config", "diff", str(tmp_path / "router.toml")) == "Nothing changes.\n"


def test_stop_returns_when_nothing_is_left(pair: Instance, halo: Halo) -> None:
    processes = everybody(pair)
    assert halo("stop") == f"Instance {pair.name!r} has stopped.\n"
    assert not any(map(lives.is_running, processes))
    assert pair.wait() == 0
    assert not pair.runtime.exists()
    halo("stop", code=3)
    halo("show", "routes", code=3)
    halo("status", code=3)


def test_stop_of_orphans_ends_them_and_clears_up(pair: Instance, halo: Halo) -> None:
    processes = everybody(pair)
    kill_supervisor(pair)
    assert "had no supervisor" in halo("stop")
    wait_for_end(*processes)
    assert not pair.runtime.exists()


def test_stop_of_a_supervisor_that_does_not_answer_says_so(pair: Instance, halo: Halo) -> None:
    pair.signal(signal.SIGSTOP)
    try:
        found = command(pair.namespace, "stop", "--name", pair.name, "--timeout", "0.2")
    finally:
        pair.signal(signal.SIGCONT)
    assert found.returncode in (1, 3)
    assert found.stderr.startswith("halo-mp: ")


def test_run_becomes_the_supervisor_and_tells_its_service_manager(
    namespace: Namespace, tmp_path: Path
) -> None:
    """Type=notify: ready when it is, alive while it runs, reloading, stopping; and no child speaks for it."""
    file = tmp_path / "one.toml"
    file.write_text("[ports.0]\n")
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        told: list[str] = []

        def hear(word: str) -> bool:
            while True:
                try:
                    told.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return any(word in text.splitlines() for text in told)

        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        flags = ("--config", str(file))
        with Instance(namespace, *flags, program=(*HALO, "run"), env=environment) as instance:
            assert instance.process is not None
            wait_until(lambda: hear("READY=1"), what="READY=1")
            [ready] = [text for text in told if "READY=1" in text]
            assert f"MAINPID={instance.process.pid}" in ready
            for child in (lives.pid(instance, "driver"), lives.pid(instance, "worker", 0)):
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
            told.clear()
            wait_until(lambda: hear("WATCHDOG=1"), what="WATCHDOG=1")
            instance.signal(signal.SIGHUP)
            wait_until(lambda: hear("RELOADING=1"), what="RELOADING=1")
            wait_until(lambda: hear("READY=1"), what="READY=1 after it")
            assert instance.stop() == 0
            assert hear("STOPPING=1")


@pytest.mark.skipif(not IN_FIRST_USER_NAMESPACE, reason="nobody else can be here")
def test_service_of_a_user_has_what_it_needs(namespace: Namespace) -> None:
    """Started as the unit says it, by hand: user, capabilities, environment, command, reload."""
    name = f"u{os.getpid() % 100000}"
    directory = Path(tempfile.mkdtemp(prefix="halo-mp-test-"))  # pytest's own are closed to others
    runtime = Path("/run/halo-mp") / name
    runtime.mkdir(parents=True)
    try:
        directory.chmod(0o755)
        (directory / f"{name}.toml").write_text('[ports.0]\n[instance]\nspare = 0\n[logs]\nformat = "json"\n')
        shutil.chown(runtime, "nobody")
        text = command(namespace, "unit", "--user", "nobody", "--directory", str(directory)).stdout
        unit = dict(line.split("=", 1) for line in text.replace("%i", name).splitlines() if "=" in line)
        caps = ",".join(f"+{cap.removeprefix('CAP_').lower()}" for cap in unit["AmbientCapabilities"].split())
        user = ("setpriv", "--reuid", unit["User"], "--regid", "nogroup", "--clear-groups")
        held = ("--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", f"-all,{caps}")
        log = directory / "log"
        with log.open("wb") as output:
            process = namespace.popen(
                *user,
                *held,
                "env",
                unit["Environment"],
                *unit["ExecStart"].split(),
                stdout=output,
                stderr=output,
            )
            try:
                wait_until(
                    lambda: b'"instance.up"' in log.read_bytes(), timeout_s=30, what="it in " + str(log)
                )
                namespace.pinged("10.77.0.1", count=1)
                reload = namespace.run(*user, "env", unit["Environment"], *unit["ExecReload"].split())
                assert reload.stdout == "Nothing changes.\n"
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
        assert list(runtime.iterdir()) == []
    finally:
        shutil.rmtree(runtime)
        shutil.rmtree(directory)
