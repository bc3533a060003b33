# SPDX-License-Identifier: Apache-2.0
"""Regions, the pool, slots, tables and counters: the only Python that maps memory."""
