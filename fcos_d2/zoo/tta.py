"""Test-time augmentation: which views of an image a detector looks at, and how what it finds becomes one list.

Published settings are rows of `PRESETS`. `predict/tta.py` does what they say; `TEST.AUG.*` keys and the node `tta` of a
LazyConfig are made from the fields of `TTA`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ..errors import FcosError
from ..options import as_tuple, option

__all__ = ["NONE", "PRESETS", "TTA", "Preset", "View"]

NONE = "none"  # the name of no augmentation, whatever a config says

_LARGEST = 16_384  # pixels of a side
_MOST_SIZES = 64
_MERGES = ("nms", "vote", "soft-vote")  # those of `modeling.voting`


@dataclass(frozen=True)
class View:
    """One way to show an image to a detector.

    Attributes:
        size: shorter side of the network input, pixels; `None` where `scale` says it.
        scale: multiple of the size that the config gives images; `None` for exactly those pixels.
        max_size: longest side, pixels.
        sides: detections count whose area lies between these two numbers squared, pixels of this network input.
        flip: whether left and right change places.
    """

    size: int | None = None
    scale: float | None = None
    max_size: int = _LARGEST
    sides: tuple[float, float] = (-math.inf, math.inf)
    flip: bool = False


@dataclass(frozen=True)
class TTA:
    """What is looked at, and how detections are merged.

    Attributes:
        identity: look at the image as without augmentation, too.
        sizes: shorter sides, pixels.
        scales: multiples of the size that the config gives images.
        max_size: longest side of `sizes` and `scales`, pixels.
        max_sizes: the same for each of `sizes` followed by `scales`, instead.
        flip: look at the mirror image of each view, too.
        ranges: for each of `sizes` followed by `scales` two sides of a square in pixels of that view: detections count
            whose area lies between; none: all count.
        merge: "nms", one suppression over the detections of all views (original FCOS, Detectron2); "vote", boxes of
            one object are averaged with their scores as weights (ATSS); "soft-vote", and those that do not lie well on
            it stay with lower scores (ATSS).
        vote_threshold: IoU from which on boxes of a class are of one object.
        soft_threshold: least score of what "soft-vote" lets stay.
        batch_size: network inputs of equal size at a time, where a caller gives fewer images together.

    Raises:
        FcosError: there is nothing to look at, or a value is not what it must be.
    """

    identity: bool = option(True, key="IDENTITY")
    sizes: tuple[int, ...] = option((), key="MIN_SIZES")
    scales: tuple[float, ...] = option((), key="SCALES")
    max_size: int = option(4000, key="MAX_SIZE")
    max_sizes: tuple[int, ...] = option((), key="MAX_SIZES")
    flip: bool = option(False, key="FLIP")
    ranges: tuple[tuple[float, float], ...] = option((), key="SCALE_RANGES")
    merge: str = option("nms", key="MERGE_TYPE")
    vote_threshold: float = option(0.66, key="VOTE_TH")
    soft_threshold: float = option(0.05, key="SOFT_TH")
    batch_size: int = option(1, key="BATCH_SIZE")

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, as_tuple(getattr(self, field.name)))
        views = len(self.sizes) + len(self.scales) if _are_lists(self.sizes, self.scales) else -1
        for name, valid, must in (
            ("identity", isinstance(self.identity, bool), "true or false"),
            ("flip", isinstance(self.flip, bool), "true or false"),
            ("sizes", _all_whole(self.sizes), f"a list of shorter sides from 1 to {_LARGEST} pixels"),
            ("scales", _all_between(self.scales, 16.0), "a list of factors above 0, at most 16"),
            ("max_size", _all_whole((self.max_size,)), f"a whole number of pixels from 1 to {_LARGEST}"),
            ("max_sizes", _all_whole(self.max_sizes) and len(self.max_sizes) in (0, views),
             f"a list of whole numbers from 1 to {_LARGEST}, one for each size and scale ({views})"),
            ("ranges", _all_ranges(self.ranges) and len(self.ranges) in (0, views),
             f"a list of pairs [from, to], one for each size and scale ({views})"),
            ("merge", self.merge in _MERGES, f"one of: {', '.join(_MERGES)}"),
            ("vote_threshold", _all_between((self.vote_threshold,), 1.0), "above 0, at most 1"),
            ("soft_threshold", _all_between((self.soft_threshold,), 1.0), "above 0, at most 1"),
            ("batch_size", _all_whole((self.batch_size,)), "a whole number above 0"),
        ):  # fmt: skip
            if not valid:
                raise FcosError(f"tta.{name} is {getattr(self, name)!r}; it must be {must}.")
        if views > _MOST_SIZES:
            raise FcosError(f"tta has {views} sizes and scales; {_MOST_SIZES} are the most.")
        if not views and not self.identity:
            raise FcosError("tta has no view to look at: give sizes or scales, or leave identity true.")

    @property
    def is_identity(self) -> bool:
        """Whether nothing but the image as it is without augmentation is looked at."""
        return self.identity and not (self.sizes or self.scales or self.flip)

    def views(self) -> Iterator[View]:
        """In the order in which detections of equal scores come first; each is followed by its mirror image."""
        plain = [View()] if self.identity else []
        limits = self.max_sizes or (self.max_size,) * (len(self.sizes) + len(self.scales))
        ranges = self.ranges or (View.sides,) * len(limits)
        wanted = [(size, None) for size in self.sizes] + [(None, float(scale)) for scale in self.scales]
        plain += [View(size, scale, limit, sides) for (size, scale), limit, sides in zip(wanted, limits, ranges)]
        for view in plain:
            yield view
            if self.flip:
                yield View(view.size, view.scale, view.max_size, view.sides, True)


def _are_lists(*values: object) -> bool:
    return all(isinstance(value, tuple) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _all_whole(values: Any) -> bool:
    whole = isinstance(values, tuple) and all(isinstance(x, int) and _is_number(x) for x in values)
    return whole and all(0 < x <= _LARGEST for x in values)


def _all_between(values: Any, most: float) -> bool:
    return isinstance(values, tuple) and all(_is_number(x) and 0 < x <= most for x in values)


def _all_ranges(values: Any) -> bool:
    pairs = isinstance(values, tuple) and all(isinstance(x, tuple) and len(x) == 2 for x in values)
    return pairs and all(_is_number(a) and _is_number(b) and 0 <= a < b for a, b in values)


@dataclass(frozen=True)
class Preset:
    """A setting with a name.

    Attributes:
        tta: what it says.
        source: where it was published, or what it is for.
    """

    tta: TTA
    source: str


_EVERYWHERE = 10_000.0

# fmt: off
PRESETS: dict[str, Preset] = {
    "flip": Preset(TTA(flip=True), "fcos_d2: the image and its mirror image"),
    "multiscale": Preset(
        TTA(scales=(0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.375, 1.5), flip=True),
        "fcos_d2: the sizes of `original` in proportion to 800, for detectors of any size",
    ),
    "original": Preset(
        TTA(sizes=(400, 500, 600, 700, 900, 1000, 1100, 1200), max_size=2000, flip=True),
        "tianzhi0549/FCOS, fcos_core/engine/bbox_aug.py and TEST.BBOX_AUG of "
        "configs/fcos/fcos_imprv_dcnv2_X_101_64x4d_FPN_2x.yaml: 49.0 AP on COCO test-dev",
    ),
    "atss": Preset(
        TTA(
            sizes=(400, 500, 600, 640, 700, 900, 1000, 1100, 1200, 1300, 1400, 1800),
            max_sizes=(1333,) * 5 + (3000,) * 7, flip=True,
            ranges=((96.0, _EVERYWHERE),) * 2 + ((64.0, _EVERYWHERE),) * 3 + ((0.0, _EVERYWHERE),) * 2
            + ((0.0, 256.0),) * 2 + ((0.0, 192.0),) * 2 + ((0.0, 96.0),),
            merge="soft-vote", vote_threshold=0.66,
        ),
        "sfzhang15/ATSS, atss_core/engine/bbox_aug_vote.py and TEST.BBOX_AUG of "
        "configs/atss/atss_dcnv2_X_101_64x4d_FPN_2x.yaml",
    ),
    "detectron2": Preset(
        TTA(identity=False, sizes=(400, 500, 600, 700, 800, 900, 1000, 1100, 1200), max_size=4000, flip=True),
        "facebookresearch/detectron2, detectron2/config/defaults.py: TEST.AUG",
    ),
}
# fmt: on
