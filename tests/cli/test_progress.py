from __future__ import annotations

import io

from rich.console import Console

from fcos_d2.cli.progress import Progress, _duration


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
    assert [_duration(seconds) for seconds in (0.4, 59, 61, 3700)] == ["0 s", "59 s", "1 min 01 s", "1 h 01 min"]
