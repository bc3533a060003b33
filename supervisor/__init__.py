# SPDX-License-Identifier: Apache-2.0
"""The supervisor: creates what is shared, starts driver and workers, restarts what dies, and cleans up at the end.

It never touches a packet. `python -m halo_mp.supervisor --help` tells how to start one.
"""
