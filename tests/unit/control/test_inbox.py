# SPDX-License-Identifier: Apache-2.0
"""Frames cut at every octet, and descriptors that end up in exactly one place."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_mp.control import frame
from halo_mp.control.frame import MAX_FDS, FrameError
from halo_mp.control.inbox import Inbox, close_all


def open_fds(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


@given(st.lists(st.binary(max_size=30), max_size=6), st.data())
def test_stream_cut_anywhere_gives_the_same_messages(payloads: list[bytes], data: st.DataObject) -> None:
    messages = [{"type": "x", "v": payload} for payload in payloads]
    stream = b"".join(frame.emit(message) for message in messages)
    inbox, found, at = Inbox(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        inbox.put(stream[at : at + size], [])
        at += size
        while (taken := inbox.take()) is not None:
            found.append(taken[0])
    assert found == messages
    assert not inbox


def test_descriptors_go_to_the_frame_that_their_read_ends_in() -> None:
    inbox, fds = Inbox(), open_fds(2)
    plain, loaded = frame.emit({"type": "plain"}), frame.emit({"type": "loaded", "fds": 2})
    inbox.put(plain[:3], [])
    inbox.put(plain[3:] + loaded[:5], fds)  # the kernel may put octets without descriptors in front
    assert inbox.take() == ({"type": "plain"}, [])
    assert inbox.take() is None
    inbox.put(loaded[5:], [])
    assert inbox.take() == ({"type": "loaded"}, fds)
    close_all(fds)


@pytest.mark.parametrize("declared", [0, 1, 2])
def test_descriptors_beyond_the_declared_are_closed(declared: int) -> None:
    inbox, fds = Inbox(), open_fds(3)
    inbox.put(frame.emit({"type": "x", "fds": declared}), list(fds))
    taken = inbox.take()
    assert taken is not None
    assert taken[1] == fds[:declared]
    assert [is_open(fd) for fd in fds] == [i < declared for i in range(3)]
    close_all(taken[1])


def test_descriptors_of_one_frame_do_not_help_the_next() -> None:
    inbox, fds = Inbox(), open_fds(2)
    inbox.put(frame.emit({"type": "x"}), list(fds))
    inbox.put(frame.emit({"type": "y", "fds": 1}), [])
    assert inbox.take() == ({"type": "x"}, [])
    with pytest.raises(FrameError, match="1 descriptors declared, of which 0 came"):
        inbox.take()
    assert not any(is_open(fd) for fd in fds)


def test_descriptors_fewer_than_declared_are_closed() -> None:
    inbox, fds = Inbox(), open_fds(2)
    inbox.put(frame.emit({"type": "x", "fds": 3}), list(fds))
    with pytest.raises(FrameError, match="3 descriptors declared, of which 2 came"):
        inbox.take()
    assert not any(is_open(fd) for fd in fds)


def test_descriptors_without_end_are_refused_and_closed() -> None:
    inbox = Inbox()
    fds = open_fds(MAX_FDS)
    inbox.put(b"\0", list(fds))
    fds += (batch := open_fds(1))
    with pytest.raises(FrameError, match="more than"):
        inbox.put(b"\0", batch)
    inbox.close()
    assert not any(is_open(fd) for fd in fds)


def test_close_closes_what_nobody_took() -> None:
    inbox, fds = Inbox(), open_fds(1)
    inbox.put(b"\0\0", list(fds))
    inbox.close()
    inbox.close()
    assert not is_open(fds[0])
