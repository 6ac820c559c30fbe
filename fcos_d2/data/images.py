"""Any image -> (H, W, 3) numbers in 0..255: files, arrays, tensors and Pillow images of any mode."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from PIL import Image

from ..errors import FcosError

__all__ = ["ORIENTATION", "ImageLike", "decode", "read_image", "to_array", "upright"]

ORIENTATION = 0x0112  # tag of EXIF; from 5 on, width and height change places
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, torch.Tensor, Image.Image]


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a file, turned as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 RGB; an alpha channel is left out, 16 bits become 8.
    Raises:
        FcosError: there is no such file, or it is no image, or cut off; names it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FcosError(f"The image {path} does not exist.")
    return decode(path, f"The image {path}")


def decode(file: Any, name: str) -> np.ndarray:
    """What `read_image` reads, from a path or an open file; errors begin with the name."""
    try:
        with Image.open(file) as image:
            return _from_pillow(image)
    except Exception as error:  # Pillow's plugins raise anything, from OSError to SyntaxError
        reason = "it is not an image" if isinstance(error, Image.UnidentifiedImageError) else f"{error}".rstrip(".")
        raise FcosError(f"{name} cannot be read: {reason}.") from error


def to_array(image: ImageLike, image_format: str = "BGR") -> np.ndarray:
    """Turn an image of any kind into an array.

    Args:
        image: a file; a Pillow image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (H, W) or (C, H, W)
            with 1, 3 or 4 channels. Numbers are uint8, uint16 (0..65535), or floats in 0..255.
        image_format: "BGR" or "RGB": order of the channels of arrays and tensors.
    Returns:
        (H, W, 3) RGB, uint8 or float32, in 0..255.
    Raises:
        FcosError: it is none of these; names the file, or the shape and type.
    """
    if image_format not in ("BGR", "RGB"):
        raise FcosError(f"image_format is {image_format!r}; it must be 'BGR' or 'RGB'.")
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, torch.Tensor):
        image = (image.permute(1, 2, 0) if image.dim() == 3 else image).numpy(force=True)
    if not isinstance(image, np.ndarray):
        raise FcosError(f"An image must be a file, an array, a tensor or a Pillow image, not {type(image).__name__}.")
    return _from_array(image, image_format)


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, which may be damaged; what Detectron2's readers do.

    Pillow's `ImageOps.exif_transpose` also writes the EXIF data anew, and fails where that is damaged.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow's plugins raise anything
        turn = None
    return image if turn is None else image.transpose(turn)


def _from_pillow(image: Image.Image) -> np.ndarray:
    image = upright(image)
    if image.mode.startswith(("I", "F")):  # 16 bits and more
        return _from_array(np.asarray(image), "RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _from_array(image: np.ndarray, image_format: str) -> np.ndarray:
    shape = image.shape
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in shape or image.shape[2] not in (1, 3, 4):
        raise FcosError(
            f"An image has the shape {tuple(shape)}; (height, width), or that with 1, 3 or 4 channels, is needed "
            "(tensors: channels first)."
        )
    image = _in_0_255(image)
    if image.shape[2] == 1:
        return image.repeat(3, axis=2)
    image = image[:, :, :3]
    return np.ascontiguousarray(image[:, :, ::-1] if image_format == "BGR" else image)


def _in_0_255(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind == "f":
        if not np.isfinite(image).all():
            raise FcosError("An image holds numbers that are not finite (NaN or infinity).")
        return image.astype(np.float32)
    if image.dtype.kind in "iu":
        low, high = int(image.min()), int(image.max())
        if low < 0 or high > 65535:
            raise FcosError(f"An image holds whole numbers from {low} to {high}; 0 to 255, or with 16 bits to 65535.")
        if image.dtype.itemsize == 2 or high > 255:
            return (image.astype(np.float32) / 257.0).round().astype(np.uint8)
        return image.astype(np.uint8)
    raise FcosError(f"An image holds {image.dtype} numbers; uint8, uint16 or float is needed.")
