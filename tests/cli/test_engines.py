"""Checkpoints in other engines: exported in memory, they find what PyTorch finds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from untrained import FEW, SMALL, untrained

from fcos_d2 import Predictor, runtime
from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.engines import open_engine
from fcos_d2.engines.peers import detectron2_r50, torchvision_r50
from fcos_d2.errors import FcosError
from fcos_d2.evaluation import speed
from fcos_d2.predict.arrays import as_arrays
from fcos_d2.weights.write import save


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter's thousands of messages do not reach pytest, which would take a minute to keep them."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A checkpoint of a detector with two levels that finds many boxes with an area."""
    made, path = untrained(SMALL, *FEW), tmp_path / "few.pth"
    save(path, {"model": made.model.state_dict(), "class_names": made.class_names, "config": dump_config(made.cfg)})
    return path


@pytest.mark.slow
def test_a_predictor_finds_the_same_in_onnxruntime(few: Path) -> None:
    by_onnx = Predictor(few, engine="onnx", score_threshold=0.2)
    by_torch = Predictor(few, score_threshold=0.2, device="cpu")
    pictures = [runtime.generated_picture(i, *size) for i, size in enumerate([(60, 90), (64, 64), (60, 90)])]
    assert by_onnx.thresholds == by_torch.thresholds and by_onnx.device.type == "cpu"
    for resize in (True, False):
        found = by_onnx.predict(pictures, batch_size=2, image_format="RGB", resize=resize)
        known = by_torch.predict(pictures, batch_size=2, image_format="RGB", resize=resize)
        assert sum(len(x["instances"]) for x in known) > 5
        for one, other in zip(found, known):
            assert one["instances"].image_size == other["instances"].image_size
            apart = runtime.compared(as_arrays(one["instances"]), as_arrays(other["instances"]))
            assert apart.kept_equal and apart.box_px < 1e-3 and apart.score < 1e-5


@pytest.mark.slow
def test_a_predictor_of_an_exported_file_is_one_of_its_model(few: Path, tmp_path: Path) -> None:
    from fcos_d2.engines.inside import exported_bytes

    by_torch = Predictor(few, score_threshold=0.2, device="cpu")
    data, said = exported_bytes(by_torch, str(few), None)
    path = tmp_path / "model.onnx"
    path.write_bytes(runtime.seal(data, {**said, "thresholds": list(by_torch.least)}))
    by_file = Predictor(path)
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    found, known = (as_arrays(x(picture, "RGB")["instances"]) for x in (by_file, by_torch))
    assert runtime.compared(found, known).kept_equal and len(known) > 0
    assert by_file.class_names == by_torch.class_names and by_file.input_size(picture) == by_torch.input_size(picture)
    assert by_file.thresholds == by_torch.thresholds
    more = Predictor(path, score_threshold=0.1)(picture, "RGB")["instances"]
    assert len(more) >= len(known)
    for options, sentence in (
        ({"weights": "x.pth"}, "weights"),
        ({"tta": "flip"}, "tta"),
        ({"optimize": True}, "optimize"),
    ):
        with pytest.raises(FcosError, match=f"is an exported file, with which {sentence} does not go"):
            Predictor(path, **options)
    assert open_engine(few, "torch", threshold=0.2).detect([picture])[0].scores == pytest.approx(known.scores, abs=1e-5)


@pytest.mark.slow
def test_the_engines_are_measured_in_one_run(fcos) -> None:
    pytest.importorskip("openvino")
    small = ("--model", "fcos_R_18_slim_FPN_small", "--size", "64x96", "--seconds", "0.1")
    done = fcos("bench", "--suite", "engines", *small, "--json")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in json.loads(done.out)["ways"]}
    assert list(rows) == [
        "fcos_d2, eager", "fcos_d2, optimized", "fcos_d2, onnxruntime", "fcos_d2, OpenVINO", "Detectron2, eager",
        "torchvision, eager",
    ]  # fmt: skip
    for name in ("optimized", "onnxruntime", "OpenVINO"):
        found = rows[f"fcos_d2, {name}"]["detections"]
        assert found["equal"] and found["total"] > 3, (name, found)
    assert all(row["memory_bytes"] is None or row["memory_bytes"] > 0 for row in rows.values())
    assert all(rows[f"{name}, eager"]["detections"] is None for name in ("fcos_d2", "Detectron2", "torchvision"))


@pytest.mark.parametrize(
    ("variant", "peer"), [("detectron2/fcos_R_50_FPN_1x", detectron2_r50), ("fcos_resnet50_fpn", torchvision_r50)]
)
def test_the_others_find_the_same_with_the_same_weights_and_rules(variant: str, peer) -> None:
    torch.manual_seed(0)
    model = instantiate(load_config(variant, ["train.device=cpu"]).model).eval()
    with torch.no_grad():
        model.dense.head.cls_logits.weight.mul_(50)  # so that scores differ
    model.keep_empty = False  # a box without area overlaps nothing, and has no partner
    picture = torch.from_numpy(runtime.generated_picture(0, 96, 128)).permute(2, 0, 1).float()
    inputs = [{"image": picture}]
    model = speed.finding(model, inputs)
    other = peer(model.state_dict(), model.num_classes, model.dense.selector, (96, 128))
    found = speed.difference(speed.detections(model, inputs), speed.detections(other, inputs))
    assert found["equal"] and found["total"] > 10, found


def test_what_no_engine_runs_is_told(weights: Path) -> None:
    with pytest.raises(FcosError, match="no engine 'tensorrt'"):
        Predictor(weights, engine="tensorrt")
    with pytest.raises(FcosError, match="with which tta does not go"):
        Predictor(weights, engine="onnx", tta="flip")
    assert np.isfinite(Predictor(weights, engine="torch").least).all()
