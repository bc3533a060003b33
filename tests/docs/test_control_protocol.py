# SPDX-License-Identifier: Apache-2.0
"""docs/control-protocol.md says what the code does: every request with its fields, every value, every limit."""

from __future__ import annotations

import ast
import dataclasses
import re

import pytest

from halo_mp.control import channel, frame, notices, public
from halo_mp.control.public import REQUESTS
from halo_mp.supervisor import control, echo, feed_state, outbox
from tests.docs import markdown
from tests.docs.markdown import ROOT, rows, section, spans

PAGE = (ROOT / "docs/control-protocol.md").read_text()
TABLE = {spans(cells[0])[0]: cells for cells in rows(section(PAGE, "## Requests")) if spans(cells[0])}


def test_every_request_has_a_row_and_no_other() -> None:
    assert set(TABLE) == set(REQUESTS)


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_request_has_its_fields(name: str) -> None:
    request, (first, fields, reply) = REQUESTS[name], TABLE[name]
    assert first.endswith("*") == request.changes
    assert set(spans(fields)) == set(request.fields)
    assert set(re.findall(r"\[`(\w+)`\]", fields)) == request.optional
    assert tuple(spans(reply)) == request.reply


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("instance", public.InstanceInfo),
        ("interface", public.InterfaceInfo),
        ("neighbor", public.NeighborInfo),
        ("outcome", public.PingInfo),
        ("route", public.RouteInfo),
    ],
)
def test_value_has_its_fields(value: str, kind: type) -> None:
    [(_, told)] = [cells for cells in rows(section(PAGE, "## Requests")) if cells[0] == value]
    fields = [field.name for field in dataclasses.fields(kind)]
    assert [span for span in spans(told) if span in fields] == fields


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("event", notices.EventInfo),
        ("port", notices.PortStatistics),
        ("slot", notices.SlotStatistics),
        ("interface", notices.InterfaceStatistics),
    ],
)
def test_value_of_a_notice_has_its_fields(value: str, kind: type) -> None:
    [(_, told)] = [cells for cells in rows(section(PAGE, "## Notices")) if cells[0] == value]
    fields = [field.name for field in dataclasses.fields(kind)]
    assert [span for span in spans(told) if span in fields] == fields


def test_every_topic_has_a_row_and_no_other() -> None:
    told = [spans(cells[0]) for cells in rows(section(PAGE, "## Notices")) if spans(cells[0])]
    assert {name for names in told for name in names} == set(notices.TOPICS)


def test_limits_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for sentence in (
        f"map of 1 to {frame.MAX_FRAME_OCTETS} octets",
        f"at most {frame.MAX_DEPTH} levels deep",
        f"not ended within {channel.FRAME_TIMEOUT_S:g} seconds",
        f"for {control.HELLO_TIMEOUT_S:g} seconds is dropped",
        f"There can be {control.MAX_CLIENTS} clients, and "
        f"{control.MAX_CLIENTS_FOR_OWNERS - control.MAX_CLIENTS} more of root's",
        f"done until {1000 * control.TURN_S:g} ms are over",
        f"at most {public.MAX_CHANGES} routes",
        f"at most {public.MAX_PINGS}), `interval_ms` apart (1000; at least {echo.MIN_INTERVAL_MS})",
        f"version {public.PUBLIC_VERSION} of the protocol",
        f"more than {notices.MAX_WAITING_OCTETS} octets of them wait",
        f"takes none for {outbox.STALL_TIMEOUT_S:g} seconds",
        f"(1000; {1000 * notices.MIN_PERIOD_S:.0f} to {1000 * notices.MAX_PERIOD_S:.0f})",
        f"up to {feed_state.GATHER_S:g} seconds after",
    ):
        assert sentence in text, sentence
    assert control.SEND_TIMEOUT_S == control.HELLO_TIMEOUT_S


def test_example_names_what_there_is() -> None:
    example, _ = [block.body for block in markdown.blocks(PAGE) if block.info == "python"]
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)}
    from halo_mp.control.client import Client, Routes

    assert {"Client", "client.routes.add", "client.routes.replace", "client.routes.iterate"} <= called
    assert all(
        hasattr(Routes, name.rpartition(".")[2]) for name in called if name.startswith("client.routes")
    )
    assert Client.__enter__
