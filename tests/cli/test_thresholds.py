"""Thresholds from training and `fcos eval` to `fcos detect`, with real commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from console import ROOT
from detectron2.config import instantiate

from fcos_d2 import Predictor
from fcos_d2.cli.session import Session
from fcos_d2.data.synthetic import generate
from fcos_d2.files import sha256_of
from fcos_d2.train.job import TrainingJob, train_job
from fcos_d2.train.workspace import TRAINING, Workspace
from fcos_d2.weights.read import load, read
from fcos_d2.weights.thresholds import stored_thresholds
from fcos_d2.weights.write import save
from fcos_d2.zoo import get_config

ALL = "model.dense.selector.score_threshold=0.0"  # three iterations find nothing at a higher one
EVAL = ("--workers", 0, "--device", "cpu", "-o")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Shapes that fill their images, so that untrained boxes overlap some of them enough."""
    folder = tmp_path_factory.mktemp("thresholds") / "set"
    shapes = {"min_size": 56, "max_size": 1.0, "max_objects": 1, "classes": ("circle", "square")}
    generate(folder, {"train": 4, "val": 40, "test": 4}, (64, 64), **shapes)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """What `fcos train` leaves after two iterations from boxes as large as the shapes; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = get_config("fcos_R_18_slim_FPN_small")
    cfg.model.num_classes = 2
    model = instantiate(cfg.model)
    torch.nn.init.constant_(model.dense.head.bbox_pred.bias, 3.5)  # strides to each side
    save(folder / "start.pth", {"model": model.state_dict(), "class_names": ["circle", "square"]})
    short = {
        "iterations": 2,
        "image_size": 64,
        "batch_size": 2,
        "workers": 0,
        "device": "cpu",
        "overrides": [ALL, "train.pictures=false"],
    }
    job = TrainingJob(model="fcos_R_18_slim_FPN_small", data=data, weights=str(folder / "start.pth"), **short)
    train_job(job, Workspace.open(folder / "mine", TRAINING), Session())
    return folder / "mine"


def test_from_training_to_detection(fcos, data, trained):
    """What is chosen on val is in both checkpoints, in summary.json and the picture, and counts in detection."""
    best = stored_thresholds(read(trained / "model_best.pth"))
    summary = json.loads((trained / "summary.json").read_text())["thresholds"]
    assert best.dataset == summary["dataset"] == "set_val" and sum(best.boxes) >= 30
    rows = summary["per_class"]
    assert {name: row["threshold"] for name, row in rows.items()} == best.by_class
    assert best.class_names == ("circle", "square") and "thresholds" in load(trained / "model_final.pth")
    files = json.loads((trained / "thresholds.json").read_text())
    assert files["curves"]["right"]["circle"] == best.counts[1, 0].tolist() and len(files["curves"]["scores"]) == 101
    assert (trained / "thresholds.png").stat().st_size > 20_000

    image = data / "images" / "val_000000.jpg"
    words = ("detect", image, "--weights", trained / "model_best.pth", "--no-pictures", "--json", "--device", "cpu")
    found = json.loads(fcos(*words).out)
    assert found["thresholds"] == best.by_class
    detections = found["images"][0]["detections"]
    assert all(row["score"] > best.by_class[row["class"]] for row in detections)
    every = json.loads(fcos(*words, "--threshold", 0).out)
    assert every["threshold"] == 0 and len(every["images"][0]["detections"]) > len(detections)
    some = json.loads(fcos(*words, "--threshold", 0.99, "--threshold", "circle=0").out)
    assert some["thresholds"] == {"circle": 0.0, "square": 0.99}
    assert {row["class"] for row in some["images"][0]["detections"]} == {"circle"}
    assert Predictor(trained / "model_best.pth", device="cpu").thresholds == best.by_class
    done = fcos(*words[:-3], "--device", "cpu", "--threshold", 0.99, "--threshold", "circle=0.98")
    assert "No score is above the threshold of its class, 0.98 to 0.99; --threshold lowers it." in " ".join(
        done.out.split()
    )


def test_errors_count_from_the_thresholds_of_the_checkpoint(fcos, data, trained):
    words = ("eval", "--weights", trained / "model_best.pth", "--data", data, "--split", "test", "--errors", *EVAL)
    held = stored_thresholds(read(trained / "model_best.pth")).by_class
    assert json.loads(fcos(*words, "out", "--json").out)["errors"]["thresholds"] == pytest.approx(held)


def test_eval_chooses_and_saves_a_copy(fcos, data, trained):
    """The checkpoint stays as it is; what the copy holds is measured on the test part."""
    weights = trained / "model_best.pth"
    before, held = sha256_of(weights), load(weights)["thresholds"]
    words = ("eval", "--weights", weights, "--data", data, *EVAL)
    done = fcos(*words, "e1", "--thresholds", "recall=0.3", "--iou", 0.3, "--save", "new.pth", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)["thresholds"]
    assert (report["goal"], report["iou"]) == ("recall=0.3", 0.3)
    assert report["recall"] >= 0.3 or not any(row["reached"] for row in report["per_class"].values())
    assert (
        sha256_of(weights) == before and json.loads(Path("e1", "thresholds.json").read_text())["goal"] == "recall=0.3"
    )
    new = load("new.pth")
    assert new["thresholds"]["goal"] == "recall=0.3" != held["goal"]
    assert all(torch.equal(value, new["model"][name]) for name, value in load(weights)["model"].items())
    assert {*new} == {*load(weights)}

    assert fcos(*words, "e2", "--thresholds", "f1", "--save", "new.pth").code == 2
    tested = json.loads(
        fcos("eval", "--weights", "new.pth", "--data", data, *EVAL, "e3", "--split", "test", "--json").out
    )
    there = tested["thresholds"]
    assert (there["dataset"], there["goal"], there["iou"]) == ("set_test", "recall=0.3", 0.3)
    assert {k: row["threshold"] for k, row in there["per_class"].items()} == stored_thresholds(read("new.pth")).by_class

    few = fcos("eval", "--weights", weights, "--data", data, *EVAL, "e3", "--split", "test", "--thresholds", "f1")
    assert few.code == 0 and "No thresholds are chosen: that takes 30 objects" in few.err
    assert json.loads(Path("e3", "summary.json").read_text())["thresholds"] is None
    assert not Path("e3", "thresholds.json").exists()  # which was of the evaluation before
    shown = fcos(*words, "e1")
    assert "Thresholds for f1: F1 " in shown.out and "Calibration error" in shown.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--thresholds", "f2"], "'f2' is not f1, precision=P or recall=R"),
        (["--thresholds", "precision=0"], "'precision=0' is not f1"),
        (["--thresholds", "recall=nan"], "'recall=nan' is not f1"),
        (["--thresholds", "f1", "--save", "x.txt"], "x.txt is no name of a checkpoint"),
        (["--save", "x.pth"], "--save goes with --thresholds"),
        (["--thresholds", "f1", "--iou", "0"], "0 is not in the range"),
    ],
    ids=" ".join,
)
def test_wrong_words_are_told_at_once(fcos, data, words, sentence):
    done = fcos("eval", "--weights", "x.pth", "--data", data, *words)
    assert done.code == 2 and sentence in " ".join(done.err.split())


@pytest.mark.parametrize("word", ["1", "-0.1", "cat", "cat=", "cat=2", "nan"])
def test_thresholds_that_are_none(fcos, word):
    done = fcos("detect", "x.jpg", "--weights", "x.pth", f"--threshold={word}")
    assert done.code == 2 and f"'{word}' is no score from 0 to 1" in " ".join(done.err.split())


def test_the_page_about_thresholds(fcos, data, trained):
    """Its commands and its program run as they stand."""
    Path("output", "mine").mkdir(parents=True)
    shutil.copy(trained / "model_best.pth", "output/mine")
    for source, target in ((data, "my_data"), (data / "images" / "val_000001.jpg", "photo.jpg")):
        Path(target).symlink_to(source)
    page = (ROOT / "docs" / "thresholds.md").read_text(encoding="utf-8").replace("star", "square")
    ran = 0
    for line in "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)).splitlines():
        if words := shlex.split(line, comments=True)[1:]:
            done = fcos(*words, "--device", "cpu")
            assert done.code == 0, done.err
            ran += 1
    assert ran == 5 and "thresholds" in load("output/mine/precise.pth")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(program, "page", "exec"), {})
