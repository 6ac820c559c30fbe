"""One detector in several engines: the same boxes, and sentences where one cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx_files import certified, metadata

from fcos_d2 import intel, runtime
from fcos_d2.engines import ENGINES, is_exported, open_engine
from fcos_d2.engines.files import with_threshold
from fcos_d2.engines.speed import medians
from fcos_d2.errors import FcosError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.mark.parametrize("name", ["onnx", "openvino", "auto"])
def test_engines_find_what_the_runtime_finds(model: Path, name: str) -> None:
    pytest.importorskip("openvino")
    engine = open_engine(model, name, threads=1)
    pictures = [runtime.generated_picture(i, *size) for i, size in enumerate([(100, 140), (60, 200), (100, 140)])]
    assert engine.name in ENGINES and engine.class_names == ["red", "green", "blue"]
    assert engine.thresholds == pytest.approx({"red": 0.3, "green": 0.3, "blue": 0.35})
    for found, known in zip(engine.detect(pictures), runtime.Detector(model).detect(pictures)):
        assert len(found) > 5 and runtime.compared(found, known, 1e-3, 1e-5).kept_equal
    assert engine.detect([]) == []
    with pytest.raises(FcosError, match="uint8 array"):
        engine.detect([np.zeros((3, 3))])


def test_a_file_of_openvino_is_read_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    converted = intel.core().read_model(str(model))
    openvino.save_model(converted, str(tmp_path / "bare.xml"), compress_to_fp16=False)
    for name, text in (("cut", '{"format": 1,'), ("whole", json.dumps(metadata()))):
        converted.set_rt_info(text, intel.KEY)
        openvino.save_model(converted, str(tmp_path / f"{name}.xml"), compress_to_fp16=False)
    reads = []
    core = intel.core
    monkeypatch.setattr(intel, "core", lambda: reads.append(1) or core())
    picture = runtime.generated_picture(3, 100, 140)
    (found,), (known,) = (x.detect([picture]) for x in (open_engine(tmp_path / "whole.xml"), runtime.Detector(model)))
    assert runtime.compared(found, known, 1e-3, 1e-5).kept_equal and len(found) > 5 and len(reads) == 1
    for name, sentence in (("bare", "does not say how to use it"), ("cut", "are damaged: export it again")):
        with pytest.raises(FcosError, match=f"{name}.xml {sentence}|metadata of .*{name}.xml {sentence}"):
            open_engine(tmp_path / f"{name}.xml", "openvino")


def test_the_fastest_way_is_the_one_that_does_least() -> None:
    done = []
    found = medians({"one": lambda: done.append(1), "all": lambda: sum(range(10**5))}, rounds=3)
    assert set(found) == {"one", "all"} and found["one"] < found["all"] and len(done) == 4


def test_what_cannot_be_opened_is_told(model: Path, tmp_path: Path) -> None:
    for weights, name, sentence in (
        (model, "tensorrt", "no engine 'tensorrt'"), (model, "torch", "PyTorch does not run"),
        ("some.pth", "onnx", "some.pth"), (tmp_path / "a.xml", "onnx", "onnxruntime does not run"),
        (tmp_path / "a.xml", "openvino", "does not exist"), (tmp_path / "a.onnx", "onnx", "does not exist"),
    ):  # fmt: skip
        with pytest.raises(FcosError, match=sentence):
            open_engine(weights, name)
    assert is_exported("A.ONNX") and is_exported(Path("a.xml")) and not is_exported("a.pth") and not is_exported(None)


def test_thresholds_of_a_file_that_holds_boxes_only_rise() -> None:
    said = metadata(graph="end2end")
    said["select"] |= {"threshold_on": "score", "score_threshold": 0.3}
    assert with_threshold(said, 0.5, "x")["thresholds"] == [0.5] * 3
    with pytest.raises(FcosError, match="that scores are above"):
        with_threshold(said, {"red": 0.1}, "x")
    raw = with_threshold(metadata(), {None: 0.2, "blue": 0.1}, "x")
    assert raw["thresholds"] == [0.2, 0.2, 0.1] and raw["select"]["score_threshold"] == 0.1
