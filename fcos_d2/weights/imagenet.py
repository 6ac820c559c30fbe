"""ImageNet weights that detectors start from: Detectron2's .pkl files, torchvision's and timm's ResNets, and others.

Weights whose names are those of a published detector's network (MobileNetV2, DLA, VoVNet, HRNet) are used as they are,
as the published detectors did, even where they were trained on other pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FcosError
from . import adjust
from .adjust import Pixels
from .families.bodies import detectron2_resnet, dla, given, hrnet, mobilenet, resnet, vovnet
from .files import read
from .mapping import EPSILON, Rule, difference, fields_of, some, to_ours
from .report import Report
from .target import Target, target_of

_OURS = "backbone.bottom_up."
_RGB = Pixels("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_BGR = Pixels("BGR", tuple(reversed(_RGB.mean)), tuple(reversed(_RGB.std)))
_MSRA = Pixels("BGR", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Origin:
    """A kind of ImageNet file.

    Attributes:
        name: how to call it.
        mark: a name (template) that it has and no earlier kind.
        rules: renames to ours.
        pixels: what it was trained on; `None` to leave the first convolution as it is.
        ignored: names (templates) of its classifier.
    """

    name: str
    mark: str
    rules: tuple[Rule, ...]
    pixels: Pixels | None = None
    ignored: tuple[str, ...] = ("fc.{*}", "classifier.{*}", "head.{*}", "last_linear.{*}")


def _caffe2() -> tuple[Rule, ...]:
    ours = f"{_OURS}res{{k}}.{{i}}"
    rows = [("conv1", "res_conv1_bn", f"{_OURS}stem.conv1")]
    branches = (("branch1", "shortcut"), ("branch2a", "conv1"), ("branch2b", "conv2"), ("branch2c", "conv3"))
    rows += [(f"res{{k}}_{{i}}_{a}", f"res{{k}}_{{i}}_{a}_bn", f"{ours}.{b}") for a, b in branches]
    parts = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
    parts |= {"running_mean": "running_mean", "running_var": "running_var", "gamma": "weight", "beta": "bias"}
    rules = [Rule(f"{conv}_w", f"{name}.weight") for conv, _, name in rows]
    return (*rules, *(Rule(f"{bn}_{a}", f"{name}.norm.{b}") for _, bn, name in rows for a, b in parts.items()))


# The same layout as torchvision's, but for the layers of a block: one row there, pairs here.
_MOBILENET = (
    *given("features.1.conv.3.weight", mobilenet("")),
    Rule("features.{*}", f"{_OURS}features.{{*}}"),
)
_HRNET_HEAD = ("incre_modules.{*}", "downsamp_modules.{*}", "final_layer.{*}", "classifier.{*}")

ORIGINS = (
    Origin("Caffe2 (Detectron2's model zoo)", "conv1_w", _caffe2(), _MSRA, ("pred_{A}", "fc{n}_{A}", "conv1_b")),
    Origin("Detectron2", "stem.conv1.weight", detectron2_resnet("")),
    Origin("HRNet", "transition1.0.0.weight", hrnet(""), ignored=_HRNET_HEAD),
    Origin("torchvision or timm", "layer1.0.conv1.weight", resnet(""), _RGB),
    Origin("MobileNetV2", "features.0.0.weight", _MOBILENET, ignored=("features.18.{*}", "classifier.{*}", "conv.{*}")),
    Origin("DLA", "base_layer.0.weight", dla("")),
    Origin("VoVNet", "stem.stem_1/conv.weight", vovnet("")),
)


@dataclass(frozen=True)
class Backbone:
    """Weights of a network below the pyramid, under our names.

    Attributes:
        state_dict: our name -> tensor; all begin with `backbone.bottom_up.`.
        report: what was done.
    """

    state_dict: dict[str, Tensor]
    report: Report


def load_backbone(path: str | Path, config: Any = None) -> Backbone:
    """Read ImageNet weights on the CPU; nothing in the file is run.

    Args:
        path: .pkl of Detectron2's model zoo, or .pth of torchvision, timm, or the network's authors.
        config: what the weights are for: name of a variant, config or model. With it they are checked to be complete,
            and the first convolution is changed to the pixels that it reads.
    Raises:
        FcosError: the file is damaged, hostile, of no known network, or of another than the config's.
    """
    path = Path(path)
    tensors, around = read(path)
    tensors = {
        name.removeprefix("backbone.").removeprefix("bottom_up.").removeprefix("body."): t
        for name, t in tensors.items()
    }
    origin = next((o for o in ORIGINS if o.mark in tensors), None)
    if origin is None:
        raise FcosError(
            f"{path} holds no known backbone: the first of its {len(tensors)} tensors is {next(iter(tensors))!r}."
        )
    report = Report(str(path), origin.name)
    report.ignored = [n for n in tensors if any(fields_of(template, n) is not None for template in origin.ignored)]
    renamed = to_ours({n: t for n, t in tensors.items() if n not in report.ignored}, origin.rules)
    if renamed.left_over:
        raise FcosError(f"{path} looks like {origin.name}, but has also {some(renamed.left_over)}.")
    report.renamed = len(renamed.tensors)
    pixels = origin.pixels
    if origin.name == "Detectron2" and around.get("__author__") == "torchvision":
        pixels = _RGB
    if pixels is _MSRA and any(name.endswith(".norm.running_var") for name in renamed.tensors):
        pixels = _BGR  # re-converted files, whose first convolution has not absorbed the deviation
    state = _fill_statistics(renamed.tensors, report)
    if config is not None:
        state = _fit(state, path, target_of(config), pixels, report)
    elif pixels:
        report.facts.append(f"input: {pixels}")
    report.tensors = len(state)
    return Backbone(state, report)


def _fill_statistics(state: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """Caffe2's affine layers have no statistics: mean 0, and a variance that makes 1 with the epsilon."""
    filled = dict(state)
    norms = [n.removesuffix(".weight") for n in state if n.endswith(".norm.weight") and state[n].dim() == 1]
    bare = [norm for norm in norms if f"{norm}.running_var" not in state]
    for norm in bare:
        filled[f"{norm}.running_mean"] = torch.zeros_like(state[f"{norm}.weight"])
        filled[f"{norm}.running_var"] = torch.full_like(state[f"{norm}.weight"], 1.0) - EPSILON
    if bare:
        report.done.append(f"{len(bare)} norms have their statistics absorbed: mean 0, variance 1 - {EPSILON:g}")
    return filled


def _fit(
    state: dict[str, Tensor], path: Path, target: Target, pixels: Pixels | None, report: Report
) -> dict[str, Tensor]:
    wanted = {name: shape for name, shape in target.shapes.items() if name.startswith(_OURS)}
    state, _, done = adjust.fit_counters(state, wanted)
    report.done += done
    if found := difference(state, wanted):
        raise FcosError(f"{path} does not suit the backbone of {target.title}: {found}.")
    if pixels is None:
        report.facts.append("the first convolution is used as it is, whatever pixels it was trained on")
        return state
    state, done, facts = adjust.change_pixels(state, pixels, target.pixels)
    report.done += done
    report.facts += facts
    return state
