"""Exported files: what they find, that they prove themselves, and what is said of those that are wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from onnx_files import STRIDES, certified, metadata, network
from PIL import Image

from fcos_d2 import runtime
from fcos_d2.modeling.locations import LocationGrid
from fcos_d2.modeling.meta_arch import as_instances, of_original, with_area
from fcos_d2.modeling.selector import Selector
from fcos_d2.structures import Predictions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified(tmp_path_factory.mktemp("exported") / "model.onnx")


class _Pixels:
    """A coder of distances in pixels that are activated already."""

    activate = detected = staticmethod(lambda ltrb: ltrb)
    decode = staticmethod(lambda xy, stride, ltrb: torch.cat((xy - ltrb[:, :2], xy + ltrb[:, 2:]), dim=1))


def by_torch(model: Path, picture: np.ndarray) -> runtime.Detections:
    """The file's maps, through Detectron2's resizing before and the package's selector behind."""
    session = runtime.OnnxSession(model)
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    image = ResizeShortestEdge([96, 96], 160).get_transform(bgr).apply_image(bgr)
    height, width = image.shape[:2]
    padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
    padded[0, :, :height, :width] = image.transpose(2, 0, 1)
    maps = {name: torch.from_numpy(x) for name, x in session({"images": padded}).items()}
    kinds = [[maps[f"{kind}_{i}"] for i in range(3)] for kind in ("class_logits", "ltrb", "quality_logits")]
    locations = LocationGrid()([x.shape[2:] for x in kinds[0]], STRIDES, padded.shape[2:], torch.device("cpu"))
    found = Selector(score_threshold=0.3, max_detections=1000)(
        Predictions(*kinds, locations), _Pixels(), [(height, width)]
    )
    (split,) = as_instances(found, locations.xy[found.location], [(height, width)])
    (split,) = with_area([of_original(split, picture.shape[:2], False)])
    split = split[split.scores > torch.tensor([0.3, 0.3, 0.35])[split.pred_classes]]
    return runtime.Detections(
        split.pred_boxes.tensor.numpy(), split.scores.numpy(), split.pred_classes.numpy()
    )  # fmt: skip


def test_pictures_of_several_sizes_have_the_boxes_that_the_parts_give_them(model: Path) -> None:
    sizes = [(100, 140), (60, 200), (100, 140), (31, 33), (100, 140)]
    pictures = [runtime.generated_picture(i, *size) for i, size in enumerate(sizes)]
    detector = runtime.Detector(model, threads=1, batch=2)
    together = detector.detect(pictures)
    assert sum(map(len, together)) > 50
    for picture, found in zip(pictures, together):
        expected = by_torch(model, picture)
        difference = runtime.compared(found, expected)
        assert difference.kept_equal and difference.box_px < 1e-4 and difference.score < 1e-6
        assert runtime.compared(detector.detect([picture])[0], found).kept_equal
    assert detector.detect([]) == []


def test_a_file_of_one_size_pads_pictures_and_shrinks_those_that_do_not_fit(tmp_path: Path) -> None:
    path = certified(tmp_path / "fixed.onnx", network(size=(2, 3, 96, 160)))
    detector = runtime.Detector(path)
    wide, high = runtime.generated_picture(0, 90, 150), runtime.generated_picture(1, 150, 90)
    found = detector.detect([wide, high, wide])
    assert [len(x) > 0 for x in found] == [True] * 3
    assert all(
        x.boxes[:, 2].max() <= w and x.boxes[:, 3].max() <= h for x, (h, w) in zip(found, [(90, 150), (150, 90)])
    )
    np.testing.assert_array_equal(found[0].boxes, found[2].boxes)
    assert runtime.verify(path)["ok"]


def test_a_graph_of_the_whole_way_is_taken_at_its_word(model: Path) -> None:
    raw = runtime.Detector(model)

    class Whole:
        """An end2end graph: boxes in pixels of the network input, rows past the count empty."""

        inputs = raw._session.inputs

        def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            padded = feeds["images"].shape[2:]
            found = runtime.decode(raw._session(feeds), raw.metadata, [(96, 134)] * len(feeds["images"]), padded)
            rows = [
                [
                    np.concatenate((column, np.zeros((1000 - len(column), *column.shape[1:]), column.dtype)))
                    for column in x
                ]
                for x in ((y.boxes, y.scores, y.classes) for y in found)
            ]
            boxes, scores, classes = (np.stack(column) for column in zip(*rows))
            counts = np.array([len(x) for x in found])
            return {"boxes": boxes, "scores": scores, "classes": classes, "counts": counts}

    whole = runtime.Detector(model, session=Whole(), metadata=metadata(graph="end2end"))
    pictures = [runtime.generated_picture(i, 100, 140) for i in range(2)]
    for one, other in zip(whole.detect(pictures), raw.detect(pictures)):
        assert len(one) > 5
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_a_certified_file_proves_itself(model: Path) -> None:
    report = runtime.verify(model)
    assert report["ok"] and report["cases"] == 2 and report["detections"] > 20 and report["max_box_error_px"] == 0
    assert "as certified" in runtime.verdict(report)


def rewritten(model: Path, path: Path, **changes: object) -> Path:
    """A copy whose metadata say something else, with the old digest."""
    proto = onnx.load(model)
    said = json.loads(proto.metadata_props[0].value)
    proto.metadata_props[0].value = json.dumps({**said, **changes})
    onnx.save(proto, path)
    return path


def test_tampering_is_found(model: Path, tmp_path: Path) -> None:
    for changes in (
        {"thresholds": [0.1, 0.3, 0.35]},
        {"class_names": ["red", "green", "violet"]},
        {"digest": "0" * 64},
    ):
        report = runtime.verify(rewritten(model, tmp_path / "changed.onnx", **changes))
        assert not report["ok"] and "was changed after it was certified" in report["problems"][0], changes
    proto = onnx.load(model)
    weight = next(x for x in proto.graph.initializer if x.name == "class_logits_w0")
    weight.raw_data = np.frombuffer(weight.raw_data, np.float32).__mul__(1.001).astype(np.float32).tobytes()
    onnx.save(proto, tmp_path / "weight.onnx")
    assert not runtime.verify(tmp_path / "weight.onnx")["ok"]
    whole = model.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int).tolist():  # any byte
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "byte.onnx").write_bytes(data)
        try:
            assert not runtime.verify(tmp_path / "byte.onnx")["ok"], place
        except runtime.RuntimeFault:
            continue


def test_damaged_metadata_and_certificates_are_told(model: Path, tmp_path: Path) -> None:
    proto, path = onnx.load(model), tmp_path / "damaged.onnx"
    proto.metadata_props.add(key="fcos_d2", value=proto.metadata_props[0].value)
    onnx.save(proto, path)
    with pytest.raises(runtime.RuntimeFault, match="are damaged"):
        runtime.verify(path)
    said = runtime.read_metadata(model)
    for change, sentence in (
        ({"pictures": []}, "is damaged"), ({"cases": [{"pictures": [0], "expected": [{"boxes": [[1]]}]}]}, "damaged"),
        ({"pictures": [{"name": "huge", "seed": 0, "size": [10**6, 10**6]}] * 3}, "1000000x1000000 pixels"),
    ):  # fmt: skip
        certificate = {**said["certificate"], **change}
        path.write_bytes(runtime.seal(model.read_bytes(), {**said, "certificate": certificate}))
        with pytest.raises(runtime.RuntimeFault, match=sentence):
            runtime.verify(path)
    path.write_bytes(runtime.seal(model.read_bytes(), {**said, "class_names": ["a"], "thresholds": [0.3]}))
    with pytest.raises(runtime.RuntimeFault, match="no name for"):
        runtime.Detector(path).detect([runtime.generated_picture(0, 100, 140)])
    path.write_bytes(runtime.seal(model.read_bytes(), {**said, "certificate": None}))
    assert "has no certificate" in runtime.verify(path)["problems"][0]


def test_a_new_digest_does_not_help_where_other_boxes_are_found(model: Path, tmp_path: Path) -> None:
    said = runtime.read_metadata(model)
    path = tmp_path / "other.onnx"
    path.write_bytes(runtime.seal(network(seed=1), said))
    report = runtime.verify(path)
    assert not report["ok"] and "are certified; boxes differ" in report["problems"][0]
    said["certificate"]["cases"][1]["expected"][0]["boxes"][0][0] += 0.01
    path.write_bytes(runtime.seal(model.read_bytes(), said))
    assert not runtime.verify(path)["ok"]


def test_pictures_of_the_user_are_looked_for_by_name_and_hash(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "photos" / "a.png"
    picture.parent.mkdir()
    Image.fromarray(runtime.generated_picture(7, 80, 120)).save(picture)
    said = runtime.read_metadata(model)
    found = runtime.Detector(model).detect([runtime.read_picture(picture)])[0]
    certificate = said["certificate"]
    row = {"name": "a.png", "sha256": hashlib.sha256(picture.read_bytes()).hexdigest(), "size": [80, 120]}
    certificate["pictures"].append(row)
    lists = {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "classes": found.classes.tolist()}
    certificate["cases"].append({"pictures": [3], "expected": [lists]})
    path = tmp_path / "model.onnx"
    path.write_bytes(runtime.seal(model.read_bytes(), said))
    missing, there = runtime.verify(path), runtime.verify(path, picture.parent)
    assert missing["ok"] and missing["cases"] == 2 and "a.png is not in" in missing["skipped"][0]
    assert there["ok"] and there["cases"] == 3 and not there["skipped"]
    Image.fromarray(runtime.generated_picture(8, 80, 120)).save(picture)
    assert "another picture" in runtime.verify(path, picture.parent)["skipped"][0]


def test_files_that_are_wrong_are_told_in_a_sentence(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    said = json.loads(onnx.load(model).metadata_props[0].value)
    files = {
        "cut.onnx": (whole[: len(whole) // 2], "is no ONNX file, or a part of it is missing"),
        "empty.onnx": (b"", "is empty"), "text.onnx": (b"hello, I am a text", "is no ONNX file"),
        "bare.onnx": (network(), "is no file of `fcos export`"),
        "later.onnx": (runtime.seal(network(), {**said, "format": 2}), "reads format 1"),
        "less.onnx": (runtime.seal(network(), {**said, "select": None}), "no usable 'select'"),
        "fewer.onnx": (runtime.seal(network(), {**said, "thresholds": [0.5]}), "one threshold for each class"),
        "other.onnx": (runtime.seal(network(), {**said, "preprocessing": "inside"}), "has no input 'picture'"),
    }  # fmt: skip
    for name, (data, sentence) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(runtime.RuntimeFault, match=sentence):
            runtime.Detector(tmp_path / name)
    for path, sentence in ((tmp_path, "is a folder: name the model"), (tmp_path / "none.onnx", "does not exist")):
        with pytest.raises(runtime.RuntimeFault, match=sentence):
            runtime.Detector(path)
    with pytest.raises(runtime.RuntimeFault, match="uint8 array"):
        runtime.Detector(model).detect([np.zeros((4, 4))])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_pictures_of_all_kinds_are_read(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(runtime.generated_picture(0, 20, 30))
    image = (
        Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
        if mode == "I;16"
        else image.convert(mode)
    )
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert runtime.read_picture(path).shape == (20, 30, 3)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(runtime.generated_picture(0, 20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert runtime.read_picture(tmp_path / "a.jpg").shape == (30, 20, 3)


# ---------------------------------------------------------------------------------------------------------- the command
NO_TORCH = """
import runpy, sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("torch", "torchvision", "detectron2", "fcos_d2", "onnx", "cv2"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def alone(model: Path) -> Path:
    """The folder that `fcos export` writes: the model with the file that runs it."""
    program = model.parent / "fcos_runtime.py"
    program.write_bytes(Path(runtime.__file__).read_bytes())
    return program


def run(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process that can import neither torch nor this package, and has no other folder on its path."""
    command = [sys.executable, "-I", "-c", NO_TORCH, str(program), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=program.parent, check=False)


def test_the_file_alone_finds_and_proves_without_torch(alone: Path, model: Path, tmp_path: Path) -> None:
    picture = runtime.generated_picture(4, 100, 140)
    Image.fromarray(picture).save(tmp_path / "ü.png")
    told = run(alone, str(tmp_path / "ü.png"), "--json", "-o", str(tmp_path / "out.png"))
    assert told.returncode == 0, told.stderr
    detector = runtime.Detector(model)
    expected = detector.describe(detector.detect([picture])[0])
    (row,) = map(json.loads, told.stdout.splitlines())
    assert row["detections"] == expected and len(expected) > 5 and (row["width"], row["height"]) == (140, 100)
    assert np.abs(np.asarray(Image.open(tmp_path / "out.png")).astype(int) - picture).max() > 50
    proof = run(alone, "verify")
    assert proof.returncode == 0 and "as certified" in proof.stdout, proof


def test_the_file_alone_tells_errors_in_a_line(alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    model = str(alone.parent / "model.onnx")
    Image.fromarray(runtime.generated_picture(4, 50, 50)).save(tmp_path / "a.png")
    commands = {
        "none.jpg does not exist": ["none.jpg"], "is no picture": [str(tmp_path / "text.jpg")],
        "is a folder": [str(tmp_path)], "is not replaced": [str(tmp_path / "a.png"), "-o", str(tmp_path / "text.jpg")],
        "cannot be written": [str(tmp_path / "a.png"), "-o", str(tmp_path / "a.nokind")],
        "The model x.onnx does not exist": ["x.jpg", "--model", "x.onnx"],
    }  # fmt: skip
    for sentence, words in commands.items():
        assert runtime.main([*words, *(() if "--model" in words else ("--model", model))]) == 1
        told = capsys.readouterr().err
        assert sentence in told and told.startswith("error: ") and told.count("\n") == 1
    assert runtime.main(["verify", str(tmp_path / "none.onnx")]) == 1
    assert (tmp_path / "text.jpg").read_text(encoding="utf-8") == "no picture"
    some = [str(tmp_path / "a.png"), "none.jpg", str(tmp_path / "a.png")]
    assert runtime.main([*some, "--model", model, "-o", str(tmp_path / "several")]) == 1
    told = capsys.readouterr()
    assert "none.jpg does not exist" in told.err and "is not replaced" in told.err
    assert [x.name for x in (tmp_path / "several").iterdir()] == ["a.jpg"] and "a.png: " in told.out
