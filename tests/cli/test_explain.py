"""`fcos explain` and `fcos eval --errors` on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcos_d2 import Predictor
from fcos_d2.evaluation.ledger import FALSE_ALARMS, MISSES, ErrorLedger
from fcos_d2.weights.read import load
from fcos_d2.weights.write import save


@pytest.fixture(scope="session")
def weights(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of an untrained model, whose boxes are four strides wide, more or less."""
    held = load(weights)
    held["model"]["dense.head.bbox_pred.bias"] = torch.full((4,), 2.0)
    path = tmp_path_factory.mktemp("weights") / "wide.pth"
    save(path, held)
    return path


@pytest.fixture
def explain(fcos, weights):
    """Run `fcos explain` with a threshold that scores of an untrained model pass, and read its JSON."""

    def run(*words, code=0) -> dict[str, Any]:
        done = fcos("explain", *words, "--weights", weights, "--threshold", 0.4, "--device", "cpu", "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    return run


@pytest.fixture
def picture(shapes: Path, tmp_path: Path) -> Path:
    found = next(
        row for row in json.loads((shapes / "val.json").read_text())["images"]
        if (shapes / "images" / row["file_name"]).is_file()
    )  # fmt: skip
    return Path(shutil.copy(shapes / "images" / found["file_name"], tmp_path / "photo.jpg"))


def test_what_is_explained_is_what_is_detected(explain, picture: Path, weights: Path) -> None:
    told = explain(picture)
    predictor = Predictor(weights, device="cpu", score_threshold=0.4)
    expected = predictor.describe(predictor(picture)["instances"])
    rows = told["detections"]
    assert [{key: row[key] for key in ("class", "score", "box")} for row in rows] == expected and len(rows) == 4
    assert told["replay"] == "exact"
    width, height = Image.open(picture).size
    assert (told["width"], told["height"]) == (width, height)
    for row in rows:
        assert 1 <= row["rank"] <= row["of"] and row["stride"] == 8 * 2 ** row["level"]
        assert row["score"] == pytest.approx((row["class_score"] * row["quality"]) ** 0.5, abs=1e-5)
        (x, y), (left, top, right, bottom) = row["location"], row["box"]
        assert left <= x <= right and top <= y <= bottom  # for it is the point that the box was measured from
        on_grid = [v * 64 / height / row["stride"] - 0.5 for v in (x, y)]  # the network sees 96 x 64 pixels
        assert on_grid == pytest.approx([round(v) for v in on_grid], abs=2e-2)
        for other in row["suppressed"]:
            assert other["class"] == row["class"] and other["score"] <= row["score"] and other["iou"] > 0.6
    counts = dict(told["candidates"])
    assert counts.pop("passed") == sum(counts.values()) == sum(level["passed"] for level in told["levels"])
    assert counts["kept"] == 4 and counts["cut by the limit"] > 0 and counts["suppressed"] > 0
    everywhere = sum(len(row["suppressed"]) for row in rows)
    assert 0 < everywhere <= counts["suppressed"]
    assert "objects" not in told and "verdict" not in rows[0]
    shown = np.asarray(Image.open(told["picture"]))
    assert max(shown.shape) == 960 and shown.std() > 5


def test_an_image_of_a_data_set_is_judged(explain, shapes: Path) -> None:
    """By its name in the data, or by its path; the objects and the detections each add up."""
    listed = json.loads((shapes / "val.json").read_text())
    image = listed["images"][0]
    count = sum(row["image_id"] == image["id"] and not row["iscrowd"] for row in listed["annotations"])
    told = explain(image["file_name"], "--data", shapes, "--no-pictures")
    assert told["objects"] == count == told["found"] + len(told["missed"])
    assert {row["cause"] for row in told["missed"]} <= set(MISSES)
    assert {row["verdict"] for row in told["detections"]} <= {*FALSE_ALARMS, "right", "in a crowd region"}
    assert sum(row["verdict"] == "right" for row in told["detections"]) == told["found"]
    assert all(row["detail"] for row in told["missed"])
    assert told["picture"] is None and not Path("output").exists()
    assert explain(shapes / "images" / image["file_name"], "--data", shapes, "--no-pictures") == told


def test_what_people_see(fcos, weights: Path, shapes: Path, picture: Path) -> None:
    name = json.loads((shapes / "val.json").read_text())["images"][0]["file_name"]
    words = ("--weights", weights, "--device", "cpu", "--threshold", 0.4)
    done = fcos("explain", name, "--data", shapes, *words)
    assert done.code == 0, done.err
    assert "objects found" in done.out and "verdict" in done.out and "to the bit" in done.out
    assert fcos("explain", name, "--data", shapes, *words).code == 0
    assert len(list(Path("output", "explained").iterdir())) == 1  # its own picture is drawn anew
    nothing = fcos("explain", picture, "--weights", weights, "--device", "cpu", "--threshold", 0.99, "--no-pictures")
    assert nothing.code == 0 and "Nothing has a score above 0.99" in nothing.out


def test_a_record_replays_without_the_weights(explain, fcos, picture: Path) -> None:
    told = explain(picture, "--record", "kept.npz", "--no-pictures")
    assert told["record"] == "kept.npz"
    done = fcos("explain", "kept.npz", "--json")
    assert done.code == 0, done.err
    again = json.loads(done.out)
    for key in ("detections", "candidates", "levels", "thresholds", "image", "replay"):
        assert again[key] == told[key], key
    explain(picture, "--record", "kept.npz", "--no-pictures")  # it is a record, so it may be replaced
    Path("notes.npz").write_text("mine", encoding="utf-8")
    done = fcos("explain", "notes.npz")
    assert done.code == 1 and "is no record" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg"),
        (["photo.jpg", "--record", "notes.txt"], "end in .npz"),
        (["photo.jpg", "--record", "mine.npz"], "exists and is no record"),
        (["photo.jpg", "--data", "DATA"], "which has no such image"),
        (["kept.npz"], "does not exist"),
        (["empty"], "The folder empty holds no image"),
        (["clips"], "clips has no image, only videos"),
    ],
)
def test_what_is_wrong_is_one_sentence(fcos, weights, shapes, picture, words, message) -> None:
    Path("mine.npz").write_text("mine", encoding="utf-8")
    Path("empty").mkdir()
    Path("clips").mkdir()
    Path("clips", "clip.mp4").write_text("", encoding="utf-8")
    words = [shapes if word == "DATA" else word for word in words]
    given = [] if words == ["kept.npz"] else ["--weights", weights, "--device", "cpu", "--no-pictures"]
    done = fcos("explain", *words, *given)
    assert done.code == 1 and message in done.err and "Traceback" not in done.err
    assert Path("mine.npz").read_text(encoding="utf-8") == "mine"


def test_a_folder_is_each_of_its_images(explain, shapes: Path, picture: Path) -> None:
    """With what is told of one alone; what cannot be read, or is not in the data, is named, and the rest is told."""
    folder, names = (
        Path("photos"),
        [row["file_name"] for row in json.loads((shapes / "val.json").read_text())["images"]],
    )
    (folder / "more").mkdir(parents=True)
    for place in ("a.jpg", "more/a.jpg"):
        shutil.copy(picture, folder / place)
    Path(folder, "broken.jpg").write_text("none", encoding="utf-8")
    Path(folder, "clip.mp4").write_text("a video is left to fcos detect", encoding="utf-8")
    told = explain(folder, code=1)
    assert [row["image"] for row in told["images"]] == ["photos/a.jpg", "photos/more/a.jpg"]
    assert list(told["failed"]) == ["photos/broken.jpg"]
    alone = explain(picture, "--no-pictures")
    for row in told["images"]:
        assert {**row, "image": "", "picture": None} == {**alone, "image": ""}
    assert len({row["picture"] for row in told["images"]}) == 2 and all(
        Path(x["picture"]).is_file() for x in told["images"]
    )

    told = explain(shapes / "images" / "val_*", "--data", shapes, "--no-pictures")
    assert [Path(row["image"]).name for row in told["images"]] == sorted(names) and told["failed"] == {}
    assert all(row["objects"] == row["found"] + len(row["missed"]) for row in told["images"])


def test_several_images_for_people(fcos, weights: Path, picture: Path) -> None:
    Path("list.txt").write_text(f"{picture}\n{picture}\n", encoding="utf-8")
    done = fcos("explain", "list.txt", "--weights", weights, "--device", "cpu", "--threshold", 0.4)
    assert done.code == 0 and done.out.count("to the bit") == 2 and done.out.count("photo.jpg") >= 2, done.err
    assert {path.name for path in Path("output", "explained").iterdir()} == {"photo.jpg", "photo-2.jpg"}


def test_a_record_takes_no_weights(fcos, weights) -> None:
    assert fcos("explain", "kept.npz", "--weights", weights).code == 2


def test_a_record_keeps_one_image(fcos, weights, picture: Path) -> None:
    Path("list.txt").write_text(f"{picture}\n{picture}\n", encoding="utf-8")
    done = fcos("explain", "list.txt", "--weights", weights, "--record", "kept.npz")
    assert done.code == 2 and "list.txt is 2 of them" in " ".join(done.err.split()) and not Path("kept.npz").exists()


# ------------------------------------------------------------------------------------------------- fcos eval --errors
def test_errors_of_a_data_set_add_up(fcos, weights: Path, shapes: Path) -> None:
    """And they change no number of the evaluation; without --errors they are gone."""
    words = ("eval", "--weights", weights, "--data", shapes, "--workers", 0, "--device", "cpu", "-o", "out")
    plain = fcos(*words, "--json")
    assert plain.code == 0, plain.err
    assert json.loads(plain.out)["errors"] is None and not Path("out", "errors.json").exists()
    done = fcos(*words, "--errors", "--threshold", 0.4, "--threshold", "star=0.45", "--json")
    assert done.code == 0, done.err
    told, before = json.loads(done.out), json.loads(plain.out)
    errors = told.pop("errors")
    assert {**told, "errors": None, "seconds": before["seconds"]} == before
    listed = json.loads((shapes / "val.json").read_text())
    objects = sum(not row["iscrowd"] for row in listed["annotations"])
    assert errors["objects"] == objects == errors["found"] + sum(errors["misses"].values())
    assert errors["detections"] == errors["right"] + errors["in_crowds"] + sum(errors["false_alarms"].values()) > 0
    for what in ("misses", "false_alarms"):
        assert sum(errors[f"{what}_percent"].values()) == pytest.approx(100 if sum(errors[what].values()) else 0)
    assert errors["thresholds"] == {"circle": 0.4, "square": 0.4, "star": 0.45} and errors["images"] == 4
    written = json.loads(Path("out", "errors.json").read_text())
    ledger = ErrorLedger.of(written)
    assert ledger.summary() == errors and len(ledger.misses) == errors["missed"]
    assert max(Image.open("out/errors.jpg").size) > 600
    shown = fcos(*words, "--errors")
    assert shown.code == 0 and "objects found" in shown.out and "detections right" in shown.out
    assert fcos(*words).code == 0 and not Path("out", "errors.json").exists()


def test_errors_are_of_what_would_be_seen(fcos, weights: Path, shapes: Path) -> None:
    """Above 0.5 where nobody says otherwise; and --iou says what finds an object."""
    words = ("eval", "--weights", weights, "--data", shapes, "--workers", 0, "--device", "cpu", "-o", "out")
    told = json.loads(fcos(*words, "--errors", "--iou", 0.3, "--json").out)["errors"]
    assert set(told["thresholds"].values()) == {0.5} and told["iou"] == 0.3


def test_a_threshold_goes_with_errors(fcos, weights: Path, shapes: Path) -> None:
    done = fcos("eval", "--weights", weights, "--data", shapes, "--threshold", 0.3)
    assert done.code == 2 and "--errors" in done.err


def test_errors_are_not_of_proposals(fcos, weights: Path, shapes: Path) -> None:
    done = fcos("eval", "--weights", weights, "--data", shapes, "--errors", "--proposals", "-o", "out")
    assert done.code == 2 and "leave out --proposals" in done.err and not Path("out").exists()
