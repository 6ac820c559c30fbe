"""What the user sees while a file comes: lines on standard error, and a bar where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..files import size_text

__all__ = ["progress", "tell"]

_SECONDS_BETWEEN_LINES = 10.0


def tell(text: str) -> None:
    """Write a line."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how much of a file is there; what is given is called with bytes that are there, and bytes in all or 0."""
    if sys.stderr.isatty():
        with tqdm(desc=name, unit="B", unit_scale=True, file=sys.stderr, leave=False) as bar:

            def update(done: int, total: int) -> None:
                bar.total = total or None
                if not bar.n:
                    bar.initial = done  # of an earlier run: it does not count for the speed
                bar.update(done - bar.n)

            yield update
        return
    told = time.monotonic()

    def lines(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            tell(f"{name}: {size_text(done)}{f' of {size_text(total)}' if total else ''}")

    yield lines
