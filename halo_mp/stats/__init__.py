# SPDX-License-Identifier: Apache-2.0
"""Everything that an instance counts, read from its shared memory and from /proc: nobody is asked or disturbed.

    with Reader("default") as reader:
        snapshot = reader.read()

`reader` reads, `model` is what it returns, `totals` keeps sums from going backwards, `rates` makes differences of two
snapshots, `processes` says what processes take of the machine. Only the instance's user and root may.
"""
