# SPDX-License-Identifier: Apache-2.0
"""Your Python in the workers: what an application imports. docs/embedding.md teaches it."""

from halo_mp.app.application import App
from halo_mp.app.blaster import Blaster, Vary
from halo_mp.app.frames import Frame, FrameBurst, Port
from halo_mp.app.verdict import Verdict
from halo_mp.app.worker import Worker

__all__ = ["App", "Blaster", "Frame", "FrameBurst", "Port", "Vary", "Verdict", "Worker"]
