"""What `fcos train`, `eval` and `demo` do with wrong input, and the demo on a few images."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

from fcos_d2 import zoo
from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data.synthetic import generate
from fcos_d2.genotype import GENOTYPES
from fcos_d2.paths import config_root
from fcos_d2.train import job
from fcos_d2.train.own_data import adapt, open_data
from fcos_d2.weights.read import load
from fcos_d2.weights.write import save

SLIM = "fcos_R_18_slim_FPN_small"
PLAIN = "train.pictures=false"  # a third of the time of a short training
TINY = ("--model", SLIM, "--image-size", 64, "--batch-size", 2, "--workers", 0, PLAIN, "--iterations", 1)


def sentence(outcome) -> str:
    """The error, which must be all that is said in the end."""
    assert outcome.code == 1 and outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in outcome.err and "unexpected" not in last
    return last


@pytest.fixture
def own(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the data set to spoil, under a name that no other test has registered."""
    folder = tmp_path / f"own_{tmp_path.name}"
    shutil.copytree(shapes, folder)
    return folder


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ([], "--data DIR"),
        (["--data", "x", "--epochs", 1, "--iterations", 1], "not both"),
        (["--config", "fcos_imprv_R_50_FPN_1x", "--image-size", 64], "--image-size goes with --data"),
        (["--data", "x", "--val-fraction", 1.5], "--val-fraction"),
        (["--data", "x", "train.output_dir=y"], "--output"),
    ],
)
def test_wrong_usage(fcos, words, usage):
    outcome = fcos("train", *words)
    assert outcome.code == 2 and usage in outcome.err and outcome.out == ""


def test_missing_empty_and_foreign_folders(fcos, tmp_path):
    assert "nowhere does not exist" in sentence(fcos("train", "--data", "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "empty is empty" in sentence(fcos("train", "--data", "empty"))
    (tmp_path / "empty" / "notes.txt").write_text("x")
    assert "notes.txt" in sentence(fcos("train", "--data", "empty"))


def test_unknown_model_and_keys(fcos, own):
    assert "fcos_R_18_FPN_small" in sentence(fcos("train", "--data", own, "--model", "fcos_R_18_FPM_small"))
    assert "'optimizer.lr'" in sentence(fcos("train", "--data", own, *TINY, "optimizer.lrr=1"))
    assert "abc" in sentence(fcos("train", "--data", own, *TINY, "optimizer.lr=abc"))
    assert "missing.pth" in sentence(fcos("train", "--data", own, *TINY, "--weights", "missing.pth"))


def test_corrupt_image_is_named_before_training(fcos, own, tmp_path):
    (own / "images" / "val_000002.jpg").write_text("no image")
    assert "val_000002.jpg (not an image)" in sentence(fcos("train", "--data", own, *TINY, "-o", "out"))
    assert not (tmp_path / "out" / "model_final.pth").exists()


def test_folder_that_cannot_be_written(fcos, own, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in sentence(fcos("train", "--data", own, *TINY, "-o", "file/out"))


def test_no_val_part_can_be_taken_from_train(fcos, own):
    (own / "val.json").unlink()
    assert "--val-fraction" in sentence(fcos("train", "--data", own, *TINY))
    outcome = fcos("train", "--data", own, *TINY, "--val-fraction", 0.3, "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["images"] == {"train": 6, "val": 2}


def test_val_part_without_objects(fcos, own):
    edit(own / "val.json", lambda data: data.update(annotations=[]))
    outcome = fcos("train", "--data", own, *TINY, "-o", "out")
    assert outcome.code == 0 and "no object in these images" in outcome.out
    summary = json.loads(Path("out", "summary.json").read_text())
    assert summary["AP"] is None and summary["per_class"] == {"circle": None, "square": None, "star": None}


def test_train_part_without_objects(fcos, own):
    edit(own / "train.json", lambda data: data.update(annotations=[]))
    assert "no usable box" in sentence(fcos("train", "--data", own, *TINY))


def test_divergence_is_explained(fcos, own):
    outcome = fcos("train", "--data", own, *TINY[:-1], 8, "-o", "out", "optimizer.lr=1e30")
    assert "not finite" in sentence(outcome) and "optimizer.lr" in outcome.err


def test_eval_needs_weights_and_data(fcos, own):
    assert fcos("eval").code == 2
    assert fcos("eval", "--weights", "x.pth").code == 2
    assert "x.pth" in sentence(fcos("eval", "--weights", "x.pth", "--data", own))
    outcome = fcos("eval", "--model", "fcos_R_18_FPN_small", "--data", own, "--split", "test")
    assert "no test part" in sentence(outcome)
    assert "weights" in sentence(fcos("eval", "--model", "fcos_R_18_slim_FPN_small", "--data", own))


def test_foreign_weights_need_a_model(fcos, own, tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    image = own / "images" / "val_000000.jpg"
    assert "--model NAME" in sentence(fcos("detect", image, "--weights", "w.pth"))
    assert "--offline" in sentence(fcos("detect", image, "--model", "fcos_imprv_R_50_FPN_1x", "--offline"))
    assert "Nobody has published" in sentence(fcos("detect", image, "--model", SLIM))
    (tmp_path / "w.pth").write_bytes(b"x")
    assert "damaged" in sentence(fcos("detect", image, "--weights", "w.pth"))


@pytest.fixture(scope="module")
def weights(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector of the classes of `shapes`, as training would keep it."""
    data = open_data(shapes)
    cfg = adapt(zoo.get_config(SLIM), data.names, data.class_names, train_images=8, image_size=64, workers=0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    model = instantiate(cfg.model)
    save(path, {"model": model.state_dict(), "class_names": list(data.class_names), "config": dump_config(cfg)})
    return path


def test_other_classes_say_what_to_do(fcos, weights, tmp_path):
    generate(tmp_path / "five", {"train": 2, "val": 1}, (96, 64), min_size=10)
    text = sentence(fcos("eval", "--weights", weights, "--data", "five"))
    assert "3 classes (circle, square, star)" in text and "has 5 (" in text and "fcos train --new-classes" in text
    outcome = fcos("train", "--data", "five", "--weights", weights, *TINY)
    assert outcome.code == 0 and "keeps what it knows of circle, square, star;" in outcome.err


def test_detect_reports_boxes_in_the_image(fcos, weights, shapes, tmp_path):
    image = shapes / "images" / "val_000000.jpg"
    outcome = fcos("detect", image, "--weights", weights, "--threshold", 0, "--no-pictures", "--json")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)["images"][0]["detections"]
    assert rows and [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for row in rows:
        left, top, right, bottom = row["box"]
        assert 0 <= left <= right <= 96 and 0 <= top <= bottom <= 64 and row["class"] in ("circle", "square", "star")
    assert not (tmp_path / "output").exists()


def test_convert_there_and_back(fcos, weights, shapes):
    report = json.loads(fcos("convert", weights, "-o", "theirs.pth", "--to", "adelaidet", "--json").out)
    assert report["family"] == "adelaidet" and report["renamed"] > 0 and report["output"] == "theirs.pth"
    outcome = fcos("convert", "theirs.pth", "-o", "back.pth", "--variant", SLIM, "--num-classes", 3)
    assert outcome.code == 0 and "fcos detect IMAGE --weights back.pth" in outcome.out
    one, other = load(weights)["model"], load("back.pth")["model"]
    assert {name for name in one if not torch.equal(one[name], other.get(name, torch.zeros(0)))} <= {
        "dense.loss.average"
    }
    assert "damaged" in sentence(fcos("convert", shapes / "train.json", "-o", "x.pth"))
    written = Path("back.pth").read_bytes()
    assert "--overwrite" in sentence(fcos("convert", weights, "-o", "back.pth"))
    assert Path("back.pth").read_bytes() == written
    assert fcos("convert", weights, "-o", "back.pth", "--overwrite").code == 0


def test_demo_writes_its_files_and_runs_again(fcos, monkeypatch, tmp_path):
    small = dataclasses.replace(job.DemoSettings(), train_images=6, val_images=2, image_size=64, batch_size=2)
    monkeypatch.setattr(job, "DemoSettings", lambda: small)
    outcome = fcos("demo", "--iterations", 2, "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "output" / "demo"
    summary = json.loads(outcome.out)
    assert json.loads((folder / "metrics.json").read_text()) == summary
    assert 0 <= summary["AP"] <= summary["AP50"] <= 1 and len(summary["per_class"]) == 5
    assert summary["settings"]["iterations"] == 2 and summary["settings"]["lr"] == small.lr
    assert json.loads((folder / "training.jsonl").read_text().splitlines()[-1])["iteration"] == 1
    for picture in ("detections.png", "curves.png"):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 200
    outcome = fcos("demo", "--iterations", 1, "--seed", 5, "--device", "cpu")
    assert outcome.code == 0 and "AP50" in outcome.out and "fcos detect" in outcome.out, outcome.err
    assert json.loads((folder / "metrics.json").read_text())["settings"]["seed"] == 5


# Nothing is lost


@pytest.fixture
def keep(own: Path, tmp_path: Path, weights: Path) -> Path:
    """A finished training, with a file of the user's."""
    folder = tmp_path / "keep"
    folder.mkdir()
    for name in ("model_final.pth", "model_best.pth"):
        shutil.copy(weights, folder / name)
    (folder / "last_checkpoint").write_text("model_final.pth")
    (folder / "notes.txt").write_text("mine")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "typo"],
        ["--data", "empty"],
        ["--model", "no_such_model"],
        ["--weights", "typo.pth"],
        ["optimizer.lrr=1"],
        ["train.device=cuda:99"],
        ["optimizer.lr=1e30"],
    ],
)
def test_overwrite_deletes_nothing_before_it_has_something_better(fcos, own, keep, tmp_path, words):
    (tmp_path / "empty").mkdir()
    before = snapshot(keep)
    words = [*TINY[:-1], 8, *words] if "--data" in words else ["--data", own, *TINY[:-1], 8, *words]
    sentence(fcos("train", "-o", "keep", "--overwrite", *words))
    assert snapshot(keep) == before
    assert not (tmp_path / "keep.new").exists()


def test_overwrite_may_start_from_the_weights_that_it_replaces(fcos, own, keep):
    words = ["--weights", "keep/model_best.pth", "--batch-size", 2, "--workers", 0, "--iterations", 1, PLAIN]
    outcome = fcos("train", "--data", own, *words, "-o", "keep", "--overwrite", "--json")
    assert outcome.code == 0, outcome.err
    assert "keep stays as it is until the new training is complete" in outcome.err
    summary = json.loads(outcome.out)
    assert summary["output"] == "keep" and summary["checkpoint"] == "keep/model_final.pth"
    assert (keep / "notes.txt").read_text() == "mine" and not keep.with_name("keep.new").exists()
    payload = load(keep / "model_final.pth")
    assert payload["iteration"] == 0 and "output_dir: keep\n" in payload["config"]
    assert "output_dir: keep\n" in (keep / "config.yaml").read_text()
    assert "keep.new" not in (keep / "log.txt").read_text()


def test_an_exchange_that_fails_half_way_says_where_the_training_lies(fcos, own, keep, monkeypatch):
    replace = os.replace

    def full(source, destination):
        if Path(destination) == Path("keep", "model_final.pth"):
            raise OSError(28, "No space left on device")
        replace(source, destination)

    words = ("train", "--data", own, *(word for word in TINY if word != PLAIN), "-o", "keep")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        outcome = fcos(*words, "--overwrite")
    assert "The new training is complete, but cannot be moved from keep.new to keep" in sentence(outcome)
    assert "is as it was" not in outcome.err and "--resume" in outcome.err
    assert "The finished training lies in keep.new, and what has been moved of it in keep. Go on with" in outcome.err
    assert Path("keep", "curves.png").is_file() and Path("keep.new", "model_final.pth").is_file()
    assert fcos(*words, "--resume").code == 0
    assert load(keep / "model_final.pth")["iteration"] == 0 and not Path("keep.new").exists()


def test_demo_refuses_a_folder_of_something_else(fcos, keep, tmp_path):
    before = snapshot(keep)
    assert "keep holds a training" in sentence(fcos("demo", "-o", "keep", "--iterations", 1))
    assert snapshot(keep) == before
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "mine.txt").write_text("x")
    assert "did not write" in sentence(fcos("demo", "-o", "mine", "--iterations", 1))
    assert snapshot(tmp_path / "mine") == {"data/mine.txt": b"x"}


def test_eval_writes_into_no_training(fcos, own, keep):
    before = snapshot(keep)
    words = ("--weights", "keep/model_final.pth", "--data", own, "--workers", 0)
    assert "keep holds a training" in sentence(fcos("eval", *words, "-o", "keep"))
    assert snapshot(keep) == before


def test_detect_replaces_no_picture_but_its_own(fcos, own, weights, tmp_path):
    photos = own / "images"
    before = snapshot(photos)
    words = ("detect", photos / "val_000000.jpg", "--weights", weights, "-o", photos, "--json")
    for _ in range(2):  # the second replaces the picture of the first
        outcome = fcos(*words)
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["images"][0]["picture"] == str(photos / "val_000000-2.jpg")
    after = snapshot(photos)
    assert after.pop("val_000000-2.jpg") and after == before


# Configs of other kinds


@pytest.mark.slow  # tests/config/test_translate.py trains twins
def test_yaml_keys_train_as_their_twin(fcos, own):
    Path("my.yaml").write_text(f"_BASE_: {config_root() / zoo.find(SLIM).yaml}\n")
    words = ("--data", own, *TINY[2:-1], 2, "train.seed=3", "--json")
    for model, output in ((SLIM, "lazy"), ("my.yaml", "keys")):
        outcome = fcos("train", "--model", model, "-o", output, *words)
        assert outcome.code == 0, outcome.err
    one, other = (load(f"{output}/model_final.pth")["model"] for output in ("lazy", "keys"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert "SOLVER.BASE_LR" in sentence(fcos("train", "--data", own, "--model", "my.yaml", "SOLVER.BASE_LRR=1"))


def test_no_py_refuses_code(fcos, own, weights):
    Path("my.py").write_text("raise SystemExit('it ran')")
    assert "--no-py" in sentence(fcos("train", "--data", own, "--model", "my.py", "--no-py"))
    assert "--no-py" in sentence(fcos("eval", "--data", own, "--config", "my.py", "--no-py", "--weights", weights))
    assert "--no-py" in sentence(fcos("detect", own / "images", "--model", "my.py", "--no-py", "--weights", weights))


def test_a_plugin_is_imported_and_a_missing_one_is_one_sentence(fcos, own, weights):
    Path("my_parts.py").write_text("print('my parts are here')")
    words = ("detect", own / "images" / "val_000000.jpg", "--weights", weights, "--no-pictures")
    assert "my parts are here" in fcos(*words, "--plugin", "my_parts").err
    assert "no_parts" in sentence(fcos(*words, "--plugin", "no_parts"))


@pytest.mark.slow
def test_a_genotype_of_ones_own(fcos, shapes, tmp_path):
    """Read once: what is trained needs the file no more."""
    lines = "\n".join(map(str, GENOTYPES["other"]))
    Path("genotype.log").write_text(f"{lines}\n")
    Path("fad.py").write_text(
        "from fcos_d2.config import compose\n\n"
        'model, dataloader, optimizer, lr_multiplier, train = compose("fad", "R_18_slim_FPN", "small")\n'
        "model.dense.head.edge_channels, model.dense.head.num_cells = 64, 1\n"
    )
    words = ("train", "--data", shapes, "--model", "fad.py", "--weights", "none", "--iterations", 2, "--batch-size", 2)
    sizes = ("--image-size", 64, "--workers", 0, "--device", "cpu", "-o", "out")
    done = fcos(*words, *sizes, "model.dense.head.genotype=genotype.log", "train.pictures=false")
    assert done.code == 0, done.err
    Path("genotype.log").unlink()
    assert load_config("out/model_final.pth").model.dense.head.genotype == lines
    picture = next((shapes / "images").glob("val*"))
    assert fcos("detect", picture, "--weights", "out/model_final.pth", "--device", "cpu", "--no-pictures").code == 0
    again = fcos(*words, *sizes[:-1], "out2", "model.dense.head.genotype=genotype.log")
    assert again.code == 1 and "There is no genotype file genotype.log" in again.err
