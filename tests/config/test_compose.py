"""recipe + backbone + schedule -> the nodes of a LazyConfig."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from scenes import dense_of

from fcos_d2.config.compose import Composed, compose
from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.paths import config_root
from fcos_d2.zoo.recipes import RECIPES
from fcos_d2.zoo.schedules import SCHEDULES

FIVE_LEVELS = [name for name, r in RECIPES.items() if r.features[0] == "p3"]


def on_meta(node: Any) -> torch.nn.Module:
    with unfilled():
        return instantiate(node)


@pytest.mark.parametrize("name", FIVE_LEVELS)
def test_parts_are_those_of_the_recipe(name: str) -> None:
    composed = compose(name, "R_18_slim_FPN", "1x")
    model, expected = on_meta(composed.model), dense_of(name, num_classes=80, in_channels=64)
    for part in ("grid", "assigner", "coder", "selector"):
        assert getattr(model.dense, part) == getattr(expected, part)
    for part in ("head", "loss"):
        built, wanted = getattr(model.dense, part), getattr(expected, part)
        assert type(built) is type(wanted)
        assert built.state_dict().keys() == wanted.state_dict().keys()
        assert {k: v.shape for k, v in built.state_dict().items()} == {
            k: v.shape for k, v in wanted.state_dict().items()
        }


def test_the_number_of_classes_is_said_once() -> None:
    node = compose("improved", "R_18_slim_FPN", "1x").model
    node.num_classes = 7
    model = on_meta(node)
    assert model.num_classes == model.dense.head.num_classes == 7
    assert model.dense.head.cls_logits.weight.shape[0] == 7


def test_points_of_a_cell_are_said_once() -> None:
    node = compose("fcos_plus", "R_18_slim_FPN", "1x").model
    node.dense.grid.points_per_cell = 4
    model = on_meta(node)
    assert model.dense.head.points_per_cell == 4
    assert model.dense.head.bbox_pred.weight.shape[0] == 16


def test_channels_are_said_once() -> None:
    node = compose("improved", "R_18_slim_FPN", "1x").model
    node.backbone.out_channels = 96
    model = on_meta(node)
    assert model.dense.head.in_channels == 96
    assert model.backbone.output_shape()["p7"].channels == 96


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pixel_statistics_are_in_the_order_of_the_channels(backbone: str) -> None:
    """A row may bring its own, in BGR; a recipe that reads RGB must get them turned round."""
    for recipe in ("original", "adelaidet", "torchvision"):
        model = compose(recipe, backbone, "1x").model
        turn = slice(None) if model.input_format == "BGR" else slice(None, None, -1)
        mean, std = list(model.pixel_mean)[turn], list(model.pixel_std)[turn]
        assert mean == sorted(mean)
        assert std in ([1.0, 1.0, 1.0], [57.375, 57.12, 58.395])


def test_schedule() -> None:
    composed = compose("improved", "R_18_slim_FPN", "2x")
    assert isinstance(composed, Composed)
    assert composed.train.max_iter == 180_000
    flip = composed.dataloader.train.mapper.augmentations
    assert flip[0].short_edge_length == [640, 800]
    assert flip[0].sample_style == "range"
    assert composed.dataloader.test.mapper.augmentations[0].short_edge_length == 800
    assert composed.dataloader.train.mapper.image_format == "BGR"
    assert composed.dataloader.test.mapper.image_format == "BGR"
    assert composed.dataloader.train.total_batch_size == 16


def test_colour_order_of_the_recipe_reaches_the_data() -> None:
    data = compose("torchvision", "R_18_slim_FPN", "1x").dataloader
    assert data.train.mapper.image_format == data.test.mapper.image_format == "RGB"


@pytest.mark.parametrize(
    ("recipe", "factors"),
    [
        # Constant at a third of the rate for 500 iterations.
        ("original", {0: 1 / 3, 499: 1 / 3, 501: 1.0, 59_999: 1.0, 60_001: 0.1, 80_001: 0.01, 89_999: 0.01}),
        # Linear from a thousandth in 1,000 iterations.
        ("adelaidet", {0: 0.001, 500: 0.5005, 1001: 1.0, 60_001: 0.1, 80_001: 0.01}),
    ],
)
def test_learning_rate(recipe: str, factors: dict[int, float]) -> None:
    multiplier = instantiate(compose(recipe, "R_18_slim_FPN", "1x").lr_multiplier)
    for iteration, factor in factors.items():
        assert multiplier(iteration / 90_000) == pytest.approx(factor, rel=1e-3), iteration


def test_parameter_groups() -> None:
    """The original learns biases at twice the rate and without decay; norm weights decay."""
    composed = compose("original", "R_18_slim_FPN", "1x")
    composed.optimizer.params.model = on_meta(composed.model)
    optimizer = instantiate(composed.optimizer)
    seen = {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert seen == {(0.01, 1e-4), (0.02, 0.0)}
    biases = sum(p.numel() for g in optimizer.param_groups if g["lr"] == 0.02 for p in g["params"])
    model = composed.optimizer.params.model
    assert biases == sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))


def test_every_schedule_is_whole() -> None:
    for name, plan in SCHEDULES.items():
        assert plan.source, name
        assert list(plan.steps) == sorted(plan.steps)
        assert plan.steps[-1] < plan.max_iter
        assert plan.sampling in ("choice", "range")
        assert plan.sampling == "choice" or len(plan.train_sizes) == 2


def test_nodes_survive_a_file(tmp_path: Any) -> None:
    """What `LazyConfig.save` writes and `load` reads builds the same."""
    nodes = compose("detectron2", "R_18_slim_FPN", "1x")
    LazyConfig.save(OmegaConf.create(nodes._asdict(), flags={"allow_objects": True}), str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    model, other = on_meta(nodes.model), on_meta(again.model)
    assert model.dense.assigner == other.dense.assigner
    assert model.dense.selector == other.dense.selector
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_the_shared_files_are_found() -> None:
    assert (config_root() / "common" / "train.py").is_file()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("imprv", "R_50_FPN", "1x"), "recipe is 'imprv', but it must be one of: 'original', 'improved'"),
        (("improved", "R_50", "1x"), "backbone is 'R_50', but it must be one of: 'R_50_FPN'"),
        (("improved", "R_50_FPN", "9x"), "schedule is '9x', but it must be one of: '1x'"),
    ],
)
def test_wrong_names(names: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        compose(*names)
