"""How to train on data of one's own: rows of data, chosen by what training starts from and by the number of images.

Within a start no row is shorter than the one before it ends, so that more images never mean fewer iterations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["DEFAULT_MODELS", "IMAGE_SIZES", "LADDERS", "PRESETS", "SIZES", "Preset", "choose_preset", "choose_size"]

# What is trained where nobody names a model, the first whose weights can be had, else the last: on a GPU the variant
# whose COCO weights are free and can be fetched; on a CPU one that learns within minutes.
DEFAULT_MODELS: dict[str, tuple[str, ...]] = {
    "cuda": ("fcos_resnet50_fpn", "fcos_R_18_FPN_small"),
    "cpu": ("fcos_R_18_slim_FPN_small",),
}
# What may be trained in a given time, the largest first.
LADDERS: dict[str, tuple[str, ...]] = {
    "cuda": ("fcos_resnet50_fpn", "fcos_R_18_FPN_small", "fcos_R_18_slim_FPN_small"),
    "cpu": ("fcos_R_18_FPN_small", "fcos_R_18_slim_FPN_small"),
}
# Shorter sides of images that `choose_size` chooses from, in pixels.
IMAGE_SIZES: dict[str, tuple[int, ...]] = {"cuda": (320, 416, 512), "cpu": (256, 320, 416, 512)}


@dataclass(frozen=True)
class Preset:
    """How to train on data of one's own."""

    lr: float  # of AdamW, for batches of `batch_size` images; it grows with the root of the batch
    epochs: float
    least_iterations: int  # where the epochs of a small data set would be fewer
    warmup: float  # share of the iterations in which the learning rate rises; then it falls along a cosine
    careful_lr: float = 1e-4  # instead, for weights that large steps would spoil: published ones, and frozen norms
    ema: bool | None = False  # whether an average of the weights is evaluated and kept; None leaves the config's
    freeze: int | None = None  # stages of the backbone that do not learn, the stem being the first; None: the config's
    scales: tuple[float, ...] = (0.8, 0.85, 0.9, 0.95, 1.0)  # of the image size, of which training draws one
    weight_decay: float = 0.05  # of all weights but norms and biases
    batch_size: int = 8
    clip_grad: float = 10.0  # largest norm of the gradient
    evaluations: int = 6  # the end included
    image_size: int | None = None  # shorter side, pixels; None leaves the sizes of the config
    pixel_std: tuple[float, float, float] | None = None  # BGR; None leaves the config's, which weights need


# Of a data set: a name, and the most training images that it stands for.
SIZES: Mapping[str, float] = {"few": 60, "small": 1_000, "medium": 10_000, "large": math.inf}

_LEAST_OBJECT = 16  # pixels, see `choose_size`
_PIXEL_STD = (57.375, 57.12, 58.395)  # ImageNet's, BGR
_WIDE = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)  # where few images must stand for many
_SCRATCH = Preset(lr=1e-3, epochs=30, least_iterations=750, warmup=0.15, image_size=320, pixel_std=_PIXEL_STD)
_BACKBONE = Preset(lr=5e-4, careful_lr=2e-4, epochs=24, least_iterations=600, warmup=0.1)
_DETECTOR = Preset(lr=1e-3, epochs=15, least_iterations=375, warmup=0.05)

PRESETS: dict[str, dict[str, Preset]] = {
    "scratch": {
        "few": replace(_SCRATCH, epochs=100, least_iterations=600, ema=True, scales=_WIDE),
        "small": replace(_SCRATCH, ema=True),
        "medium": replace(_SCRATCH, epochs=15, least_iterations=3_750),
        "large": replace(_SCRATCH, epochs=12, least_iterations=18_750),
    },
    "backbone": {
        "few": replace(_BACKBONE, epochs=80, least_iterations=400, ema=True, freeze=2, scales=_WIDE),
        "small": replace(_BACKBONE, ema=True),
        "medium": replace(_BACKBONE, epochs=12, least_iterations=3_000),
        "large": replace(_BACKBONE, epochs=10, least_iterations=15_000),
    },
    "detector": {
        "few": replace(_DETECTOR, epochs=50, least_iterations=200, ema=True, freeze=2, scales=_WIDE),
        "small": replace(_DETECTOR, ema=True),
        "medium": replace(_DETECTOR, epochs=8, least_iterations=1_875),
        "large": replace(_DETECTOR, epochs=6, least_iterations=10_000),
    },
}


def choose_preset(start: str, images: int) -> tuple[str, Preset]:
    """The row for a start ("scratch", "backbone" or "detector") and a number of training images, with its name."""
    name = next(name for name, most in SIZES.items() if images <= most)
    return name, PRESETS[start][name]


def choose_size(records: Iterable[Mapping[str, Any]], sizes: tuple[int, ...]) -> int:
    """The smallest image size at which nine of ten objects are large enough to be found.

    Args:
        records: of a data set, in Detectron2's form, with "width" and "height".
        sizes: shorter sides of an image to choose from, in pixels.
    Returns:
        The first at which nine of ten objects are as large as a square of 16 pixels, twice the finest stride; else the
        largest.
    """
    shares = sorted(
        math.sqrt(abs(box["bbox"][2] * box["bbox"][3])) / min(record["width"], record["height"])
        for record in records
        if record.get("width") and record.get("height")
        for box in record.get("annotations", ())
        if box["bbox_mode"] == 1 and not box.get("iscrowd", 0)  # BoxMode.XYWH_ABS
    )
    if not shares:
        return sizes[0]
    small = shares[len(shares) // 10]
    return next((size for size in sizes if size * small >= _LEAST_OBJECT), sizes[-1])
