"""Ctrl-C and SIGTERM as a request to stop, which training obeys at the end of an iteration."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Request", "TrainingInterrupted", "handling"]

logger = logging.getLogger("fcos_d2")

_REPEATS = 2.0  # seconds in which the same signal may arrive twice: launchers repeat the one that they got


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to end and did so after an iteration, with a checkpoint; the message says how to go on.

    `code` is the exit code that the signal asks for: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call a function until the block ends; in a thread other than the main one they do not."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Request:
    """Whether this process was asked to end: `signal` is the number of the signal, or 0.

    It is the handler of Ctrl-C and SIGTERM, see `handling`; Ctrl-C once more, later, raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.signal, self._first, self._owner = 0, 0.0, os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        if os.getpid() != self._owner:  # a data loader's process, which Ctrl-C reaches, too
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif not self.signal:
            self.signal, self._first = number, time.monotonic()
            logger.info("Ending after this iteration; Ctrl-C once more ends at once.")
        elif number == signal.SIGINT and time.monotonic() - self._first > _REPEATS:
            raise KeyboardInterrupt
