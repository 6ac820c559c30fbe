"""ImageNet weights that detectors start from: one row for each kind of file.

Detectron2's and Caffe2's .pkl files, torchvision's and timm's ResNets, and networks under their authors' names. Where
these names are those of a published detector's network (MobileNetV2, DLA, VoVNet, HRNet) the weights are used as they
are, as the published detectors did, even where they were trained on other pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..adjust import Pixels
from ..rules import Rule
from .bodies import detectron2_resnet, dla, given, hrnet, mobilenet, resnet, vovnet
from .family import Family

_OURS = "backbone.bottom_up."
_RGB = Pixels("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_BGR = Pixels("BGR", tuple(reversed(_RGB.mean)), tuple(reversed(_RGB.std)))
_MSRA = Pixels("BGR", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
# What parts of a detector other than its network below the pyramid are called, without "backbone.".
_DETECTOR = ("fpn", "top_block", "neck.", "dense.", "proposal_generator.", "rpn", "roi_head", "bbox_head.")
CLASSIFIER = ("fc.{*}", "classifier.{*}", "head.{*}", "last_linear.{*}")
T = TypeVar("T")


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

_CAFFE2 = ("pred_{A}", "fc{n}_{A}", "conv1_b")
_MOBILENET_HEAD = ("features.18.{*}", "classifier.{*}", "conv.{*}")

# In the order in which they are tried: a file is of the first kind whose mark it has.
ORIGINS = (
    Family("Caffe2 (Detectron2's model zoo)", "", _caffe2(), "conv1_w", ignored=_CAFFE2, pixels=_MSRA),
    Family("Detectron2", "", detectron2_resnet(""), "stem.conv1.weight", ignored=CLASSIFIER),
    Family("HRNet", "", hrnet(""), "transition1.0.0.weight", ignored=_HRNET_HEAD),
    Family("torchvision or timm", "", resnet(""), "layer1.0.conv1.weight", ignored=CLASSIFIER, pixels=_RGB),
    Family("MobileNetV2", "", _MOBILENET, "features.0.0.weight", ignored=_MOBILENET_HEAD),
    Family("DLA", "", dla(""), "base_layer.0.weight", ignored=CLASSIFIER),
    Family("VoVNet", "", vovnet(""), "stem.stem_1/conv.weight", ignored=CLASSIFIER),
)


def without_prefixes(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same under the names that the network itself gives, whatever detector it was taken from."""
    return {re.sub(r"^(backbone\.)?(bottom_up\.)?(body\.)?", "", name): tensor for name, tensor in tensors.items()}


def origin_of(names: Mapping[str, Any]) -> Family | None:
    """The kind of ImageNet file that has these names; `None` if it is none, or a whole detector."""
    bare = without_prefixes(names)
    if any(name.startswith(_DETECTOR) for name in bare):
        return None
    return next((origin for origin in ORIGINS if origin.mark in bare), None)


@dataclass(frozen=True)
class Provenance:
    """Who made a file of ImageNet weights, and what a network must do to suit them.

    Attributes:
        maker: as in "of torchvision"; empty if the file does not tell.
        pixels: what they were trained on; `None` if that is not known, or the published detectors do not care.
        stride_in_1x1: where bottlenecks stride; `None` if that is not known, or there are none.
    """

    maker: str = ""
    pixels: Pixels | None = None
    stride_in_1x1: bool | None = None


NOBODY = Provenance()
_BY_TORCHVISION = Provenance("torchvision or timm", _RGB, False)
_BY_MSRA = Provenance("MSRA with Caffe", _MSRA, True)
_BY_FAIR = Provenance("FAIR with Caffe2, the pixel deviation absorbed", _MSRA, False)
_BY_FAIR_AGAIN = Provenance("FAIR with Caffe2", _BGR, False)
# Files with torchvision's names that hold Caffe's weights, as OpenMMLab calls them.
_CAFFE_IN_NAME = re.compile(r"caffe|msra", re.IGNORECASE)
_FAIR_IN_NAME = "resnext101_32x8d-1516f1aa"
_TAPS = 3 * 7 * 7  # of ResNet's first convolution


def provenance_of(origin: Family, tensors: Mapping[str, Tensor], author: Any, path: str) -> Provenance:
    """Who made a file of a kind.

    Args:
        origin: its kind.
        tensors: as in the file.
        author: what it says of its author, if anything.
        path: its name, which OpenMMLab's copies are told by.
    """
    if origin.name == "Detectron2":
        return _BY_TORCHVISION if author == "torchvision" else NOBODY
    if origin.mark == "conv1_w":
        grouped = (kernel := tensors.get("res2_0_branch2b_w")) is not None and kernel.shape[1] < kernel.shape[0]
        if not grouped and not any(name.endswith("_riv") for name in tensors):
            return (
                _BY_MSRA  # Detectron2's copy, whose statistics are called running_var, has absorbed the deviation, too
            )
        if not any(name.endswith(("_riv", "_running_var")) for name in tensors):
            return _BY_FAIR
        return _BY_FAIR_AGAIN if grouped else replace(_BY_FAIR_AGAIN, stride_in_1x1=None)
    if origin.mark != "layer1.0.conv1.weight":
        return Provenance("torchvision" if "features.1.conv.0.0.weight" in tensors else f"the authors of {origin.name}")
    name = Path(path).name
    if _FAIR_IN_NAME in name:
        return _BY_FAIR_AGAIN
    return _BY_MSRA if _CAFFE_IN_NAME.search(name) or _reads_wide_pixels(without_prefixes(tensors)) else _BY_TORCHVISION


def _reads_wide_pixels(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the statistics of the first norm prove that pixels were not divided by their deviation.

    If no pixel varies by more than 1, the output of a filter w varies by no more than sum(w^2) times its taps.
    """
    kernel, variance = tensors.get("conv1.weight"), tensors.get("bn1.running_var")
    if kernel is None or variance is None or kernel.dim() != 4 or variance.shape != kernel.shape[:1]:
        return False
    most = kernel.double().square().sum((1, 2, 3)) * _TAPS
    return bool(((variance.double() > 2 * most) & (most > 0)).sum() * 2 > len(most))
