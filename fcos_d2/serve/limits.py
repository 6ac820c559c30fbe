"""What a request may cost, and the one kind of refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..errors import FcosError

__all__ = ["Limits", "Refused", "Room"]


class Refused(FcosError):
    """A request gets no detections: the status that HTTP has for it, and a sentence that says what to do."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after  # the latter in seconds


@dataclass(frozen=True)
class Limits:
    """Of a server."""

    queue: int = 64  # requests that are in work at a time: being read, waiting, looked at
    bytes: int = 20_000_000  # of a request's body, and of a picture at an address
    pixels: int = 50_000_000  # of a picture, known before it is decoded
    timeout: float = 30.0  # seconds for a body to arrive, and again for an answer

    @property
    def decoded(self) -> int:
        """Pixels that may lie decoded in memory at a time, 3 bytes each."""
        return 2 * self.pixels


class Room:
    """So many units, of which each holder takes some and gives them back; who finds too few waits."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, units: int) -> AsyncIterator[None]:
        units = min(units, self.size)
        async with self._changed:
            await self._changed.wait_for(lambda: self.free >= units)
            self.free -= units
        try:
            yield
        finally:
            async with self._changed:
                self.free += units
                self._changed.notify_all()
