# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from halo_mp.stack.neighbor_settings import NeighborSettings


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"reachable_s": 0.0}, "reachable_s"),
        ({"stale_s": -1.0}, "stale_s"),
        ({"delay_s": 0.0}, "delay_s"),
        ({"failed_s": 0.0}, "failed_s"),
        ({"reachable_spread": 1.0}, "reachable_spread"),
        ({"reachable_spread": -0.1}, "reachable_spread"),
        ({"pending_capacity": 0}, "pending_capacity"),
        ({"capacity": 10, "pending_capacity": 10}, "pending_capacity"),
        ({"held_per_neighbor": 0}, "held_per_neighbor"),
        ({"held_per_neighbor": 5, "held_in_all": 4}, "held_per_neighbor"),
    ],
)
def test_construct_impossible_values_is_refused_by_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is"):
        NeighborSettings(**wrong)
