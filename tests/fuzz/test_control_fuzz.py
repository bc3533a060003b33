# SPDX-License-Identifier: Apache-2.0
"""Whatever a client sends: a request is refused with a sentence or checked, a text parsed or refused with a reason.

What is parsed and written again means the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo_mp.control import frame
from halo_mp.control.frame import FrameError
from halo_mp.control.public import REQUESTS
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor.config_model import (
    AddressConfig,
    HopConfig,
)
from halo_mp.supervisor.config_routes import MAX_WEIGHT, parse_hop, parse_hops, parse_prefix
from halo_mp.supervisor.config_values import parse_address, parse_host, parse_interface, parse_mac
from halo_mp.supervisor.control import check_request
from halo_mp.supervisor.running import RefusedError

bounded = settings(max_examples=200, derandomize=True, deadline=None)

FIELDS = [*sorted({name for request in REQUESTS.values() for name in request.fields}), "id", "type", "x"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=9,
)
MESSAGES = st.builds(
    lambda kind, fields: {**fields, "type": kind},
    st.sampled_from(sorted(REQUESTS)) | st.text(max_size=20),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5),
)
NEARLY = st.text(alphabet="0123456789./@*,abcdefault: \0\u0663-", max_size=24)


@bounded
@given(MESSAGES, st.booleans())
def test_request_is_refused_with_a_sentence_or_has_its_fields(message: dict[str, Any], admin: bool) -> None:
    refusal = ""
    try:
        check_request(message, admin=admin)
    except RefusedError as error:
        refusal = str(error)
    if refusal:
        assert refusal.endswith(".")
        return
    request = REQUESTS[message["type"]]
    assert admin or not request.changes
    for name, kind in request.fields.items():
        assert name in request.optional if name not in message else type(message[name]) is kind


@bounded
@given(st.binary(max_size=80) | MESSAGES.map(lambda message: frame.emit(message)[4:]))
def test_body_is_a_message_or_no_frame(octets: bytes) -> None:
    try:
        message = frame.parse_body(octets)
    except FrameError:
        return
    assert isinstance(message["type"], str)


@pytest.mark.parametrize(
    "parser",
    [
        parse_prefix,
        parse_hop,
        parse_address,
        parse_interface,
        parse_host,
        parse_mac,
        lambda text: parse_hops([text]),
    ],
)
@bounded
@given(text=NEARLY | st.text(max_size=24))
def test_text_is_parsed_or_refused_with_a_reason(parser: Callable[[str], object], text: str) -> None:
    reason = "none"
    try:
        parser(text)
    except ValueError as error:
        reason = str(error)
    assert reason


@bounded
@given(
    st.one_of(
        st.builds(
            HopConfig,
            st.integers(0x01000000, 0x7EFFFFFF),
            st.none() | st.integers(0, 63),
            st.just(0),
            st.integers(1, MAX_WEIGHT),
        ),
        st.builds(HopConfig, st.integers(0x01000000, 0x7EFFFFFF), st.integers(0, 63), st.integers(0, 4094)),
        st.builds(HopConfig, st.just(0), st.integers(0, 63), st.integers(0, 4094)),
        st.builds(HopConfig, kind=st.sampled_from(["blackhole", "unreachable", "prohibit"])),
    )
)
def test_hop_is_what_was_written(hop: HopConfig) -> None:
    assert parse_hop(str(hop)) == hop


@bounded
@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 32))
def test_prefix_is_what_was_written(address: int, length: int) -> None:
    network = AddressConfig(address, length)
    prefix = AddressConfig(network.first, length)
    assert parse_prefix(str(prefix)) == (network.first, length)
    if network.first != address:
        with pytest.raises(ValueError, match=str(prefix).replace(".", r"\.")):
            parse_prefix(str(network))


@bounded
@given(st.integers(0, 255), st.integers(0, 4094))
def test_interface_is_what_was_written(port: int, vlan: int) -> None:
    assert parse_interface(interface_name(port, vlan)) == (port, vlan)
