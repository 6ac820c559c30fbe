"""Maps over pictures: how high a number is, by color."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["draw_heat", "heat_scale"]

_MAP = "turbo"  # blue for 0, red for 1, as in the paper's Figure 3
_STRONGEST = 0.8  # of the colors over the picture
_GRAY = 0.55  # what is left of the picture's own light below them


def draw_heat(image: np.ndarray, values: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """A gray copy of an image with numbers in color.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (h, w) in 0..1, of the same extent.
        strength: (h, w) in 0..1: how much of the color is seen.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    color = colormaps[_MAP](_resized(values, (width, height)))[..., :3] * 255
    alpha = _STRONGEST * _resized(strength, (width, height))[..., None]
    gray = image.astype(np.float32).mean(axis=2, keepdims=True) * _GRAY + 255 * (1 - _GRAY) / 2
    return (gray * (1 - alpha) + color * alpha).clip(0, 255).round().astype(np.uint8)


def heat_scale(width: int = 256, height: int = 12) -> np.ndarray:
    """(height, width, 3) uint8: the colors of 0 to 1, from left to right."""
    from matplotlib import colormaps

    row = colormaps[_MAP](np.linspace(0, 1, width))[:, :3]
    return np.repeat((row * 255).round().astype(np.uint8)[None], height, axis=0)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
