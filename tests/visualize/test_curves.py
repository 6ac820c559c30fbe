"""Curves of a training."""

from __future__ import annotations

import json

import matplotlib.pyplot
import numpy as np
import pytest
from PIL import Image

import fcos_d2  # noqa: F401  makes every Detectron2 build importable
from fcos_d2.errors import FcosError
from fcos_d2.visualize import draw_curves


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def metrics(last=10):
    for step in range(last):
        yield {"iteration": step, "total_loss": 3 / (step + 1), "loss_fcos_cls": 1 / (step + 1), "lr": 0.01}
        if step % 3 == 2:
            yield {"iteration": step, "bbox/AP": 4.0 * step, "bbox/AP50": 8.0 * step, "bbox/AP75": float("nan")}


def colored(path):
    """Number of pixels that belong to a curve: their color is not grey."""
    picture = pixels(path)
    return int((picture.max(2) - picture.min(2) > 80).sum())


def test_curves_of_rows_and_of_a_file_are_the_same(tmp_path):
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, metrics())) + '\n{"iteration": 10, "total_l')
    from_rows = draw_curves(metrics(), tmp_path / "a.png").read_bytes()
    assert draw_curves(tmp_path / "metrics.json", tmp_path / "b.png").read_bytes() == from_rows
    assert colored(tmp_path / "a.png") > 1000


@pytest.mark.parametrize("text", ["", '{"iteration": 0}\n', '{"total_loss": 1.0}\n', '[1]\n"x"\n{"iter'])
def test_curves_without_anything_to_draw(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert colored(draw_curves(tmp_path / "metrics.json", tmp_path / "a.png")) == 0


def test_curves_of_one_line_and_of_missing_keys(tmp_path):
    one = draw_curves([{"iteration": 0, "total_loss": 0.0, "loss_fcos_cls": 1.0, "lr": 0.0}], tmp_path / "a.png")
    assert colored(one) > 10
    only_ap = draw_curves([{"iteration": 99, "bbox/AP": 30.0}], tmp_path / "b.png")
    assert colored(only_ap) > 10
    with pytest.raises(FcosError, match=r"gone\.json cannot be read"):
        draw_curves(tmp_path / "gone.json", tmp_path / "c.png")


def test_a_resumed_training_overrules_what_it_repeats(tmp_path):
    wrong = [{"iteration": step, "total_loss": 99.0, "loss_fcos_cls": 99.0, "lr": 5.0} for step in (4, 5, 6, 7, 8, 30)]
    plain = list(metrics())
    resumed = [row for row in plain if row["iteration"] < 4] + wrong + [row for row in plain if row["iteration"] >= 4]
    expected = draw_curves(plain, tmp_path / "a.png").read_bytes()
    assert draw_curves(resumed, tmp_path / "b.png").read_bytes() == expected


def test_leaves_pyplot_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    before = matplotlib.pyplot.get_fignums(), matplotlib.get_backend(), matplotlib.rcParams["font.family"]
    draw_curves(metrics(), tmp_path / "a.png")
    assert (matplotlib.pyplot.get_fignums(), matplotlib.get_backend(), matplotlib.rcParams["font.family"]) == before
