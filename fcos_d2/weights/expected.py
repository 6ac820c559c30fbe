"""What a model of ours wants to be given: names and shapes, the pixels it reads, and which published variants fit.

Models are built on PyTorch's meta device, so even a ResNeXt-101 costs a tenth of a second and no memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.layers import CNNBlockBase
from omegaconf import OmegaConf
from torch import Tensor, nn

from .. import zoo
from ..config.compose import compose
from ..config.edits import class_node
from ..config.load import is_code, load_config
from ..config.stored import build
from ..genotype import GENOTYPES, pair_of
from ..modeling.backbone import BACKBONES
from ..modeling.unfilled import unfilled
from ..zoo.recipes import RECIPES
from ..zoo.schedules import SCHEDULES
from .adjust import COUNTER, Pixels
from .rules import Difference, difference

AVERAGE = "dense.loss.average"
_ABSENT = "no such part"


@dataclass(frozen=True)
class Traits:
    """What a model does with its weights, as far as other projects can or cannot do it.

    Attributes:
        activation: (activation, unit) of `LTRBCoder`.
        quality_on: tower that feeds the quality branch; "none" without one.
        origin: of the locations, as in `LocationGrid`.
        stride_in_1x1: where bottlenecks stride; `None` without bottlenecks.
        inclusive_far_corner: whether boxes end at x + w - 1.
        inference: of `LTRBCoder`.
        genotype: of a searched head, two lines of text; empty for others.
    """

    activation: tuple[str, str]
    quality_on: str
    origin: str
    stride_in_1x1: bool | None = None
    inclusive_far_corner: bool = False
    inference: str = "same"
    genotype: str = ""

    def phrases(self) -> tuple[str, ...]:
        """A phrase for each; empty where there is nothing to say."""
        where = "centers" if self.origin == "center" else "corners, a step being padded size // feature size"
        begin = "bottlenecks stride in their"
        strides = {None: "", True: f"{begin} 1x1 (caffe style)", False: f"{begin} 3x3"}
        ltrb = "ltrb by {} in {}s".format(*self.activation) + ", without it in inference" * (self.inference == "raw")
        quality = f"quality beside the {self.quality_on} tower" if self.quality_on != "none" else "no quality branch"
        boxes = f"boxes that end at x + w{' - 1' * self.inclusive_far_corner}"
        return (f"locations at cell {where}", ltrb, quality, strides[self.stride_in_1x1], boxes, _named(self.genotype))

    def __str__(self) -> str:
        return "; ".join(filter(None, self.phrases()))


def _named(genotype: str) -> str:
    """What to call a genotype: by its published name, or by its digest."""
    if not genotype:
        return ""
    name = next((name for name, pair in GENOTYPES.items() if genotype == "\n".join(map(str, pair))), None)
    return f"genotype {name or sha256(genotype.encode()).hexdigest()[:8]}"


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
        stride_in_1x1: where its bottlenecks stride; `None` without bottlenecks.
    """

    title: str
    shapes: Mapping[str, tuple[int, ...]]
    num_classes: int
    pixels: Pixels | None
    traits: Traits | None = None
    starts: Mapping[str, float] = field(default_factory=dict)
    variant: zoo.Variant | None = None
    stride_in_1x1: bool | None = None


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
        return _of_name(str(config), num_classes)
    if isinstance(config, CfgNode):
        node = config.clone()
        node.defrost()
        node.MODEL.FCOS.NUM_CLASSES = num_classes or node.MODEL.FCOS.NUM_CLASSES
        order, mean, std = node.INPUT.FORMAT, node.MODEL.PIXEL_MEAN, node.MODEL.PIXEL_STD
    else:
        node = OmegaConf.create({"model": config.get("model", config)}, flags={"allow_objects": True}).model
        if num_classes and "proposal_generator" not in node:
            node.num_classes = num_classes
        elif num_classes and (second := class_node(node)) is not None:
            second.num_classes = num_classes
        order, mean, std = (node.get(key) for key in ("input_format", "pixel_mean", "pixel_std"))
    with unfilled():
        is_data = origin or isinstance(node, CfgNode)
        model = build(node, origin or "The config") if is_data else instantiate(node)
    return _describe(model, "the config", Pixels(order, tuple(mean), tuple(std)) if order and mean and std else None)


def _of_name(name: str, num_classes: int | None) -> Target:
    if Path(name).suffix and Path(name).is_file():
        return replace(target_of(load_config(name), num_classes, origin="" if is_code(name) else name), title=name)
    variant = zoo.find(name)
    if isinstance(variant, zoo.ProposalVariant):
        return replace(target_of(zoo.get_config(variant.full_name), num_classes), title=variant.full_name)
    return variant_target(variant, num_classes or zoo.get_config(variant.full_name).model.num_classes)


def _pixels_of_model(model: Any) -> Pixels | None:
    try:
        mean, std = (tuple(x.flatten().tolist()) for x in (model.pixel_mean, model.pixel_std))
        return Pixels(model.input_format, mean, std)
    except AttributeError:  # another project's model
        return None


def _describe(model: Any, title: str, pixels: Pixels | None) -> Target:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    starts = {AVERAGE: float(model.dense.loss.moving_start)} if AVERAGE in shapes else {}
    classes = getattr(model, "num_classes", 0)
    return Target(title, shapes, classes, pixels, _traits_of(model), starts, stride_in_1x1=_strides_in_1x1(model))


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
    try:
        dense = model.dense if hasattr(model, "dense") else model.proposal_generator.dense
        return Traits(
            (dense.coder.activation, dense.coder.unit),
            dense.head.quality_on,
            dense.grid.origin,
            _strides_in_1x1(model),
            bool(getattr(model, "inclusive_far_corner", False)),
            dense.coder.inference,
            "\n".join(map(str, pair_of(dense.head.genotype))) if hasattr(dense.head, "genotype") else "",
        )
    except AttributeError:  # another project's part
        return None


def _strides_in_1x1(model: nn.Module) -> bool | None:
    blocks = [m for m in model.modules() if isinstance(m, CNNBlockBase) and m.stride == 2 and hasattr(m, "conv3")]
    return tuple(blocks[0].conv1.stride) != (1, 1) if blocks else None


# Which variants fit


@cache
def _model(recipe: str, backbone: str, num_classes: int) -> Target:
    return target_of(compose(recipe=recipe, backbone=backbone, schedule=next(iter(SCHEDULES))).model, num_classes)


def variant_target(variant: zoo.Variant, num_classes: int) -> Target:
    """What weights a variant wants if it has `num_classes` classes."""
    target = _model(variant.recipe, variant.backbone, num_classes)
    return replace(target, title=variant.full_name, variant=variant)


def _detects(target: Target) -> str:
    """What decides the detections of a variant, given its weights; two with equal results differ in training only."""
    assert target.variant is not None
    recipe, row = RECIPES[target.variant.recipe], BACKBONES[target.variant.backbone]
    arguments = {k: v for k, v in row.arguments.items() if k not in ("norm", "freeze_at") and "init" not in k}
    head = {k: v for k, v in recipe.head.items() if k != "prior_prob"}
    network = (row.bottom_up, row.pyramid, arguments, row.features, row.channels, repr(target.pixels))
    dense = (recipe.grid, recipe.coder, head, recipe.selector, recipe.detector, recipe.features, recipe.head_name)
    return json.dumps((network, dense), sort_keys=True, default=str)


def without_counters(tensors: Mapping[str, Tensor], target: Target) -> Difference:
    """The difference between tensors and what a model wants, without batch counters and start values."""
    given = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    wanted = {
        name: shape
        for name, shape in target.shapes.items()
        if not name.endswith(COUNTER) and (name in tensors or name not in target.starts)
    }
    return difference(given, wanted)


def _nearness(tensors: Mapping[str, Tensor], variant: zoo.Variant) -> int:
    """2 for a variant with the same network, as far as few names can say; 1 for the same kind of network; else 0."""
    row = BACKBONES[variant.backbone]
    marks = (row.mark, row.last_block, row.block_after)
    mark, last, after = (f"backbone.bottom_up.{name}" if name else "" for name in marks)
    if mark and mark not in tensors:
        return 0
    return 2 if not last or (last in tensors and after not in tensors) else 1


def fitting(
    tensors: Mapping[str, Tensor], variants: Sequence[zoo.Variant], num_classes: int
) -> tuple[list[zoo.Variant], zoo.Variant | None, Difference]:
    """The variants that want exactly these tensors; and the nearest with its difference, for when there is none."""
    fits, nearest, least = [], None, Difference()
    ranks = [_nearness(tensors, variant) for variant in variants]
    for variant in (v for v, rank in zip(variants, ranks) if rank == max(ranks)):  # the others need not be built
        found = without_counters(tensors, variant_target(variant, num_classes))
        if not found:
            fits.append(variant)
        elif nearest is None or len(found) < len(least):
            nearest, least = variant, found
    return fits, nearest, least


def _words(name: str) -> set[str]:
    """The words of a file's or a variant's name: published files have those of their config, in another order."""
    return set(re.findall("[a-z0-9]+", name.lower().replace("mstrain", "ms")))


def choose(variants: Sequence[zoo.Variant], path: Path, num_classes: int) -> tuple[zoo.Variant | None, str]:
    """The variant of several with the same tensors, if the file's name or the tensors decide; and which of them did."""
    if len(variants) == 1:
        return variants[0], "the only one with these tensors"
    stem = _words(path.stem)  # one of the variant's names must lie in it, with as many words as possible
    sizes = [max((len(p) for p in map(_words, (v.name, *v.aliases)) if p <= stem), default=0) for v in variants]
    if max(sizes):
        return variants[sizes.index(max(sizes))], f"by the name of the file, {path.name}"
    if len({_detects(variant_target(v, num_classes)) for v in variants}) == 1:
        return variants[0], "the others detect alike and differ in training only"
    return None, ""


def other_recipe(trained: Sequence[Target], here: Target, pixels: bool = False) -> str:
    """What a model does otherwise than the one that some weights were trained with; "" if nothing is known of that.

    Args:
        trained: the models that they may be of.
        here: the model that is to use them.
        pixels: whether what it reads counts, too, because nothing adapts the first convolution.
    """
    found: list[list[str]] = []
    for there in trained:
        if there.traits is None or here.traits is None:
            return ""
        pairs = list(zip(there.traits.phrases(), here.traits.phrases()))
        if pixels and there.pixels and here.pixels:
            pairs.append((f"input {there.pixels}", f"{here.pixels}"))
            pairs[-1] = pairs[-1] if there.pixels != here.pixels else ("", "")
        found.append([f"{a or _ABSENT} (here: {b or _ABSENT})" for a, b in pairs if a != b])
    least = min(found, key=len, default=[])
    return "; ".join(least)


def describe(targets: Sequence[Target]) -> list[str]:
    """What models have in common that a user of their weights should know, a sentence each."""
    texts = [[f"input: {t.pixels}", *(str(t.traits).split("; ") if t.traits else ())] for t in targets]
    return [values[0] for values in zip(*texts) if len(set(values)) == 1]
