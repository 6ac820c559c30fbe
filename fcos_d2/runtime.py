"""Runs an exported FCOS with numpy, onnxruntime and Pillow, and proves that it is the file that was certified.

    python fcos_runtime.py photo.jpg -o boxes.jpg
    python fcos_runtime.py verify model.onnx

    from fcos_runtime import Detector
    found = Detector("model.onnx").detect([picture])[0]  # boxes, scores, classes

`fcos export` puts this file beside a model as `fcos_runtime.py`: it needs no PyTorch, no Detectron2 and nothing else of
the package it comes from. All that differs between models is in the file's metadata, a JSON object (see `Detector`).

Letters in shapes: N pictures, K classes, D points in a cell of a map, P candidates, R locations of one picture.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import mmap
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "Detections", "Detector", "Difference", "OnnxSession", "RuntimeFault", "calibrated", "compared",
    "decode", "described", "digest_of", "generated_picture", "graph_sha256", "main", "parsed_metadata", "read_metadata",
    "read_picture", "seal", "temperature_of", "verdict", "verified", "verify", "written",
]  # fmt: skip

FORMAT = 1  # of the metadata
KEY = "fcos_d2"  # under which they stand in the file
_LARGEST = 8192  # pixels of a side of a generated picture
_SLACK = 1e-5  # relative margin by which locations are chosen before the exact test of scores
_POINTS = {1: ((0, 0),), 4: ((-1, -1), (1, -1), (-1, 1), (1, 1)), 5: ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1))}
# EXIF's orientation -> how Pillow turns the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class RuntimeFault(ValueError):
    """What is wrong with a file or a picture, in one sentence."""


@dataclass
class Detections:
    """What was found in one picture, best first.

    Attributes:
        boxes: (n, 4) float32 xyxy, pixels of the picture.
        scores: (n,) float32 in 0..1.
        classes: (n,) int64 rows of the class names.
        track_ids: where objects of a video are followed, the number of each, None for none yet.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    track_ids: list[int | None] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Detections:
        return Detections(self.boxes[rows], self.scores[rows], self.classes[rows])


# ------------------------------------------------------------------------------------------------------- the ONNX file
# An ONNX file is a protobuf message. Its outermost fields are enough to find the metadata, and to leave them out of the
# digest; so neither the package onnx nor a session is needed for that.

_METADATA_FIELD, _GRAPH_FIELD = 14, 7  # of ModelProto


def _varint(data: Any, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise IndexError


def _fields(data: Any) -> Iterator[tuple[int, int, int, int]]:
    """(number, where it begins, where its value begins, where it ends) of the fields of a protobuf message."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(data, at)
            end = at + size
        elif kind == 0:
            end = _varint(data, at)[1]
        elif kind in (1, 5):
            end = at + (8 if kind == 1 else 4)
        else:
            raise IndexError
        if end > len(data):
            raise IndexError
        yield tag >> 3, start, at, end
        at = end


def _parts(data: Any, name: str) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Our metadata in the bytes of an ONNX file, and (start, end) of all that is not our metadata."""
    ours: list[bytes] = []
    rest: list[tuple[int, int]] = []
    has_graph = False
    try:
        for number, start, value, end in _fields(data):
            has_graph |= number == _GRAPH_FIELD
            if number == _METADATA_FIELD:
                entry = bytes(data[value:end])
                texts = {n: entry[v:e] for n, _, v, e in _fields(entry)}
                if texts.get(1) == KEY.encode():
                    ours.append(texts.get(2, b""))
                    continue
            rest.append((start, end))
    except IndexError:
        has_graph = False
    if not has_graph:
        raise RuntimeFault(f"{name} is no ONNX file, or a part of it is missing: export or copy it again.")
    return ours, rest


def _encoded(number: int, value: bytes) -> bytes:
    """A field of a protobuf message."""
    size, digits = len(value), bytearray([number << 3 | 2])
    while size > 0x7F:
        digits.append(size & 0x7F | 0x80)
        size >>= 7
    digits.append(size)
    return bytes(digits) + value


@contextmanager
def _bytes_of(path: str | Path) -> Iterator[memoryview]:
    """The bytes of a model, of which only those that are looked at are read."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise RuntimeFault(f"{file} is a folder: name the model in it, for example {file / 'model.onnx'}.")
    try:
        with file.open("rb") as source:
            if not file.stat().st_size:
                raise RuntimeFault(f"{file} is empty: export or copy it again.")
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                yield view
    except FileNotFoundError:
        raise RuntimeFault(f"The model {file} does not exist.") from None
    except OSError as error:
        raise RuntimeFault(f"The model {file} cannot be read: {error.strerror}.") from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of an exported ONNX file, see `Detector`.

    Raises:
        RuntimeFault: it does not exist, is no ONNX file, or holds no metadata of ours that can be used.
    """
    with _bytes_of(path) as data:
        return _metadata_in(data, str(path))[0]


def _metadata_in(data: bytes | memoryview, name: str) -> tuple[dict[str, Any], bytes]:
    """The metadata, and as they are written."""
    ours, _ = _parts(data, name)
    return parsed_metadata(ours, name), ours[0]


def parsed_metadata(texts: Sequence[bytes], name: str) -> dict[str, Any]:
    """The metadata of a file, which has them in one place.

    Args:
        texts: what stands in such places.
        name: of the file.
    Raises:
        RuntimeFault: there is none, or it cannot be used.
    """
    if not texts:
        raise RuntimeFault(f"{name} does not say how to use it: it is no file of `fcos export`.")
    try:
        (text,) = texts
        said = json.loads(text.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RuntimeFault(f"The metadata of {name} are damaged: export it again.") from error
    return _checked(said, name)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


_NEEDED: dict[str, type | tuple[type, ...]] = {
    "graph": str, "preprocessing": str, "class_names": list, "thresholds": list, "channel_order": str,
    "size_divisibility": int, "strides": list, "select": dict, "grid": dict, "inclusive": bool, "keep_empty": bool,
}  # fmt: skip


def _checked(metadata: Any, name: str) -> dict[str, Any]:
    """The metadata, if they have what a detector needs.

    Raises:
        RuntimeFault: they do not, or are of a later version; `name` is that of the file.
    """
    if not isinstance(metadata, dict) or not isinstance(metadata.get("format"), int):
        raise RuntimeFault(f"The metadata of {name} are damaged: export it again.")
    if metadata["format"] != FORMAT:
        raise RuntimeFault(
            f"{name} has metadata of format {metadata['format']}, but this program reads format {FORMAT}: use the "
            "fcos_runtime.py beside it, or export it again."
        )
    for key, kind in _NEEDED.items():
        if not isinstance(metadata.get(key), kind):
            raise RuntimeFault(f"The metadata of {name} have no usable {key!r}: export it again.")
    numbers = [x for x in metadata["thresholds"] if isinstance(x, (int, float))]
    if len(numbers) != len(metadata["thresholds"]) or len(numbers) != len(metadata["class_names"]):
        raise RuntimeFault(f"The metadata of {name} have not one threshold for each class: export it again.")
    return metadata


def graph_sha256(data: bytes, name: str = "the model") -> str:
    """Hash of an ONNX file without our metadata: its nodes, weights, opsets and all else."""
    view, found = memoryview(data), hashlib.sha256()
    for start, end in _parts(view, name)[1]:
        found.update(view[start:end])
    return found.hexdigest()


def digest_of(metadata: Mapping[str, Any], graph: str) -> str:
    """SHA-256 of the metadata without their own digest, and of a graph by its hash.

    It tells whether a file is as it was, not who made it: who changes a file can write a new digest, too.
    """
    said = {key: value for key, value in metadata.items() if key != "digest"}
    return hashlib.sha256(written(said) + f"\n{graph}".encode()).hexdigest()


def written(metadata: Mapping[str, Any]) -> bytes:
    """The one way in which metadata are written."""
    return json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(data: bytes, metadata: Mapping[str, Any]) -> bytes:
    """An ONNX file that holds the metadata and their digest, in place of those that it held."""
    view = memoryview(data)
    bare = b"".join(view[start:end] for start, end in _parts(view, "the model")[1])
    whole = {**metadata, "digest": digest_of(metadata, graph_sha256(bare))}
    return bare + _encoded(_METADATA_FIELD, _encoded(1, KEY.encode()) + _encoded(2, written(whole)))


class OnnxSession:
    """A model in onnxruntime.

    Args:
        model: a file, or its bytes; bytes are used without any other file.
        threads: of one run; by default onnxruntime's choice, the number of cores.
        name: how messages call it.
        providers: what runs it, onnxruntime's names, the first that can.

    Attributes:
        inputs: {name: (shape, dtype)}; a side that may differ is -1.
    """

    def __init__(
        self, model: str | Path | bytes, threads: int | None = None, name: str = "",
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:  # fmt: skip
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeFault("This needs the package onnxruntime: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # an error is told once, by us
        if threads:
            options.intra_op_num_threads = threads
        source = model if isinstance(model, bytes) else str(Path(model).expanduser())
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=list(providers))
        except Exception as error:  # onnxruntime's classes of errors have no common parent
            raise RuntimeFault(f"onnxruntime cannot load {name or model!r}: {_first_line(error)}") from error
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
        self.inputs = {
            x.name: (tuple(s if isinstance(s, int) else -1 for s in x.shape), np.dtype(kinds.get(x.type, "int64")))
            for x in self._session.get_inputs()
        }
        self._outputs = [x.name for x in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named outputs of named inputs."""
        try:
            return dict(zip(self._outputs, self._session.run(None, dict(feeds))))
        except Exception as error:
            raise RuntimeFault(f"onnxruntime cannot run the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0].strip()
    return text[:300] + ("" if text[:300].endswith(".") else ".")


# ------------------------------------------------------------------------------------------------------------ pictures


def read_picture(path: str | Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    Raises:
        RuntimeFault: it does not exist, or is no picture that Pillow reads whole.
    """
    file = Path(path).expanduser()
    try:
        with Image.open(file) as image:
            image.load()
            return _upright(image)
    except FileNotFoundError:
        raise RuntimeFault(f"The picture {file} does not exist.") from None
    except IsADirectoryError:
        raise RuntimeFault(f"{file} is a folder: name the pictures in it, {file / '*.jpg'}.") from None
    except Exception as error:  # Pillow's readers raise anything
        raise RuntimeFault(f"{file} is no picture that can be read: {_first_line(error)}") from error


def _upright(image: Image.Image) -> np.ndarray:
    try:
        turn = _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data say nothing
        turn = None
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):  # 16 bits
        grey = np.clip(np.asarray(image, np.float64) / 257.0, 0, 255).round().astype(np.uint8)
        return grey[:, :, None].repeat(3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def resized_size(height: int, width: int, resize: Mapping[str, int] | None) -> tuple[int, int]:
    """(height, width) of the network input of a picture: Detectron2's `ResizeShortestEdge`."""
    if not resize:
        return height, width
    short, most = float(resize["short_edge"]), resize["max_size"]
    scale = short / min(height, width)
    new_height, new_width = (short, scale * width) if height < width else (scale * height, short)
    if max(new_height, new_width) > most:
        scale = most * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def _checked_picture(picture: Any) -> np.ndarray:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise RuntimeFault(
            f"A picture must be a uint8 array (height, width, 3), RGB, but is {picture.dtype} {picture.shape}."
        )
    return picture


def generated_picture(seed: int, height: int, width: int) -> np.ndarray:
    """A picture of discs on patches, (height, width, 3) uint8 RGB; each seed gives the same with any numpy."""
    draw = np.random.RandomState(seed)  # whose numbers are promised never to change
    patch = 48
    patches = draw.randint(0, 256, (height // patch + 1, width // patch + 1, 3))
    picture = patches.repeat(patch, axis=0).repeat(patch, axis=1)[:height, :width]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    for _ in range(16):
        row, column = draw.randint(0, height), draw.randint(0, width)
        radius = draw.randint(4, max(min(height, width) // 4, 5))
        picture[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = draw.randint(0, 256, 3)
    return (picture + draw.randint(-8, 9, (height, width, 3))).clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------- maps of a raw graph -> boxes, in numpy
# A transcription of fcos_d2/modeling/selector.py; where several candidates of a level tie for its last places, the
# lower location is taken.


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """float32, rounded once."""
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _logit(score: np.ndarray) -> np.ndarray:
    score = score.astype(np.float64).clip(1e-30, 1 - 3e-7)
    return np.log(score / (1 - score)).astype(np.float32)


class _Maps:
    """Maps (N, D*C, h, w) of all levels by location: level by level, row by row, the D points of a cell together."""

    def __init__(self, maps: Sequence[np.ndarray], points: int) -> None:
        self.points = points
        self.maps = [x.reshape(x.shape[0], points, -1, x.shape[2] * x.shape[3]) for x in maps]  # (N, D, C, cells)

    def best(self) -> np.ndarray:
        """(N, R) float32: the highest of the C values."""
        rows = [x.max(axis=2).transpose(0, 2, 1).reshape(len(x), -1) for x in self.maps]
        return np.concatenate(rows, axis=1).astype(np.float32, copy=False)

    def at(self, places: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        """(P, C) float32 at (image, offset from the level's first location), a pair of arrays for each level."""
        rows = [x[i, o % self.points, :, o // self.points] for x, (i, o) in zip(self.maps, places)]
        return np.concatenate(rows).astype(np.float32, copy=False)


def _locations(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], grid: Mapping[str, Any], padded: tuple[int, int]
) -> np.ndarray:
    """(R, 2) float32 xy of all locations, pixels of the network input."""
    found = []
    for (height, width), stride in zip(sizes, strides):
        if grid["origin"] == "center":
            step, origin = (float(stride), float(stride)), float(stride // 2)
        else:
            step, origin = (float(padded[1] // width), float(padded[0] // height)), 0.0
        points = origin + np.array(_POINTS[grid["points_per_cell"]], np.float32) * (stride // 4)  # (D, 2)
        x = np.arange(width, dtype=np.float32) * step[0]
        y = np.arange(height, dtype=np.float32) * step[1]
        cell = np.stack(np.broadcast_arrays(x[None], y[:, None]), axis=2)
        found.append((cell[:, :, None] + points).reshape(-1, 2))
    return np.concatenate(found).astype(np.float32)


class _Candidates:
    """Locations of a batch that may hold an object: steps 1 to 4 of `Selector`."""

    def __init__(self, select: Mapping[str, Any], logits: _Maps, quality: np.ndarray) -> None:
        """`quality` (N, R) in 0..1."""
        self.select, self.logits, self.quality = select, logits, quality
        self.threshold = np.float32(select["score_threshold"])
        ends = np.cumsum([x.shape[1] * x.shape[3] for x in logits.maps])
        self.levels = list(zip((0, *ends[:-1]), ends))

    def score(self, product: np.ndarray) -> np.ndarray:
        return np.sqrt(product) if self.select["score_form"] == "sqrt" else product

    def tested(self, class_score: np.ndarray, product: np.ndarray) -> np.ndarray:
        kinds = {"class": lambda: class_score, "product": lambda: product, "score": lambda: self.score(product)}
        return kinds[self.select["threshold_on"]]()

    def rank(self, class_score: np.ndarray, product: np.ndarray) -> np.ndarray:
        return product if self.select["topk_by"] == "score" else class_score

    def least_logit(self) -> np.ndarray:
        """(N, R) class logit that a candidate must have, or a little less."""
        threshold = self.select["score_threshold"]
        if threshold == 0:
            return np.full(self.quality.shape, -np.inf, np.float32)
        if self.select["threshold_on"] == "class":
            least = threshold * (1 - _SLACK)
            return np.full(self.quality.shape, math.log(least / (1 - least)), np.float32)
        squared = self.select["threshold_on"] == "score" and self.select["score_form"] == "sqrt"
        with np.errstate(divide="ignore", over="ignore"):
            return _logit(np.float32((threshold**2 if squared else threshold) * (1 - _SLACK)) / self.quality)

    def raised(self, least: np.ndarray, best: np.ndarray, passes: np.ndarray) -> np.ndarray:
        """The logits raised to that of the `topk` best candidates of each level and image."""
        most, class_score = self.select["topk"], _sigmoid(best)
        product = class_score * self.quality
        sure = passes & (self.tested(class_score, product) > self.threshold * (1 + _SLACK))
        rank, least = self.rank(class_score, product) * sure, least.copy()
        for start, end in self.levels:
            if end - start > most:
                here = slice(start, end)
                worst = np.partition(rank[:, here], -most, axis=1)[:, -most, None] * np.float32(1 - _SLACK)
                with np.errstate(divide="ignore", invalid="ignore"):
                    bound = _logit(worst / self.quality[:, here] if self.select["topk_by"] == "score" else worst)
                least[:, here] = np.maximum(least[:, here], bound)
        return least

    def __call__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Image, location, class and score of the candidates, P rows, level by level."""
        best, topk = self.logits.best(), self.select["topk"]
        least = self.least_logit()
        passes = best >= least
        if int(passes.sum()) > topk:
            least = self.raised(least, best, passes)
            passes &= best >= least
        places = [np.nonzero(passes[:, start:end]) for start, end in self.levels]
        image = np.concatenate([i for i, _ in places])
        location = np.concatenate([offset + start for (start, _), (_, offset) in zip(self.levels, places)])
        logits = self.logits.at(places)
        place, classes = np.nonzero(logits >= least[image, location][:, None])
        class_score = _sigmoid(logits[place, classes])
        image, location = image[place], location[place]
        product = class_score * self.quality[image, location]
        passed = self.tested(class_score, product) > self.threshold
        rank = self.rank(class_score, product)
        rows = np.nonzero(passed)[0]
        if len(rows) > topk:
            rows = self.best_of_each_level(rows, image, location, rank)
        return image[rows], location[rows], classes[rows], self.score(product[rows])

    def best_of_each_level(
        self, rows: np.ndarray, image: np.ndarray, location: np.ndarray, rank: np.ndarray
    ) -> np.ndarray:
        """At most `topk` of the rows of each level of each image; best first, unless nothing has to go."""
        topk, ends = self.select["topk"], [end for _, end in self.levels]
        segment = np.searchsorted(ends, location[rows], side="right") * len(self.quality) + image[rows]
        parts = np.split(rows, np.nonzero(np.diff(segment))[0] + 1)
        if max(map(len, parts)) <= topk:
            return rows
        return np.concatenate([part[np.argsort(-rank[part], kind="stable")[:topk]] for part in parts])


def _suppressed(found: Detections, select: Mapping[str, Any]) -> Detections:
    """The best detections of one image that no better one of their class overlaps too much, best first.

    Greedy, best score first, and no further than `max_detections` asks for; overlaps in float64, as in the model.
    """
    order = np.argsort(-found.scores, kind="stable")
    scores, classes = found.scores[order], found.classes[order]
    boxes = found.boxes[order].astype(np.float64)
    if select["nms_convention"] == "plus_one":
        boxes[:, 2:] += 1
    x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
    areas = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    most, threshold = select["max_detections"], select["nms_threshold"]
    ties = select["max_detections_ties"] == "keep"
    for i in range(len(order)):
        if len(kept) >= most and not (ties and scores[i] >= scores[kept[most - 1]]):
            break
        if not alive[i]:
            continue
        kept.append(i)
        if threshold >= 1:  # which no overlap is above
            continue
        rest = slice(i + 1, None)
        width = (np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest])).clip(min=0)
        height = (np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest])).clip(min=0)
        shared = width * height
        with np.errstate(divide="ignore", invalid="ignore"):
            overlaps = shared / (areas[i] + areas[rest] - shared) > threshold
        alive[rest] &= ~(overlaps & (classes[rest] == classes[i]))
    return found[order[kept]] if kept else found[:0]


def decode(
    maps: Mapping[str, np.ndarray], metadata: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]],
    padded: tuple[int, int],
) -> list[Detections]:  # fmt: skip
    """Detections of a batch, in pixels of the network input, from the outputs of a raw graph.

    Args:
        maps: `class_logits_i` (N, D*K, h, w), `ltrb_i` (N, D*4, h, w) in pixels and, where there is one,
            `quality_logits_i` (N, D, h, w) of each level i.
        metadata: see `Detector`.
        image_sizes: (height, width) of each image before padding.
        padded: (height, width) of the network input.
    """
    select, grid, levels = metadata["select"], metadata["grid"], range(len(metadata["strides"]))
    points = grid["points_per_cell"]
    logits = _Maps([maps[f"class_logits_{i}"] for i in levels], points)
    ltrb = _Maps([maps[f"ltrb_{i}"] for i in levels], points)
    if "quality_logits_0" in maps:
        quality = _sigmoid(_Maps([maps[f"quality_logits_{i}"] for i in levels], points).best())
    else:
        quality = np.ones((len(image_sizes), sum(x.shape[1] * x.shape[3] for x in logits.maps)), np.float32)
    chosen = _Candidates(select, logits, quality)
    image, location, classes, scores = chosen()
    places = [(location >= start) & (location < end) for start, end in chosen.levels]
    sides = np.empty((len(image), 4), np.float32)
    for here, (start, _), level in zip(places, chosen.levels, ltrb.maps):
        offset = location[here] - start
        sides[here] = level[image[here], offset % points, :, offset // points]
    sizes = [tuple(maps[f"ltrb_{i}"].shape[2:]) for i in levels]
    xy = _locations(sizes, metadata["strides"], grid, padded)[location]
    boxes = np.concatenate((xy - sides[:, :2], xy + sides[:, 2:]), axis=1)
    if select["clip"] == "before":
        edges = np.array([(w, h, w, h) for h, w in image_sizes], np.float32) - np.float32(select["clip_margin"])
        boxes = np.minimum(boxes.clip(min=0), edges[image])
        if select["min_size"] >= 0 or select.get("drop_inverted", False):
            side = boxes[:, 2:] - boxes[:, :2]
            large = (side > select["min_size"] if select["min_size"] >= 0 else side + 1 >= 0).all(axis=1)
            image, classes, scores, boxes = image[large], classes[large], scores[large], boxes[large]
    all_found = Detections(boxes, scores, classes.astype(np.int64))
    return [_suppressed(all_found[image == i], select) for i in range(len(image_sizes))]


# ------------------------------------------------------------------------------------------------------- the detector


class Detector:
    """An exported FCOS: pictures in, boxes, scores and classes out, the same as those of the model it was made from.

    Args:
        path: of the model.
        threads: of one run.
        session: the model in another engine: a callable of named arrays that returns named arrays, with `inputs` as
            those of `OnnxSession`. By default the file in onnxruntime.
        metadata: of the file, where it is read otherwise.
        batch: pictures of one network size that go through the network together at most.
        calibrate: report scores whose logits are divided by the temperature in the file.

    Attributes:
        class_names: list of K names.
        metadata: what the file says. `graph`: "raw" maps, or "end2end" boxes; `preprocessing`: "inside" the graph or
            "outside", here; `resize`, `channel_order`, `size_divisibility`: the preprocessing; `strides`, `grid`,
            `select`: what turns maps into boxes; `inclusive`, `keep_empty`: conventions of boxes; `thresholds`: score
            that is to be exceeded, one for each class, before calibration; `temperature`: that calibrates
            scores, or none; `certificate`, `digest`: see `verify`.

    Raises:
        RuntimeFault: the file cannot be used; one sentence.
    """

    def __init__(
        self, path: str | Path, threads: int | None = None, *, session: Any = None,
        metadata: Mapping[str, Any] | None = None, batch: int = 8, calibrate: bool = False,
    ) -> None:  # fmt: skip
        self.metadata = dict(read_metadata(path) if metadata is None else metadata)
        self.class_names: list[str] = [str(name) for name in self.metadata["class_names"]]
        self._session = OnnxSession(path, threads) if session is None else session
        self._least = np.array(self.metadata["thresholds"], np.float32)
        self._temperature = temperature_of(self.metadata, str(path)) if calibrate else None
        self._inside = self.metadata["preprocessing"] == "inside"
        name = "picture" if self._inside else "images"
        if name not in self._session.inputs:
            raise RuntimeFault(f"{path} has no input {name!r}: it is no file of `fcos export`, or was changed.")
        shape: tuple[int, ...] = self._session.inputs[name][0]
        self._dtype: np.dtype = self._session.inputs[name][1]
        axes = shape[-4:-3], (shape[-3:-1] if self._inside else shape[-2:])
        self._batch = axes[0][0] if axes[0] and axes[0][0] > 0 else None  # of a file that takes only that many
        self._size: tuple[int, int] | None = None if -1 in axes[1] else (axes[1][0], axes[1][1])
        self._one = len(shape) == 3
        self._most = 1 if self._one else self._batch or max(batch, 1)

    def detect(self, pictures: Iterable[np.ndarray]) -> list[Detections]:
        """Find objects.

        Args:
            pictures: (H, W, 3) uint8 RGB each; sizes may differ.
        Returns:
            Detections of each picture, in its pixels.
        Raises:
            RuntimeFault: one is no such array, or too small for the network.
        """
        originals = [_checked_picture(picture) for picture in pictures]
        sizes = [x.shape[:2] if self._inside else self._input_size(*x.shape[:2]) for x in originals]
        found: dict[int, Detections] = {}
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, size in enumerate(sizes):
            rows.setdefault(tuple(size), []).append(row)
        for size, group in rows.items():
            for start in range(0, len(group), self._most):
                some = group[start : start + self._most]
                found.update(zip(some, self._run([originals[row] for row in some], (size[0], size[1]))))
        return [found[row] for row in range(len(originals))]

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a picture in the network input; of a file of one size, no more than fits."""
        new = resized_size(height, width, self.metadata.get("resize"))
        if self._size is not None and (new[0] > self._size[0] or new[1] > self._size[1]):
            scale = min(self._size[0] / height, self._size[1] / width)
            new = min(int(height * scale + 0.5), self._size[0]), min(int(width * scale + 0.5), self._size[1])
        if 0 in new:
            raise RuntimeFault(f"A picture of {width}x{height} pixels cannot be resized: nothing would be left of it.")
        return new

    def network_input(self, pictures: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """(N, 3, H, W) float32: pictures resized to (height, width), and padded with zeros as the network needs."""
        images = np.zeros((len(pictures), 3, *(self._size or self._padded(size))), np.float32)
        for image, picture in zip(images, pictures):
            if picture.shape[:2] != size:
                resized = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
                picture = np.asarray(resized)
            channels = picture[:, :, ::-1] if self.metadata["channel_order"] == "BGR" else picture
            image[:, : size[0], : size[1]] = channels.transpose(2, 0, 1)
        return images

    def _run(self, pictures: Sequence[np.ndarray], size: tuple[int, int]) -> list[Detections]:
        """Detections of pictures whose network inputs (of a graph that resizes: which themselves) have one size."""
        filled = [*pictures, *[np.zeros_like(pictures[0])] * ((self._batch or len(pictures)) - len(pictures))]
        originals = [(x.shape[0], x.shape[1]) for x in pictures]
        if not self._inside:
            return self.detect_inputs(self.network_input(filled, size), [size] * len(filled), originals)
        if self._size is not None and self._size != size:
            raise RuntimeFault(
                f"The file takes pictures of {self._size[1]}x{self._size[0]} pixels only, but one has "
                f"{size[1]}x{size[0]}: export with a dynamic size, or with the preprocessing outside."
            )
        outputs = self._session({"picture": filled[0] if self._one else np.stack(filled)})
        new = resized_size(*size, self.metadata.get("resize"))
        found = self._found(outputs, [new] * len(filled), self._padded(new))
        if self.metadata["graph"] == "raw":
            found = [self._of_picture(x, new, size) for x in found]
        return [self._kept(x) for x in found[: len(pictures)]]

    def detect_inputs(
        self, images: np.ndarray, sizes: Sequence[tuple[int, int]], originals: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Detections in network inputs that are made already, for a file without preprocessing.

        Args:
            images: (N, 3, H, W) in 0..255 and the file's order of channels, padded with zeros.
            sizes: (height, width) of each before padding.
            originals: of the pictures in whose pixels boxes are wanted; of as many as are wanted.
        """
        feeds = {"images": images.astype(self._dtype, copy=False)}
        if "image_sizes" in self._session.inputs:
            feeds["image_sizes"] = np.array(sizes, np.int64)
        found = self._found(self._session(feeds), sizes, (images.shape[2], images.shape[3]))
        return [self._kept(self._of_picture(*row)) for row in zip(found, sizes, originals)]

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        step = max(self.metadata["size_divisibility"], 1)
        return -(-size[0] // step) * step, -(-size[1] // step) * step

    def _found(
        self, outputs: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]], padded: tuple[int, int]
    ) -> list[Detections]:
        try:
            if self.metadata["graph"] == "raw":
                return decode(outputs, self.metadata, sizes, padded)
            boxes, scores, classes, counts = (outputs[name] for name in ("boxes", "scores", "classes", "counts"))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise RuntimeFault(f"The file's outputs and metadata do not fit ({error}): export it again.") from error
        kinds = (np.float32, np.float32, np.int64)
        return [
            Detections(*(column[:count].astype(kind) for column, kind in zip(columns, kinds)))
            for *columns, count in zip(boxes, scores, classes, counts)
        ]

    def _of_picture(self, found: Detections, size: tuple[int, int], original: Sequence[int]) -> Detections:
        """Detections of a network input in pixels of the picture, those without area left out as in the model."""
        height, width = original[0], original[1]
        boxes = found.boxes * np.array([width / size[1], height / size[0]] * 2, np.float32)
        boxes = boxes.clip(0, np.array([width, height] * 2, np.float32))
        if self.metadata["inclusive"]:
            boxes[:, 2:] += 1
        found = Detections(boxes, found.scores, found.classes)
        if self.metadata["inclusive"] or self.metadata["keep_empty"]:
            return found
        return found[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]

    def _kept(self, found: Detections) -> Detections:
        """Those above the thresholds of their classes, 0 being none, with the scores that are reported."""
        if len(found) and not 0 <= found.classes.min() <= found.classes.max() < len(self._least):
            raise RuntimeFault("The file finds classes that it has no name for: export it again.")
        least = self._least[found.classes]
        found = found[(found.scores > least) | (least == 0)]
        if self._temperature is None:
            return found
        return Detections(found.boxes, calibrated(found.scores, self._temperature), found.classes)

    def describe(self, found: Detections) -> list[dict[str, Any]]:
        """See `described`."""
        return described(found, self.class_names)

    def draw(self, picture: np.ndarray, found: Detections) -> Image.Image:
        """A copy of a picture with boxes and labels."""
        image = Image.fromarray(picture).convert("RGB")
        pen, line = ImageDraw.Draw(image), max(round(min(image.size) / 250), 2)
        font = ImageFont.load_default(size=max(min(image.size) // 32, 12))
        for box, score, label in list(zip(found.boxes.tolist(), found.scores, found.classes))[::-1]:
            red, green, blue = _color(int(label))
            pen.rectangle(box, outline=(red, green, blue), width=line)
            text = f"{self.class_names[label]} {score:.2f}"
            left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
            x = min(max(box[0], 0), max(image.width - (right - left) - 6, 0))
            y = box[1] - (bottom - top) - 6
            y = y if y >= 0 else box[1]
            pen.rectangle((x, y, x + right - left + 6, y + bottom - top + 6), fill=(red, green, blue))
            dark = red * 299 + green * 587 + blue * 114 < 140_000
            pen.text((x + 3 - left, y + 3 - top), text, fill="white" if dark else "black", font=font)
        return image


def temperature_of(metadata: Mapping[str, Any], name: str) -> float:
    """What divides the logits of scores to calibrate them; RuntimeFault if the metadata of that file do not say it."""
    found = metadata.get("temperature")
    if not isinstance(found, (int, float)) or not 0 < found < math.inf:
        raise RuntimeFault(
            f"Scores cannot be calibrated, as {name} holds no temperature: export a checkpoint that does."
        )
    return float(found)


def calibrated(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Scores in 0..1 whose logits are divided by a temperature; their order stays, and so does AP."""
    there = scores.astype(np.float64).clip(1e-7, 1 - 1e-7)  # whose logits are finite
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-np.log(there / (1 - there)) / temperature))).astype(scores.dtype)


def described(found: Detections, class_names: Sequence[str], labels: bool = False) -> list[dict[str, Any]]:
    """Detections as plain data, best first.

    Returns:
        For each "class" (its name), "score" (0..1) and "box" [left, top, right, bottom] in pixels of the picture; with
        `labels` also "label", the row of its class; where there are `track_ids`, "track".
    """
    tracks: Any = [()] * len(found) if found.track_ids is None else found.track_ids
    rows = zip(found.scores.tolist(), found.classes.tolist(), found.boxes.tolist(), tracks)
    return [
        {
            "class": class_names[label], **({"label": label} if labels else {}),
            "score": round(score, 6), "box": [round(x, 3) for x in box],
            **({} if track == () else {"track": track}),
        }
        for score, label, box, track in sorted(rows, key=lambda row: row[:3], reverse=True)
    ]  # fmt: skip


def _color(label: int) -> tuple[int, int, int]:
    """Of a class; neighbours are far apart on the wheel of hues."""
    hue = label * 0.618033988749895 % 1 * 6
    channel = [min(max(abs((hue + shift) % 6 - 3) - 1, 0), 1) for shift in (0, 4, 2)]
    return round(60 + 180 * channel[0]), round(60 + 180 * channel[1]), round(60 + 180 * channel[2])


# ------------------------------------------------------------------------------------------------------ the certificate


@dataclass(frozen=True)
class Difference:
    """Of two lists of detections of one picture.

    Attributes:
        kept_equal: whether the same objects are in both.
        box_px, score: the largest difference of a coordinate (pixels) and of a score between partners.
    """

    kept_equal: bool
    box_px: float
    score: float


def compared(found: Detections, expected: Detections, box_px: float = 1e-3, score: float = 1e-5) -> Difference:
    """Pair the detections of two lists, whose order may differ where scores are as good as equal.

    Args:
        box_px, score: distances within which two detections are one object; of several the nearest box is taken.
    """
    if len(found) == 0 or len(expected) == 0:
        return Difference(len(found) == len(expected), 0.0, 0.0)
    apart = np.abs(expected.boxes[:, None].astype(np.float64) - found.boxes).max(axis=2)
    apart[expected.classes[:, None] != found.classes] = np.inf
    scores = np.abs(expected.scores[:, None].astype(np.float64) - found.scores)
    near = (apart <= box_px) & (scores <= score)
    free, partners, worst = np.ones(len(found), bool), 0, (0.0, 0.0)
    for row in range(len(expected)):
        cost = np.where(free, np.where(near[row], 0.0, 1e6) + apart[row], np.inf)
        best = int(cost.argmin())
        if not math.isfinite(cost[best]):
            continue
        free[best] = False
        partners += 1
        worst = max(worst[0], float(apart[row, best])), max(worst[1], float(scores[row, best]))
    return Difference(partners == len(found) == len(expected), *worst)


def verify(
    path: str | Path, pictures: str | Path | None = None, threads: int | None = None,
    session: Callable[[bytes], Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Look whether a file is as it was certified, and still finds what its certificate says.

    Args:
        path: of the model.
        pictures: folder with the pictures that the certificate names besides the generated ones; by default
            `certificate/` beside the model.
        threads: of one run.
        session: the model's bytes -> the model in another engine.
    Returns:
        "ok"; "problems", a sentence each; "file", "digest"; "cases" and "detections" that were compared, "skipped"
        pictures; the largest differences "max_box_error_px", "max_score_error" found now, "certified" those of the
        certificate, and "tolerance".
    Raises:
        RuntimeFault: the file cannot be used at all.
    """
    name = str(path)
    with _bytes_of(path) as view:
        data = bytes(view)
    metadata, text = _metadata_in(data, name)
    same = metadata.get("digest") == digest_of(metadata, graph_sha256(data, name)) and text == written(metadata)

    def opened() -> Any:
        return OnnxSession(data, threads, name) if session is None else session(data)

    return verified(path, metadata, same, opened, pictures)


def verified(
    path: str | Path, metadata: Mapping[str, Any], same: bool, opened: Callable[[], Any],
    pictures: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What `verify` returns, of a file in any format.

    Args:
        path, pictures: as in `verify`.
        metadata: in the file.
        same: whether their digest fits the file; if it does not, nothing of it is run.
        opened: gives the session of the file, see `Detector`.
    """
    name, problems = str(path), list[str]()
    if not same:
        problems.append(f"{name} was changed after it was certified: its digest does not fit its contents.")
    report: dict[str, Any] = {"file": name, "digest": metadata.get("digest"), "problems": problems, "ok": False}
    certificate = metadata.get("certificate")
    if not isinstance(certificate, dict) or not certificate.get("cases"):
        problems.append(f"{name} has no certificate that could be checked: export it again.")
    if problems:  # a changed graph is not run
        return report
    assert isinstance(certificate, dict)
    folder = Path(path).expanduser().parent / "certificate" if pictures is None else Path(pictures).expanduser()
    detector = Detector(path, session=opened(), metadata=metadata, batch=2)
    try:
        report |= _run_cases(detector, certificate, folder)
    except RuntimeFault:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise RuntimeFault(f"The certificate of {name} is damaged ({error}): export it again.") from error
    problems += report.pop("unequal")
    if not report["cases"]:
        problems.append(f"None of the pictures of the certificate are there: name their folder, not {folder}.")
    report["ok"] = not problems
    return report


def _run_cases(detector: Detector, certificate: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    known = certificate["pictures"]
    limits = {"box_px": 1e-3, "score": 1e-5, **certificate.get("tolerance", {})}
    skipped: dict[int, str] = {}
    unequal: list[str] = []
    cases = detections = 0
    box = score = 0.0
    for case in certificate["cases"]:
        there = {row: _picture_of(known[row], folder) for row in case["pictures"]}
        skipped |= {row: found for row, found in there.items() if isinstance(found, str)}
        loaded = [found for found in there.values() if isinstance(found, np.ndarray)]
        if len(loaded) < len(case["pictures"]):
            continue
        cases += 1
        for row, found, said in zip(case["pictures"], detector.detect(loaded), case["expected"]):
            expected = Detections(
                np.array(said["boxes"], np.float32).reshape(-1, 4), np.array(said["scores"], np.float32),
                np.array(said["classes"], np.int64),
            )  # fmt: skip
            apart = compared(found, expected, limits["box_px"], limits["score"])
            detections += len(expected)
            box, score = max(box, apart.box_px), max(score, apart.score)
            if not apart.kept_equal or apart.box_px > limits["box_px"] or apart.score > limits["score"]:
                unequal.append(
                    f"{known[row]['name']}: {len(found)} objects were found and {len(expected)} are certified; boxes "
                    f"differ by up to {apart.box_px:.2g} pixels, scores by up to {apart.score:.2g}."
                )
    certified = {key: certificate.get(key) for key in ("max_box_error_px", "max_score_error", "detections")}
    return {
        "cases": cases, "detections": detections, "skipped": list(skipped.values()), "max_box_error_px": box,
        "max_score_error": score, "tolerance": limits, "certified": certified, "unequal": unequal,
    }  # fmt: skip


def _picture_of(row: Mapping[str, Any], folder: Path) -> np.ndarray | str:
    """A picture of the certificate, or why it is not looked at."""
    if "seed" in row:
        height, width = (int(side) for side in row["size"])
        if not (0 < height <= _LARGEST and 0 < width <= _LARGEST):
            raise ValueError(f"a picture of {width}x{height} pixels")
        return generated_picture(int(row["seed"]), height, width)
    file = folder / Path(str(row["name"])).name  # nothing outside of the folder
    try:
        same = hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
    except OSError:
        return f"{row['name']} is not in {folder}"
    return read_picture(file) if same else f"{file} is another picture than the one that was certified"


# ---------------------------------------------------------------------------------------------------------- the command


def _model_beside() -> Path:
    here = Path(__file__).resolve().parent
    files = sorted(here.glob("*.onnx"))
    if len(files) != 1:
        raise RuntimeFault(f"There {'is no' if not files else 'are several'} .onnx in {here}: add --model FILE.")
    return files[0]


def verdict(report: Mapping[str, Any]) -> str:
    """What `verify` found, for people."""
    lines = [f"not looked at: {text}" for text in report.get("skipped", ())]
    if "cases" in report:
        lines.append(
            f"{report['cases']} cases with {report['detections']} objects run again: boxes within "
            f"{report['max_box_error_px']:.2g} pixels (allowed {report['tolerance']['box_px']:g}), scores within "
            f"{report['max_score_error']:.2g} (allowed {report['tolerance']['score']:g})"
        )
    lines += [f"wrong: {text}" for text in report["problems"]]
    lines.append(f"{report['file']}: {'as certified' if report['ok'] else 'NOT as certified'}")
    return "\n".join(lines)


def _free(path: Path) -> Path:
    if path.exists():
        raise RuntimeFault(f"{path} exists already, and is not replaced: name another file with -o.")
    return path


def _detect(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("fcos_runtime.py", description="Find objects in pictures.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE")
    parser.add_argument("-o", "--output", type=Path, help="Picture with boxes; of several pictures, a folder.")
    parser.add_argument("--model", type=Path, help="By default the .onnx beside this file.")
    parser.add_argument("--json", action="store_true", help="One JSON object a line, a picture each.")
    parser.add_argument("--threshold", type=float, default=0.0, help="Least score, above those of the file.")
    parser.add_argument("--calibrate", action="store_true", help="Scores that tell how often a detection is right.")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(words)
    several = len(given.pictures) > 1
    if given.output and not several:
        _free(given.output)
    detector, failed = Detector(given.model or _model_beside(), given.threads, calibrate=given.calibrate), 0
    for path in given.pictures:
        try:
            picture = read_picture(path)
            found = detector.detect([picture])[0]
            found = found[found.scores > given.threshold]
            if given.output:
                place = _free(given.output / f"{Path(path).stem}.jpg") if several else given.output
                _save(detector.draw(picture, found), place)
        except RuntimeFault as error:
            failed = 1
            print(f"error: {error}", file=sys.stderr)
            continue
        rows = detector.describe(found)
        if given.json:
            size = {"width": picture.shape[1], "height": picture.shape[0]}
            print(json.dumps({"image": str(path), **size, "detections": rows}, ensure_ascii=False), flush=True)
        else:
            counts = Counter(row["class"] for row in rows)
            print(f"{path}: " + (", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing"), flush=True)
            for row in rows if not several else ():
                print(f"  {row['class']} {row['score']:.2f}  " + " ".join(f"{x:.1f}" for x in row["box"]))
    return failed


def _save(picture: Image.Image, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
    except (OSError, ValueError) as error:
        raise RuntimeFault(f"{place} cannot be written: {_first_line(error)}") from error


def _verify(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("fcos_runtime.py verify", description="Check a file against its certificate.")
    parser.add_argument("model", type=Path, nargs="?", help="By default the .onnx beside this file.")
    parser.add_argument("--pictures", type=Path, help="Folder of the certified pictures that are no generated ones.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(words)
    report = verify(given.model or _model_beside(), given.pictures, given.threads)
    print(json.dumps(report) if given.json else verdict(report))
    return int(not report["ok"])


def main(words: Sequence[str] | None = None) -> int:
    """The command; exit code 0, or 1 where something is wrong."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        return _verify(words[1:]) if words[:1] == ["verify"] else _detect(words)
    except RuntimeFault as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
