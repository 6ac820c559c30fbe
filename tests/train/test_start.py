"""Which weights a training starts from, and why: published ones from a mirror, and no network in several ways."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from fcos_d2 import zoo
from fcos_d2.config import load_config
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.hub import place_of
from fcos_d2.train import LazyTrainer, configure, start
from fcos_d2.train.start import choose_start, classes_kept, model_of
from fcos_d2.weights.convert import export

PUBLISHED = "fcos_bn_bs16_MNV2_FPN_1x"  # the smallest; its publisher states no digest
KERNEL = "dense.head.bbox_pred.weight"


@pytest.fixture(scope="module")
def detector() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return LazyTrainer.build_model(load_config(PUBLISHED)).state_dict()


@pytest.fixture(scope="module")
def mirror(detector, tmp_path_factory) -> Path:
    """A folder that holds random weights in the publisher's layout, where a mirror has them."""
    folder = tmp_path_factory.mktemp("mirror")
    file = folder / place_of(zoo.published(PUBLISHED))
    file.parent.mkdir(parents=True)
    torch.save({"model": export(detector, "fcos", config=PUBLISHED)}, file)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def chosen(asked: str | None = None, model: str = PUBLISHED, **options):
    return choose_start(asked, model, load_config(model), **options)


def test_coco_weights_of_the_variant_come_first(mirror, detector, monkeypatch, tmp_path):
    monkeypatch.setenv("FCOS_D2_MIRROR", str(mirror))
    found = chosen()
    assert (found.kind, found.weights) == ("detector", f"fcos/{PUBLISHED}")
    assert "COCO weights of" in found.said and "(non-commercial)" in found.said
    assert "keeps what it knows of Person; the other class starts" in classes_kept(found, ["cell", "Person"])
    assert classes_kept(found, ["Person", "cat"]) == "Its class layer knows all classes of the data."
    assert classes_kept(found, ["Person"], new_classes=True) == "Its class layer starts anew."
    assert model_of(PUBLISHED) == f"fcos/{PUBLISHED}" and chosen(PUBLISHED).weights == f"fcos/{PUBLISHED}"

    generate(tmp_path / "start", {"train": 4, "val": 2}, (96, 64), min_size=10, classes=("circle", "star"))
    cfg = configure(tmp_path / "start", PUBLISHED, iterations=1, output=tmp_path / "out", device="cpu", workers=0)
    model = LazyTrainer(cfg, console=False).bare_model
    assert torch.equal(model.state_dict()[KERNEL], detector[KERNEL]) and model.num_classes == 2
    assert cfg.optimizer.lr < 1e-3 and cfg.train.init_classes == "match"

    offline(monkeypatch)
    changed = chosen(overrides=["model.dense.head.num_class_convs=2"])
    assert changed.kind == "scratch" and "made for another model" in changed.why


def offline(monkeypatch) -> None:
    monkeypatch.setenv("FCOS_D2_OFFLINE", "1")


def refused(monkeypatch) -> None:
    def refuse(*words: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)


def silent(monkeypatch) -> None:
    monkeypatch.setattr(start, "_PATIENCE", 0.05)
    monkeypatch.setattr(socket, "create_connection", lambda *words, **options: threading.Event().wait(20))


@pytest.mark.parametrize("network", [offline, refused, silent])
def test_without_network_training_starts_from_scratch_and_says_why(network, monkeypatch):
    network(monkeypatch)
    found = chosen()
    assert (found.kind, found.weights) == ("scratch", "")
    reason = "network is not to be used" if network is offline else "huggingface.co cannot be reached from here"
    assert found.said.count(reason) == 2 and "ImageNet weights of its backbone" in found.said


def test_weights_that_were_asked_for_must_be_there(monkeypatch):
    offline(monkeypatch)
    with pytest.raises(FcosError, match=PUBLISHED):
        chosen(PUBLISHED)
    with pytest.raises(FcosError, match=r"gone\.pth"):
        chosen("gone.pth")


def test_nobody_has_published_weights_of_the_small_variants():
    found = chosen(model="fcos_R_18_slim_FPN_small")
    assert found.kind == "scratch" and "nobody has published weights" in found.said and zoo.DEFAULT in found.said
    assert chosen("none").said == "Training starts from scratch, as --weights none asks."


def test_imagenet_weights_suit_the_small_network(tmp_path):
    """torchvision's file: RGB there, BGR here."""
    theirs = resnet18().state_dict()
    torch.save(theirs, tmp_path / "r18.pth")
    small = "fcos_R_18_FPN_small"
    found = chosen(str(tmp_path / "r18.pth"), small)
    assert found.kind == "backbone" and found.said.endswith("as --weights asks.")
    generate(tmp_path / "two", {"train": 4, "val": 2}, (96, 64), min_size=10, classes=("circle", "star"))
    cfg = configure(tmp_path / "two", small, weights=found.weights, output=tmp_path / "out", device="cpu", workers=0)
    stem = LazyTrainer(cfg, console=False).bare_model.state_dict()["backbone.bottom_up.stem.conv1.weight"]
    assert torch.allclose(stem, theirs["conv1.weight"].flip(1), rtol=1e-6)
