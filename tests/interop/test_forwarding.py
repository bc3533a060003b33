# SPDX-License-Identifier: Apache-2.0
"""A router between two kernels: two ports, a worker each, and what each kernel sends reaches the other through C."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.accounts import balanced
from tests.support.instance import Instance
from tests.support.namespace import Namespace, connect

LEFT, RIGHT = "10.8.0.2", "10.9.0.2"


@dataclass(frozen=True, slots=True)
class Routed:
    """An instance, and a kernel on each of its ports."""

    instance: Instance
    left: Namespace
    right: Namespace


@pytest.fixture(scope="module")
def routed() -> Iterator[Routed]:
    with Namespace() as middle, Namespace() as left, Namespace() as right:
        flags: list[str] = []
        for port, (side, net) in enumerate(((left, "10.8.0"), (right, "10.9.0"))):
            name = f"veth{port}"
            for each in (middle, side):
                each.silence()
            connect(middle, side, name=name)
            side.run("ip", "address", "add", f"{net}.2/24", "dev", name)
            side.run("ip", "route", "add", "default", "via", f"{net}.1")
            flags += ["--vdev", f"net_af_packet{port},iface={name}", "--address", f"{port}={net}.1/24"]
        with Instance(middle, *flags) as instance:
            yield Routed(instance, left, right)
            balanced(instance, 0, 1)
            assert instance.stop() == 0


def forwarded(routed: Routed) -> list[int]:
    return [snapshot["worker"]["counters"]["forwarded"] for snapshot in balanced(routed.instance, 0, 1)]


def test_two_kernels_ping_each_other(routed: Routed) -> None:
    before = forwarded(routed)
    assert routed.left.ping(RIGHT, count=20, options=("-i", "0.01")) == 20
    assert routed.right.ping(LEFT, count=20, options=("-i", "0.01")) == 20
    happened = [now - was for now, was in zip(forwarded(routed), before, strict=True)]
    # Each worker forwards what comes in by its port, requests and answers. The first ones wait for a neighbor, or are
    # handed to the other worker, until news of that neighbor has come.
    assert 76 <= sum(happened) <= 80, happened
    assert min(happened) >= 20, happened


def test_far_address_of_the_router_answers(routed: Routed) -> None:
    before = forwarded(routed)
    assert routed.left.ping("10.9.0.1") == 3
    assert forwarded(routed) == before
