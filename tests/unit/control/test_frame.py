# SPDX-License-Identifier: Apache-2.0
"""Frames: what comes back is what went in, and nothing else comes back at all."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mp.control import frame
from halo_mp.control.frame import LENGTH_OCTETS, MAX_DEPTH, MAX_FDS, MAX_FRAME_OCTETS, FrameError

keys = st.text(max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


def body(message: object) -> bytes:
    return msgpack.packb(message)  # type: ignore[no-any-return]


@given(st.dictionaries(keys, values, max_size=5), keys)
def test_emit_then_parse_gives_the_message(fields: dict[str, object], kind: str) -> None:
    message = {key: value for key, value in fields.items() if key != "fds"} | {"type": kind}
    octets = frame.emit(message)
    assert frame.parse_length(octets) == len(octets) - LENGTH_OCTETS
    assert frame.parse_body(octets[LENGTH_OCTETS:]) == message


@given(st.binary(max_size=200))
@settings(max_examples=1000)
def test_parse_garbage_raises_frame_error_only(octets: bytes) -> None:
    try:
        message = frame.parse_body(octets)
    except FrameError:
        return
    assert isinstance(message["type"], str)


@given(st.dictionaries(keys, values, max_size=5), st.data())
def test_parse_truncated_or_flipped_raises_frame_error_only(
    fields: dict[str, object], data: st.DataObject
) -> None:
    octets = bytearray(body(fields | {"type": "x"}))
    cut = data.draw(st.integers(0, len(octets) - 1))
    with pytest.raises(FrameError):
        frame.parse_body(bytes(octets[:cut]))
    octets[cut] ^= 1 << data.draw(st.integers(0, 7))
    try:
        frame.parse_body(bytes(octets))
    except FrameError:
        pass


def test_parse_two_thousand_levels_are_refused() -> None:
    for opening in (b"\x91", b"\x81\xa1a"):
        deep = b"\x82\xa4type\xa1x\xa1v" + opening * 2000 + b"\xc0"
        with pytest.raises(FrameError):
            frame.parse_body(deep)


@pytest.mark.parametrize(("levels", "fits"), [(MAX_DEPTH - 1, True), (MAX_DEPTH, False), (500, False)])
def test_parse_depth_has_a_limit(levels: int, fits: bool) -> None:
    value: object = 1
    for _ in range(levels):
        value = [value]
    if fits:
        assert frame.parse_body(body({"type": "x", "v": value}))["v"] == value
    else:
        with pytest.raises(FrameError, match="nested deeper"):
            frame.parse_body(body({"type": "x", "v": value}))


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="empty"),
        pytest.param(body([1]), id="array"),
        pytest.param(body("type"), id="string"),
        pytest.param(body({}), id="no type"),
        pytest.param(body({"type": 1}), id="type is a number"),
        pytest.param(body({"type": b"x"}), id="type is octets"),
        pytest.param(body({"type": "x", b"k": 1}), id="octets as key"),
        pytest.param(b"\x82\xa4type\xa1x\x01\x02", id="number as key"),
        pytest.param(b"\x82\xa4type\xa1x\xa4type\xa1y", id="key twice"),
        pytest.param(
            b"\x82\xa4type\xa1x\xa1v\x81\xa1k\x81\xa1k\xff\xa1k\xff"[:-3] + b"\xa1k\xc0", id="rubbish inside"
        ),
        pytest.param(body({"type": "x"}) + b"\xc0", id="something behind"),
        pytest.param(body({"type": "x", "v": msgpack.ExtType(5, b"")}), id="empty extension"),
        pytest.param(body({"type": "x", "v": msgpack.ExtType(5, b"abc")}), id="extension"),
        pytest.param(body({"type": "x", "v": msgpack.Timestamp(1)}), id="timestamp"),
        pytest.param(b"\x82\xa4type\xa1x\xa1v\xa2\xff\xfe", id="no UTF-8"),
        pytest.param(b"\x82\xa4type\xa1x\xa1v\xc6\xff\xff\xff\xff", id="4 GiB of octets declared"),
        pytest.param(b"\x82\xa4type\xa1x\xa1v\xdd\xff\xff\xff\xff", id="2^32 items declared"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="2^32 keys declared"),
        pytest.param(b"\x82\xa4type\xa1x\xa1v\xc1", id="the octet that is never used"),
        pytest.param(body({"type": "x", "fds": -1}), id="fewer descriptors than none"),
        pytest.param(body({"type": "x", "fds": MAX_FDS + 1}), id="too many descriptors"),
        pytest.param(body({"type": "x", "fds": True}), id="descriptors is a bool"),
        pytest.param(body({"type": "x", "fds": 1.0}), id="descriptors is a float"),
    ],
)
def test_parse_body_is_refused(octets: bytes) -> None:
    with pytest.raises(FrameError):
        frame.parse_body(octets)


@pytest.mark.parametrize("length", [0, MAX_FRAME_OCTETS + 1, 2**31, 2**32 - 1])
def test_parse_length_that_is_not_allowed_is_refused(length: int) -> None:
    with pytest.raises(FrameError, match=str(length)):
        frame.parse_length(length.to_bytes(4, "big"))


def test_emit_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' has 65"):
        frame.emit({"type": "x", "v": bytes(MAX_FRAME_OCTETS)})
