# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

from halo_mp.stack import reasons

NATIVE = Path(__file__).parents[3] / "native" / "include" / "halo" / "drop_def.h"


def test_every_name_is_a_drop_counter_of_the_native_side() -> None:
    native = set(re.findall(r"^X\((\w+),", NATIVE.read_text(), re.MULTILINE))
    names = {value for name, value in vars(reasons).items() if name.isupper()}
    assert len(names) == 33
    assert names <= native
