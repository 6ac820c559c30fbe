"""What an exported file says of itself: all that is needed to use it, and where it comes from."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from detectron2.data.transforms import ResizeShortestEdge

from .. import zoo
from ..errors import FcosError
from ..files import sha256_of
from ..predict import Predictor
from ..runtime import FORMAT
from ..weights.fetch import fetch
from .shapes import Shapes

__all__ = ["described", "resize_of"]

_PACKAGES = ("fcos_d2", "torch", "torchvision")


def described(
    predictor: Predictor, *, graph: str, dtype: str, shapes: Shapes, source: str, weights: str | None,
    packages: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Metadata of a file, without certificate and digest.

    Args:
        predictor: with the detector.
        graph: "raw" or "end2end".
        dtype: of the convolutions.
        shapes: of the inputs.
        source: variant, config or checkpoint that the detector was built from.
        weights: where its weights are from, if not from the source.
        packages: whose versions count, besides PyTorch's.
    """
    model: Any = predictor.model
    name = source if zoo.is_name(source) else None
    return {
        "format": FORMAT, "graph": graph, "preprocessing": "inside" if shapes.inside else "outside", "dtype": dtype,
        "dynamic": {"batch": shapes.batch is None, "size": shapes.size is None},
        "class_names": list(predictor.class_names), "thresholds": [float(x) for x in predictor.least],
        "temperature": predictor.temperature,
        "resize": resize_of(predictor), "channel_order": model.input_format,
        "pixel_mean": model.pixel_mean.flatten().tolist(), "pixel_std": model.pixel_std.flatten().tolist(),
        "size_divisibility": shapes.step, "strides": [int(x) for x in model.strides],
        "select": asdict(model.dense.selector), "coder": asdict(model.dense.coder), "grid": asdict(model.dense.grid),
        "inclusive": bool(model.inclusive_far_corner), "keep_empty": bool(model.keep_empty),
        "variant": name, "recipe": zoo.find(name).recipe if name else None, "source": _source(weights or source),
        "versions": _versions(packages), "created": datetime.date.today().isoformat(),
    }  # fmt: skip


def resize_of(predictor: Predictor) -> dict[str, int] | None:
    """How pictures are resized, `None` for not at all.

    Raises:
        FcosError: in a way that a file cannot say.
    """
    steps = list(predictor.resizing)
    if not steps:
        return None
    if len(steps) > 1 or type(steps[0]) is not ResizeShortestEdge:
        names = ", ".join(type(step).__name__ for step in steps)
        raise FcosError(f"Test images are changed by {names}, but an export knows ResizeShortestEdge alone.")
    sides = steps[0].short_edge_length
    return {"short_edge": int(min(sides)), "max_size": int(steps[0].max_size)}


def _source(weights: str) -> dict[str, str | None]:
    """Name and hash of the checkpoint."""
    if weights == "random":
        return {"file": "random", "sha256": None}
    path = Path(fetch(weights)).expanduser()
    return {"file": path.name, "sha256": sha256_of(path) if path.is_file() else None}


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in (*_PACKAGES, *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            continue
    return found
