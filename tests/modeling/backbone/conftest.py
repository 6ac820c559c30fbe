"""What the tests of one backbone ask for: its row built both ways, and the tensors of published checkpoints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.modeling import Backbone, build_backbone

import fcos_d2
from fcos_d2.config.compose import compose
from fcos_d2.modeling import FCOSHead
from fcos_d2.modeling.unfilled import unfilled
from projects_tools.config_files import render

Shapes = dict[str, tuple[int, ...]]


def shapes_of(module: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def lazy(row: str, recipe: str = "adelaidet") -> Backbone:
    """The pyramid of a row, without memory."""
    with unfilled():
        return instantiate(compose(recipe, row, "1x").model.backbone)


@cache
def _files() -> dict[Path, str]:
    return render()


@pytest.fixture
def same_in_yaml() -> Callable[[str], bool]:
    """Whether LazyConfig and the written YAML of a row build the same pyramid, frozen parameters included."""

    def check(row: str) -> bool:
        cfg = get_cfg()
        fcos_d2.add_fcos_config(cfg)
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(_files()[Path("yaml", "backbones", f"{row}.yaml")])))
        with unfilled():
            pyramids = lazy(row), build_backbone(cfg)
        facts = [
            (
                shapes_of(p),
                [m.__class__ for m in p.modules()],
                [name for name, parameter in p.named_parameters() if parameter.requires_grad],
                p.output_shape(),
            )
            for p in pyramids
        ]
        return facts[0] == facts[1]

    return check


@pytest.fixture
def published(shared: Path) -> Callable[[str], Shapes]:
    """Tensor name -> shape of a published checkpoint; the file is `<family>__<config>.json`."""

    def read(name: str) -> Shapes:
        text = (shared / "reference" / "checkpoint-keys" / f"{name}.json").read_text(encoding="utf-8")
        return {key: tuple(shape) for key, shape in json.loads(text)["keys"].items()}

    return read


@pytest.fixture
def has_tensors_of(published: Callable[[str], Shapes]) -> Callable[..., bool]:
    """Whether a row with a head has tensors of the same shapes, each as often, as a published checkpoint.

    Left out are scales, which are one tensor here, and with `frozen` the counters of batch norms that never count.
    """

    def check(name: str, row: str, recipe: str = "adelaidet", frozen: bool = False, **head: Any) -> bool:
        pyramid = lazy(row, recipe)
        channels = pyramid.output_shape()["p3"].channels
        with unfilled():
            parts = pyramid, FCOSHead(in_channels=channels, num_levels=len(pyramid.output_shape()), **head)
        ours = [(key, shape) for part in parts for key, shape in shapes_of(part).items()]

        def counted(tensors: list[tuple[str, tuple[int, ...]]]) -> Counter[tuple[int, ...]]:
            ends = ("num_batches_tracked",) if frozen else ()
            return Counter(shape for key, shape in tensors if "scales" not in key and not key.endswith(ends))

        return counted(ours) == counted(list(published(name).items()))

    return check
