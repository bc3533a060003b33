# SPDX-License-Identifier: Apache-2.0
"""Without root: everything in a user and network namespace of an ordinary user."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.accounts import balanced, tally
from tests.support.instance import Instance
from tests.support.unprivileged import UserNamespace


def status(pid: int) -> dict[str, list[str]]:
    """Return /proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def test_instance_of_an_ordinary_user_answers_ping() -> None:
    with UserNamespace() as namespace, Instance(namespace, "--ports", "0,1") as instance:
        sent = sum(namespace.pinged("10.77.0.1", size=size) for size in (0, 57, 1472))
        assert tally(instance, 0).worker["echo_replies"] == sent
        namespace.pinged("10.77.1.1", options=("-R",))
        workers = [slot["worker_pid"] for slot in balanced(instance, 0, 1)]
        for pid in (*workers, instance.ports()["driver_pid"]):
            assert set(status(pid)["Uid"]) == {str(namespace.uid)}
        for pid in workers:
            told = status(pid)
            assert [int(told[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0] * 4
            assert told["NoNewPrivs"] == ["1"]
        assert not list(Path("/dev/shm").glob(f"halo-mp.{instance.name}.*")) or not namespace.is_whole
        assert instance.stop() == 0
        assert not list(namespace.shared_memory.glob("halo-mp.*"))
        assert "Traceback" not in instance.text()


def test_instance_of_an_ordinary_user_outside_is_refused_with_what_to_type() -> None:
    with UserNamespace() as namespace:
        command = (sys.executable, "-m", "halo_mp.supervisor")
        ended = namespace.run("unshare", "--user", "--map-root-user", *command, check=False)
    assert ended.returncode == 3
    assert "belongs to another user namespace" in ended.stderr
    assert "unshare -n" in ended.stderr


def test_xdp_of_an_ordinary_user_is_refused_with_what_to_use_instead() -> None:
    with UserNamespace() as namespace:
        namespace.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
        command = (sys.executable, "-m", "halo_mp.supervisor", "--vdev", "net_af_xdp0,iface=veth0")
        ended = namespace.run(*command, check=False)
    assert ended.returncode == 3
    assert "net_af_xdp0 loads an XDP program" in ended.stderr
    assert "net_af_packet" in ended.stderr
