"""Any image -> (H, W, 3) numbers in 0..255: files, arrays, tensors and Pillow images of any mode.

Training, evaluation, detection and drawing read files through `open_image` and `rgb`, so that a file has the same
pixels everywhere.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from PIL import Image

from ..errors import FcosError

if TYPE_CHECKING:
    import torch

__all__ = [
    "MAX_PIXELS", "ImageLike", "complaint", "decode", "frame_sizes", "named", "open_image", "orientation", "read_image",
    "rgb", "to_array", "turned",
]  # fmt: skip

logger = logging.getLogger("fcos_d2")

MAX_PIXELS = 1 << 28  # of a file, 16384 x 16384; FCOS_D2_MAX_PIXELS in the environment reaches data workers, too
_ORIENTATION = 0x0112  # tag of EXIF
_WIDTH, _HEIGHT, _BITS = 256, 257, 258  # tags of TIFF
# What each orientation asks for; with the last four, width and height change places.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_no_limit = threading.Lock()  # held while Pillow's own limit, a global, is away

ImageLike = Union[str, "os.PathLike[str]", np.ndarray, "torch.Tensor", Image.Image]


def read_image(path: str | os.PathLike[str], max_pixels: int | None = None) -> np.ndarray:
    """Read a file, turned as its EXIF orientation says; of several frames the first.

    Returns:
        (H, W, 3) uint8 RGB; an alpha channel is left out, 16 bits become 8.
    Raises:
        FcosError: there is no such file, or it is no image, or cut off, or has more than `max_pixels`; names it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FcosError(f"The image {path} does not exist.")
    return decode(path, f"The image {path}", max_pixels)


def decode(file: Any, name: str, max_pixels: int | None = None) -> np.ndarray:
    """What `read_image` reads, from a path or an open file; errors begin with the name."""
    with named(name):
        try:
            with open_image(file, max_pixels) as image:
                return np.asarray(rgb(image))
        except FcosError:
            raise
        except Exception as error:  # Pillow's plugins raise anything, from OSError to SyntaxError
            raise FcosError(f"An image cannot be read: {complaint(error, file)}.") from error


@contextmanager
def named(name: str, kind: type[FcosError] = FcosError) -> Iterator[None]:
    """Errors about "An image" that leave the block are about `name`."""
    try:
        yield
    except FcosError as error:
        raise kind(str(error).replace("An image", name, 1)) from error


def complaint(error: Exception, file: Any) -> str:
    """Why Pillow could not read a file, in words that end a sentence."""
    if not isinstance(error, Image.UnidentifiedImageError):
        return str(error).rstrip(".") or type(error).__name__
    head = b"?"
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[:12]
    elif isinstance(file, (str, os.PathLike)):
        with Path(file).open("rb") as opened:
            head = opened.read(12)
    if head[4:8] == b"ftyp":
        return "Pillow reads no HEIC or AVIF here: convert it to JPEG or PNG"
    if head[:4] == b"PK\3\4":
        return "it is an archive: unpack it and give the folder"
    return "it is not an image" if head else "it is not an image but an empty file"


def open_image(file: Any, max_pixels: int | None = None) -> Image.Image:
    """`Image.open` under a limit of ours: `max_pixels`, else $FCOS_D2_MAX_PIXELS, else `MAX_PIXELS`.

    Raises:
        FcosError: the image has more pixels; "An image" stands for its name.
        Exception: what Pillow raises.
    """
    try:
        image = Image.open(file)
    except Image.DecompressionBombError:
        with _no_limit:
            theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = theirs
    limit = _limit() if max_pixels is None else max_pixels
    width, height = image.size
    if width * height <= limit:
        return image
    image.close()
    raise FcosError(
        f"An image has {width}x{height} pixels, and {limit} are the limit: raise it with --max-pixels {width * height} "
        f"(in Python with FCOS_D2_MAX_PIXELS={width * height} in the environment), or make the image smaller."
    )


def _limit() -> int:
    said = os.environ.get("FCOS_D2_MAX_PIXELS") or MAX_PIXELS
    try:
        return int(said)
    except ValueError as error:
        raise FcosError(f"FCOS_D2_MAX_PIXELS in the environment is {said!r}; it must be a whole number.") from error


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an image, 1 to 8; 1 where that is absent, damaged or none of these."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return int(found) if found in _TURNS else 1
    except Exception:  # Pillow's plugins raise anything
        return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """An image as it is meant that is stored in an orientation of EXIF's."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def frame_sizes(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of an image that was only opened, as stored and upright."""
    tags = getattr(image, "tag_v2", {})  # Pillow turns a TIFF by itself, its size already when it opens one
    stored = (tags.get(_WIDTH, image.width), tags.get(_HEIGHT, image.height))
    return stored, stored[::-1] if orientation(image) >= 5 else stored


def rgb(image: Image.Image) -> Image.Image:
    """The image in Pillow's mode "RGB", turned as its EXIF orientation says, as Detectron2's readers do.

    16 bits become 8 by their full range, whatever the image uses of it; 32 bits hold numbers of 8 or of 16 bits.

    Raises:
        FcosError: it has other numbers; "An image" stands for its name.
        Exception: what Pillow raises.
    """
    bits = 16 if image.format == "PNG" else (getattr(image, "tag_v2", {}).get(_BITS) or (32,))[0]
    image.load()  # first: a TIFF is upright then
    image = turned(image, orientation(image))  # `ImageOps.exif_transpose` stops at damaged EXIF data
    if image.mode.startswith(("I", "F")):  # 16 bits and more
        return Image.fromarray(_from_array(_eight_bits(np.asarray(image), bits), "RGB"))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(numbers: np.ndarray, bits: int) -> np.ndarray:
    """(H, W) numbers of a file whose samples have so many bits -> uint8."""
    if numbers.dtype.kind == "f":
        low, high = float(numbers.min()), float(numbers.max())
        if not (low >= 0 and high <= 255 and (high > 1 or high == 0)):
            raise FcosError(f"An image holds floats from {low:g} to {high:g}; numbers in 0..255 are needed.")
        return numbers.round().astype(np.uint8)
    if bits >= 32 and numbers.dtype.itemsize > 2:
        return _in_0_255(numbers)
    if bits == 12:
        numbers = numbers.astype(np.float64) * (65535 / 4095)
    elif 255 < numbers.max() < 4096:
        _warn_of_12_bits()
    if numbers.min() < 0:
        raise FcosError(f"An image holds whole numbers from {numbers.min()}; 16 bits, from 0 to 65535, are needed.")
    return _in_0_255(numbers.astype(np.uint16))


@functools.cache  # once
def _warn_of_12_bits() -> None:
    logger.warning(
        "An image of 16 bits uses 12 of them or fewer, so it is nearly black here: 65535 is white for all such files. "
        "Multiply the numbers of 12-bit cameras by 16."
    )


def to_array(image: ImageLike, image_format: str = "BGR", max_pixels: int | None = None) -> np.ndarray:
    """Turn an image of any kind into an array.

    Args:
        image: a file; a Pillow image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (H, W) or (C, H, W)
            with 1, 3 or 4 channels. Numbers are uint8, uint16 (0..65535), or floats in 0..255.
        image_format: "BGR" or "RGB": order of the channels of arrays and tensors.
        max_pixels: that a file may have, see `open_image`.
    Returns:
        (H, W, 3) RGB, uint8 or float32, in 0..255.
    Raises:
        FcosError: it is none of these; names the file, or the shape and type.
    """
    if image_format not in ("BGR", "RGB"):
        raise FcosError(f"image_format is {image_format!r}; it must be 'BGR' or 'RGB'.")
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, max_pixels)
    if isinstance(image, Image.Image):
        return np.asarray(rgb(image))
    if not isinstance(image, np.ndarray):
        import torch  # here: wrong paths are told before it is imported

        if not isinstance(image, torch.Tensor):
            kind = type(image).__name__
            raise FcosError(f"An image must be a file, an array, a tensor or a Pillow image, not {kind}.")
        image = (image.permute(1, 2, 0) if image.dim() == 3 else image).numpy(force=True)
    return _from_array(image, image_format)


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
