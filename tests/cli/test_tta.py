"""`fcos eval --tta` and `fcos detect --tta`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.weights.write import save

EVAL = ("--workers", 0, "--device", "cpu", "--json", "-o")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that was never trained, and whose config asks for mirror images."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    size = "dataloader.test.mapper.augmentations[0].short_edge_length=64"
    cfg = load_config("fcos_R_18_slim_FPN_small", ["model.num_classes=3", size, "train.device=cpu"])
    model = instantiate(cfg.model).state_dict()
    model["dense.head.cls_logits.bias"] = torch.tensor([0.0, 0.1, 0.2])
    cfg.tta = {"flip": True}
    save(path, {"model": model, "class_names": ["circle", "square", "star"], "config": dump_config(cfg)})
    return path


@pytest.mark.slow
def test_eval(fcos, shapes, weights) -> None:
    """What is looked at, and for how long, is in the summary; progress is on standard error."""
    found = {}
    for name in (None, "multiscale", "none"):
        words = () if name is None else ("--tta", name)
        done = fcos("eval", "--weights", weights, "--data", shapes, *words, *EVAL, f"out-{name}")
        assert done.code == 0, done.err
        found[name] = json.loads(done.out)
        assert name == "none" or "evaluating: 4/4" in done.err, done.err
        assert json.loads(Path(f"out-{name}", "summary.json").read_text())["tta"] == found[name]["tta"]
    assert found["none"]["tta"] is None and found["none"]["seconds"] >= 0
    assert found[None]["tta"]["views"] == 2 and found[None]["tta"]["flip"] is True
    assert found["multiscale"]["tta"]["views"] == 18 and found["multiscale"]["tta"]["merge"] == "nms"
    told = fcos("eval", "--weights", weights, "--data", shapes, "--tta", "flip", *EVAL[:-2], "-o", "told")
    assert "4 images of shapes_val, 2 views of each" in " ".join(told.out.split()), told.out + told.err
    wrong = fcos("eval", "--weights", weights, "--data", shapes, "--errors", *EVAL, "errors")
    assert wrong.code == 1 and "--errors explains what is found at one look" in wrong.err


def test_detect(fcos, shapes, weights) -> None:
    image = sorted((shapes / "images").glob("val*"))[0]
    words = ("detect", image, "--weights", weights, "--device", "cpu", "--threshold", "0.5", "--no-pictures", "--json")
    one, two, three = (
        json.loads(fcos(*words, *more).out)["images"][0]["detections"]
        for more in ((), ("--tta", "none"), ("--tta", "multiscale"))
    )
    assert one != two != three and one and two and three
    tiled = fcos(*words, "--tile", "--tile-size", "256")  # which looks in its own way, whatever the config says
    assert tiled.code == 0, tiled.err


def test_explain_looks_once(fcos, shapes, weights) -> None:
    """Whatever the config says."""
    image = sorted((shapes / "images").glob("val*"))[0]
    words = (image, "--weights", weights, "--device", "cpu", "--threshold", "0.5", "--no-pictures", "--json")
    detected = json.loads(fcos("detect", *words, "--tta", "none").out)["images"][0]["detections"]
    explained = json.loads(fcos("explain", *words).out)["detections"]
    assert [[row[key] for key in ("class", "score", "box")] for row in explained] == [
        [row[key] for key in ("class", "score", "box")] for row in detected
    ]


def test_what_is_wrong_is_told_at_once(fcos, shapes) -> None:
    wrong = fcos("detect", "x.jpg", "--weights", "x.pth", "--tile", "--tta", "flip")
    assert wrong.code == 2 and "--tta looks at whole images" in wrong.err
    wrong = fcos("eval", "--weights", "x.pth", "--data", shapes, "--tta", "fliip")
    assert wrong.code == 2 and "fliip" in wrong.err and "multiscale" in wrong.err
