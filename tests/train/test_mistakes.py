"""Examples of errors, for the pictures of `fcos eval --errors` and `fcos report`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_d2.evaluation.ledger import Box, ErrorLedger, FalseAlarm, Miss
from fcos_d2.train.mistakes import by_cause, labels_of


@pytest.fixture
def ledger(tmp_path: Path) -> ErrorLedger:
    image = str(tmp_path / "street.png")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(image)
    misses = [Miss(image, Box(0, (0, 0, 10 + i, 10)), "suppressed", f"miss {i}", Box(1, (1, 1, 9, 9), 0.8))
              for i in range(7)]  # fmt: skip
    alarms = [FalseAlarm(image, Box(1, (0, 0, 9, 9), i / 10), "background", f"alarm {i}") for i in range(7)]
    misses.append(Miss(image, Box(1, (5, 5, 9, 9)), "duplicate"))
    return ErrorLedger("streets", ("cat", "dog"), 0.5, {"cat": 0.5, "dog": 0.5}, 1, 0, 0, misses, alarms)


def test_five_of_each_cause_the_largest_misses_and_the_highest_false_alarms(ledger: ErrorLedger) -> None:
    sections = dict(by_cause(ledger))
    told = {heading.partition(" (")[0]: [crop.lines[1] for crop in crops] for heading, crops in sections.items()}
    assert told == {
        "Missed, suppressed: 7": [f"miss {i}" for i in (6, 5, 4, 3, 2)], "Missed, duplicate: 1": [""],
        "Wrong, background: 7": [f"alarm {i}" for i in (6, 5, 4, 3, 2)],
    }  # fmt: skip


def test_a_crop_shows_the_object_and_what_stands_in_its_place(ledger: ErrorLedger) -> None:
    (_, (first, *_)), *_ = by_cause(ledger)
    assert labels_of(ledger.class_names) == ["cat", "dog", "marked cat", "marked dog"]
    assert first.drawn.classes == [2, 1] and first.lines[::2] == ["cat 16x10 px", "street.png"]
