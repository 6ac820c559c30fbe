"""float16, int8, and preprocessing inside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from untrained import FEW, SMALL, untrained

from fcos_d2 import Predictor
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.export import Wanted, export
from fcos_d2.export.measured import Measure
from fcos_d2.runtime import Detector, compared, generated_picture, read_metadata, verify

SHAPES = ((48, 64), (64, 48))
CLASSES = ("circle", "square", "star")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate(folder, {"train": 6, "val": 3}, (96, 64), min_size=10, classes=CLASSES)
    return folder


@pytest.fixture(scope="module")
def small() -> Predictor:
    predictor = untrained(SMALL, *FEW)
    predictor.class_names = list(CLASSES)
    return predictor


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "pixels", "smaller"), [("float16", 0.5, 0.6), ("int8", 8.0, 0.45)])
def test_precision_is_lower_and_the_file_smaller(
    dtype: str, pixels: float, smaller: float, small: Predictor, shapes: Path, tmp_path: Path
) -> None:
    made = export(
        small, tmp_path / "low", Wanted(dtype=dtype, data=shapes, ap_loss=1.0, shapes=SHAPES), SMALL, "random"
    )
    export(small, tmp_path / "full", Wanted(shapes=SHAPES), SMALL, "random")
    assert {"ap_before", "ap_after"} <= made["certificate"].keys() and made["certificate"]["data"] == "shapes"
    low, full = (onnx.load(tmp_path / name / "model.onnx") for name in ("low", "full"))
    assert sum(map(_size, low.graph.initializer)) < smaller * sum(map(_size, full.graph.initializer))
    picture = generated_picture(5, 60, 80)
    exact, found = (Detector(tmp_path / name / "model.onnx").detect([picture])[0] for name in ("full", "low"))
    near = [compared(exact, found[np.array([i])], pixels, 0.1).box_px < pixels for i in range(len(found))]
    assert np.mean(near) > 0.8 and not np.array_equal(found.boxes, exact.boxes)
    assert verify(tmp_path / "low" / "model.onnx")["ok"]


def _size(tensor: onnx.TensorProto) -> int:
    return onnx.numpy_helper.to_array(tensor).nbytes


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["end2end", "raw"])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_file_resizes_pictures_itself(format: str, graph: str, small: Predictor, tmp_path: Path) -> None:
    wanted = Wanted(format, graph, "inside", shapes=((48, 64), (150, 77)))
    made = export(small, tmp_path, wanted, SMALL, "random")
    assert made["preprocessing"] == "inside" and made["certificate"]["detections"] > 50
    if format == "onnx":
        assert read_metadata(tmp_path / "model.onnx")["resize"] == {"short_edge": 64, "max_size": 128}
        assert verify(tmp_path / "model.onnx")["ok"]


def test_what_does_not_go_together_is_said() -> None:
    for wanted, told in (
        (Wanted("torchscript", preprocessing="inside"), "use --format onnx or openvino, not torchscript"),
        (Wanted(preprocessing="inside", size=(64, 64)), "leave it out"),
        (Wanted(dtype="int8"), "name a data set, --data"),
    ):
        with pytest.raises(FcosError, match=told):
            wanted.check()


def test_data_of_other_classes_measure_nothing(shapes: Path) -> None:
    with pytest.raises(FcosError, match="but those of the detector"):
        Measure(shapes, ["cat", "dog", "bird"])
