"""What would fail at an evaluation, or at the end, is told before the first iteration; what is complete stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from fcos_d2.errors import FcosError
from fcos_d2.train import LazyTrainer


def never(cfg: DictConfig) -> LazyTrainer:
    """A trainer of which no step may be run."""
    trainer = LazyTrainer(cfg, console=False)
    trainer.run_step = lambda: pytest.fail("an iteration was begun")
    return trainer


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataloader.test.dataset.names=engine_tests_vall", "'engine_tests_vall'.*did you mean 'engine_tests_val'"),
        ("dataloader.test.dataset.names=[engine_tests_val,elsewhere]", "'elsewhere'.*register it first"),
        ("dataloader.evaluator.max_dets_per_image=[1]", "evaluator of engine_tests_val cannot be built|max_dets"),
    ],
)
def test_data_that_evaluation_would_miss(small, data, override, words) -> None:
    cfg = small("out", override)
    if "max_dets" in override:
        cfg.dataloader.evaluator.pop("max_dets_per_image")
        cfg.dataloader.evaluator.unknown_argument = 1
    with pytest.raises(FcosError, match=words) as error:
        never(cfg).train()
    assert "\n" not in str(error.value)


def test_yaml_data_that_evaluation_would_miss(yaml) -> None:
    with pytest.raises(FcosError, match="'nowhere'"):
        never(yaml("out", "DATASETS.TEST=('nowhere',)")).train()


@pytest.fixture
def variation(data) -> Callable[..., str]:
    """Registers the val part again, with other records or other classes."""
    made: list[str] = []

    def register(classes: list[str] | None = None, **changes: str) -> str:
        known = MetadataCatalog.get(data.val)
        name = f"variation_{len(made)}"
        DatasetCatalog.register(name, lambda: [{**record, **changes} for record in DatasetCatalog.get(data.val)])
        MetadataCatalog.get(name).set(json_file=known.json_file, thing_classes=classes or known.thing_classes)
        made.append(name)
        return name

    yield register
    for name in made:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_test_images_that_are_missing(small, variation) -> None:
    with pytest.raises(FcosError, match=r"gone\.jpg"):
        never(small("out", f"dataloader.test.dataset.names={variation(file_name='/gone.jpg')}")).train()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names: names[::-1], "number 0 is 'ring' there and 'circle' here"),
        (lambda names: [*names, "more"], "has 6 classes, the training data 5"),
    ],
)
def test_test_data_of_other_classes(small, data, variation, change, words) -> None:
    other = variation(change(list(MetadataCatalog.get(data.val).thing_classes)))
    with pytest.raises(FcosError, match=words):
        never(small("out", f"dataloader.test.dataset.names={other}")).train()


@pytest.mark.parametrize("node", ["test", "evaluator"])
def test_without_test_data_training_ends_well(small, node) -> None:
    cfg = small("out", "train.max_iter=2", "train.eval_period=1")
    cfg.dataloader[node] = None
    trainer = LazyTrainer(cfg, console=False)
    assert trainer.train() == {}
    assert (Path(trainer.output_dir) / "last_checkpoint").read_text() == "model_final.pth"


def test_without_training_data_there_is_one_sentence(small) -> None:
    cfg = small()
    del cfg.dataloader["train"]
    with pytest.raises(FcosError, match=r"no dataloader\.train"):
        LazyTrainer(cfg, console=False).train()


@pytest.mark.parametrize("iterations", [2, 1])
def test_resuming_what_is_complete_changes_no_file(small, iterations) -> None:
    """Neither with as many iterations, nor with fewer; its results are the last ones."""
    first = LazyTrainer(small("out", "train.max_iter=2", "train.eval_period=1"), console=False)
    results = first.train()
    folder = Path(first.output_dir)
    assert sorted(path.name for path in folder.glob("*.pth")) == [
        "model_0000000.pth",
        "model_best.pth",
        "model_final.pth",
    ]

    def state() -> dict[str, tuple[int, bytes]]:
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}

    before = state()
    again = LazyTrainer(small("out", f"train.max_iter={iterations}"), resume=True, console=False)
    assert again.train()["bbox"] == pytest.approx(results["bbox"], nan_ok=True) and again.done == 1
    assert state() == before
    os.remove(folder / "evaluation.json")  # then there is something to do
    LazyTrainer(small("out", "train.max_iter=2"), resume=True, console=False).train()
    assert (folder / "evaluation.json").is_file()


def test_the_last_checkpoint_counts_among_those_that_are_kept(small, tmp_path) -> None:
    """And what this training did not write is not removed."""
    (tmp_path / "out").mkdir()
    for name in ("model_0000001.pth", "model_mine.pth"):
        (tmp_path / "out" / name).write_text("mine")
    options = ("train.checkpointer.period=2", "train.checkpointer.max_to_keep=2", "train.max_iter=7")
    LazyTrainer(small("out", *options), console=False).train()
    kept = sorted(path.name for path in (tmp_path / "out").glob("*.pth"))
    assert kept == ["model_0000005.pth", "model_best.pth", "model_final.pth", "model_mine.pth"]
