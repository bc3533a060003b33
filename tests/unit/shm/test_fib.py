# SPDX-License-Identifier: Apache-2.0
"""The FIB against a dictionary of routes that is searched from the longest prefix on."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from halo_mp.errors import EnvironmentProblem
from halo_mp.shm import fib
from halo_mp.shm.fib import Change, ChangeKind, FibFullError, FibWriter, Origin, Target, TargetKind
from halo_mp.shm.layout import RegionKind, lib
from halo_mp.shm.region import Region

ADD, REPLACE, DELETE = ChangeKind.ADD, ChangeKind.REPLACE, ChangeKind.DELETE
ALL_ONES = 0xFFFFFFFF


@dataclass
class Rig:
    """Both regions and their writer."""

    fib: Region
    routes: Region
    writer: FibWriter
    model: dict[tuple[int, int], int] = field(default_factory=dict)

    def apply(self, kind: ChangeKind, prefix: int, length: int, target: int = 0) -> int:
        (outcome,) = self.writer.apply([Change(kind, prefix, length, target)])
        if outcome.error == 0:
            if kind is DELETE:
                del self.model[prefix, length]
            else:
                self.model[prefix, length] = target
        return outcome.error

    def lookup(self, address: int) -> int:
        return int(lib.halo_fib_lookup(self.fib.pointer, address))

    def check(self, addresses: Iterator[int] | list[int]) -> None:
        for address in addresses:
            assert self.lookup(address) == longest(self.model, address), f"{address:#010x}"

    def reopen(self) -> None:
        self.writer.close()
        self.writer = FibWriter(self.fib, self.routes)


def longest(model: dict[tuple[int, int], int], address: int) -> int:
    for length in range(32, -1, -1):
        target = model.get((address & mask(length), length))
        if target is not None:
            return target
    return 0


def mask(length: int) -> int:
    return ALL_ONES << (32 - length) & ALL_ONES


def edges(model: dict[tuple[int, int], int]) -> Iterator[int]:
    """The first and last address of each prefix, and their neighbors."""
    for prefix, length in model:
        last = prefix | ALL_ONES >> length
        yield from (address & ALL_ONES for address in (prefix - 1, prefix, last, last + 1))


@pytest.fixture
def rig(instance: str) -> Iterator[Rig]:
    regions = fib.create_fib(instance, generation=1, hash_seed=7), fib.create_routes(instance, generation=1)
    made = Rig(*regions, FibWriter(*regions))
    yield made
    made.writer.close()
    for region in regions:
        region.unlink()
        region.close()


@pytest.fixture
def target(rig: Rig) -> int:
    return rig.writer.new_target(Target(TargetKind.GATEWAY, 1, 0x0A000001))


def test_new_fib_has_no_route_anywhere(rig: Rig) -> None:
    rig.check([0, 1, 0x7F000001, ALL_ONES])
    assert rig.writer.usage().routes == rig.writer.usage().nodes == 0


@pytest.mark.parametrize("length", range(33))
def test_each_length_covers_its_addresses_and_no_other(rig: Rig, target: int, length: int) -> None:
    prefix = 0xC0A81722 & mask(length)
    assert rig.apply(ADD, prefix, length, target) == 0
    rig.check(list(edges(rig.model)))
    assert rig.apply(DELETE, prefix, length) == 0
    assert rig.lookup(prefix) == 0
    assert rig.writer.usage().nodes == 0  # all that was made for it is given back


@pytest.mark.parametrize("seed", range(8))
def test_random_changes_are_what_a_search_by_length_finds(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    targets = [rig.writer.new_target(Target(TargetKind.GATEWAY, 0, n + 1)) for n in range(20)]
    crowd = [dice.getrandbits(32) for _ in range(6)]  # so that prefixes lie within each other
    for _ in range(3000):
        length = dice.choice([0, 1, 7, 8, 9, 15, 16, 17, 18, 22, 23, 24, 25, 26, 30, 31, 32])
        prefix = (dice.choice(crowd) ^ dice.getrandbits(dice.randrange(20))) & mask(length)
        kind = dice.choice([ADD, REPLACE, REPLACE, DELETE])
        there = (prefix, length) in rig.model
        wanted = {ADD: errno.EEXIST if there else 0, REPLACE: 0, DELETE: 0 if there else errno.ENOENT}[kind]
        assert rig.apply(kind, prefix, length, dice.choice(targets)) == wanted
        rig.check([dice.choice(crowd) ^ dice.getrandbits(dice.randrange(18)) for _ in range(10)])
    rig.check(edges(rig.model))
    assert rig.writer.usage().routes == len(rig.model)
    for prefix, length in list(rig.model):
        assert rig.apply(DELETE, prefix, length) == 0
    assert rig.writer.usage().nodes == 0
    assert set(rig.fib.pointer.root[0]) == {0}


def test_last_route_of_a_prefix_goes_and_the_shorter_one_is_seen(rig: Rig, target: int) -> None:
    """Once an empty list stayed behind, hid shorter prefixes, and a lookup divided by its length."""
    other = rig.writer.new_target(Target(TargetKind.GATEWAY, 1, 2))
    rig.apply(ADD, 0x0A000000, 8, target)
    rig.apply(ADD, 0x0A010000, 16, other)
    assert rig.lookup(0x0A010203) == other
    rig.apply(DELETE, 0x0A010000, 16)
    assert rig.lookup(0x0A010203) == target
    rig.apply(DELETE, 0x0A000000, 8)
    assert rig.lookup(0x0A010203) == 0


@pytest.mark.parametrize(
    ("prefix", "length", "number", "error"),
    [
        (0x0A000001, 24, 1, errno.EINVAL),  # bits behind the length
        (0x0A000000, 33, 1, errno.EINVAL),
        (0x0A000000, 255, 1, errno.EINVAL),
        (0x0A000000, 24, 0, errno.EINVAL),  # target 0 is "no route"
        (0x0A000000, 24, fib.MAX_TARGETS, errno.EINVAL),
    ],
)
def test_change_that_makes_no_sense_is_refused_and_changes_nothing(
    rig: Rig, target: int, prefix: int, length: int, number: int, error: int
) -> None:
    assert target == 1
    assert rig.apply(ADD, prefix, length, number) == error
    assert rig.writer.usage().routes == 0
    assert set(rig.fib.pointer.root[0]) == {0}


def test_apply_goes_on_behind_a_refused_change(rig: Rig, target: int) -> None:
    changes = [
        Change(ADD, 0x0A000000, 8, target),
        Change(ADD, 0x0A000000, 8, target),
        Change(DELETE, 0x0B000000, 8),
        Change(ADD, 0x0C000000, 8, target),
    ]
    assert [outcome.error for outcome in rig.writer.apply(changes)] == [0, errno.EEXIST, errno.ENOENT, 0]
    assert [rig.lookup(octet << 24) for octet in (10, 11, 12)] == [target, 0, target]
    assert rig.writer.references(target) == 2


def test_replaced_route_tells_what_was_there(rig: Rig, target: int) -> None:
    other = rig.writer.new_target(Target(TargetKind.BLACKHOLE))
    rig.apply(ADD, 0x0A000000, 8, target)
    (outcome,) = rig.writer.apply([Change(REPLACE, 0x0A000000, 8, other, Origin.CONNECTED)])
    assert outcome == fib.Outcome(0, target)
    assert rig.writer.references(target) == 0
    assert rig.writer.find(0x0A000000, 8) == fib.RouteEntry(0x0A000000, 8, other, Origin.CONNECTED)


def test_routes_are_listed_from_any_place_and_by_origin(rig: Rig, target: int) -> None:
    for octet in range(1, 101):
        origin = Origin.CONNECTED if octet % 10 == 0 else Origin.STATIC
        rig.writer.apply([Change(ADD, octet << 24, 8, target, origin)])
    places = dict(rig.writer.routes())
    assert {entry.prefix >> 24 for entry in places.values()} == set(range(1, 101))
    middle = sorted(places)[50]
    assert dict(rig.writer.routes(middle)) == {place: places[place] for place in places if place >= middle}
    assert len(list(rig.writer.routes(origin=Origin.CONNECTED))) == 10


def test_covering_is_the_longest_route(rig: Rig, target: int) -> None:
    assert rig.writer.covering(0x0A010203) is None
    for length in (0, 8, 24):
        rig.apply(ADD, 0x0A010200 & mask(length), length, target)
    found = rig.writer.covering(0x0A010203)
    assert found is not None
    assert found.length == 24
    found = rig.writer.covering(0x0B000000)
    assert found is not None
    assert found.length == 0


# ---- reuse


def test_unlinked_node_is_used_again_only_when_its_epoch_has_passed(rig: Rig, target: int) -> None:
    rig.apply(ADD, 0x0A010200, 24, target)
    entry = rig.fib.pointer.root[0][0x0A01]
    rig.apply(DELETE, 0x0A010200, 24)
    rig.writer.seal(5)
    rig.writer.reclaim(4)  # a reader that stopped stays at the epoch before
    reserved = rig.fib.pointer.nodes_reserved
    for number in range(reserved - 1):  # every other node there is memory for
        rig.apply(ADD, number << 16 | 0x0100, 24, target)
    assert entry not in set(rig.fib.pointer.root[0])
    assert rig.writer.usage().nodes_waiting == 1
    rig.writer.reclaim(5)
    rig.apply(ADD, 0xFFFF0100, 24, target)
    assert rig.fib.pointer.root[0][0xFFFF] == entry
    assert rig.fib.pointer.nodes_reserved == reserved


def test_unsealed_node_is_not_reused_whatever_was_passed(rig: Rig, target: int) -> None:
    rig.apply(ADD, 0x0A010200, 24, target)
    rig.apply(DELETE, 0x0A010200, 24)
    rig.writer.reclaim(2**63)
    assert rig.writer.usage().nodes_waiting == 1
    assert rig.writer.has_waste


def test_target_is_used_again_only_when_its_epoch_has_passed(rig: Rig) -> None:
    first = rig.writer.new_target(Target(TargetKind.GATEWAY, 3, 77))
    rig.writer.retire(first)
    assert rig.writer.target(first).address == 77  # a reader may still look at it
    rig.writer.seal(9)
    rig.writer.reclaim(8)
    assert rig.writer.new_target(Target(TargetKind.BLACKHOLE)) != first
    rig.writer.reclaim(9)
    assert rig.writer.new_target(Target(TargetKind.BLACKHOLE)) == first


def test_targets_run_out_with_an_error_and_come_back(rig: Rig) -> None:
    numbers = [rig.writer.new_target(Target(TargetKind.BLACKHOLE)) for _ in range(fib.MAX_TARGETS - 1)]
    with pytest.raises(FibFullError, match="65535 targets"):
        rig.writer.new_target(Target(TargetKind.BLACKHOLE))
    rig.writer.retire(numbers[7])
    rig.writer.seal(2)
    rig.writer.reclaim(2)
    assert rig.writer.new_target(Target(TargetKind.PROHIBIT)) == numbers[7]


# ---- groups


def test_group_leads_each_hash_to_its_bucket(rig: Rig) -> None:
    paths = [rig.writer.new_target(Target(TargetKind.GATEWAY, 0, n)) for n in (1, 2)]
    buckets = [paths[i % 2] for i in range(64)]
    group = rig.writer.new_group([(paths[0], 3), (paths[1], 1)], buckets)
    rig.apply(ADD, 0, 0, group)
    for flow in (0, 1, 63, 64, 2**32 - 1):
        assert lib.halo_fib_lookup_flow(rig.fib.pointer, 0x08080808, flow) == buckets[flow % 64]
    assert rig.writer.members(group) == ((paths[0], 3), (paths[1], 1))
    rig.writer.set_buckets(group, paths[:1] * 64)
    assert lib.halo_fib_lookup_flow(rig.fib.pointer, 0x08080808, 1) == paths[0]


def test_groups_buckets_and_members_come_back(rig: Rig) -> None:
    path = rig.writer.new_target(Target(TargetKind.GATEWAY, 0, 1))
    for epoch in range(2, 2 + 3 * fib.MAX_BUCKETS // 16384):
        group = rig.writer.new_group([(path, 1)] * 8, [path] * 16384)
        rig.writer.retire(group)
        rig.writer.seal(epoch)
        rig.writer.reclaim(epoch)
    groups = [rig.writer.new_group([(path, 1)], [path] * 16384) for _ in range(fib.MAX_BUCKETS // 16384)]
    with pytest.raises(FibFullError, match="buckets"):
        rig.writer.new_group([(path, 1)], [path] * 16384)
    assert len(set(groups)) == len(groups)


@pytest.mark.parametrize("reopened", [False, True])
def test_buckets_of_small_groups_are_joined_for_large_ones(rig: Rig, *, reopened: bool) -> None:
    path = rig.writer.new_target(Target(TargetKind.GATEWAY, 0, 1))
    small, large = 64, 16384
    groups = [rig.writer.new_group([(path, 1)], [path] * small) for _ in range(fib.MAX_BUCKETS // small)]
    kept = groups.pop(large // small - 1)  # at the end of what would be the first large group
    for group in random.Random(1).sample(groups, len(groups)):
        rig.writer.retire(group)
    rig.writer.seal(2)
    rig.writer.reclaim(2)
    if reopened:
        rig.reopen()
    made = [rig.writer.new_group([(path, 1)], [path] * large) for _ in range(fib.MAX_BUCKETS // large - 1)]
    with pytest.raises(FibFullError, match="buckets"):
        rig.writer.new_group([(path, 1)], [path] * large)
    places = sorted(rig.fib.pointer.target[group].first for group in (kept, *made))
    assert places == [large - small, *range(large, fib.MAX_BUCKETS, large)]


# ---- successors


def test_successor_finds_routes_targets_and_groups(rig: Rig) -> None:
    paths = [rig.writer.new_target(Target(TargetKind.GATEWAY, 4, n, pinned=True)) for n in (1, 2)]
    group = rig.writer.new_group([(paths[1], 2), (paths[0], 5)], paths * 32)
    for prefix, length in ((0, 0), (0x0A000000, 8), (0x0A010200, 24), (0x0A010203, 32)):
        rig.apply(ADD, prefix, length, group if length == 8 else paths[length % 3 % 2])
    rig.reopen()
    rig.check(edges(rig.model))
    assert rig.writer.target(paths[0]) == Target(TargetKind.GATEWAY, 4, 1, pinned=True)
    assert rig.writer.members(group) == ((paths[1], 2), (paths[0], 5))
    assert rig.writer.buckets(group) == paths * 32
    assert set(rig.writer.targets()) == {*paths, group}
    assert rig.writer.references(group) == 1
    assert rig.writer.new_target(Target(TargetKind.BLACKHOLE)) not in {*paths, group}


def test_successor_does_not_reuse_what_was_unlinked_before(rig: Rig, target: int) -> None:
    rig.apply(ADD, 0x0A010200, 24, target)
    rig.apply(DELETE, 0x0A010200, 24)
    rig.reopen()
    assert rig.writer.usage().nodes_waiting >= 1
    rig.writer.reclaim(2**63)
    assert rig.writer.usage().nodes_waiting >= 1  # no epoch was begun since


_FLAPPER = """
import random, sys
from halo_mp.shm.fib import *
from halo_mp.shm.region import Region, RegionKind
fib = Region.attach(sys.argv[1], RegionKind.FIB, writable=True)
routes = Region.attach(sys.argv[2], RegionKind.ROUTES, writable=True)
writer = FibWriter(fib, routes)
dice = random.Random(int(sys.argv[3]))
targets = [1, 2, 3]
print("ready", flush=True)
while True:
    length = dice.choice([8, 12, 16, 18, 24, 25, 32])
    prefix = (0x0A000000 | dice.getrandbits(18)) & 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
    writer.apply([Change(dice.choice([ChangeKind.REPLACE, ChangeKind.DELETE]), prefix, length, dice.choice(targets))])
"""


def flapper(rig: Rig, seed: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _FLAPPER, rig.fib.name, rig.routes.name, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def model_of(rig: Rig) -> dict[tuple[int, int], int]:
    return {(entry.prefix, entry.length): entry.target for _, entry in rig.writer.routes()}


def test_writer_killed_in_the_middle_the_successor_completes_its_work(rig: Rig) -> None:
    for n in range(3):
        rig.writer.new_target(Target(TargetKind.GATEWAY, 0, n + 1))
    dice = random.Random(1)
    for seed in range(12):
        with flapper(rig, seed) as process:
            for _ in range(dice.randrange(1, 2000)):
                rig.lookup(dice.getrandbits(32))
            process.send_signal(signal.SIGKILL)
        rig.reopen()
        rig.model = model_of(rig)
        rig.check(edges(rig.model))
        rig.check([0x0A000000 | dice.getrandbits(18) for _ in range(2000)])


def test_lookup_while_written_finds_one_of_the_routes_that_may_be_there(rig: Rig) -> None:
    """Two targets take turns in a /8; what is flapped within it is a third. No lookup ever sees anything else."""
    for n in range(4):
        rig.writer.new_target(Target(TargetKind.GATEWAY, 0, n + 1))
    rig.apply(ADD, 0, 0, 4)
    with flapper(rig, 3) as process:
        seen = {rig.lookup(0x0A000000 | random.getrandbits(18)) for _ in range(300_000)}
        outside = {rig.lookup(0x0B000000 | random.getrandbits(18)) for _ in range(10_000)}
        process.kill()
    assert seen == {1, 2, 3, 4}
    assert outside == {4}


def test_scribbled_routes_are_refused(rig: Rig, target: int) -> None:
    rig.apply(ADD, 0x0A000000, 8, target)
    rig.fib.pointer.root[0][0x0A00] = lib.HALO_FIB_CHILD | 12345
    rig.writer.close()
    with pytest.raises(EnvironmentProblem, match="routes in shared memory"):
        FibWriter(rig.fib, rig.routes)


def test_memory_grows_with_what_is_used(rig: Rig, target: int) -> None:
    before = os.fstat(rig.fib.fd).st_blocks
    for number in range(2000):
        rig.apply(ADD, number << 16 | 0x0100, 24, target)
    grown = (os.fstat(rig.fib.fd).st_blocks - before) * 512
    assert 2000 * 1024 <= grown <= 2 * 2**20 + 4096
    assert rig.writer.usage().octets >= 2000 * 1024
    assert Region.attach(rig.fib.name, RegionKind.FIB, writable=False).close() is None
