"""What training says of itself."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from fcos_d2.train import LazyTrainer
from fcos_d2.train.course import course_text, evaluation_text, memory_in_use


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.updates, self.said = [], []

    def update(self, done, note="", left=None, due=None):
        self.updates.append((done, note, left, due))

    def say(self, text):
        self.said.append(text)


def test_lines_of_a_training(small, caplog):
    """A line for each log period and the end, one for each evaluation; the numbers lie with the others, too."""
    caplog.set_level(logging.INFO, "fcos_d2")
    trainer = LazyTrainer(small("out", "train.max_iter=8", "train.log_period=4", "train.eval_period=4"), console=False)
    trainer.progress = told = Listener()
    trainer.train()
    due = [(done, note, left) for done, note, left, due in told.updates if due]
    assert [done for done, _, _ in due] == [4, 8]
    for _, note, _ in due:
        assert re.match(r"loss \d\.\d{3} \(.*classification \d\.\d{3}.*box \d.*\), lr [\d.e-]+, AP 0\.\d{3}", note), (
            note
        )
        assert re.search(r"AP50 0\.\d{3}, [\d.]+ images/s, [\d.]+ (MiB|GiB)$", note), note
    assert due[0][2] > 0 and due[1][2] == 0.0
    assert [done for done, note, *_ in told.updates if note != "evaluating"] == list(range(1, 9))
    assert told.said[1] == f"evaluation after iteration 8: {evaluation_text(trainer.results)}"
    assert len(told.said) == 2 and told.said[0].startswith("evaluation after iteration 4: ")
    rows = [json.loads(line) for line in (Path(trainer.output_dir) / "metrics.json").read_text().splitlines()]
    assert all({"images_per_second", "memory_mib", "eta_seconds"} <= row.keys() for row in rows)
    pace = 2 / rows[-1]["time"]
    assert rows[-1]["images_per_second"] == pytest.approx(pace, rel=0.01)
    log = (Path(trainer.output_dir) / "log.txt").read_text()
    assert log.count("Iteration 4 of 8, ") == log.count("Iteration 8 of 8: loss") == 1 and told.said[1] in log


def test_an_evaluation_that_was_pending_is_told(small):
    config = small("out", "train.max_iter=2", "train.eval_period=1")
    first = LazyTrainer(config, console=False)
    first.evaluate = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        first.train()
    again = LazyTrainer(config, resume=True, console=False)
    again.progress = told = Listener()
    again.train()
    assert [text.partition(":")[0] for text in told.said] == [f"evaluation after iteration {n}" for n in (1, 2)]


def test_text_of_an_evaluation():
    found = {"AP": 41.23, "AP50": 71.5, "AP75": 40.0, "APs": math.nan, "APm": 40.56, "APl": 0.0, "AP-cat": 1.0}
    text = "AP 0.412, AP50 0.715, AP75 0.400, small -, medium 0.406, large 0.000"
    assert evaluation_text({"bbox": found}) == text
    two = {"one": {"bbox": found}, "two": {"bbox": {"AP": math.nan}}, "three": {"segm": {}}}
    assert evaluation_text(two).startswith(f"one: {text}; two: no AP, for nothing was found")
    assert evaluation_text({}) == "no boxes"


def test_text_needs_none_of_the_numbers():
    with EventStorage() as storage:
        assert course_text(storage) == ""
        storage.put_scalars(loss=0.5)
        assert course_text(storage) == "loss 0.500"
        storage.put_scalar("coco_val/bbox/AP50", 50.0, smoothing_hint=False)
        assert course_text(storage) == "loss 0.500, AP50 0.500"


def test_memory_of_this_process():
    memory = memory_in_use(torch.device("cpu"))
    assert memory is None or 50e6 < memory < 1e12
