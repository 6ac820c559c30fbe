"""What a model of ours wants to be given: names and shapes, the pixels it reads, and which published variants fit.

Models are built on PyTorch's meta device, so even a ResNeXt-101 costs a tenth of a second and no memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling.backbone.resnet import BottleneckBlock
from omegaconf import OmegaConf
from torch import Tensor, nn

from .. import zoo
from ..config.compose import compose, pixel_statistics
from ..config.load import is_code, load_config
from ..config.stored import build
from ..modeling import FCOSHead, FCOSLoss, LocationGrid, LTRBCoder
from ..modeling.backbone import BACKBONES
from ..zoo.recipes import RECIPES, Recipe
from ..zoo.schedules import SCHEDULES
from .adjust import COUNTER, Pixels, change_pixels
from .report import Report
from .rules import Difference, difference

AVERAGE = "dense.loss.average"


@dataclass(frozen=True)
class Traits:
    """What a model does with its weights, as far as other projects can or cannot do it.

    Attributes:
        activation: (activation, unit) of `LTRBCoder`.
        quality_on: tower that feeds the quality branch.
        origin: of the locations, as in `LocationGrid`.
        stride_in_1x1: where bottlenecks stride; `None` without bottlenecks.
    """

    activation: tuple[str, str]
    quality_on: str
    origin: str
    stride_in_1x1: bool | None = None

    def __str__(self) -> str:
        where = "centers" if self.origin == "center" else "corners, a step being padded size // feature size"
        activation, unit = self.activation
        strides: dict[bool | None, str] = {True: " 1x1 (caffe style)", False: " 3x3"}
        return (
            f"locations at cell {where}; ltrb by {activation} in {unit}s; quality beside the {self.quality_on} tower"
            + (f"; bottlenecks stride in their{strides[self.stride_in_1x1]}" if self.stride_in_1x1 in strides else "")
        )


@dataclass(frozen=True)
class Target:
    """A model as far as weights are concerned.

    Attributes:
        title: how to call it in messages.
        shapes: name -> shape of all that its state dict holds.
        num_classes: K; 0 if the model has no such attribute.
        pixels: what it reads; `None` if the model has no such attributes.
        traits: what it does; `None` if it is not made of this package's parts.
        starts: start values of buffers that only training reads.
        variant: row of the zoo, if it is one.
    """

    title: str
    shapes: Mapping[str, tuple[int, ...]]
    num_classes: int
    pixels: Pixels | None
    traits: Traits | None = None
    starts: Mapping[str, float] = field(default_factory=dict)
    variant: zoo.Variant | None = None


def target_of(config: Any, num_classes: int | None = None, *, origin: str = "") -> Target:
    """Describe what weights a config or a model wants.

    Args:
        config: name of a variant, config file, LazyConfig (or its node `model`), yacs config, or built model.
        num_classes: replaces that of a config or model.
        origin: file that the config was read from as data; it may be a stranger's, see `config.stored.build`.
    Raises:
        FcosError: there is no such variant or file, or the config describes nothing that can be built.
    """
    if isinstance(config, nn.Module):
        model = getattr(config, "module", config)
        return _with_classes(_describe(model, "the model", _pixels_of_model(model)), num_classes)
    if isinstance(config, (str, Path)):
        return _named(str(config), num_classes)
    if isinstance(config, CfgNode):
        node = config.clone()
        node.defrost()
        node.MODEL.FCOS.NUM_CLASSES = num_classes or node.MODEL.FCOS.NUM_CLASSES
        order, mean, std = node.INPUT.FORMAT, node.MODEL.PIXEL_MEAN, node.MODEL.PIXEL_STD
    else:
        node = OmegaConf.create({"model": config.get("model", config)}, flags={"allow_objects": True}).model
        if num_classes:
            node.num_classes = num_classes
        order, mean, std = (node.get(key) for key in ("input_format", "pixel_mean", "pixel_std"))
    with torch.device("meta"):
        is_data = origin or isinstance(node, CfgNode)
        model = build(node, origin or "The config") if is_data else instantiate(node)
    return _describe(model, "the config", Pixels(order, tuple(mean), tuple(std)) if order and mean and std else None)


def _named(name: str, num_classes: int | None) -> Target:
    if Path(name).suffix and Path(name).is_file():
        return replace(target_of(load_config(name), num_classes, origin="" if is_code(name) else name), title=name)
    variant = zoo.find(name)
    return variant_target(variant, num_classes or _classes_of(variant.full_name))


@cache
def _classes_of(name: str) -> int:
    return zoo.get_config(name).model.num_classes


def _pixels_of_model(model: Any) -> Pixels | None:
    try:
        mean, std = (tuple(x.flatten().tolist()) for x in (model.pixel_mean, model.pixel_std))
        return Pixels(model.input_format, mean, std)
    except AttributeError:  # another project's model
        return None


def _describe(model: Any, title: str, pixels: Pixels | None) -> Target:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    starts = {AVERAGE: float(model.dense.loss.moving_start)} if AVERAGE in shapes else {}
    return Target(title, shapes, getattr(model, "num_classes", 0), pixels, _traits_of(model), starts)


def _with_classes(target: Target, num_classes: int | None) -> Target:
    """The same model with another number of classes."""
    if num_classes in (None, target.num_classes):
        return target
    shapes = {
        name: (shape[0] // target.num_classes * num_classes, *shape[1:]) if ".cls_logits." in name else shape
        for name, shape in target.shapes.items()
    }
    return replace(target, shapes=shapes, num_classes=num_classes)


def _traits_of(model: Any) -> Traits | None:
    blocks = [m for m in model.modules() if isinstance(m, BottleneckBlock) and m.stride == 2]
    try:
        dense = model.dense
        return Traits(
            (dense.coder.activation, dense.coder.unit),
            dense.head.quality_on,
            dense.grid.origin,
            tuple(blocks[0].conv1.stride) != (1, 1) if blocks else None,
        )
    except AttributeError:  # another project's part
        return None


def traits_of(variant: zoo.Variant) -> Traits:
    """The traits of a variant, from its rows."""
    recipe, row = RECIPES[variant.recipe], BACKBONES[variant.backbone]
    coder, grid = LTRBCoder(**recipe.coder), LocationGrid(**recipe.grid)
    return Traits(
        (coder.activation, coder.unit),
        recipe.head.get("quality_on", FCOSHead.quality_on),
        grid.origin,
        row.arguments.get("stride_in_1x1"),
    )


def pixels_of(variant: zoo.Variant) -> Pixels:
    """What a variant reads."""
    recipe = RECIPES[variant.recipe]
    return Pixels(recipe.input_format, *pixel_statistics(recipe, BACKBONES[variant.backbone]))


# Which variants fit


@cache
def _shapes(backbone: str, structure: tuple, recipe: str, num_classes: int) -> Target:
    """The model of a recipe on a backbone; recipes of one `structure` have the same tensors."""
    config = compose(recipe=recipe, backbone=backbone, schedule=next(iter(SCHEDULES)))
    return target_of(config.model, num_classes)


def variant_target(variant: zoo.Variant, num_classes: int) -> Target:
    """What weights a variant wants if it has `num_classes` classes."""
    recipe = RECIPES[variant.recipe]
    structure = _structure(recipe)
    alike = next(name for name, other in RECIPES.items() if _structure(other) == structure)
    target = _shapes(variant.backbone, structure, alike, num_classes)
    start = float(recipe.loss.get("moving_start", FCOSLoss.moving_start))
    return replace(
        target,
        title=variant.full_name,
        pixels=pixels_of(variant),
        traits=traits_of(variant),
        starts=dict.fromkeys(target.starts, start),
        variant=variant,
    )


def _structure(recipe: Recipe) -> tuple:
    """What of a recipe decides which tensors a model has."""
    head = {k: v for k, v in recipe.head.items() if k not in ("quality_on", "prior_prob")}
    moving = any("moving" in str(value) for key, value in recipe.loss.items() if key.endswith("normalizer"))
    points = recipe.grid.get("points_per_cell", 1)
    return _frozen((recipe.head_name, recipe.features, recipe.top_levels, points, moving, head))


def detects_alike(variant: zoo.Variant) -> tuple:
    """What decides the detections of a variant, given its weights; two with equal results differ in training only."""
    recipe, row = RECIPES[variant.recipe], BACKBONES[variant.backbone]
    arguments = {k: v for k, v in row.arguments.items() if k not in ("norm", "freeze_at") and "init" not in k}
    head = {k: v for k, v in recipe.head.items() if k != "prior_prob"}
    return _frozen(
        (
            *(recipe.grid, recipe.coder, head, recipe.selector, recipe.features, recipe.top_levels, recipe.head_name),
            *(row.bottom_up.__name__, arguments, getattr(row.pyramid, "__name__", repr(row.pyramid)), row.features),
            *(row.channels, pixels_of(variant).mean, pixels_of(variant).std, recipe.input_format),
        )
    )


def _frozen(value: Any) -> Any:
    """A hashable copy."""
    if isinstance(value, Mapping):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(v) for v in value)
    return value


def suit_pixels(
    tensors: dict[str, Tensor], known: Collection[Pixels], target: Target, report: Report
) -> dict[str, Tensor]:
    """Let the first convolution read what the model is given.

    Args:
        tensors: our names.
        known: what they may have been trained on.
        target: the model.
        report: gets a sentence for each thing done, and for what the user has to know.
    """
    if target.pixels is None or target.pixels in known:
        return tensors
    if len(known) != 1:
        report.facts.append("which pixels the weights expect is not known from the file: nothing was changed")
        return tensors
    tensors, done, facts = change_pixels(tensors, next(iter(known)), target.pixels)
    report.done += done
    report.facts += facts
    return tensors


def without_counters(tensors: Mapping[str, Tensor], target: Target) -> Difference:
    """The difference between tensors and what a model wants, without batch counters and start values."""
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    wanted = {
        name: shape
        for name, shape in target.shapes.items()
        if not name.endswith(COUNTER) and (name in tensors or name not in target.starts)
    }
    return difference(given, wanted)


def _promising(tensors: Mapping[str, Tensor], variants: Sequence[zoo.Variant]) -> list[zoo.Variant]:
    """The variants with the same network, else with the same kind, else all; the others need not be built."""
    kinds, same = [], []
    for variant in variants:
        row = BACKBONES[variant.backbone]
        marks = (row.mark, row.last_block, row.block_after)
        mark, last, after = (f"backbone.bottom_up.{name}" if name else "" for name in marks)
        if mark and mark not in tensors:
            continue
        kinds.append(variant)
        if not last or (last in tensors and after not in tensors):
            same.append(variant)
    return same or kinds or list(variants)


def fitting(
    tensors: Mapping[str, Tensor], variants: Sequence[zoo.Variant], num_classes: int
) -> tuple[list[zoo.Variant], zoo.Variant | None, Difference]:
    """The variants that want exactly these tensors; and the nearest with its difference, for when there is none."""
    fits, nearest, least = [], None, Difference()
    for variant in _promising(tensors, variants):
        found = without_counters(tensors, variant_target(variant, num_classes))
        if not found:
            fits.append(variant)
        elif nearest is None or len(found) < len(least):
            nearest, least = variant, found
    return fits, nearest, least


_WORDS = {"mstrain": "ms"}


def _name_parts(name: str) -> frozenset[str]:
    """The words of a file's or a variant's name: published files have those of their config, in another order."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    return frozenset(_WORDS.get(word, word) for word in text.split())


def named_like(path: str | Path, variants: Sequence[zoo.Variant]) -> list[zoo.Variant]:
    """Of some variants, those one of whose names has the most words, all of them in the file's name."""
    stem = _name_parts(Path(path).stem)
    sizes = [max((len(p) for p in map(_name_parts, (v.name, *v.aliases)) if p <= stem), default=0) for v in variants]
    return [v for v, size in zip(variants, sizes) if size and size == max(sizes)]


def describe(targets: Sequence[Target]) -> list[str]:
    """What models have in common that a user of their weights should know, a sentence each."""
    facts = [f"input: {pixels}" for pixels in {t.pixels for t in targets}]
    facts = facts if len(facts) == 1 else []
    if any(t.traits is None for t in targets):
        return facts
    for values in zip(*(str(t.traits).split("; ") for t in targets)):
        if len(set(values)) == 1:
            facts.append(values[0])
    return facts
