"""What `fcos train --data` chooses by itself, what it says about that, and what it keeps for --resume."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from fcos_d2.data.synthetic import generate
from fcos_d2.weights.read import load

SLIM = "fcos_R_18_slim_FPN_small"
TINY = ("--image-size", 64, "--batch-size", 2, "--workers", 0, "train.pictures=false")


def said(outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return outcome.err.splitlines()


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Two classes of `shapes`, and one that it lacks."""
    folder = tmp_path_factory.mktemp("other") / "other"
    generate(folder, {"train": 6, "val": 2}, (96, 64), min_size=10, classes=("star", "ring", "circle"))
    return folder


def test_from_scratch_to_fine_tuning_and_on(fcos, shapes, other):
    """The first line tells the start; classes of equal names stay; resuming needs neither weights nor options."""
    first = fcos("train", "--data", shapes, *TINY, "--iterations", 2, "-o", "first", "--device", "cpu")
    lines = said(first)
    assert lines[0].startswith("Training starts from scratch: ") and SLIM in lines[0]
    assert any(line.startswith("Recipe for few images") for line in lines)
    assert not any("It will take" in line for line in lines)  # it is over before that is known

    words = ("train", "--data", other, *TINY[2:], "--iterations", 1, "-o", "second")
    second = fcos(*words, "--weights", "first/model_best.pth", "--image-size", 64, "optimizer.lr=0.0")
    lines = said(second)
    assert lines[0] == "Training starts from first/model_best.pth, as --weights asks."
    assert "Its class layer keeps what it knows of star, circle; the other class starts anew." in lines
    old, new = (load(f"{name}/model_best.pth")["model"] for name in ("first", "second"))
    bias = "dense.head.cls_logits.weight"
    assert torch.equal(old[bias][[2, 0]], new[bias][[0, 2]]) and not torch.equal(old[bias][1], new[bias][1])
    recipe = json.loads(Path("second", "recipe.json").read_text())
    assert recipe["start"] == "detector" and recipe["image_size"] == 64 and recipe["preset"]["freeze"] > 0
    assert "first/model_best.pth" in recipe["weights"]

    Path("first/model_best.pth").unlink()
    again = fcos("train", "--data", other, "--workers", 0, "--iterations", 2, "-o", "second", "--resume")
    assert "goes on" in said(again)[0] and "first/model_best.pth" in said(again)[0]
    assert json.loads(Path("second", "summary.json").read_text())["iterations"] == 2
    assert "short_edge_length: 64" in Path("second", "config.yaml").read_text()


@pytest.mark.slow  # tests/e2e/test_cli.py trains with --new-classes, too
def test_new_classes_learns_all_of_them_anew(fcos, shapes, other):
    said(fcos("train", "--data", shapes, *TINY, "--iterations", 1, "--model", SLIM, "-o", "first"))
    words = ("--weights", "first/model_best.pth", "--new-classes", "--iterations", 1, "optimizer.lr=0.0")
    lines = said(fcos("train", "--data", other, *TINY, *words, "-o", "second"))
    assert "Its class layer starts anew." in lines
    old, new = (load(f"{name}/model_best.pth")["model"] for name in ("first", "second"))
    layer = "dense.head.cls_logits.weight"
    assert not torch.equal(old[layer][2], new[layer][0])


@pytest.mark.slow
def test_time_is_told_and_kept(fcos, shapes):
    """The length that fits, the time that it will take, and beside that in the summary the time that it took."""
    words = ("--model", SLIM, "--minutes", 0.01, "train.seed=1", "--device", "cpu")
    outcome = fcos("train", "--data", shapes, *TINY, *words, "-o", "out", "--json")
    text, summary = "\n".join(said(outcome)), json.loads(outcome.out)
    done = summary["iterations"]
    assert 20 <= done < 600
    assert re.search(rf"{SLIM} at 64 pixels, {done} .*iterations", text), text
    assert re.search(rf"It will take about \d+ s on this machine: {done} iterations of", text), text
    assert json.loads(Path("out", "recipe.json").read_text())["iterations"] == done
    assert summary["expected_seconds"] > 0 and summary["seconds"] > 0


@pytest.mark.parametrize("words", [("--minutes", 1, "--epochs", 2), ("--minutes", 1, "--iterations", 2)])
def test_one_length_is_enough(fcos, shapes, words):
    outcome = fcos("train", "--data", shapes, *words)
    assert outcome.code == 2 and "--minutes" in outcome.err
