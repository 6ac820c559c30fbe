"""How a long run ends before its time: by Ctrl-C or a signal, with the command that goes on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["how_to_go_on", "stopping"]


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the job; what comes within two seconds is heard as one."""
    from ..predict.job import Interrupted
    from ..train.interrupt import handling

    last = -10.0

    def stop(number: int, frame: object) -> None:
        nonlocal last
        if time.monotonic() - last > 2.0:
            last = time.monotonic()
            raise Interrupted(128 + number)

    with handling(stop):
        yield


def how_to_go_on(done: int, kept: Path | None, total: int) -> str:
    """What a person is told of a run that ended early.

    Args:
        done, total: sources.
        kept: where the results are.
    """
    said = f"Interrupted after {done} of {total}"
    if kept is None:
        return f"{said}."
    line = shlex.join(["fcos", *(word for word in sys.argv[1:] if word != "--resume"), "--resume"])
    return f"{said}; what is done is in {kept}. To go on:\n  {line}"
