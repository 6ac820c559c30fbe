"""Pictures wait here for an engine: those of one size go through it together, the oldest first, none too long."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import FcosError

__all__ = ["Boxes", "DetectionQueue", "Engine", "Found"]

logger = logging.getLogger("fcos_d2")


class Boxes(Protocol):
    """What an engine finds in one picture."""

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float32 xyxy in pixels of the picture."""

    @property
    def scores(self) -> np.ndarray:
        """(n,) float32 in 0..1."""

    @property
    def classes(self) -> np.ndarray:
        """(n,) int64 rows of `class_names`."""


class Engine(Protocol):
    """What looks at pictures."""

    @property
    def name(self) -> str:
        """Such as "torch" or "onnx"."""

    @property
    def class_names(self) -> Sequence[str]:
        """In the order of the classes."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Least score of each class; empty where the detector has a rule of its own."""

    def detect(self, pictures: Sequence[np.ndarray]) -> Sequence[Boxes]:
        """For each (H, W, 3) uint8 RGB what it shows."""


@dataclass(frozen=True)
class Found:
    """An engine's answer about one picture.

    Attributes:
        waited, took: seconds before and in the engine.
        batch: how many pictures went through it together.
    """

    boxes: Boxes
    waited: float
    took: float
    batch: int


@dataclass
class _Waiting:
    picture: np.ndarray
    future: Future[Found] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class DetectionQueue:
    """A thread in which one engine looks at what others put in.

    A batch begins with the oldest picture. It waits until `max_batch` of its size are there, or `max_wait` seconds
    since it came are over; where the engine was busy for longer than that, it takes what is there.

    Args:
        engine: used in that thread alone.
        max_batch: pictures that go through it together.
        max_wait: seconds.
        watch: told the size of each batch and the seconds that it took.
    """

    def __init__(
        self, engine: Engine, max_batch: int, max_wait: float, watch: Callable[[int, float], None] | None = None
    ) -> None:
        self.engine, self.max_batch, self.max_wait = engine, max_batch, max_wait
        self.pace = 0.0  # seconds for a picture, lately
        self._watch = watch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="detecting", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether pictures are looked at."""
        return self._thread.is_alive()

    def __len__(self) -> int:
        """Pictures that wait."""
        return len(self._waiting)

    def put(self, picture: np.ndarray) -> Future[Found]:
        """Hand in a (H, W, 3) uint8 RGB picture; one whose future is cancelled before its turn is left out."""
        waiting = _Waiting(picture)
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._waiting.append(waiting)
            self._changed.notify_all()
        return waiting.future

    def close(self) -> None:
        """Look at what is still there, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if batch:
                self._look(batch)

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            oldest = self._waiting[0]
            end = oldest.since + self.max_wait
            while len(batch := self._alike(oldest)) < self.max_batch and not self._closed:
                if (left := end - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            taken = set(map(id, batch))
            self._waiting = deque(waiting for waiting in self._waiting if id(waiting) not in taken)
            return batch

    def _alike(self, oldest: _Waiting) -> list[_Waiting]:
        """The first of the size of the oldest, itself among them."""
        alike = [waiting for waiting in self._waiting if waiting.picture.shape == oldest.picture.shape]
        return alike[: self.max_batch]

    def _look(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        try:
            found: Sequence[Any] = self.engine.detect([waiting.picture for waiting in batch])
            if len(found) != len(batch):
                raise RuntimeError(f"the engine {self.engine.name} gave {len(found)} answers to {len(batch)} pictures")
        except Exception as error:
            if len(batch) > 1:  # one of them, or all together are too much: the others shall have their answers
                for waiting in batch:
                    self._look([waiting])
                return
            if not isinstance(error, FcosError):
                logger.exception("A picture could not be looked at.")
            found = [error]
        took = time.monotonic() - began
        share = took / len(batch)
        self.pace = share if not self.pace else 0.8 * self.pace + 0.2 * share
        if self._watch:
            self._watch(len(batch), took)
        for waiting, seen in zip(batch, found):
            with suppress(InvalidStateError):  # nobody waits for it any more
                if isinstance(seen, Exception):
                    waiting.future.set_exception(seen)
                else:
                    waiting.future.set_result(Found(seen, began - waiting.since, took, len(batch)))
