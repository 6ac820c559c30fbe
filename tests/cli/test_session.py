from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys

import click
import numpy as np
import pytest
import torch
from rich.text import Text

from fcos_d2.cli.session import Result, Session, fcos_command, report
from fcos_d2.errors import FcosError
from fcos_d2.files import plain
from fcos_d2.options import one_of
from fcos_d2.train.interrupt import TrainingInterrupted


def caught(function, *arguments):
    with pytest.raises(BaseException) as info:  # noqa: PT011  # any
        function(*arguments)
    return info.value


def told(error, capsys, **settings):
    code = report(error, Session(**settings))
    return code, capsys.readouterr()


def test_our_errors_are_one_sentence(capsys):
    code, text = told(FcosError("The file x\n is missing."), capsys)
    assert (code, text.err, text.out) == (1, "error: The file x is missing.\n", "")


def test_value_error_of_a_part_is_ours(capsys):
    _, text = told(caught(one_of, "recipe", "no", ["yes"]), capsys)
    assert "unexpected" not in text.err and "recipe" in text.err


def test_value_error_of_a_library_says_how_to_see_more(capsys):
    _, text = told(caught(int, "x"), capsys)
    assert text.err.startswith("error: ValueError: invalid literal") and "--debug" in text.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/model.pth"), "/x/model.pth: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "out: Permission denied."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "The GPU's memory is full: lower --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "The memory is full"),
        (ImportError("No module named 'matplotlib'"), "No module named 'matplotlib'."),
    ],
)
def test_known_errors_of_libraries(error, expected, capsys):
    code, text = told(error, capsys)
    assert code == 1 and expected in text.err and "unexpected" not in text.err


def test_error_of_a_loader_process_is_its_sentence(capsys):
    inner = "Traceback:\n  File x\n    raise FcosError: not this\nfcos_d2.errors.FcosError: The image a is bad."
    _, text = told(RuntimeError(f"Caught FcosError in DataLoader worker process 0.\n{inner}\n"), capsys)
    assert text.err == "error: The image a is bad.\n"


def test_debug_shows_the_traceback(capsys):
    _, text = told(caught(one_of, "recipe", "no", ["yes"]), capsys, debug=True)
    assert "Traceback" in text.err and "options.py" in text.err


def test_json_gets_the_error_as_an_object(capsys):
    _, text = told(FcosError("Bad."), capsys, json=True)
    assert json.loads(text.out) == {"error": "Bad."} and text.err == "error: Bad.\n"


def test_interruption(capsys):
    code, text = told(KeyboardInterrupt(), capsys)
    assert (code, text.err) == (130, "Interrupted.\n")
    abort = click.Abort()
    abort.__cause__ = TrainingInterrupted("Interrupted after iteration 3.", 143)
    code, text = told(abort, capsys)
    assert (code, text.err) == (143, "Interrupted after iteration 3.\n")


def test_plain_data():
    mixed = {"a": np.float32(0.5), "b": [torch.tensor([1, 2]), math.nan], 3: (math.inf, None, True, "x")}
    assert plain(mixed) == {"a": 0.5, "b": [[1, 2], None], "3": [None, None, True, "x"]}


@fcos_command("noisy")
def noisy(session):
    print("a library talks")
    os.write(1, b"so does its C part\n")
    subprocess.run([sys.executable, "-c", "print('and its child')"], check=True)
    return Result({"answer": 42, "nothing": math.nan}, Text("the answer"), exit_code=3)


@pytest.mark.parametrize(("words", "expected"), [([], "the answer\n"), (["--json"], None)])
def test_standard_output_has_the_result_alone(capfd, words, expected):
    assert noisy.main(words, standalone_mode=False) == 3
    text = capfd.readouterr()
    assert all(noise in text.err for noise in ("a library talks", "so does its C part", "and its child"))
    if expected is None:
        assert json.loads(text.out) == {"answer": 42, "nothing": None}
    else:
        assert text.out == expected
