# SPDX-License-Identifier: Apache-2.0
"""What an instance counts, for Prometheus: `python -m halo_mp.exporter`. Needs the extra `halo-mp[prometheus]`."""
