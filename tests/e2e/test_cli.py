"""The console script in processes of its own: what a user types, what comes out, what stays on disk."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import warm
from console import environment, install
from PIL import Image

from fcos_d2.data.synthetic import generate
from fcos_d2.weights.read import load

FCOS = install(Path(tempfile.mkdtemp(prefix="fcos-")))
TINY = ("--model", "fcos_R_18_slim_FPN_small", "--image-size", "64", "--batch-size", "2", "--workers", "0")
ENVIRONMENT = environment()


def fcos(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return warm.run([*FCOS, *words], cwd=cwd, env={**ENVIRONMENT, **environment})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory with the data sets `shapes` (3 classes) and `five`."""
    home = tmp_path_factory.mktemp("home")
    generate(home / "shapes", {"train": 12, "val": 4}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    generate(home / "five", {"train": 4, "val": 2}, (96, 64), min_size=10)
    return home


@pytest.fixture(scope="module")
def trained(home: Path) -> dict:
    """What `fcos train --json` said."""
    run = fcos("train", "--data", "shapes", *TINY, "--iterations", 4, "--json", cwd=home)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_help_imports_neither_torch_nor_detectron2(home):
    run = subprocess.run(
        [*FCOS, "--help"], cwd=home, env={**ENVIRONMENT, "PYTHONPROFILEIMPORTTIME": "1"}, text=True, capture_output=True
    )
    assert run.returncode == 0 and "Commands:" in run.stdout
    imported = set(re.findall(r"\|\s+([\w.]+)$", run.stderr, re.MULTILINE))
    assert {"click", "fcos_d2.cli"} <= imported
    assert not imported & {"torch", "detectron2", "numpy", "rich"}


HIDDEN = """
import runpy, sys
sys.modules["detectron2"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["zoo"], 0), (["a.jpg", "--weights", "w.pth"], 1), (["demo"], 1)]
)
def test_without_detectron2(home, words, code):
    run = subprocess.run(
        [sys.executable, "-c", HIDDEN, FCOS[-1], *words], cwd=home, env=ENVIRONMENT, text=True, capture_output=True
    )
    assert run.returncode == code, run.stderr
    if code:
        assert run.stderr.startswith("error: fcos_d2 needs Detectron2") and run.stderr.count("\n") == 1
        assert "uv sync" in run.stderr and "git+https://" in run.stderr


def test_train_writes_what_it_says(home, trained):
    folder = home / "output" / "shapes"
    assert trained["output"] == "output/shapes" and trained["checkpoint"] == "output/shapes/model_final.pth"
    assert trained["classes"] == ["circle", "square", "star"] and trained["images"] == {"train": 12, "val": 4}
    assert trained["iterations"] == 4 and 0 <= trained["AP"] <= trained["AP50"] <= 1
    assert list(trained["per_class"]) == ["circle", "square", "star"]
    assert json.loads((folder / "summary.json").read_text()) == trained
    for picture in ("detections.png", "curves.png"):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 200
    payload = load(folder / "model_final.pth")
    assert payload["class_names"] == ["circle", "square", "star"] and "num_classes: 3" in payload["config"]
    assert len((folder / "metrics.json").read_text().splitlines()) >= 1
    assert (folder / "evaluation.json").is_file()


def test_train_does_not_replace_a_training_unasked(home, trained):
    run = fcos("train", "--data", "shapes", *TINY, "--iterations", 2, cwd=home)
    assert run.returncode == 1 and run.stdout == ""
    assert "--resume" in run.stderr and "--overwrite" in run.stderr
    assert json.loads((home / "output" / "shapes" / "summary.json").read_text()) == trained


def test_eval_of_the_trained_weights_gives_its_numbers(home, trained):
    run = fcos("eval", "--weights", trained["checkpoint"], "--data", "shapes", "--json", cwd=home)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["images"] == 4 and found["dataset"] == "shapes_val"
    for key in ("AP", "AP50", "per_class"):
        assert found[key] == pytest.approx(trained[key], abs=1e-6)


def test_new_classes_start_from_the_old_weights(home, trained):
    words = ("--weights", trained["checkpoint"], "--new-classes", "--batch-size", 2, "--workers", 0, "--iterations", 1)
    run = fcos("train", "--data", "five", *words, "optimizer.lr=0.0", "train.pictures=false", cwd=home)
    assert run.returncode == 0, run.stderr
    old, new = load(home / trained["checkpoint"]), load(home / "output" / "five" / "model_final.pth")
    assert len(new["class_names"]) == 5
    assert new["model"]["dense.head.cls_logits.weight"].shape[0] == 5
    same = "dense.head.bbox_pred.weight"
    assert (old["ema"][same] == new["model"][same]).all()  # learning rate 0: as loaded, which is the average


def test_detect_goes_on_after_unusable_images(home, trained, tmp_path):
    images = home / "shapes" / "images"
    whole = (images / "val_000000.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder").mkdir()
    shutil.copy(images / "val_000000.jpg", tmp_path / "folder" / "a.jpg")
    shutil.copy(images / "val_000001.jpg", tmp_path / "a.jpg")
    weights = home / trained["checkpoint"]
    run = fcos("a.jpg", "cut.jpg", "text.png", "gone.jpg", "folder", "--weights", weights, "--json", cwd=tmp_path)
    found = json.loads(run.stdout)
    assert run.returncode == 1 and "images" in found, run.stderr
    assert [row["image"] for row in found["images"]] == ["a.jpg", "folder/a.jpg"]
    assert [row["image"] for row in found["failed"]] == ["cut.jpg", "text.png", "gone.jpg"]
    assert all(row["image"] in row["error"] and row["error"] in run.stderr for row in found["failed"])
    pictures = [row["picture"] for row in found["images"]]
    assert pictures == ["output/detections/a.jpg", "output/detections/a-2.jpg"]
    for picture in pictures:
        with Image.open(tmp_path / picture) as image:
            assert image.size == (96, 64)


@pytest.mark.slow  # tests/cli/test_train.py has a picture that is not replaced
def test_detect_into_the_folder_of_the_pictures_overwrites_none(home, trained, tmp_path):
    """Neither photographs, nor pictures of an earlier run that are now inputs; the limit of pixels is said."""
    shutil.copy(home / "shapes" / "images" / "val_000000.jpg", tmp_path / "a.jpg")
    Image.new("L", (96, 64)).save(tmp_path / "a.png")
    Image.new("I;16", (64, 96)).save(tmp_path / "b.tif")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere.jpg")
    Image.new("L", (500, 40)).save(tmp_path / "wide.png")
    words = ("--weights", home / trained["checkpoint"], "--threshold", 0, "--output", ".", "--json")
    before: dict = {}
    for _ in range(2):
        run = fcos(".", *words, "--max-pixels", 19_999, cwd=tmp_path)
        found = json.loads(run.stdout)
        assert run.returncode == 1 and len(found["images"]) >= 3, run.stderr
        (failure,) = [row for row in found["failed"] if row["image"] == "wide.png"]
        assert (
            "wide.png has 500x40 pixels, and 19999 are the limit: raise it with --max-pixels 20000" in failure["error"]
        )
        pictures = {row["picture"] for row in found["images"]}
        assert len(pictures) == len(found["images"]) and not pictures & {row["image"] for row in found["images"]}
        assert all((tmp_path / name).read_bytes() == content for name, content in before.items())
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert (tmp_path / "b.jpg").is_symlink()


@pytest.mark.slow  # tests/modeling/rewrite/test_fuse.py compares a model and its copy
def test_detect_with_a_faster_copy_finds_the_same(home, trained):
    words = (
        "shapes/images/val_000000.jpg",
        "--weights",
        trained["checkpoint"],
        "--threshold",
        0,
        "--no-pictures",
        "--json",
    )
    plain, fast = (json.loads(fcos("detect", *words, *more, cwd=home).stdout) for more in ((), ("--optimize", "fp32")))
    ours, theirs = (found["images"][0]["detections"] for found in (fast, plain))
    assert len(ours) == len(theirs) > 0
    assert [x["score"] for x in ours] == pytest.approx([x["score"] for x in theirs], abs=1e-4)


def test_detect_without_weights_and_network_says_what_to_do(home):
    run = fcos("detect", "shapes/images/val_000000.jpg", "--offline", cwd=home)
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert "FCOS_D2_MIRROR" in run.stderr and "--weights FILE" in run.stderr


@pytest.mark.slow
def test_interrupted_training_resumes(home):
    words = ("train", "--data", "shapes", *TINY, "--output", "interrupted", "train.pictures=false")
    process = subprocess.Popen(
        [*FCOS, *map(str, words), "--iterations", "100000", "train.eval_period=0"],
        cwd=home, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    log = home / "interrupted" / "log.txt"
    try:
        while not (log.is_file() and "Training from iteration 1" in log.read_text()) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130 and out == "", err
    assert "--resume" in err and "Traceback" not in err
    done = int(re.search(r"after iteration (\d+)", err)[1])
    run = fcos(*words, "--iterations", done + 2, "--resume", cwd=home)
    assert run.returncode == 0, run.stderr
    assert f"Going on from interrupted/model_{done - 1:07d}.pth" in log.read_text()
    assert load(home / "interrupted" / "model_final.pth")["iteration"] == done + 1


@pytest.mark.slow
def test_two_processes_train_as_one(home):
    """They measure together, too, and one of them tells."""
    run = fcos(
        "train", "--data", "shapes", *TINY, "--minutes", 0.001, "--output", "two", "--num-gpus", 2, "--device", "cpu",
        cwd=home, CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Trained 20 iterations" in run.stdout
    assert run.stderr.count("training: 20/20, loss") == run.stderr.count("It will take about") == 1
