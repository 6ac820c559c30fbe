"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..words import duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0
_SHORT = 30  # letters of a note that stands beside the bar; a longer one stands below it


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
            self._bar = _bar(self.console)
            self._bar.start()
            self._bar.add_task(self.title, total=self.total, note="", end=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str = "", left: float | None = None, due: bool | None = None) -> None:
        """Say that `done` steps are done.

        A training that goes on begins above 0: the first call tells where, so that the remaining time is right.

        Args:
            done: number of steps.
            note: such as the loss.
            left: seconds that the rest will take; by default, what the steps so far say.
            due: whether a line is printed where there is no bar; by default, each ten seconds and in the end.
        """
        now, self._first = time.monotonic(), done - 1 if self._first is None else self._first
        if self._bar is not None:
            end = {} if left is None else {"end": now + left}
            self._bar.update(self._bar.task_ids[0], completed=done, note=note, **end)
            return
        if due is None:
            due = now - self._told >= _SECONDS_BETWEEN_LINES or done >= self.total
        if not due:
            return
        self._told = now
        steps, remaining = done - self._first, self.total - done
        if left is None and steps > 0:
            left = (now - self._started) / steps * remaining
        ends = f", {duration(left)} left" if left is not None and remaining else ""
        self.say(f"{self.title}: {done}/{self.total}{ends}{f', {note}' if note else ''}")

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _bar(console: Console) -> Any:
    """A bar of rich's with the time that is left and a note, which goes below it if it is long."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    class Left(TextColumn):
        def render(self, task: Any) -> Text:
            end = task.fields["end"]
            left = task.time_remaining if end is None else max(0.0, end - time.monotonic())
            return Text("" if left is None or task.finished else f"{duration(left)} left", "progress.remaining")

    class Note(TextColumn):
        def render(self, task: Any) -> Text:
            note = task.fields["note"]
            return Text(note if len(note) <= _SHORT else "")

    class Bar(Progress):
        def get_renderables(self) -> Any:
            yield self.make_tasks_table(self.tasks)
            for note in (task.fields["note"] for task in self.tasks):
                if len(note) > _SHORT:
                    yield Text(note, "dim")

    return Bar(
        TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), Left(""), Note(""),
        console=console, expand=True, transient=True, redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
