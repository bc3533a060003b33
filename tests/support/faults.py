# SPDX-License-Identifier: Apache-2.0
"""Faults at random: a seeded injector that kills, stops, scribbles and starves, and says what it did.

    with Injector(instance, (0, 1), seed=7) as faults:
        for _ in range(20):
            faults.at_random()      # or kill("worker", 0), scribble("tx", 0), starve(0.2) ...
            faults.heal()           # everybody lives and is useful, slots that were scribbled on are made anew

The same seed gives the same faults in the same order; when they hit depends on the machine. An exception that leaves
the block, a failed assertion too, is preceded by the list of what was done. It scribbles as a rogue neighbor would that
has mapped a slot's region and writes where it should not.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

from halo_mp.shm.layout import RegionKind, ffi
from halo_mp.shm.region import Region, region_name
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import wait_until

SHORT_STOP_S = 0.4  # a stop that nobody is killed for: the least limit is a second
LONGEST_STARVING_S = 2.0
_RINGS = ("rx", "tx", "spare")
_BURNER = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


def _extent(*fields: str) -> tuple[int, int]:
    """Return the first octet of a field of struct halo_slot, and how many it has."""
    whole = ffi.typeof("struct halo_slot")
    ctype, offset = whole, 0
    for name in fields:
        field = dict(ctype.fields)[name]
        ctype, offset = field.type, offset + field.offset
    return offset, ffi.sizeof(ctype)


AREAS = {
    "header": _extent("header"),
    "geometry": _extent("geometry"),
    "life": (_extent("life", "state")[0], 8),  # state and generation; the rest decides nothing
    "doorbell": _extent("doorbell", "worker_sleeping"),
    "status": (_extent("status")[0], 40),
    "counters.worker": _extent("worker"),
    "counters.driver": _extent("driver"),
}
"""Parts of a slot's region of which `scribble` changes one 32-bit word at random."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done."""

    after_s: float  # since the injector was made
    kind: str
    role: str
    slot: int | None
    pid: int  # of the victim, or of the worker of the slot that was scribbled on
    detail: str = ""

    def __str__(self) -> str:
        target = self.role if self.slot is None else f"{self.role} {self.slot}"
        return f"{self.after_s:8.3f} s  {self.kind:9} {target} (pid {self.pid}) {self.detail}".rstrip()


class Injector:
    """Use as a context manager. Not for two threads."""

    def __init__(self, instance: Instance, slots: Sequence[int] = (0,), *, seed: int) -> None:
        """`slots`: those whose workers and regions may suffer; the driver always may."""
        self.log: list[Fault] = []
        self.seed = seed
        self._dice = random.Random(seed)
        self._instance = instance
        self._slots = tuple(slots)
        self._started = time.monotonic()
        self._stack = ExitStack()
        self._regions = {slot: self._map(slot) for slot in slots}
        # Read once: geometry is among what is scribbled over.
        self._rings = {(slot, ring): self._ring(slot, ring) for slot in slots for ring in _RINGS}
        self._stopped: set[int] = set()
        self._scribbled: set[int] = set()  # slots
        self._dying: dict[tuple[lives.Role, int | None], int] = {}  # who must have a successor
        self._burners: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(self)
        self.resume()
        for burner in self._burners:
            burner.kill()
            burner.wait()
        self._stack.close()

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}:", *map(str, self.log)])

    # ---- faults

    def at_random(self, kinds: Sequence[str] = ()) -> Fault:
        """Do one of these kinds, or of all: kill, stop, pause, scribble, starve."""
        doers: dict[str, Callable[[], Fault]] = {
            "kill": lambda: self.kill(*self._anybody()),
            "stop": lambda: self.stop(*self._anybody()),
            "pause": lambda: self.pause(*self._anybody()),
            "scribble": lambda: self.scribble(
                self._dice.choice((*AREAS, *_RINGS, "descriptors")), self._dice.choice(self._slots)
            ),
            "starve": lambda: self.starve(self._dice.uniform(0.05, 0.5)),
        }
        return doers[self._dice.choice(tuple(kinds) or tuple(doers))]()

    def kill(self, role: lives.Role, slot: int | None = None) -> Fault:
        """SIGKILL."""
        pid = self._victim(role, slot)
        self._signal(pid, signal.SIGKILL)
        return self._note("kill", role, slot, pid)

    def stop(self, role: lives.Role, slot: int | None = None) -> Fault:
        """SIGSTOP, for good: it has to be found."""
        pid = self._victim(role, slot)
        self._signal(pid, signal.SIGSTOP)
        self._stopped.add(pid)
        return self._note("stop", role, slot, pid)

    def pause(self, role: lives.Role, slot: int | None = None, for_s: float = SHORT_STOP_S) -> Fault:
        """SIGSTOP, and SIGCONT after a while that nobody is killed for; what a worker holds, it holds for so long."""
        pid = lives.pid(self._instance, role, slot)
        self._signal(pid, signal.SIGSTOP)
        self._stopped.add(pid)
        time.sleep(for_s)
        self.resume()
        return self._note("pause", role, slot, pid, f"for {for_s:g} s")

    def resume(self) -> None:
        """SIGCONT to everybody that was stopped."""
        for pid in self._stopped:
            self._signal(pid, signal.SIGCONT)
        self._stopped.clear()

    def scribble(self, area: str, slot: int = 0) -> Fault:
        """Write into a slot's region: an area of AREAS, a ring's indices (rx, tx, spare), or `descriptors` of tx."""
        pid = lives.pid(self._instance, "worker", slot)
        self._scribbled.add(slot)
        if area in _RINGS:
            detail = self._scribble_index(slot, area)
        elif area == "descriptors":
            detail = self._scribble_descriptors(slot)
        else:
            detail = self._scribble_word(slot, area)
        return self._note("scribble", "worker", slot, pid, f"{area} {detail}")

    def starve(self, for_s: float) -> Fault:
        """Keep every core that the instance may use busy, at most LONGEST_STARVING_S, and return at once."""
        assert for_s <= LONGEST_STARVING_S
        self._burners = [burner for burner in self._burners if burner.poll() is None]
        command = [sys.executable, "-c", _BURNER, str(for_s)]
        for _ in os.sched_getaffinity(0):
            self._burners.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return self._note("starve", "everybody", None, 0, f"for {for_s:.2f} s")

    # ---- recovery

    def heal(self, *, timeout_s: float = 30.0) -> None:
        """Wait until everybody that had to die has a useful successor.

        An index that is one too high, or another descriptor, can be what a sound worker would have written: nothing is
        wrong then but that buffers of this slot are missing until its life cycle is walked. And what is scribbled
        between a reset and the next worker is that one's. So the worker of a slot that was scribbled on is killed.
        """
        self._wait_for_successors(timeout_s)
        for slot in sorted(self._scribbled):
            self.kill("worker", slot)
        self._scribbled.clear()
        self._wait_for_successors(timeout_s)

    # ---- how

    def _wait_for_successors(self, timeout_s: float) -> None:
        for (role, slot), pid in self._dying.items():
            lives.wait_for_successor(self._instance, role, pid, slot, timeout_s=timeout_s)
        self._dying.clear()
        self._stopped.clear()
        workers: list[tuple[lives.Role, int | None]] = [("worker", slot) for slot in self._slots]
        wait_until(
            lambda: all(lives.is_useful(self._instance, *each) for each in [("driver", None), *workers]),
            timeout_s=timeout_s,
            what=f"everybody is useful; {self}",
        )

    def _anybody(self) -> tuple[lives.Role, int | None]:
        found: list[tuple[lives.Role, int | None]] = [("worker", slot) for slot in self._slots]
        return self._dice.choice([("driver", None), *found])

    def _victim(self, role: lives.Role, slot: int | None) -> int:
        pid = lives.pid(self._instance, role, slot)
        self._dying[role, slot] = pid
        return pid

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has died of something else
            os.kill(pid, number)

    def _note(self, kind: str, role: str, slot: int | None, pid: int, detail: str = "") -> Fault:
        fault = Fault(time.monotonic() - self._started, kind, role, slot, pid, detail)
        self.log.append(fault)
        return fault

    def _map(self, slot: int) -> Region:
        name = region_name(self._instance.name, f"slot.{slot}").lstrip("/")
        fd = os.open(self._instance.namespace.shared_memory / name, os.O_RDWR | os.O_CLOEXEC)
        region = Region.attach(fd, RegionKind.SLOT, writable=True)
        self._stack.callback(region.close)
        return region

    def _ring(self, slot: int, ring: str) -> tuple[int, int]:
        """Return where a ring's descriptors start in the region, and how many there are."""
        geometry = self._regions[slot].pointer.geometry
        size = geometry.ring_size if ring == "rx" else getattr(geometry, f"{ring}_size")
        return int(getattr(geometry, f"{ring}_offset")), int(size)

    def _octets(self, slot: int) -> Any:
        return ffi.cast("uint8_t *", self._regions[slot].pointer)

    def _scribble_word(self, slot: int, area: str) -> str:
        start, octets = AREAS[area]
        at = start + self._dice.randrange(octets // 4) * 4
        word = ffi.cast("uint32_t *", self._octets(slot) + at)
        before = int(word[0])
        value = self._dice.choice((self._dice.getrandbits(32), 0, 0xFFFFFFFF, before + 1, before - 1))
        value = value % 2**32 if value % 2**32 != before else before ^ 1
        word[0] = value
        return f"at {at}: {before:#x} became {value:#x}"

    def _scribble_index(self, slot: int, ring: str) -> str:
        """An index that the worker writes, as the driver reads it, or the other one, which the worker reads."""
        index = getattr(self._regions[slot].pointer, ring)
        field = self._dice.choice(("producer", "consumer"))
        before = int(getattr(index, field))
        _, size = self._rings[slot, ring]
        how, value = self._dice.choice(
            (
                ("at random", self._dice.getrandbits(32)),
                ("+ 1", before + 1),
                ("- 1", before - 1),
                ("back one lap", before - size),
            )
        )
        setattr(index, field, value % 2**32)
        return f"{field} {how}: {before} became {value % 2**32}"

    def _scribble_descriptors(self, slot: int) -> str:
        """Random octets over a part of the tx ring."""
        start, size = self._rings[slot, "tx"]
        count = self._dice.randrange(1, 257)
        at = self._dice.randrange(size - count)
        ffi.memmove(self._octets(slot) + start + at * 8, self._dice.randbytes(count * 8), count * 8)
        return f"{count} from {at} on, the driver is at {self._regions[slot].pointer.tx.consumer}"
