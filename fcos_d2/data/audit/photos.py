"""Picture files looked at once: what is wrong with each, and which are the same.

The perceptual hash is the usual one of 64 bits: the lowest 8 x 8 frequencies of the cosine transform of a grey picture
of 32 x 32 pixels, each above their median or not. The library imagehash computes the same from SciPy and PyWavelets,
100 MB that nothing else here needs; with numpy it is four lines. Pictures of one kind, such as those of one microscope,
have near hashes too, so near ones count only if their small pictures agree as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import FcosError
from ..images import complaint, frame_sizes, open_image, rgb
from ..meant import number, shown
from ..pictures import Pictures
from .kinds import Finding

__all__ = ["Look", "findings", "look", "look_at_all", "pairs_alike"]

_SMALL = 32  # side of the grey picture that is hashed
_NEAR = 10  # bits of 64 in which hashes of one picture may differ
_AGREE = 0.97  # correlation of the small grey pictures from which on two are one picture
_EXAMPLES = 5
_AT_A_TIME = 256


@dataclass(frozen=True)
class Look:
    """What was seen of one picture."""

    file: str  # relative to the folder of pictures; "" where it is missing
    fault: str = ""  # why it cannot be read
    stored: tuple[int, int] = (0, 0)  # width and height in the file
    upright: tuple[int, int] = (0, 0)  # after its EXIF orientation
    digest: bytes = b""  # of the file
    bits: int = 0  # perceptual hash
    small: np.ndarray | None = None  # (32, 32) float32, mean 0 and length 1; zeros for a picture of one grey


_WAVES = np.cos(np.pi / _SMALL * np.outer(np.arange(8), np.arange(_SMALL) + 0.5))  # (8, 32), of the cosine transform


def look(root: Path, file: str) -> Look:
    """Read a picture whole."""
    if not file:
        return Look("")
    path = root / file
    stored = upright = (0, 0)
    try:
        with open_image(path) as image:
            stored, upright = frame_sizes(image)
            if image.format == "JPEG":
                image.draft("RGB", (max(upright[0] // 8, 2 * _SMALL), max(upright[1] // 8, 2 * _SMALL)))
            grey = rgb(image).convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX)
        with path.open("rb") as opened:
            digest = hashlib.sha256(opened.read()).digest()
    except FcosError as error:
        return Look(file, str(error).removeprefix("An image ").rstrip("."), stored, upright)
    except Exception as error:  # Pillow's plugins raise anything
        return Look(file, complaint(error, path).removeprefix("it is "), stored, upright)
    small = np.asarray(grey, np.float32)
    waves = (_WAVES @ small @ _WAVES.T).ravel()
    bits = int.from_bytes(np.packbits(waves > np.median(waves[1:])).tobytes(), "big")
    small = small - small.mean()
    return Look(file, "", stored, upright, digest, bits, small / max(float(np.linalg.norm(small)), 1e-6))


def look_at_all(root: Path, names: Sequence[Any], progress: Callable[[], Any] = lambda: None) -> list[Look]:
    """Look at the pictures that annotations name; a name of another machine stands for the one file that it may be."""
    pictures = Pictures(root)
    there = [isinstance(name, str) and bool(name) and pictures.holds(name) for name in names]
    lost = not any(there)

    def find(name: Any, is_there: bool) -> str:
        if is_there:
            return name
        found = pictures.find(name, lost) if isinstance(name, str) and name else []
        return found[0] if len(found) == 1 else ""

    files = [find(name, is_there) for name, is_there in zip(names, there)]
    seen = []
    with ThreadPoolExecutor(min(8, max(2, os.cpu_count() or 1))) as pool:
        for one in pool.map(lambda file: look(root, file), files):
            seen.append(one)
            progress()
    return seen


def findings(part: str, images: Sequence[Mapping[str, Any]], seen: Sequence[Look]) -> list[Finding]:
    """What is wrong with the files of a part."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row, one in zip(images, seen):
        name = shown(row.get("file_name"))
        said = tuple(number(row.get(key)) for key in ("width", "height"))
        known = all(side is not None and side > 0 for side in said)
        if not one.file:
            found.setdefault("missing", []).append({"image": name})
        elif one.fault:
            found.setdefault("unreadable", []).append({"image": name, "why": one.fault})
        elif known and said != one.upright:
            kind = "turned" if said == one.stored else "size mismatch"
            sizes = {"written": f"{said[0]:g} x {said[1]:g}", "file": f"{one.upright[0]} x {one.upright[1]}"}
            found.setdefault(kind, []).append({"image": name, **sizes})
    return [Finding(kind, part, len(rows), len(images), rows[:_EXAMPLES]) for kind, rows in found.items()]


def pairs_alike(one: Sequence[Look], other: Sequence[Look]) -> Iterator[tuple[int, int, bool, float]]:
    """Pairs of pictures, a place in each list, that are the same: whether to the byte, and how much they agree.

    Each picture of the second list is told once, with the picture of the first that it agrees with most.
    """
    first = [i for i, seen in enumerate(one) if seen.small is not None]
    second = [i for i, seen in enumerate(other) if seen.small is not None]
    if not first or not second:
        return
    digests = {one[i].digest: i for i in reversed(first)}
    bits = np.array([one[i].bits for i in first], np.uint64)
    small = np.stack([one[i].small.ravel() for i in first])  # type: ignore[union-attr]
    for i in second:
        if (same := digests.get(other[i].digest)) is not None:
            yield same, i, True, 1.0
            continue
        near = np.flatnonzero(_ones(bits ^ np.uint64(other[i].bits)) <= _NEAR)
        if not len(near):
            continue
        agreement = small[near] @ other[i].small.ravel()  # type: ignore[union-attr]
        best = int(agreement.argmax())
        if agreement[best] >= _AGREE:
            yield first[int(near[best])], i, False, float(agreement[best])


_ONES = np.array([bin(number).count("1") for number in range(1 << 16)], np.uint8)


def _ones(numbers: np.ndarray) -> np.ndarray:
    """(M,) uint64 -> how many of the bits of each are 1."""
    return _ONES[numbers.view(np.uint16)].reshape(len(numbers), 4).sum(1)
