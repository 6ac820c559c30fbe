"""Timing in turns, memory of a run, and what counts as the same detections."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import nn

from fcos_d2 import zoo
from fcos_d2.evaluation import speed

CPU = torch.device("cpu")


def found(*rows: tuple[float, int], shift: float = 0.0) -> Instances:
    """Instances with (score, class) rows; boxes of 20 pixels that do not overlap, moved by `shift`."""
    scores, classes = zip(*rows) if rows else ((), ())
    left = torch.arange(len(rows)) * 30.0 + shift
    boxes = torch.stack((left, left * 0 + shift, left + 20, left * 0 + shift + 20), dim=1)
    return Instances(
        (100, 400), pred_boxes=Boxes(boxes), scores=torch.tensor(scores), pred_classes=torch.tensor(classes)
    )


class Sleeper(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.runs = seconds, 0

    def forward(self, inputs: list) -> list:
        self.runs += 1
        time.sleep(self.seconds)
        return [{"instances": found((0.9, 1))} for _ in inputs]


def test_measured_in_turns() -> None:
    ways = {"plain": Sleeper(0.02), "other": Sleeper(0.01)}
    plain, other = speed.measure(ways, [{}, {}], CPU, seconds=0.2)
    assert ways["plain"].runs - ways["other"].runs in (0, 1) or ways["plain"].runs == ways["other"].runs
    row = plain.as_dict()
    assert row["name"] == "plain" and plain.times.ratio(other.times) > 1
    assert row["fastest_ms"] <= row["ms_per_image"] <= row["slowest_ms"]
    assert row["ms_per_image"] == pytest.approx(1000 / row["images_per_s"]) and row["runs"] >= 3
    assert row["ms_per_image"] >= 10  # two images in 20 ms or more


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not reset its peak of memory")
def test_memory_of_a_run() -> None:
    used = speed.peak_memory(lambda: torch.ones(1 << 24).sum(), CPU)
    assert 60 <= used / 2**20 < 100
    assert speed.peak_memory(lambda: None, CPU) / 2**20 < 8


def test_equal_detections() -> None:
    rows = (0.9, 1), (0.8, 2), (0.7, 1)
    assert speed.compare([found(*rows)], [found(*rows)]) == speed.Difference(3, 0, 3, 0.0, 0.0)
    assert speed.compare([found(*rows)], [found(*rows)]).equal
    assert speed.compare([found(*rows)], [found(*rows, shift=0.005)]).equal
    assert not speed.compare([found(*rows)], [found(*rows, shift=0.02)]).equal
    assert not speed.compare([found(*rows)], [found((0.9, 1), (0.8, 2), (0.699, 1))]).equal
    assert not speed.compare([found(*rows)], [found(*rows[:2])]).equal
    assert not speed.compare([found(*rows[:2])], [found(*rows)]).equal
    assert speed.compare([found(*rows)], [found((0.9, 1), (0.8, 3), (0.7, 1))]).partners == 2
    assert not speed.compare([found()], [found()]).equal  # nothing found on both sides shows nothing


def test_an_untrained_model_is_made_to_find_something() -> None:
    torch.manual_seed(0)
    model = instantiate(zoo.get_config("fcos_R_18_slim_FPN_small").model).eval()
    inputs = [{"image": speed.image(96, 128)}]
    assert len(speed.detections(model, inputs)[0]) == 0
    finding = speed.finding(model, inputs)
    assert finding is not model and model.dense.selector.score_threshold > 1e-3
    expected = speed.detections(finding, inputs)
    assert 0 < len(expected[0]) <= 20
    assert speed.compare(expected, speed.detections(finding.optimize(), inputs)).equal
    assert speed.finding(finding, inputs) is finding
