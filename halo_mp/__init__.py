# SPDX-License-Identifier: Apache-2.0
"""halo-mp: a userspace network framework for Python on Linux.

DPDK moves frames between NICs and a buffer pool in shared memory; one pinned Python worker process per
port or port queue runs its own protocol stack on those buffers; a supervisor starts, feeds, watches and
restarts them.

This package holds what applications import and what worker and supervisor share. `halo_mp.workers` and
`halo_mp.supervisor` are the two kinds of process; in the repository they stand at the top, in `workers/`
and `supervisor/`.
"""

__version__ = "0.1.0.dev0"
