"""What a model of ours wants to be given: names and shapes, the pixels it reads, and which published variants fit.

Models are built on PyTorch's meta device, so even a ResNeXt-101 costs a tenth of a second and no memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import zoo
from ..errors import FcosError
from ..modeling.backbone import BACKBONES
from ..recipes import RECIPES, Recipe
from .adjust import COUNTER
from .mapping import Difference, difference

AVERAGE = "dense.loss.average"


@dataclass(frozen=True)
class Target:
    """A model as far as weights are concerned.

    Attributes:
        title: how to call it in messages.
        shapes: name -> shape of all that its state dict holds.
        num_classes: K.
        input_format: "BGR" or "RGB".
        pixel_mean, pixel_std: of the three channels, in 0..255.
        starts: start values of buffers that only training reads.
        variant: row of the zoo, if it is one.
    """

    title: str
    shapes: Mapping[str, tuple[int, ...]]
    num_classes: int
    input_format: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    starts: Mapping[str, float] = field(default_factory=dict)
    variant: zoo.Variant | None = None


def target_of(config: Any, num_classes: int | None = None) -> Target:
    """Describe what weights a config or a model wants.

    Args:
        config: name of a variant or config file, a LazyConfig (or its node `model`), a yacs config, or a built model.
        num_classes: replaces that of a config.
    Raises:
        FcosError: there is no such variant.
    """
    if isinstance(config, nn.Module):
        return _of_model(config, "the model")
    if isinstance(config, (str, Path)):
        from ..engine.configuration import load_config

        variant = _variant(str(config))
        cfg = load_config(str(config)) if variant is None else zoo.get_config(str(config))
        target = target_of(cfg, num_classes)
        return Target(**{**vars(target), "title": str(config), "variant": variant})
    from detectron2.config import CfgNode

    if isinstance(config, CfgNode):
        from detectron2.modeling import META_ARCH_REGISTRY

        config = config.clone()
        config.MODEL.FCOS.NUM_CLASSES = num_classes or config.MODEL.FCOS.NUM_CLASSES
        with torch.device("meta"):
            model = META_ARCH_REGISTRY.get(config.MODEL.META_ARCHITECTURE)(config)
        return Target(**{**vars(_of_model(model, "the config")), **_pixels(config.MODEL, config.INPUT.FORMAT)})
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    node = OmegaConf.create({"model": config.get("model", config)}, flags={"allow_objects": True}).model
    if num_classes is not None:
        node.num_classes = num_classes
    with torch.device("meta"):
        target = _of_model(instantiate(node), "the config")
    return Target(
        **{
            **vars(target),
            "pixel_mean": tuple(node.pixel_mean),
            "pixel_std": tuple(node.pixel_std),
            "input_format": node.input_format,
        }
    )


def _variant(name: str) -> zoo.Variant | None:
    if Path(name).suffix and Path(name).is_file():
        return None
    return zoo.find(name)


def _pixels(model: Any, input_format: str) -> dict[str, Any]:
    return {
        "pixel_mean": tuple(model.PIXEL_MEAN),
        "pixel_std": tuple(model.PIXEL_STD),
        "input_format": input_format,
    }


def _of_model(model: nn.Module, title: str) -> Target:
    model = getattr(model, "module", model)
    state = model.state_dict()
    real = not model.pixel_mean.is_meta
    starts = {}
    if AVERAGE in state:
        starts[AVERAGE] = float(model.dense.loss.moving_start)
    return Target(
        title,
        {name: tuple(tensor.shape) for name, tensor in state.items()},
        model.num_classes,
        model.input_format,
        tuple(model.pixel_mean.flatten().tolist()) if real else (),
        tuple(model.pixel_std.flatten().tolist()) if real else (),
        starts,
    )


# Which variants fit


@lru_cache(maxsize=None)
def _shapes(backbone: str, structure: tuple, recipe: str, num_classes: int) -> Target:
    """The model of a recipe on a backbone; recipes of one `structure` have the same tensors."""
    from ..compose import SCHEDULES, compose

    config = compose(recipe=recipe, backbone=backbone, schedule=next(iter(SCHEDULES)))
    return target_of(config.model, num_classes)


def variant_target(variant: zoo.Variant, num_classes: int) -> Target:
    """What weights a variant wants if it has `num_classes` classes."""
    recipe = RECIPES[variant.recipe]
    structure = _structure(recipe)
    alike = next(name for name, other in RECIPES.items() if _structure(other) == structure)
    target = _shapes(variant.backbone, structure, alike, num_classes)
    row = BACKBONES[variant.backbone]
    start = float(recipe.loss.get("moving_start", 100.0))
    return Target(
        variant.full_name,
        target.shapes,
        num_classes,
        recipe.input_format,
        tuple(row.pixel_mean or recipe.pixel_mean),
        tuple(row.pixel_std or recipe.pixel_std),
        {name: start for name in target.starts},
        variant,
    )


def _structure(recipe: Recipe) -> tuple:
    """What of a recipe decides which tensors a model has."""
    head = {k: v for k, v in recipe.head.items() if k not in ("quality_on", "prior_prob")}
    moving = any("moving" in str(value) for key, value in recipe.loss.items() if key.endswith("normalizer"))
    points = recipe.grid.get("points_per_cell", 1)
    return _frozen((recipe.head_name, recipe.features, recipe.top_levels, points, moving, head))


def meaning(variant: zoo.Variant) -> tuple:
    """What decides the detections of a variant, given its weights: two variants of one meaning differ in training only."""
    recipe, row = RECIPES[variant.recipe], BACKBONES[variant.backbone]
    arguments = {k: v for k, v in row.arguments.items() if k not in ("norm", "freeze_at") and "init" not in k}
    head = {k: v for k, v in recipe.head.items() if k != "prior_prob"}
    return _frozen(
        (
            *(recipe.grid, recipe.coder, head, recipe.selector, recipe.features, recipe.top_levels, recipe.head_name),
            *(row.bottom_up.__name__, arguments, getattr(row.pyramid, "__name__", repr(row.pyramid)), row.features),
            *(row.channels, row.pixel_mean or recipe.pixel_mean, row.pixel_std or recipe.pixel_std, recipe.input_format),
        )
    )


def _frozen(value: Any) -> Any:
    """A hashable copy."""
    if isinstance(value, Mapping):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(v) for v in value)
    return value


def gap(tensors: Mapping[str, Tensor], target: Target) -> Difference:
    """The difference between tensors and what a model wants, without batch counters and start values."""
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    wanted = {
        name: shape
        for name, shape in target.shapes.items()
        if not name.endswith(COUNTER) and (name in tensors or name not in target.starts)
    }
    return difference(given, wanted)


def fitting(
    tensors: Mapping[str, Tensor], variants: Sequence[zoo.Variant], num_classes: int
) -> tuple[list[zoo.Variant], zoo.Variant | None, Difference]:
    """The variants that want exactly these tensors; and the nearest with its difference, for when there is none."""
    fits, nearest, least = [], None, Difference()
    for variant in variants:
        found = gap(tensors, variant_target(variant, num_classes))
        if not found:
            fits.append(variant)
        elif nearest is None or len(found) < len(least):
            nearest, least = variant, found
    return fits, nearest, least


_WORDS = {"mstrain": "ms"}


def words(name: str) -> frozenset[str]:
    """The words of a file's or a variant's name: published files have those of their config, in another order."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    return frozenset(_WORDS.get(word, word) for word in text.split())


def named_like(path: str | Path, variants: Sequence[zoo.Variant]) -> list[zoo.Variant]:
    """Of some variants, those whose name has the most words, all in the file's name."""
    stem = words(Path(path).stem)
    named = [v for v in variants if words(v.name) <= stem]
    most = max((len(words(v.name)) for v in named), default=0)
    return [v for v in named if len(words(v.name)) == most]
