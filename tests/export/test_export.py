"""`fcos export`: the file finds what the detector finds, says what it is, and is not written otherwise."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from untrained import FEW, SMALL, untrained

from fcos_d2 import Predictor
from fcos_d2.cli import export as command
from fcos_d2.errors import FcosError
from fcos_d2.export import FORMATS, Wanted, export
from fcos_d2.export.certificate import Case, certified, plan
from fcos_d2.runtime import Detections, Detector, RuntimeFault, generated_picture, read_metadata, verify
from fcos_d2.xmlseal import verify_xml

SHAPES = ((48, 64), (64, 48), (64, 64), (40, 90), (90, 40), (57, 71))


@pytest.fixture(scope="module")
def small() -> Predictor:
    return untrained(SMALL, *FEW)


@pytest.fixture(scope="module")
def exported(small: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector as an ONNX file from picture to boxes."""
    folder = tmp_path_factory.mktemp("exported")
    pictures = folder / "pictures"
    pictures.mkdir()
    for seed in (100, 101):
        Image.fromarray(generated_picture(seed, 50, 70)).save(pictures / f"{seed}.png")
    export(small, folder / "out", Wanted(shapes=SHAPES, pictures=pictures), SMALL, "random")
    return folder / "out"


def found_by(predictor: Predictor, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = predictor(picture, image_format="RGB")["instances"]
    return found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy()


def same(found: Detections, expected: tuple[np.ndarray, ...]) -> None:
    assert len(found) == len(expected[1]) > 0
    np.testing.assert_array_equal(found.classes, expected[2])
    np.testing.assert_allclose(found.boxes, expected[0], atol=1e-3)
    np.testing.assert_allclose(found.scores, expected[1], atol=1e-5)


def test_the_file_finds_what_the_detector_finds(small: Predictor, exported: Path) -> None:
    """Also in pictures of shapes that no certificate has, and in batches of other numbers than two."""
    model = Detector(exported / "model.onnx")
    pictures = [generated_picture(seed, 71, 123) for seed in (7, 8, 9)]
    for picture, found in zip(pictures, model.detect(pictures)):
        same(found, found_by(small, picture))
    lone = generated_picture(10, 300, 33)
    same(model.detect([lone])[0], found_by(small, lone))


def test_the_file_says_what_it_is_and_verifies(exported: Path) -> None:
    said = read_metadata(exported / "model.onnx")
    assert json.loads((exported / "card.json").read_text(encoding="utf-8")) == {
        k: v for k, v in said.items() if k != "digest"
    }
    assert (said["variant"], said["recipe"], said["graph"], said["dtype"]) == (SMALL, "small", "end2end", "float32")
    assert said["dynamic"] == {"batch": True, "size": True} and said["source"] == {"file": "random", "sha256": None}
    proof = said["certificate"]
    assert [len(proof["shapes"]), proof["batches"], len(proof["pictures"])] == [7, [1, 2], 14]
    assert proof["kept_equal"] and proof["detections"] > 100
    assert proof["max_box_error_px"] <= 1e-3 and proof["max_score_error"] <= 1e-5
    named = proof["pictures"][-1]
    file = exported.parent / "pictures" / named["name"]
    assert named["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    report = verify(exported / "model.onnx", pictures=file.parent)
    assert report["ok"] and report["cases"] == 15 and not report["skipped"]


def test_another_model_or_other_metadata_do_not_verify(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(exported / "model.onnx", file)
    model = onnx.load(file)
    weight = next(x for x in model.graph.initializer if x.name.endswith("cls_logits.bias"))
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 0.5, weight.name))
    onnx.save(model, file)
    assert not verify(file)["ok"]
    data = (exported / "model.onnx").read_bytes()
    (tmp_path / "said.onnx").write_bytes(data.replace(b'"channel_order":"BGR"', b'"channel_order":"RGB"'))
    assert not verify(tmp_path / "said.onnx")["ok"]


def test_openvino_files_verify_and_changed_ones_do_not(exported: Path, tmp_path: Path) -> None:
    """Of the .xml its metadata and its graph, and the .bin, which the graph has all numbers from."""
    said = {key: value for key, value in read_metadata(exported / "model.onnx").items() if key != "digest"}
    model = onnx.load(exported / "model.onnx")
    del model.metadata_props[:]
    files = FORMATS["openvino"].saved(model, said)
    xml, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    xml.write_bytes(files["model.xml"])
    weights.write_bytes(files["model.bin"])
    report = verify_xml(xml)
    assert report["ok"] and report["cases"] == 12 and len(report["skipped"]) == 2 and report["detections"] > 100
    for file, before, after in (
        (xml, b"&quot;BGR&quot;", b"&quot;RGB&quot;"), (xml, b'pads_begin="1, 1"', b'pads_begin="0, 0"'),
        (weights, files["model.bin"][4096:4100], b"\0\0\0@"), (weights, files["model.bin"][-64:], b""),
    ):  # fmt: skip
        whole = file.read_bytes()
        file.write_bytes(whole.replace(before, after, 1))
        assert whole != file.read_bytes()
        report = verify_xml(xml)
        assert not report["ok"] and "was changed after it was certified" in report["problems"][0]
        file.write_bytes(whole)
    xml.write_bytes(files["model.xml"].replace(b'fcos_d2 value="', b'other value="'))
    with pytest.raises(RuntimeFault, match=r"model\.xml does not say how to use it"):
        verify_xml(xml)
    xml.write_bytes(files["model.xml"])
    weights.unlink()
    with pytest.raises(RuntimeFault, match=r"model\.bin does not exist"):
        verify_xml(xml)


def test_a_raw_graph_is_decoded_to_the_same(small: Predictor, tmp_path: Path) -> None:
    export(small, tmp_path, Wanted(graph="raw", shapes=SHAPES[:2]), SMALL, "random")
    picture = generated_picture(3, 60, 75)
    same(Detector(tmp_path / "model.onnx").detect([picture])[0], found_by(small, picture))


def test_a_file_that_finds_something_else_is_no_certified_one(small: Predictor, exported: Path) -> None:
    rows, cases = plan(None, SHAPES[:1])
    model = Detector(exported / "model.onnx")
    for case in cases:
        case.expected = model.detect(case.pictures)
    assert certified(model, rows, cases, "it", lambda done: None)["max_box_error_px"] == 0
    moved = cases[0].expected[0]
    for changed in (
        Detections(moved.boxes + np.float32(0.002), moved.scores, moved.classes),
        Detections(moved.boxes, moved.scores + np.float32(2e-5), moved.classes),
        moved[np.arange(len(moved)) > 0],
    ):
        with pytest.raises(FcosError, match="does not find what the model finds: in generated 0"):
            certified(model, rows, [Case(cases[0].rows, cases[0].pictures, [changed])], "it", lambda done: None)


def test_nothing_found_certifies_nothing(small: Predictor, exported: Path) -> None:
    rows, cases = plan(None, SHAPES[:1])
    said = {**read_metadata(exported / "model.onnx"), "thresholds": [0.999] * 3}
    for case in cases:
        none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        case.expected = [none] * len(case.pictures)
    with pytest.raises(FcosError, match="finds nothing"):
        certified(Detector(exported / "model.onnx", metadata=said), rows, cases, "it", lambda done: None)


def test_the_command_knows_the_formats() -> None:
    assert {name: form.packages for name, form in FORMATS.items()} == command.FORMATS


def test_a_detector_of_another_kind_is_refused(tmp_path: Path) -> None:
    two_stages = "faster_rcnn_fcos_R_18_slim_FPN_small"
    with pytest.raises(FcosError, match="only FCOS itself can be exported"):
        export(Predictor(two_stages, weights="random", device="cpu"), tmp_path / "out", Wanted(), two_stages, "random")
    assert not (tmp_path / "out").exists()
