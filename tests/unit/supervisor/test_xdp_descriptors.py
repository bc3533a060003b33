# SPDX-License-Identifier: Apache-2.0
"""Whose an AF_XDP socket is, with real ones."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from halo_mp.supervisor.xdp_descriptors import AF_XDP, XdpDescriptors, xdp_descriptors


@pytest.fixture(autouse=True)
def before() -> Iterator[set[int]]:
    found = xdp_descriptors()
    yield found
    assert xdp_descriptors() == found


def opened() -> int:
    """Open a socket as a PMD would, which nobody but a descriptor's number remembers."""
    return socket.socket(AF_XDP, socket.SOCK_RAW).detach()


def test_only_what_was_opened_for_the_port_is_closed(before: set[int]) -> None:
    descriptors = XdpDescriptors()
    with descriptors.of(0):
        opened()
        ordinary = os.open(os.devnull, os.O_RDONLY)
    with descriptors.of(1):
        other = opened()
    descriptors.close(0)
    assert xdp_descriptors() - before == {other}
    os.fstat(ordinary)
    os.close(ordinary)
    descriptors.close(1)


def test_what_a_port_has_left_is_still_its_own_when_it_is_opened_again(before: set[int]) -> None:
    """An lcore did not leave, so nothing was closed; the next attempt at opening closes the device first."""
    descriptors = XdpDescriptors()
    with descriptors.of(0):
        left, closed = opened(), opened()
    with descriptors.of(0):
        os.close(closed)
        new = opened()
    assert xdp_descriptors() - before == {left, new}
    descriptors.close(0)
    assert xdp_descriptors() == before


def test_what_could_not_be_closed_is_closed_the_next_time(before: set[int]) -> None:
    descriptors = XdpDescriptors()
    with descriptors.of(0):
        opened()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            descriptors.close(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    descriptors.close(0)
    assert xdp_descriptors() == before
