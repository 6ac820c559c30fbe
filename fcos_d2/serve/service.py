"""One detector at work: how many requests it takes, what each goes through, and when it is too much."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request

from ..errors import FcosError
from .intake import Sent, decoded, received
from .limits import Limits, Refused, Room
from .metrics import Metrics
from .remote import Remote
from .waiting import DetectionQueue, Engine, Found

__all__ = ["Gone", "Service"]

_T = TypeVar("_T")
_READERS, _FETCHERS = 2, 4  # threads that decode pictures, and that wait for other hosts
_LATEST = 60  # seconds after which a client that is sent away is asked to come back, at most


class Gone(Exception):
    """The client does not wait for its answer any more."""


@dataclass
class Service:
    """What the handlers of requests ask.

    Attributes:
        engine: looks at pictures; its thresholds decide what is found at all.
        remote: fetches pictures from addresses; `None` where none are.
        leaving: the server was asked to end: what it has is done, and connections are closed with their answers.
    """

    engine: Engine
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 8
    max_wait: float = 0.005  # seconds
    remote: Remote | None = None
    model: str = ""
    leaving: bool = False

    def __post_init__(self) -> None:
        self._in_work = 0
        self._room = Room(self.limits.decoded)
        self._readers = ThreadPoolExecutor(_READERS, "reading")
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "fetching")
        self.metrics = Metrics(lambda: len(self.queue), lambda: self._in_work)
        self.queue = DetectionQueue(self.engine, self.max_batch, self.max_wait, self.metrics.batch)

    @property
    def least(self) -> float:
        """Score below which nothing is reported."""
        return min(self.engine.thresholds.values(), default=0.0)

    @property
    def is_alive(self) -> bool:
        """Whether pictures are looked at."""
        return self.queue.is_alive

    @contextmanager
    def place(self) -> Iterator[None]:
        """A request's place among those in work.

        Raises:
            Refused: all are taken.
        """
        if self._in_work >= self.limits.queue:
            raise Refused(
                429, f"All {self.limits.queue} places are taken: try again in {self.retry_after} s.", self.retry_after
            )
        self._in_work += 1
        self.metrics.accepted += 1
        try:
            yield
        finally:
            self._in_work -= 1

    @property
    def retry_after(self) -> int:
        """Seconds in which half of what waits now will be done."""
        return min(max(math.ceil(self.queue.pace * self._in_work / 2), 1), _LATEST)

    @asynccontextmanager
    async def picture(self, request: Request) -> AsyncIterator[tuple[np.ndarray, Sent]]:
        """The picture that a request sends or names, (H, W, 3) uint8 RGB.

        Raises:
            Refused: there is none that can be looked at.
        """
        sent = await received(request, self.limits)
        if sent.url:
            if self.remote is None:
                raise Refused(403, "Addresses are not fetched here: send the picture itself.")
            loop = asyncio.get_running_loop()
            sent = Sent(await loop.run_in_executor(self._fetchers, self.remote.get, sent.url), url=sent.url)
        async with decoded(sent.data, self.limits, self._room, self._readers) as picture:
            yield picture, sent

    async def aside(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function in a thread that reads pictures."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def find(self, picture: np.ndarray, request: Request) -> Found:
        """What there is in a picture, unless the client goes away before its turn.

        Raises:
            Refused: it cannot be looked at, or its turn did not come in time.
            Gone: nobody waits for it.
        """
        future = asyncio.wrap_future(self.queue.put(picture))
        gone = asyncio.ensure_future(_gone(request))
        try:
            either: set[asyncio.Future[Any]] = {future, gone}
            await asyncio.wait(either, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            if gone.done():
                raise Gone
            raise Refused(
                503, f"No answer within {self.limits.timeout:g} s, too much waits: try again later.", self.retry_after
            )
        except (Refused, Gone):
            raise
        except FcosError as error:
            raise Refused(422, str(error)) from error
        except MemoryError as error:
            raise Refused(413, "The memory does not hold what the picture needs: send a smaller one.") from error
        except Exception as error:  # the queue has logged it
            raise Refused(500, "The picture could not be looked at; the log of the server says why.") from error
        finally:
            gone.cancel()
            future.cancel()

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        self.queue.close()
        for pool in (self._readers, self._fetchers):
            pool.shutdown(wait=False, cancel_futures=True)


async def _gone(request: Request) -> None:
    """Ends when the client closes the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
