"""Published checkpoints are converted while they are loaded, and hostile ones are refused by name."""

from __future__ import annotations

import os

import pytest
import torch
import torchvision
from detectron2.config import instantiate

from fcos_d2 import importers, zoo
from fcos_d2.errors import FcosError
from fcos_d2.predict import Predictor
from fcos_d2.weights.fit import load_model

NAME = "FCOS_RT_MS_DLA_34_4x_shtw"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Our weights of a small variant, and a file with the same as AdelaiDet publishes them."""
    torch.manual_seed(0)
    model = instantiate(zoo.get_config(NAME).model)
    path = tmp_path_factory.mktemp("published") / "FCOS_RT_MS_DLA_34_4x_shtw.pth"
    torch.save(importers.export(model.state_dict(), "adelaidet", config=NAME), path)
    return model.state_dict(), path


def test_predictor_converts_on_the_fly(published):
    ours, path = published
    assert any(name.startswith("proposal_generator.") for name in torch.load(path, weights_only=True))
    predictor = Predictor(NAME, weights=str(path), device="cpu")
    loaded = predictor.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in ours.items())


def test_another_number_of_classes_is_an_error_or_starts_the_class_layer_anew(published):
    ours, path = published
    cfg = zoo.get_config(NAME).model
    cfg.num_classes = 3
    model = instantiate(cfg)
    before = model.dense.head.cls_logits.weight.clone()
    with pytest.raises(FcosError, match="80 classes, but the model has 3"):
        load_model(model, str(path))
    load_model(model, str(path), classes="drop")
    assert torch.equal(model.dense.head.cls_logits.weight, before)
    assert torch.equal(model.dense.head.bbox_pred.weight, ours["dense.head.bbox_pred.weight"])


@pytest.mark.parametrize(
    ("network", "name", "ours", "theirs"),
    [
        ("mobilenet_v2", "fcos_bn_bs16_MNV2_FPN_1x", "features.0.0.weight", "features.0.0.weight"),
        ("resnet50", "fcos_resnet50_fpn", "res3.0.conv1.weight", "layer2.0.conv1.weight"),
    ],
)
def test_imagenet_weights_of_torchvision_start_a_backbone(network, name, ours, theirs, tmp_path):
    weights = getattr(torchvision.models, network)(weights=None).state_dict()
    torch.save(weights, tmp_path / "imagenet.pth")
    model = instantiate(zoo.get_config(name).model)
    load_model(model, str(tmp_path / "imagenet.pth"), allow_backbone=True)
    assert torch.equal(model.state_dict()[f"backbone.bottom_up.{ours}"], weights[theirs])
    with pytest.raises(FcosError, match=r"imagenet\.pth"):
        load_model(model, str(tmp_path / "imagenet.pth"))


class _Bomb:
    def __reduce__(self):
        return os.system, ("exit 1",)


class _Own:
    pass


@pytest.mark.parametrize(("thing", "name"), [(_Bomb(), "posix.system"), (_Own, "_Own")])
def test_a_file_that_would_run_code_is_refused_by_name(thing, name, tmp_path):
    torch.save({"model": {}, "extra": thing}, tmp_path / "bad.pth", pickle_module=__import__("cloudpickle"))
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FcosError, match=rf"bad\.pth holds the object '[\w.]*{name}', which could run code"):
        load_model(model, str(tmp_path / "bad.pth"))
