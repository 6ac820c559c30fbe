"""What would shorten a training that takes long, and by how much."""

from __future__ import annotations

from omegaconf import DictConfig

from .. import zoo
from ..errors import FcosError
from ..words import duration
from .pace import Pace
from .presets import DEFAULT_MODELS

__all__ = ["LONG", "SMALLEST", "advice", "cost"]

LONG = 3600.0  # seconds from which on a training is said to take long
SMALLEST = 160  # pixels; smaller images are not proposed


def cost(model: str) -> float | None:
    """Multiply-adds of a variant for a pixel of its input, to compare variants by; None of what is none."""
    try:
        row = zoo.costs().get(zoo.find(model).full_name)
    except FcosError:
        return None
    return None if row is None else row["gflops"] / (row["height"] * row["width"])


def advice(cfg: DictConfig, pace: Pace, model: str, image_size: int | None) -> list[str]:
    """Options that would shorten a training, with the time that it would take then, roughly.

    Args:
        cfg: of the training.
        pace: that was measured with it.
        model: the variant, if it is one.
        image_size: shorter side of its images, pixels, if that can be set.
    """
    whole = pace.seconds(cfg)
    found = [f"--minutes {30 if whole < 7200 else 60} (it chooses what fits)"]
    smaller = None if image_size is None else max(SMALLEST, 32 * round(image_size * 0.7 / 32))
    if image_size is not None and smaller is not None and smaller < 0.9 * image_size:
        found.append(f"--image-size {smaller} ({duration(whole * (smaller / image_size) ** 2)})")
    here, small = cost(model), DEFAULT_MODELS["cpu"][0]
    if here is not None and (there := cost(small)) is not None and there < 0.7 * here:
        found.append(f"--model {small} ({duration(whole * there / here)}, with smaller images less)")
    fewer = max(1, round(cfg.train.max_iter / 2))
    found.append(f"--iterations {fewer} ({duration(whole * fewer / cfg.train.max_iter)})")
    if cfg.train.device == "cpu":
        found.append("a machine with a GPU")
    return found
