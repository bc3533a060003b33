# SPDX-License-Identifier: Apache-2.0
"""The Python stack: sans-I/O state machines that take octets and the time, and say what to do.

No socket, clock, sleep or global random generator is used here. ``now`` is an argument, in seconds of a
monotonic clock; randomness comes from a `random.Random` that is handed in; what has to happen comes back as a
list of output values (`halo_mp.stack.outputs`), and when to call next from ``next_deadline()``. So the same
code runs under a fake clock in tests and under the worker's event loop in life.

The entry is `halo_mp.stack.router.Router`. It gets the frames that the native fast path could not finish: it is
made for thousands of them per second, not for millions.

Memory: a frame handed in is copied once, and kept only while it is a fragment that waits for others; all that
comes out is owned by who receives it.
"""
