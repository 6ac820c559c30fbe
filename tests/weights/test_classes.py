"""Classes of equal names keep what the weights know of them."""

from __future__ import annotations

import pytest
import torch

from fcos_d2.config import load_config
from fcos_d2.train import LazyTrainer
from fcos_d2.weights.classes import pairs
from fcos_d2.weights.fit import Policy, fit
from fcos_d2.weights.read import weights_of

BIAS, KERNEL = "dense.head.cls_logits.bias", "dense.head.cls_logits.weight"


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        (["a", "b"], ["b", "a"], {0: 1, 1: 0}),
        (["traffic light"], ["Traffic_Light"], {0: 0}),
        (["TV", "tv"], ["tv", "TV"], {0: 1, 1: 0}),  # equal letters first
        (["tv"], ["TV", "tv"], {1: 0}),  # a class goes to one
        (["N/A", "cat", "N/A"], ["dog"], {}),
        (["-"], ["_"], {}),  # no letters: no name
        (["кот"], ["КОТ"], {0: 0}),
        ([], ["a"], {}),
    ],
)
def test_names_are_compared_by_their_letters(there, here, expected):
    assert pairs(there, here) == expected


def model(names: list[str]):
    torch.manual_seed(len(names))
    config = load_config("fcos_R_18_slim_FPN_small", [f"model.num_classes={len(names)}"])
    return LazyTrainer.build_model(config)


@pytest.fixture(scope="module")
def three() -> dict:
    """What a training of three classes would keep; every class has numbers of its own."""
    state = model(["circle", "square", "star"]).state_dict()
    with torch.no_grad():
        state[BIAS].copy_(torch.tensor([1.0, 2.0, 3.0]))
        state[KERNEL].copy_(torch.randn_like(state[KERNEL]))
    return {"model": state, "class_names": ["circle", "square", "star"]}


@pytest.mark.parametrize("classes", [["Star", "triangle", "CIRCLE", "ring"], ["star", "circle"], ["cell"]])
def test_channels_of_equal_names_are_kept_and_the_others_start_anew(three, classes):
    target = model(classes)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = fit(target, weights_of(three, "three.pth"), Policy(classes="match", class_names=classes))
    after = target.state_dict()
    for i, name in enumerate(classes):
        known = {"star": 2, "circle": 0}.get(name.lower())
        for key in (BIAS, KERNEL):
            assert torch.equal(after[key][i], before[key][i] if known is None else three["model"][key][known])
    same = "dense.head.bbox_pred.weight"
    assert torch.equal(after[same], three["model"][same])
    assert any(f"class channels 3 -> {len(classes)}" in line for line in report.done)


def test_the_same_classes_are_taken_as_they_are(three):
    target = model(three["class_names"])
    report = fit(target, weights_of(three, "three.pth"), Policy(classes="match", class_names=three["class_names"]))
    assert torch.equal(target.state_dict()[KERNEL], three["model"][KERNEL]) and report.done == []


def test_classes_without_names_are_taken_for_the_data_s_where_their_number_is_equal(three):
    unnamed = {"model": three["model"]}
    target = model(["a", "b", "c"])
    fit(target, weights_of(unnamed, "three.pth"), Policy(classes="match", class_names=["a", "b", "c"]))
    assert torch.equal(target.state_dict()[KERNEL], three["model"][KERNEL])
    target = model(["a", "b"])
    before = target.state_dict()[KERNEL].clone()
    fit(target, weights_of(unnamed, "three.pth"), Policy(classes="match", class_names=["a", "b"]))
    assert torch.equal(target.state_dict()[KERNEL], before)


def test_frozen_stages_take_weights_that_learned(three):
    """A checkpoint whose norms counted batches goes into a model whose first stages are frozen."""
    changes = ["model.num_classes=3", "model.backbone.bottom_up.freeze_at=2"]
    target = LazyTrainer.build_model(load_config("fcos_R_18_slim_FPN_small", changes))
    fit(target, weights_of(three, "three.pth"), Policy(classes="match", class_names=three["class_names"]))
    name = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(target.state_dict()[name], three["model"][name])
    assert not target.get_parameter(name).requires_grad


def test_torchvision_s_channels_are_coco_s_ids():
    """Of its 91 channels, those whose names the data has; of the 80 that others have, too."""
    from torchvision.models.detection import fcos_resnet50_fpn

    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).state_dict()
    names = ["Person", "cell", "toothbrush"]
    target = LazyTrainer.build_model(load_config("fcos_resnet50_fpn", ["model.num_classes=3"]))
    before = target.state_dict()[KERNEL].clone()
    fit(target, weights_of(theirs, "theirs.pth"), Policy(classes="match", class_names=names))
    kernel, layer = target.state_dict()[KERNEL], theirs["head.classification_head.cls_logits.weight"]
    assert torch.equal(kernel[0], layer[1]) and torch.equal(kernel[2], layer[90])
    assert torch.equal(kernel[1], before[1])
