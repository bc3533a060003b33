# SPDX-License-Identifier: Apache-2.0
"""The pictures of the dashboard show it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pictures import IMAGES, PICTURES, Scene, draw, scene, text_of


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("pictures"))


def test_pictures_are_those_that_there_are() -> None:
    assert {path.stem for path in IMAGES.glob("dashboard-*.svg")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_shows_the_dashboard_as_it_is(name: str, feed: Scene) -> None:
    made = text_of(draw(name, feed))
    assert len(made) > 500
    assert text_of(Path(IMAGES / f"{name}.svg").read_text()) == made, "python -m tests.docs.pictures"
