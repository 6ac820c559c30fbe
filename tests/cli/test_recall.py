"""Two-stage detectors on the command line: trained, their proposals evaluated, used to detect."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from fcos_d2 import LazyTrainer, Predictor, configure, zoo
from fcos_d2.train.ground_truth import rule_of
from fcos_d2.weights.read import load

SHORT = ("--image-size", 64, "--batch-size", 2, "--workers", 0, "--iterations", 2)


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """A one-stage detector, and a two-stage one that started from it."""
    folder, found = tmp_path_factory.mktemp("stages"), []
    for model in ("fcos_R_18_slim_FPN_small", "faster_rcnn_fcos_R_18_slim_FPN_small"):
        cfg = configure(
            shapes, model, weights=str(found[-1]) if found else "none", output=folder / model, iterations=2,
            image_size=64, batch_size=2, workers=0, device="cpu",
        )  # fmt: skip
        cfg.train.pictures = False
        LazyTrainer(cfg, console=False).train()
        found.append(folder / model / "model_final.pth")
    return found


def test_proposals_of_a_two_stage_detector(fcos, shapes, trained, tmp_path):
    done = fcos("eval", "--weights", trained[1], "--data", shapes, "--proposals", "-o", tmp_path / "out")
    assert done.code == 0 and "AR@100 " in done.out and "AR@1000 " in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = summary["proposals"]
    assert 0 <= found["AR@100"] <= found["AR@1000"] <= 1 and summary["AP"] is None
    assert summary["recall"][-1]["AR"] == pytest.approx(found["AR@1000"], abs=1e-6)
    assert Image.open(tmp_path / "out" / "recall.png").size[0] > 800
    # Detections into the same folder: what is of proposals goes.
    done = fcos("eval", "--weights", trained[1], "--data", shapes, "-o", tmp_path / "out", "--json")
    assert done.code == 0 and "proposals" not in json.loads(done.out)
    assert not (tmp_path / "out" / "recall.png").exists()


def test_a_two_stage_checkpoint_detects(shapes, trained):
    predict = Predictor(trained[1], device="cpu", score_threshold=0.0)
    image = next((shapes / "images").glob("val*"))
    found = predict(image)["instances"]
    assert predict.class_names == load(trained[1])["class_names"]
    assert len(found) and set(predict.describe(found)[0]) == {"class", "score", "box"}


def test_a_network_that_only_proposes(fcos, shapes, trained, tmp_path):
    """Started from a one-stage detector, its best weights by recall; evaluated without being asked for proposals."""
    words = ("--model", "fcos_rpn_R_18_slim_FPN_small", "--weights", trained[0], "-o", tmp_path / "net")
    done = fcos("train", "--data", shapes, *words, *SHORT)
    assert done.code == 0, done.err
    assert "class layer" not in done.out + done.err and "AR@1000 " in done.out and "fcos detect" not in done.out
    best = load(tmp_path / "net" / "model_best.pth")
    assert set(best["metrics"]) == {"box_proposals/AR@1000"}
    summary = json.loads((tmp_path / "net" / "summary.json").read_text())
    assert summary["AP"] is None and summary["proposals"]["AR@1000"] * 100 == pytest.approx(
        best["metrics"]["box_proposals/AR@1000"], abs=1e-3
    )
    checkpoint = tmp_path / "net" / "model_best.pth"
    done = fcos("eval", "--weights", checkpoint, "--data", shapes, "-o", tmp_path / "out")
    assert done.code == 0 and "AR@1000 " in done.out
    done = fcos("detect", next((shapes / "images").glob("val*")), "--weights", checkpoint)
    assert done.code == 1 and "only proposes regions, and detects nothing" in done.err


@pytest.mark.parametrize(
    ("which", "words", "message"),
    [
        (0, ("--proposals",), "proposes nothing"),
        (1, ("--proposals", "--thresholds", "f1"), "leave out --proposals"),
        (0, ("--model", "faster_rcnn_fcos_R_18_slim_FPN_small"), "which a two-stage one can only start from"),
    ],
)
def test_what_does_not_go_together(fcos, shapes, trained, tmp_path, which, words, message):
    done = fcos("eval", "--weights", trained[which], "--data", shapes, "-o", tmp_path / "out", *words)
    assert done.code in (1, 2) and message in done.err and "Traceback" not in done.err


def test_labels_are_checked_by_the_rule_of_the_first_stage():
    rule = rule_of(zoo.get_config("faster_rcnn_fcos_R_18_slim_FPN_small"))
    assert rule.strides == (4, 8, 16, 32, 64) and [high for _, high in rule.size_ranges[:-1]] == [16, 32, 64, 128]


def test_the_zoo_tells_of_them(fcos):
    text = fcos("zoo", "faster_rcnn_fcos_R_50_FPN_1x").out
    assert "GeneralizedRCNN" in text and "FCOSProposals" in text
    assert "fcos eval --weights FILE --data DIR --proposals" in text
    assert "fcos detect" not in fcos("zoo", "fcos_rpn_R_50_FPN_1x").out
