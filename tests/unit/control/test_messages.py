# SPDX-License-Identifier: Apache-2.0
"""Fields of messages, as somebody sends them who has another version or bad intentions."""

import pytest

from halo_mp.control import frame
from halo_mp.control.channel import ProtocolError
from halo_mp.control.messages import NEIGHBORS_PER_MESSAGE, field, parse_neighbors

MAC = bytes(6)


@pytest.mark.parametrize(
    ("value", "kind"), [(None, int), (True, int), (1, bool), ("1", int), (1.0, int), ("x", bytes), ({}, list)]
)
def test_field_of_another_type_is_refused(value: object, kind: type) -> None:
    with pytest.raises(ProtocolError, match="v="):
        field({"type": "x", "v": value}, "v", kind)


def test_field_missing_is_refused() -> None:
    with pytest.raises(ProtocolError, match="v=None"):
        field({"type": "x"}, "v", int)


def test_field_of_its_type_is_returned() -> None:
    assert field({"type": "x", "v": 0}, "v", int) == 0


def test_neighbors_are_parsed() -> None:
    message = {"type": "learned", "neighbors": [[0, 0, 1, MAC], [255, 4094, 2**32 - 1, MAC]]}
    assert parse_neighbors(message) == [(0, 0, 1, MAC), (255, 4094, 2**32 - 1, MAC)]


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        [0, 0, 1],
        [0, 0, 1, MAC, 0],
        [256, 0, 1, MAC],
        [-1, 0, 1, MAC],
        [0, 4095, 1, MAC],
        [0, 0, 0, MAC],
        [0, 0, 2**32, MAC],
        [0, 0, 1, bytes(5)],
        [0, 0, 1, "aabbcc"],
        ["0", 0, 1, MAC],
        {"port": 0},
    ],
)
def test_neighbor_that_is_none_is_refused(entry: object) -> None:
    with pytest.raises(ProtocolError, match="as a neighbor"):
        parse_neighbors({"type": "learned", "neighbors": [entry]})


def test_neighbors_full_message_fits_in_a_frame() -> None:
    neighbors = [[255, 4094, 2**32 - 1, b"\xff" * 6]] * NEIGHBORS_PER_MESSAGE
    assert len(frame.emit({"type": "neighbors", "neighbors": neighbors})) < frame.MAX_FRAME_OCTETS / 2
