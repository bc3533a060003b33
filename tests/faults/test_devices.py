# SPDX-License-Identifier: Apache-2.0
"""A port's device is deleted under traffic and made again, or its link comes and goes: TAP, af_packet and af_xdp.

The other port must not notice, no buffer may be lost, and the port must answer again by itself.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from halo_mp.shm.counters import PortSnapshot
from halo_mp.stats.status_model import FILE, Status, from_json
from tests.proc.conftest import kill_supervisor
from tests.support import lives
from tests.support.hooks import Action, Hooks, build
from tests.support.instance import START_TIMEOUT_S, Instance
from tests.support.ledger import Ledger
from tests.support.limits import limited
from tests.support.namespace import Namespace, connect, wait_until
from tests.support.pinger import Pinger
from tests.support.unprivileged import IN_FIRST_USER_NAMESPACE, UserNamespace

VICTIM, OTHER = 0, 1
VETH_DRIVERS = ["net_af_packet", *(["net_af_xdp"] if IN_FIRST_USER_NAMESPACE else [])]
FLAPS = 40
SEED = 20261122


@dataclass(frozen=True, slots=True)
class Bed:
    """An instance with two ports, and where they are pinged from."""

    instance: Instance
    here: Namespace
    """The instance's."""
    there: Namespace
    """Where the other ends are: the same, when the ports are TAPs."""
    driver: str
    flags: tuple[str, ...]
    """That the instance was started with."""

    @property
    def interface(self) -> str:
        """The netdev under port VICTIM."""
        return f"{self.instance.name}.{VICTIM}" if self.driver == "net_tap" else f"veth{VICTIM}"

    def port(self, number: int = VICTIM) -> PortSnapshot:
        return self.instance.ports()["ports"][number]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.instance.events(event) if entry["process"] == "driver"]

    def status(self) -> Status:
        """Return what the supervisor says."""
        found = from_json((self.instance.runtime / FILE).read_text())
        assert found is not None
        return found

    def remove(self) -> None:
        """Delete the netdev under port VICTIM, and wait until that is noticed."""
        before = len(self.said("port.lost"))
        self.here.run("ip", "link", "delete", self.interface)
        self.instance.wait_for("port.lost", count=before + 1)

    def restore(self) -> None:
        """Make it again, which only the driver can do with a TAP, and wait until it is used."""
        if self.driver == "net_tap":
            self.instance.wait_for("port.returned", count=len(self.said("port.lost")))
            wait_for_address(self.here, self.interface)
            return
        before = len(self.said("port.returned"))
        cable(self.here, self.there, VICTIM)
        self.instance.wait_for("port.returned", count=before + 1)

    @contextmanager
    def pinging(self) -> Iterator[tuple[Pinger, Pinger]]:
        """Ping both ports, the one of the device first."""
        with Pinger(self.there, address(self.driver, VICTIM)) as victim:
            with Pinger(self.there, address(self.driver, OTHER)) as other:
                for pinger in (victim, other):
                    pinger.wait_for_more()
                yield victim, other

    def assert_recovered(self, ledger: Ledger) -> None:
        """Every buffer is back, both ports answer, and every frame is accounted for; nobody had to be restarted."""
        ledger.assert_whole()
        ledger.start_anew()
        for number in (VICTIM, OTHER):
            self.there.pinged(address(self.driver, number), count=10)
        ledger.assert_balanced()
        assert not lives.said(self.instance, "worker.died")
        assert not self.instance.events("supervisor.error")

    def assert_stops_clean(self) -> None:
        assert self.instance.stop() == 0
        assert "Traceback" not in self.instance.text()
        names = {line.split(":")[1].strip() for line in self.here.run("ip", "-o", "link").stdout.splitlines()}
        assert not {name for name in names if name.startswith(self.instance.name)}


def address(driver: str, number: int) -> str:
    return f"10.77.{number}.1" if driver == "net_tap" else f"10.9.{number}.1"


def wait_for_address(namespace: Namespace, tap: str) -> None:
    """Wait until the kernel's side of a TAP has its address, which the supervisor gives it after its return."""
    wait_until(
        lambda: "inet " in namespace.run("ip", "-4", "address", "show", "dev", tap, check=False).stdout,
        what=f"an address of {tap}",
    )


def cable(here: Namespace, there: Namespace, number: int) -> None:
    """Make the veth of a port; its other end has an address."""
    connect(here, there, name=f"veth{number}")
    there.run("ip", "address", "add", f"10.9.{number}.2/24", "dev", f"veth{number}")


@contextmanager
def running(driver: str) -> Iterator[Bed]:
    """Two ports of that driver that answer."""
    with ExitStack() as stack:
        here = there = stack.enter_context(Namespace())
        flags = ["--ports", "0,1"]
        if driver != "net_tap":
            there = stack.enter_context(Namespace())
            for side in (here, there):
                side.silence()
            flags = []
            for number in (VICTIM, OTHER):
                cable(here, there, number)
                flags += ["--vdev", f"{driver}{number},iface=veth{number}"]
                flags += ["--address", f"{number}={address(driver, number)}/24"]
        instance = stack.enter_context(Instance(here, *flags))
        for number in (VICTIM, OTHER):
            there.pinged(address(driver, number))
        yield Bed(instance, here, there, driver, tuple(flags))


@pytest.fixture(params=["net_tap", *VETH_DRIVERS])
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with running(request.param) as made:
        yield made


@pytest.fixture(params=VETH_DRIVERS)
def veth(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with running(request.param) as made:
        yield made


def test_deleted_under_traffic_and_made_again_answers_again(bed: Bed) -> None:
    ledger = Ledger(bed.instance, 0, 1)
    driver = lives.pid(bed.instance, "driver")
    held = descriptors(driver)
    with bed.pinging() as (victim, other):
        for times in (1, 2):
            received = bed.port()["stats"]["rx_frames"]
            bed.remove()
            other.wait_for_more(30)
            if bed.driver != "net_tap":  # that is made again at once
                assert (bed.port()["state"], bed.port()["link_up"]) == ("failed", False)
            bed.restore()
            victim.wait_for_more()
            wait_until(
                lambda: bed.port()["state"] == "started" and bed.port()["link_up"], what="the port's status"
            )
            assert (bed.port()["losses"], bed.port()["returns"]) == (times, times)
            assert bed.port()["stats"]["rx_frames"] >= received, "what the device had counted before is kept"
    assert other.lost == set()
    assert {*victim.answered.values(), *other.answered.values()} == {1}, "a request was answered twice"
    lost = bed.said("port.lost")
    assert [entry["port"] for entry in lost] == [VICTIM, VICTIM]
    assert {(entry["device"], entry["reason"]) for entry in lost} == {
        (f"{bed.driver}{VICTIM}", f"the interface {bed.interface} is gone")
    }
    assert bed.port(OTHER)["losses"] == 0
    assert descriptors(driver) == held
    assert lives.pid(bed.instance, "driver") == driver
    bed.assert_recovered(ledger)
    bed.assert_stops_clean()


def test_driver_killed_while_the_device_is_away_serves_the_other_port(veth: Bed) -> None:
    ledger = Ledger(veth.instance, 0, 1)
    driver = lives.pid(veth.instance, "driver")
    veth.remove()
    lives.kill(driver)
    successor = lives.wait_for_successor(veth.instance, "driver", driver)
    veth.there.pinged(address(veth.driver, OTHER), count=10)
    assert veth.port()["state"] == "failed"
    assert veth.said("port.lost")[-1]["reason"] == "there is no interface veth0"
    wait_until(
        lambda: veth.status().ports[VICTIM].failed_because == "there is no interface veth0", what="its status"
    )
    assert not veth.status().is_well
    veth.restore()
    veth.there.pinged(address(veth.driver, VICTIM))
    wait_until(lambda: veth.status().is_well, what="a status that says that all is well")
    assert veth.port()["state"] == "started"
    assert lives.pid(veth.instance, "driver") == successor
    veth.assert_recovered(ledger)
    veth.assert_stops_clean()


def test_supervisor_killed_while_the_device_is_away_is_followed_by_one_that_knows(veth: Bed) -> None:
    veth.remove()
    kill_supervisor(veth.instance)
    with Instance(veth.here, *veth.flags, name=veth.instance.name) as successor:
        assert successor.events("instance.adopted")
        veth.there.pinged(address(veth.driver, OTHER), count=10)
        assert veth.port()["state"] == "failed"
        cable(veth.here, veth.there, VICTIM)
        wait_until(lambda: veth.port()["state"] == "started", what="the return of the port")
        veth.there.pinged(address(veth.driver, VICTIM))
        written = [entry["interfaces"] for entry in successor.events("tables.written")]
        assert written == [2], "once, for the new MAC; a lost port keeps its interface"
        assert successor.stop() == 0


def test_driver_killed_as_its_tap_is_deleted_makes_it_anew() -> None:
    with running("net_tap") as bed:
        ledger = Ledger(bed.instance, 0, 1)
        driver = lives.pid(bed.instance, "driver")
        lives.kill(driver)
        bed.here.run("ip", "link", "delete", bed.interface)
        lives.wait_for_successor(bed.instance, "driver", driver)
        bed.assert_recovered(ledger)
        bed.assert_stops_clean()


def test_tap_that_can_not_be_opened_without_descriptors_is_opened_when_there_are_some() -> None:
    with running("net_tap") as bed:
        ledger = Ledger(bed.instance, 0, 1)
        driver = lives.pid(bed.instance, "driver")
        with limited(driver, "nofile", 3):
            bed.remove()
            bed.instance.wait_for("port.not_opened")
            bed.there.pinged(address(bed.driver, OTHER))
        bed.restore()
        assert lives.pid(bed.instance, "driver") == driver
        assert not bed.said("driver.fault")
        bed.assert_recovered(ledger)
        bed.assert_stops_clean()


def test_driver_whose_supervisor_dies_during_its_start_watches_its_devices() -> None:
    with Namespace() as namespace, Hooks() as hooks:
        hooks.order("attach.taken_back", Action.STOP)
        with Instance(namespace, "--ports", "0,1", via=hooks.via(build()), wait=False) as dead:
            hooks.wait_until_hit(timeout_s=START_TIMEOUT_S)
            driver = lives.pid(dead, "driver")
            wait_until(lambda: lives.state(driver) == "T", what="the stop of the driver")
            kill_supervisor(dead)
            os.kill(driver, signal.SIGCONT)
            wait_until(lambda: ready(dead, driver), timeout_s=START_TIMEOUT_S, what="the driver's ports")
            with Instance(namespace, "--ports", "0,1", name=dead.name) as instance:
                assert lives.pid(instance, "driver") == driver
                namespace.run("ip", "link", "delete", f"{instance.name}.{VICTIM}")
                wait_until(lambda: dead.events("port.returned"), what="the return of the port")
                for number in (VICTIM, OTHER):
                    wait_for_address(namespace, f"{instance.name}.{number}")
                    namespace.pinged(address("net_tap", number))
                assert lives.pid(instance, "driver") == driver
                assert instance.stop() == 0


def test_tap_deleted_before_its_new_driver_is_taken_note_of_harms_nobody_else() -> None:
    """The supervisor finds one TAP gone when it wants to give both their addresses."""
    with ExitStack() as stack:
        namespace, hooks = stack.enter_context(Namespace()), stack.enter_context(Hooks())
        instance = stack.enter_context(Instance(namespace, "--ports", "0,1", via=hooks.via(build())))
        hooks.order("attach.taken_back", Action.STOP)
        lives.kill(lives.pid(instance, "driver"))
        hooks.wait_until_hit()
        driver = lives.pid(instance, "driver")
        wait_until(lambda: lives.state(driver) == "T", what="the stop of the driver")
        instance.signal(signal.SIGSTOP)
        stack.callback(instance.signal, signal.SIGCONT)
        os.kill(driver, signal.SIGCONT)
        wait_until(lambda: ready(instance, driver), timeout_s=START_TIMEOUT_S, what="the driver's ports")
        os.kill(driver, signal.SIGSTOP)  # it shall not notice yet
        namespace.run("ip", "link", "delete", f"{instance.name}.{VICTIM}")
        namespace.run("ip", "address", "flush", "dev", f"{instance.name}.{OTHER}")
        instance.signal(signal.SIGCONT)
        wait_until(
            lambda: instance.events("port.not_configured") or not lives.is_running(driver),
            what="an attempt at the TAP's address",
        )
        if lives.is_running(driver):
            os.kill(driver, signal.SIGCONT)
        for number in (OTHER, VICTIM):
            wait_for_address(namespace, f"{instance.name}.{number}")
            namespace.pinged(address("net_tap", number))
        assert [entry["port"] for entry in instance.events("port.not_configured")] == [VICTIM]
        assert not [
            entry for entry in lives.said(instance, "driver.died") if "could not be used" in entry["reason"]
        ]
        assert instance.stop() == 0


def ready(instance: Instance, driver: int) -> bool:
    """Whether that driver has started its ports, as it says itself."""
    began = lives.pids(instance, "driver").index(driver)
    return len([entry for entry in instance.events("driver.ready") if entry["process"] == "driver"]) > began


def test_tap_of_an_ordinary_user_is_made_anew() -> None:
    with UserNamespace() as namespace, Instance(namespace, "--ports", "0") as instance:
        namespace.pinged("10.77.0.1")
        namespace.run("ip", "link", "delete", f"{instance.name}.0")
        instance.wait_for("port.returned")
        wait_for_address(namespace, f"{instance.name}.0")
        namespace.pinged("10.77.0.1")
        assert instance.stop() == 0


def test_renamed_is_not_lost_but_moved_away_is(veth: Bed) -> None:
    ledger = Ledger(veth.instance, 0, 1)
    for name, new in (("veth0", "other0"), ("other0", "veth0")):
        veth.here.run("ip", "link", "set", name, "down")
        veth.here.run("ip", "link", "set", name, "name", new)
        veth.here.run("ip", "link", "set", new, "up")
        veth.there.pinged(address(veth.driver, VICTIM))
    assert not veth.said("port.lost")
    with Namespace() as elsewhere:
        veth.here.run("ip", "link", "set", "veth0", "netns", str(elsewhere.pid))
        veth.instance.wait_for("port.lost")
        elsewhere.run("ip", "link", "set", "veth0", "netns", str(veth.here.pid))
        veth.here.run("ip", "link", "set", "veth0", "up")
        veth.instance.wait_for("port.returned")
        veth.there.pinged(address(veth.driver, VICTIM))
    veth.assert_recovered(ledger)
    veth.remove()
    veth.assert_stops_clean()


def test_link_flaps_are_followed(bed: Bed) -> None:
    """The carrier goes with the other end of a veth, and with the kernel's side of a TAP."""
    ledger = Ledger(bed.instance, 0, 1)
    side = ("ip", "link", "set", bed.interface)
    rng = random.Random(SEED)
    pauses = [rng.uniform(0.005, 0.03) for _ in range(2 * FLAPS)]
    steps = zip(["down", "up"] * FLAPS, pauses, strict=True)
    script = "; ".join(f"{' '.join(side)} {to}; sleep {pause:.3f}" for to, pause in steps)
    with bed.pinging() as (victim, other):
        began = time.monotonic()
        bed.there.run("sh", "-c", script)
        wait_until(lambda: bed.port()["link_up"], what="the link to be up")
        victim.wait_for_more()
        other.wait_for_more()
    assert other.lost == set()
    for to in ("down", "up"):
        bed.there.run(*side, to)
        wait_until(lambda to=to: bed.port()["link_up"] == (to == "up"), what=f"the link to be {to}")
    bed.there.pinged(address(bed.driver, VICTIM))
    # The kernel itself tells of no more than one flap a second, of most devices.
    assert 2 <= bed.port()["link_changes"] <= 2 * FLAPS + 2
    wait_until(lambda: told(bed) == bed.port()["link_changes"], what="an event that tells of the last change")
    assert bed.said("port.link")[-1]["up"] is True
    assert len(bed.said("port.link")) <= time.monotonic() - began + 2, "one a second at most"
    assert bed.port(OTHER)["link_changes"] == 0
    assert not bed.said("port.lost")
    assert not lives.said(bed.instance, "driver.died")
    bed.assert_recovered(ledger)
    bed.assert_stops_clean()


def told(bed: Bed) -> int:
    """How many changes of the link the events tell of."""
    return sum(int(entry["changes"]) for entry in bed.said("port.link"))


def descriptors(process: int) -> Counter[str]:
    """How many descriptors of each kind a process has; DPDK's heap takes and gives back segments as it likes."""
    links = (link.partition("[")[0] for link in lives.descriptors(process).values())
    return Counter(link for link in links if not link.startswith("/memfd:seg_"))
