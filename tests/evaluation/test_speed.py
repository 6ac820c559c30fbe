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
    assert ways["plain"].runs == ways["other"].runs == plain["runs"] + 2  # the first run, and that of the memory
    assert plain["name"] == "plain" and plain["speed_up"] == 1 and other["speed_up"] > 1
    assert 10 <= plain["fastest_ms"] <= plain["ms_per_image"] <= plain["slowest_ms"]  # two images in 20 ms or more
    assert plain["ms_per_image"] == pytest.approx(1000 / plain["images_per_s"]) and plain["runs"] >= 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not reset its peak of memory")
def test_memory_of_a_run() -> None:
    used = speed.peak_memory(lambda: torch.ones(1 << 24).sum(), CPU)
    assert 60 <= used / 2**20 < 100
    assert speed.peak_memory(lambda: None, CPU) / 2**20 < 8


def test_equal_detections() -> None:
    rows = (0.9, 1), (0.8, 2), (0.7, 1)
    same = {"total": 3, "partners": 3, "box": 0.0, "score": 0.0, "equal": True}
    assert speed.difference([found(*rows)], [found(*rows)]) == same
    assert speed.difference([found(*rows)], [found(*rows, shift=0.005)])["equal"]
    assert speed.difference([found(*rows)], [found((0.9, 1), (0.8, 3), (0.7, 1))])["partners"] == 2
    for others in (
        found(*rows, shift=0.02), found((0.9, 1), (0.8, 2), (0.699, 1)), found(*rows[:2]), found(*rows, (0.6, 1)),
    ):  # fmt: skip
        assert not speed.difference([found(*rows)], [others])["equal"]
    assert not speed.difference([found()], [found()])["equal"]  # nothing found on both sides shows nothing


def test_an_untrained_model_is_made_to_find_something() -> None:
    torch.manual_seed(0)
    model = instantiate(zoo.get_config("fcos_R_18_slim_FPN_small").model).eval()
    inputs = [{"image": torch.rand(3, 96, 128) * 255}]
    assert len(speed.detections(model, inputs)[0]) == 0
    finding = speed.finding(model, inputs)
    assert finding is not model and model.dense.selector.score_threshold > 1e-3  # which stays as it was
    expected = speed.detections(finding, inputs)
    assert 0 < len(expected[0]) <= 20
    assert speed.difference(expected, speed.detections(finding.optimize(), inputs))["equal"]
    assert speed.finding(finding, inputs) is finding
