"""`fcos detect` and `fcos verify` with files of `fcos export`: the same boxes, without PyTorch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import console
import numpy as np
import onnx
import pytest
import torch
from onnx_files import certified
from PIL import Image

from fcos_d2 import Predictor, runtime
from fcos_d2.engines import open_engine
from fcos_d2.weights.thresholds import calibrated

# What takes long to import, and is not needed where a file of `fcos export` looks at pictures and boxes are drawn.
HEAVY = (
    "torch", "torchvision", "detectron2", "onnx", "matplotlib", "fontTools", "pandas", "scipy", "supervision", "cv2",
    "pyarrow", "requests", "yaml", "omegaconf", "http.client", "pydantic", "fcos_d2.data.coco", "fcos_d2.zoo.variants",
    "fcos_d2.visualize.charts",
)  # fmt: skip
# The console script, in a process that tells at its end which of these it has imported.
PROGRAM = """
import sys
sys.path[:0] = [{folder!r}, {root!r}]
from fcos_d2_console import main
sys.argv = ["fcos", *sys.argv[1:]]
try:
    main()
finally:
    print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, size in enumerate([(100, 140), (100, 140), (60, 90)]):
        Image.fromarray(runtime.generated_picture(10 + i, *size)).save(folder / f"{i}.png")
    return folder


def expected(model: Path, pictures: Path) -> list[list[dict]]:
    detector = runtime.Detector(model)
    files = sorted(pictures.glob("*.png"))
    return [detector.describe(detector.detect([runtime.read_picture(file)])[0]) for file in files]


def test_an_exported_file_detects_without_torch(model: Path, pictures: Path, tmp_path: Path) -> None:
    console.install(tmp_path / "bin")
    program = PROGRAM.format(folder=str(tmp_path / "bin"), root=str(console.ROOT), heavy=HEAVY)
    (tmp_path / "bin" / "run.py").write_text(program, encoding="utf-8")

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [console.install(tmp_path / "bin")[0], str(tmp_path / "bin" / "run.py"), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, env=console.environment(),
            check=False,
        )  # fmt: skip

    done = run("detect", pictures, "--weights", model, "--json", "-o", "out", "--format", "coco")
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"
    found = json.loads(done.stdout)
    assert [row["detections"] for row in found["images"]] == expected(model, pictures)
    assert found["thresholds"] == {"red": 0.3, "green": 0.3, "blue": 0.35} and found["classes"] == [
        "red",
        "green",
        "blue",
    ]
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3 and (tmp_path / "out" / "detections.coco.json").is_file()
    proof = run("verify", model)
    assert proof.returncode == 0 and "as certified" in proof.stdout and proof.stderr.strip().splitlines()[-1] == "[]"


def test_thresholds_of_a_raw_file_may_be_lower_and_for_some_classes(fcos, model: Path, pictures: Path) -> None:
    def scores(*words: object) -> dict[str, list[float]]:
        done = fcos("detect", pictures / "0.png", "--weights", model, "--json", *words)
        assert done.code == 0, done.err
        rows = json.loads(done.out)["images"][0]["detections"]
        return {name: [row["score"] for row in rows if row["class"] == name] for name in ("red", "green", "blue")}

    own, low = scores(), scores("--threshold", 0.05)
    assert min(map(min, filter(None, own.values()))) > 0.3 and min(map(min, filter(None, low.values()))) < 0.3
    some = scores("--threshold", "green=0.6")
    assert min(some["green"]) > 0.6 > min(own["green"]) and {*own["red"]} <= {*some["red"]} and min(some["red"]) > 0.3


def test_scores_are_calibrated_as_those_of_a_checkpoint(fcos, model: Path, pictures: Path, tmp_path: Path) -> None:
    """A threshold that the file has is of scores before that, one that is given of those that are seen."""
    picture = pictures / "0.png"

    def rows(*words: object) -> list[dict]:
        done = fcos("detect", picture, "--weights", model, "--json", *words)
        assert done.code == 0, done.err
        return json.loads(done.out)["images"][0]["detections"]

    plain, seen = rows(), rows("--calibrate")
    scores = torch.tensor([row["score"] for row in plain], dtype=torch.float64)
    assert [row["box"] for row in seen] == [row["box"] for row in plain] and len(plain) > 9
    assert [row["score"] for row in seen] == pytest.approx(calibrated(scores, 1.7).tolist(), abs=2e-6)
    least = (seen[4]["score"] + seen[5]["score"]) / 2
    assert rows("--calibrate", "--threshold", least) == seen[:5]
    name = seen[0]["class"]
    some = [row["score"] for row in rows("--calibrate", "--threshold", f"{name}={least}") if row["class"] == name]
    assert some and min(some) > least
    engine = open_engine(model, "onnx", calibrate=True)
    assert engine.thresholds == {"red": 0.3, "green": 0.3, "blue": 0.35}
    for given, expected in ((None, seen), (least, seen[:5])):
        instances = Predictor(model, calibrate=True, score_threshold=given)(picture)["instances"]
        assert instances.scores.tolist() == pytest.approx([row["score"] for row in expected], abs=2e-6)
    without = certified(tmp_path / "without.onnx", temperature=None)
    done = fcos("detect", picture, "--weights", without, "--calibrate")
    assert done.code == 1 and "holds no temperature" in done.err


def test_a_threshold_of_one_class_leaves_the_others_at_a_half(fcos, pictures: Path, tmp_path: Path) -> None:
    """As with a checkpoint that holds none."""
    model = certified(tmp_path / "model.onnx", thresholds=[0.0, 0.0, 0.0])
    done = fcos("detect", pictures / "0.png", "--weights", model, "--json", "--threshold", "green=0.4")
    assert json.loads(done.out)["thresholds"] == {"red": 0.5, "green": 0.4, "blue": 0.5}


@pytest.mark.parametrize("engine", ["openvino", "auto"])
def test_other_engines_find_the_same(fcos, model: Path, pictures: Path, engine: str) -> None:
    pytest.importorskip("openvino")
    done = fcos("detect", pictures, "--weights", model, "--engine", engine, "--json", "--no-pictures")
    assert done.code == 0, done.err
    for row, rows in zip(json.loads(done.out)["images"], expected(model, pictures)):
        found, known = (
            runtime.Detections(
                np.array([x["box"] for x in some]), np.array([x["score"] for x in some]),
                np.array([["red", "green", "blue"].index(x["class"]) for x in some]),
            )
            for some in (row["detections"], rows)
        )  # fmt: skip
        assert runtime.compared(found, known, 2e-3, 1e-5).kept_equal


def test_what_does_not_go_with_an_exported_file_is_said(fcos, model: Path, pictures: Path, tmp_path: Path) -> None:
    picture, cut = pictures / "0.png", tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:2000])
    cases = {
        (model, "--tta", "flip"): (2, "--tta is of PyTorch's engine"),
        (model, "--model", "fcos_R_50_FPN_1x"): (2, "--model is of PyTorch's engine"),
        (model, "--tile"): (2, "--tile is of PyTorch's engine"), (model, "--engine", "torch"): (1, "does not run"),
        (model, "--threshold", "cat=0.3"): (1, "has no class 'cat'"), (cut,): (1, "is no ONNX file"),
        ("none.onnx",): (1, "The exported file none.onnx does not exist"),
        ("none.pth", "--engine", "onnx"): (1, "none.pth does not exist"),
    }  # fmt: skip
    for words, (code, sentence) in cases.items():
        done = fcos("detect", picture, "--weights", *words)
        assert done.code == code and sentence in " ".join(done.err.split()), (words, done.err)
        assert "Traceback" not in done.err


def test_verify_tells_what_is_wrong(fcos, model: Path, tmp_path: Path) -> None:
    done = fcos("verify", model, "--json")
    assert done.code == 0 and json.loads(done.out)["ok"]
    proto = onnx.load(model)
    said = json.loads(proto.metadata_props[0].value)
    proto.metadata_props[0].value = json.dumps({**said, "thresholds": [0.1, 0.1, 0.1]})
    onnx.save(proto, tmp_path / "changed.onnx")
    done = fcos("verify", tmp_path / "changed.onnx")
    assert done.code == 1 and "was changed after it was certified" in " ".join(done.out.split())
    for name, sentence in (
        ("none.onnx", "does not exist"), (".", "is a folder"), ("none.xml", "none.xml does not exist"),
        ("model.pt2", "model.pt2 is a file of PyTorch, which has no digest"),
    ):  # fmt: skip
        done = fcos("verify", tmp_path / name)
        assert done.code == 1 and sentence in done.err and done.err.count("\n") == 1
