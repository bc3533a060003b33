# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: `python -m bench NAME... [--json FILE]`. Each measures halo-mp and a peer in one run, as ratios."""
