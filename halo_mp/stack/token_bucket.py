# SPDX-License-Identifier: Apache-2.0
"""A token bucket: so many at once, so many a second after that. The clock is an argument."""


class TokenBucket:
    """Full at the start. A clock that stands still or goes back adds nothing."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        if self._at is None or now > self._at:
            elapsed = 0.0 if self._at is None else now - self._at
            self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
            self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
