from __future__ import annotations

import io
import re

from rich.console import Console

from fcos_d2.cli.progress import Progress
from fcos_d2.words import duration, memory_size


def written(terminal, steps, total=10):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    with Progress(console, "training", total) as progress:
        for step in steps:
            progress.update(step, f"loss {step / 10}")
    return file.getvalue()


def test_plain_lines_are_few_and_the_last_is_there():
    assert written(False, range(1, 11)) == "training: 10/10, loss 1.0\n"


def test_no_step_is_no_line():
    assert written(False, []) == ""


def test_interrupted_work_is_not_said_to_be_done():
    assert "10/10" not in written(False, range(1, 5))


def test_terminal_gets_a_bar():
    text = written(True, range(1, 11))
    assert "━" in text and "\x1b[" in text and "10/10" in text


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3700)] == ["0 s", "59 s", "1 min 01 s", "1 h 01 min"]


def test_lines_where_they_are_due_and_what_is_said():
    file = io.StringIO()
    with Progress(Console(file=file, width=100), "training", 9) as progress:
        progress.update(1, "early", due=False)
        progress.update(3, "loss 1.9", left=61.0, due=True)
        progress.say("evaluation: [AP] 0.4")
        progress.update(9, "loss 1.0", left=0.0, due=True)
    lines = ["training: 3/9, 1 min 01 s left, loss 1.9", "evaluation: [AP] 0.4", "training: 9/9, loss 1.0"]
    assert file.getvalue().splitlines() == lines


def test_a_long_note_stands_below_the_bar_and_nothing_is_cut_off():
    file = io.StringIO()
    note = "loss 1.931 (classification 0.712, box 0.618, centerness 0.601), lr 0.00098, AP50 0.412, 12.3 images/s"
    with Progress(Console(file=file, force_terminal=True, width=60), "training", 10) as progress:
        progress.update(4, note, left=3725.0)
        progress.say("above")
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue()).replace("\r", "")
    assert "4/10 1 h 02 min left" in plain and "above\n" in plain
    assert note.replace(" ", "") in re.sub(r"\s", "", plain)


def test_sizes():
    assert [memory_size(number) for number in (0, 640 << 20, 1536 << 20)] == ["0 MiB", "640 MiB", "1.5 GiB"]
