"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how far work of a known length is, on the console of standard error.

    with Progress(console, "training", 1500) as progress:
        progress.update(20, "loss 1.93")
    """

    def __init__(self, console: Console, title: str, total: int) -> None:
        self.console, self.title, self.total = console, title, total
        self._bar: Any = None
        self._first: int | None = None  # what is done when work begins

    def __enter__(self) -> Progress:
        self._started = self._told = time.monotonic()
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True), TextColumn("{task.fields[note]}"),
                console=self.console, expand=True, transient=True, redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._bar.start()
            self._bar.add_task(self.title, total=self.total, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` steps are done, with a note such as the loss.

        A training that goes on begins above 0: the first call tells where, so that the remaining time is right.
        """
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
            return
        now, self._first = time.monotonic(), done - 1 if self._first is None else self._first
        if now - self._told < _SECONDS_BETWEEN_LINES and done < self.total:
            return
        self._told = now
        steps, left = done - self._first, self.total - done
        ends = f", {_duration((now - self._started) / steps * left)} left" if steps > 0 and left else ""
        line = f"{self.title}: {done}/{self.total}{ends}{f', {note}' if note else ''}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
