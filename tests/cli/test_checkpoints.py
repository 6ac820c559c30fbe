"""What a checkpoint says of itself is believed: its classes, their names, and the recipe that it was trained for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from fcos_d2 import Predictor, importers
from fcos_d2.config import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.train import configure
from fcos_d2.weights.families.torchvision import coco_names
from fcos_d2.weights.read import read
from fcos_d2.weights.write import save

SLIM, TORCHVISION = "fcos_R_18_slim_FPN_small", "fcos_resnet50_fpn"
SMALL = "dataloader.test.mapper.augmentations[0].short_edge_length=64"


def trained(
    path: Path, *overrides: str, names: list[str] | None = None, config: bool = True, model: str = SLIM
) -> Path:
    """A checkpoint as training would keep it, its classes called `names`; boxes of a model that was never trained."""
    cfg = load_config(model, [*overrides, *([f"model.num_classes={len(names)}"] if names else [])])
    cfg.train.device = "cpu"
    weights = instantiate(cfg.model).state_dict()
    weights["dense.head.cls_logits.bias"] = torch.arange(float(len(weights["dense.head.cls_logits.bias"]))) / 1000
    payload = {"model": weights, "class_names": names, "config": dump_config(cfg) if config else None}
    save(path, {key: value for key, value in payload.items() if value is not None})
    return path


def said(outcome) -> str:
    """The error, which must be one sentence."""
    assert outcome.code == 1 and outcome.out == "", outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in outcome.err and "unexpected" not in last
    return last


# Recipes


OTHERWISE = {
    "model.dense.grid.origin=corner": "locations at cell corners, a step being padded size // feature size (here: loca",
    "model.dense.coder.activation=exp": "ltrb by exp in strides (here: ltrb by relu in strides)",
    "model.dense.coder.unit=pixel": "ltrb by relu in pixels (here:",
    "model.dense.head.quality_on=class": "quality beside the class tower (here: quality beside the box tower)",
    "model.pixel_std=[1,1,1]": "input BGR, mean 103.53, 116.28, 123.675, deviation 1, 1, 1 (here: BGR",
    "model.inclusive_far_corner=true": "boxes that end at x + w - 1 (here: boxes that end at x + w)",
    "model.input_format=RGB": "input RGB, mean",
}


@pytest.mark.parametrize("override", OTHERWISE)
def test_weights_of_another_recipe_are_refused_unless_forced(override: str, tmp_path: Path) -> None:
    path = trained(tmp_path / "x.pth", override, names=["a"])
    with pytest.raises(FcosError, match="trained for another recipe") as error:
        Predictor(SLIM, weights=path, device="cpu")
    assert OTHERWISE[override] in str(error.value) and "leave out --model" in str(error.value)
    assert str(error.value).count("(here:") == 1 and "\n" not in str(error.value)
    assert Predictor(SLIM, weights=path, device="cpu", force_recipe=True).class_names == ["a"]
    assert Predictor(path, device="cpu").class_names == ["a"]


def test_weights_of_the_same_recipe_are_taken(tmp_path: Path) -> None:
    assert Predictor(SLIM, weights=trained(tmp_path / "y.pth", names=["a"]), device="cpu").class_names == ["a"]


def test_another_stride_is_another_recipe(tmp_path: Path) -> None:
    model = "fcos_imprv_R_50_FPN_1x"
    path = trained(tmp_path / "x.pth", "model.backbone.bottom_up.stride_in_1x1=False", model=model)
    with pytest.raises(FcosError, match=r"bottlenecks stride in their 3x3 \(here: bottlenecks stride in their 1x1"):
        Predictor(model, weights=path, device="cpu")


def test_published_files_of_another_recipe_are_refused(tmp_path: Path) -> None:
    """torchvision's and the improved FCOS have equal names and shapes here, but neither grid nor strides in common."""
    ours = instantiate(load_config(TORCHVISION).model).state_dict()
    torch.save(importers.export(ours, "torchvision", config=TORCHVISION, num_classes=91), tmp_path / "fcos.pth")
    with pytest.raises(
        FcosError, match=r"another recipe: .*corners.*\(here: .*3x3 \(here: .*1x1.*name its own variant"
    ):
        Predictor("fcos_imprv_R_50_FPN_1x", weights=tmp_path / "fcos.pth", device="cpu", overrides=[
            "model.dense.head.norm=GN", "model.dense.head.level_scale=False",
        ])  # fmt: skip
    predictor = Predictor(TORCHVISION, weights=tmp_path / "fcos.pth", device="cpu")
    assert predictor.class_names == coco_names(80)
    line = {"device": "cpu", "overrides": ["model.num_classes=91"]}
    assert Predictor(TORCHVISION, weights=tmp_path / "fcos.pth", **line).class_names == coco_names(91)


def test_commands_refuse_and_training_warns(fcos, shapes: Path, tmp_path: Path) -> None:
    names = ["circle", "square", "star"]
    path = trained(tmp_path / "x.pth", "model.dense.grid.origin=corner", names=names)
    image = shapes / "images" / "val_000000.jpg"
    for words in (["detect", image], ["eval", "--data", shapes, "--workers", 0, SMALL]):
        line = [*words[:1], "--model", SLIM, "--weights", path, "--device", "cpu", *words[1:]]
        assert "another recipe" in said(fcos(*line))
        done = fcos(*line, "--force-recipe", "--output", "out")
        assert done.code == 0 and "warning: " in done.err and "another recipe" in done.err
        assert fcos(words[0], "--weights", path, "--device", "cpu", *words[1:], "--output", "out").code == 0
    short = ["--image-size", 64, "--batch-size", 2, "--workers", 0, "--iterations", 1, "--device", "cpu"]
    done = fcos("train", "--data", shapes, "--model", SLIM, "--weights", path, *short, "train.pictures=false")
    assert done.code == 0 and "x.pth: trained for another recipe" in done.err


@pytest.mark.parametrize(  # some larger, much larger
    "model", ["fcos_R_18_FPN_small", pytest.param("fcos_R_50_FPN_1x", marks=pytest.mark.slow)]
)
def test_weights_of_another_network_say_that_they_bring_their_own(tmp_path: Path, model: str) -> None:
    path = trained(tmp_path / "x.pth", names=["a"])
    with pytest.raises(FcosError, match=r"for another (model|recipe): .*; leave out --model") as error:
        Predictor(model, weights=path, device="cpu")
    assert ("no such part (here: bottlenecks stride in" in str(error.value)) == ("R_50" in model)


# Classes


@pytest.mark.parametrize("config", [True, False], ids=["ours", "no config"])
def test_classes_come_from_the_weights(config: bool, fcos, shapes: Path, tmp_path: Path) -> None:
    """`fcos zoo NAME` prints this line; the variant has 80 classes, the file has one."""
    trained(tmp_path / "FILE", names=["cell"], config=config)
    row = fcos("zoo", SLIM).out
    (line,) = [line.partition("detect ")[2] for line in row.splitlines() if "fcos detect" in line]
    words = shlex.split(line.strip().replace("IMAGE", str(shapes / "images" / "val_000000.jpg")))
    done = fcos(*words[1:], "--device", "cpu", "--threshold", 0, "--json", "--no-pictures")
    assert done.code == 0, done.err
    assert json.loads(done.out)["classes"] == ["cell"]


def test_a_file_of_a_billion_classes_is_refused(tmp_path: Path) -> None:
    """It costs the file nothing to claim them."""
    weights = instantiate(load_config(SLIM).model).state_dict()
    for name in ("dense.head.cls_logits.weight", "dense.head.cls_logits.bias"):
        weights[name] = weights[name][:1].expand(10**9, *weights[name].shape[1:])
    save(tmp_path / "x.pth", {"model": weights})
    with pytest.raises(FcosError, match="too large"):
        Predictor(SLIM, weights=tmp_path / "x.pth", device="cpu")


def called(folder: Path, names: list[str]) -> Path:
    """A data set of these classes; its first three have boxes."""
    shapes = ("circle", "square", "star")[: len(names)]
    generate(folder, {"train": 2, "val": 3}, (64, 64), classes=shapes, min_size=10)
    for part in ("train", "val"):
        tree = json.loads((folder / f"{part}.json").read_text())
        first = min(row["id"] for row in tree["categories"])
        tree["categories"] = [{"id": first + i, "name": name} for i, name in enumerate(names)]
        (folder / f"{part}.json").write_text(json.dumps(tree))
    return folder


def test_torchvisions_91_classes_on_data_of_80(fcos, tmp_path: Path) -> None:
    """No way leads from 91 to 80 and back: those that have the names of the data set's classes are evaluated."""
    path = trained(tmp_path / "x.pth", names=coco_names(91))
    data = called(tmp_path / "coco80", coco_names(80))
    line = ["--data", data, "--workers", 0, "--device", "cpu", SMALL]
    whole = fcos("eval", "--config", SLIM, "--weights", path, *line, "-o", "a")
    assert whole.code == 0, whole.err
    weights = read(path)
    wanted = [coco_names(91).index(name) for name in coco_names(80)]
    picked = {n: t[wanted] if "cls_logits" in n else t for n, t in weights.tensors.items()}
    save(tmp_path / "y.pth", {"model": picked, "class_names": coco_names(80)})
    assert fcos("eval", "--config", SLIM, "--weights", tmp_path / "y.pth", *line, "-o", "b").code == 0
    numbers = [json.loads(Path(name, "evaluation.json").read_text()) for name in "ab"]
    assert numbers[0] == numbers[1]


def test_the_published_91_on_coco_ask_for_its_files_alone(
    fcos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    ours = instantiate(load_config(TORCHVISION).model).state_dict()
    torch.save(importers.export(ours, "torchvision", config=TORCHVISION, num_classes=91), tmp_path / "fcos.pth")
    line = ["eval", "--config", TORCHVISION, "--weights", "fcos.pth", "--device", "cpu", "--workers", 0]
    assert "which does not exist" in said(fcos(*line))


def test_data_of_some_of_the_classes_in_another_order(fcos, tmp_path: Path) -> None:
    path = trained(tmp_path / "x.pth", names=["person", "cat", "dog", "car"])
    data = called(tmp_path / "some_classes", ["dog", "person"])
    done = fcos("eval", "--weights", path, "--data", data, "--workers", 0, "--device", "cpu", SMALL, "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["per_class"]) == {"dog", "person"}


@pytest.mark.parametrize(
    "names", [["cat", "dog"], pytest.param(None, marks=pytest.mark.slow)], ids=["names", "no names"]
)
def test_data_of_other_classes_is_refused_with_a_line_that_works(names: list[str] | None, fcos, tmp_path: Path) -> None:
    path = trained(tmp_path / "x.pth", "model.num_classes=2", names=names)
    data = called(tmp_path / f"other_{bool(names)}", ["circle", "square", "star"])
    short = ["--workers", 0, "--device", "cpu"]
    error = said(fcos("eval", "--weights", path, "--data", data, *short))
    assert "2 classes" in error and "`fcos train --new-classes`" in error and "num_classes" not in error
    line = [
        "train",
        "--data",
        data,
        "--weights",
        path,
        "--image-size",
        64,
        "--batch-size",
        2,
        "--iterations",
        1,
        *short,
        "train.pictures=false",
    ]
    anew = fcos(*line, "--new-classes", "-o", "new")
    assert anew.code == 0 and "Its class layer starts anew." in anew.err
    assert fcos("eval", "--weights", "new/model_final.pth", "--data", data, *short).code == 0


def test_a_python_training_of_other_classes_advises_what_works(shapes: Path, tmp_path: Path) -> None:
    """The model's number is the data set's: only the class layer can start anew."""
    from fcos_d2 import LazyTrainer

    path = trained(tmp_path / "x.pth", "model.num_classes=2", config=False)
    line = {"image_size": 64, "workers": 0, "iterations": 1, "device": "cpu", "output": tmp_path}
    with pytest.raises(FcosError, match=r"2 classes, but the model has 3: set train\.init_classes=drop") as error:
        LazyTrainer(configure(shapes, SLIM, weights=str(path), overrides=["train.init_classes=check"], **line))
    assert "num_classes=" not in str(error.value)
    for more in ([], ["train.init_classes=drop"]):  # and by itself
        LazyTrainer(configure(shapes, SLIM, weights=str(path), overrides=more, **line))
