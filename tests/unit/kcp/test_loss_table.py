# SPDX-License-Identifier: Apache-2.0
"""docs/kcp-loss.md is what the simulator says: all its rows are there, and those that are made anew are the same."""

import math
import re

import pytest

from bench import kcp_loss
from bench.kcp_loss import COMPARED, LOSSES, OURS_ALONE, our_side, their_side
from tests.docs.markdown import ROOT
from tests.support.lossy import Weather

PAGE = (ROOT / "docs/kcp-loss.md").read_text()
STORM = Weather(loss=0.3, duplicate=0.1, reorder=0.1, delay_ms=10, jitter_ms=5)


def test_each_cell_has_its_row() -> None:
    rows = re.findall(r"^\| (\S+) \| (\d+%) \|", PAGE, re.MULTILINE)
    assert rows == [(profile.name, f"{loss:.0%}") for profile in (*COMPARED, *OURS_ALONE) for loss in LOSSES]


@pytest.mark.parametrize("name", ["fast", "prompt-fec"])
def test_row_is_what_is_measured_now(name: str) -> None:
    profile = next(profile for profile in (*COMPARED, *OURS_ALONE) if profile.name == name)
    assert kcp_loss.line(profile, 0.10) in PAGE.splitlines()


@pytest.mark.parametrize("profile", COMPARED, ids=lambda profile: profile.name)
def test_both_send_the_same_through_the_same_weather(profile: kcp_loss.Profile) -> None:
    ours = kcp_loss.bulk(our_side, profile, STORM, 5, 1000)
    assert ours == kcp_loss.bulk(their_side, profile, STORM, 5, 1000)
    assert ours[0] > 0


def test_message_that_never_comes_is_infinitely_late() -> None:
    profile = kcp_loss.Profile("short", kcp_loss.FAST, beats=3)
    assert kcp_loss.beat(our_side, profile, Weather(loss=1), 1) == [math.inf] * 3
    assert kcp_loss.beat(our_side, profile, Weather(delay_ms=7), 1)[0] < math.inf
