# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen at, as people write them."""

from __future__ import annotations

import pytest

from halo_mp.errors import UsageError
from halo_mp.listen import in_url, listen_address

EXAMPLE = "127.0.0.1:9464"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:0", ("::1", 0)),
        (":65535", ("", 65535)),
    ],
)
def test_listen_address(text: str, expected: tuple[str, int]) -> None:
    assert listen_address("--listen", text, EXAMPLE) == expected


@pytest.mark.parametrize("text", ["", "9464", "localhost", "localhost:", "a:-1", "a:65536", "a:1e3", "a:²"])
def test_listen_address_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"--web .*: write an address and a port, as .* or \[::1\]:9464\."):
        listen_address("--web", text, EXAMPLE)


def test_port_that_the_system_would_choose_is_refused_where_it_has_to_be_known() -> None:
    with pytest.raises(UsageError, match="write an address and a port"):
        listen_address("--web", "localhost:0", EXAMPLE, least_port=1)


def test_in_url() -> None:
    assert (in_url("127.0.0.1"), in_url("::1")) == ("127.0.0.1", "[::1]")
