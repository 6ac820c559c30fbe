"""Every combination of recipe and backbone in the zoo trains a step and detects; every config survives being saved."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, Instances
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import OmegaConf

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.modeling.backbone import BACKBONES
from fcos_d2.modeling.rewrite import rewrite
from fcos_d2.modeling.unfilled import unfilled

COMBINATIONS = {(v.recipe, v.backbone): v for v in reversed(zoo.VARIANTS)}
ROWS = {v.backbone: BACKBONES[v.backbone] for v in zoo.VARIANTS}
NETWORKS = {(ROWS[v.backbone].bottom_up, ROWS[v.backbone].pyramid): v for v in reversed(zoo.VARIANTS)}


def allocate(cfg) -> torch.nn.Module:
    """The model of a config, with small weights: the published initialisation takes longer than a step."""
    with unfilled():
        model = instantiate(cfg)
    model = rewrite(model.to_empty(device="cpu"), sync_bn=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02, generator=generator)
        for name, buffer in model.named_buffers():
            buffer.fill_(1 if name.endswith(("running_var", "average", "pixel_std")) else 0)
        if model.dense.head.scales is not None:
            model.dense.head.scales.fill_(1)
    return model


def batch(size: int) -> list[dict]:
    """A small box, a large one, and none; a location of every level answers for one of them."""
    images = []
    for boxes in ([[8.0, 8.0, 40.0, 44.0], [4.0, 6.0, size - 2.0, size - 6.0]], []):
        annotations = Instances((size, size))
        annotations.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        annotations.gt_classes = torch.arange(len(boxes))
        pixels = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
        images.append({"image": pixels, "instances": annotations, "height": size, "width": size})
    return images


@pytest.mark.slow
@pytest.mark.parametrize("variant", COMBINATIONS.values(), ids=lambda v: f"{v.recipe}-{v.backbone}")
def test_a_training_step_reaches_every_parameter_and_inference_runs(variant):
    model = allocate(zoo.get_config(variant.full_name).model)
    inputs = batch(64)
    losses = model.train()(inputs)
    assert set(losses) == {"loss_fcos_cls", "loss_fcos_loc", model.dense.loss.quality_loss_name}
    assert all(bool(loss.isfinite()) for loss in losses.values())
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(bool(p.grad.isfinite().all()) for p in trained.values())
    with torch.no_grad():
        found = model.eval()(inputs)
    assert [x["instances"].image_size for x in found] == [(64, 64)] * 2


def plain(node) -> str:
    tree = OmegaConf.to_container(node, resolve=True)
    return json.dumps(tree, default=_convert_target_to_string, sort_keys=True)


@pytest.mark.parametrize(
    "variant",
    [v if v in NETWORKS.values() else pytest.param(v, marks=pytest.mark.slow) for v in zoo.VARIANTS],
    ids=lambda v: v.full_name,
)
def test_lazy_config_survives_saving(variant, tmp_path):
    """By Detectron2's means; a model is built of one variant for each network, since equal configs make equal ones."""
    cfg = zoo.get_config(variant.full_name)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert plain(again.model) == plain(cfg.model)
    if variant not in NETWORKS.values():
        return
    with unfilled():
        one, other = instantiate(cfg.model), instantiate(again.model)
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    for part in ("grid", "assigner", "coder", "selector"):
        assert getattr(one.dense, part) == getattr(other.dense, part)


@pytest.mark.parametrize("variant", NETWORKS.values(), ids=lambda v: v.full_name)
def test_default_predictor_builds_the_yaml_twin(variant):
    """Of one variant for each network; tests/zoo builds the twins of all."""
    cfg = get_cfg()
    fcos_d2.add_fcos_config(cfg)
    cfg.merge_from_file(str(zoo.config_file(variant.full_name, yaml=True)))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "meta", ""
    with unfilled():
        predictor = DefaultPredictor(cfg)
    assert isinstance(predictor.model, fcos_d2.FCOS)
    assert predictor.input_format == cfg.INPUT.FORMAT
