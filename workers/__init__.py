# SPDX-License-Identifier: Apache-2.0
"""The worker process: an asyncio event loop that polls a slot's rings, a fast path in C, and the Python stack."""
