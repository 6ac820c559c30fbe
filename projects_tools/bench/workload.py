"""What the benchmark runs on: settings, and from each setting the same boxes, maps and images for everybody.

Everything is made from a seed on the CPU, so a child process that measures memory makes the same again.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
NUM_CLASSES = 80
SCORE_THRESHOLD = 0.05  # of the final score, in the suites that decode
SCORES = {
    "heavy": "5 % of all scores over 0.05",
    "trained": "1,000 scores an image over 0.05, around objects",
    "sparse": "100 scores an image over 0.05, around objects",
}


@dataclass(frozen=True)
class Setting:
    """One line of the benchmark.

    Attributes:
        suite: "assign", "loss", "decode", "forward", "train" or "data".
        batch: images.
        height, width: pixels of the network input.
        boxes: ground-truth boxes of each image.
        scores: key of `SCORES`.
        mode: how the model runs, words of `peers.MODES`; for "data" "close" where the pixels may differ.
        data: folder of a data set.
        device: "cpu" or "cuda".
    """

    suite: str
    batch: int = 1
    height: int = 800
    width: int = 1216
    boxes: int = 0
    scores: str = ""
    mode: str = "eager"
    data: str = ""
    device: str = "cpu"

    @property
    def label(self) -> str:
        """How the line is called in tables."""
        if self.suite == "data":
            return f"{self.batch} images to 800x1333" + (f", {self.mode}" if self.mode != "eager" else "")
        parts = [f"batch {self.batch}"]
        if self.boxes:
            parts.append(f"{self.boxes} boxes")
        if self.scores:
            parts.append(self.scores)
        if self.mode != "eager":
            parts.append(self.mode)
        return f"{self.height}x{self.width}, " + ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The fields that say something."""
        return {key: value for key, value in asdict(self).items() if value not in ("", 0)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Setting:
        """Inverse of `as_dict`; other keys are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def feature_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of the maps p3..p7: every level halves the one before, rounding up."""
    sizes, size = [], (math.ceil(height / STRIDES[0]), math.ceil(width / STRIDES[0]))
    for _ in STRIDES:
        sizes.append(size)
        size = (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    return sizes


@dataclass
class Truth:
    """The ground truth of one image.

    Attributes:
        boxes: (m, 4) float32 xyxy, pixels.
        classes: (m,) int64.
    """

    boxes: Tensor
    classes: Tensor


def truths(setting: Setting, seed: int = 0) -> list[Truth]:
    """Boxes of all sizes anywhere in the image, for each image of the batch."""
    random = torch.Generator().manual_seed(seed)
    size = torch.tensor([setting.width, setting.height], dtype=torch.float32)
    found = []
    for _ in range(setting.batch):
        # Sides are spread evenly over the octaves from 8 pixels to the image, like COCO's areas.
        octaves = torch.rand(setting.boxes, 2, generator=random) * torch.log2(size / 8)
        side = 8 * 2**octaves
        corner = torch.rand(setting.boxes, 2, generator=random) * (size - side)
        classes = torch.randint(0, NUM_CLASSES, (setting.boxes,), generator=random)
        found.append(Truth(torch.cat((corner, corner + side), dim=1), classes))
    return found


@dataclass
class Maps:
    """Head outputs before any activation, finest level first: L maps (N, K, Hi, Wi), (N, 4, Hi, Wi), (N, 1, Hi, Wi)."""

    logits: list[Tensor]
    raw_ltrb: list[Tensor]
    quality: list[Tensor]

    def leaves(self) -> list[Tensor]:
        """All maps as leaves that want a gradient."""
        for values in (self.logits, self.raw_ltrb, self.quality):
            values[:] = [v.detach().requires_grad_() for v in values]
        return [*self.logits, *self.raw_ltrb, *self.quality]


def training_maps(setting: Setting, seed: int = 1) -> Maps:
    """Head outputs as early in training: logits around -4.6, distances of a few strides."""
    return _laid(_random_maps(setting, seed), setting)


def _random_maps(setting: Setting, seed: int) -> Maps:
    random = torch.Generator().manual_seed(seed)

    def maps(channels: int) -> list[Tensor]:
        sizes = feature_sizes(setting.height, setting.width)
        return [torch.randn(setting.batch, channels, *size, generator=random) for size in sizes]

    return Maps([x - 4.6 for x in maps(NUM_CLASSES)], [x + 2 for x in maps(4)], maps(1))


def detection_maps(setting: Setting, seed: int = 2) -> Maps:
    """Head outputs whose final scores, sqrt(class * quality), have the statistics that the setting names."""
    maps = _random_maps(setting, seed)
    if setting.scores != "heavy":
        _place_objects(maps, setting, seed)
    # Shift all logits so that just the wanted number of scores is over the threshold.
    margin = torch.cat([(x - _needed(q)).flatten(1) for x, q in zip(maps.logits, maps.quality)], dim=1)
    count = {"heavy": margin.shape[1] // 20, "trained": 1000, "sparse": 100}[setting.scores]
    edge = margin.topk(count + 1, dim=1).values[:, -2:].mean(dim=1)  # between the last one in and the first one out
    maps.logits = [x - edge.view(-1, 1, 1, 1) for x in maps.logits]
    return _laid(maps, setting)


def _laid(maps: Maps, setting: Setting) -> Maps:
    """The maps in the memory format of the setting's mode, on its device."""
    for values in (maps.logits, maps.raw_ltrb, maps.quality):
        values[:] = [x.to(setting.device) for x in values]
    if "channels_last" in setting.mode:
        for values in (maps.logits, maps.raw_ltrb, maps.quality):
            values[:] = [x.contiguous(memory_format=torch.channels_last) for x in values]
    return maps


def _needed(quality: Tensor) -> Tensor:
    """Class logit at which the final score reaches the threshold; large where the quality is too low for any."""
    return torch.logit((SCORE_THRESHOLD**2 / quality.sigmoid()).clamp(max=1 - 1e-6))


def _place_objects(maps: Maps, setting: Setting, seed: int) -> None:
    """Raise the logits around the centres of 25 boxes, with distances that fit them roughly; all else is background."""
    random = torch.Generator().manual_seed(seed + 1)
    for image, truth in enumerate(truths(Setting("", setting.batch, setting.height, setting.width, 25), seed)):
        for values in maps.logits:
            values[image] -= 6
        for box, class_index in zip(truth.boxes, truth.classes):
            reach = float((box[2:] - box[:2]).max())
            level = min(max(math.ceil(math.log2(reach / 64)), 0), len(STRIDES) - 1)
            stride = STRIDES[level]
            height, width = maps.logits[level].shape[2:]
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            at = torch.stack((x, y)) * stride + stride // 2
            center = ((box[:2] + box[2:]) / 2).view(2, 1, 1)
            near = (at - center).abs().amax(dim=0) < 3.5 * stride
            count = int(near.sum())
            maps.logits[level][image, class_index, near] += 8 + torch.rand(count, generator=random)
            ltrb = torch.cat((at - box[:2].view(2, 1, 1), box[2:].view(2, 1, 1) - at)) / stride
            noise = 0.1 * torch.randn(4, count, generator=random)
            maps.raw_ltrb[level][image][:, near] = ltrb[:, near].clamp(min=0.1) + noise


def records(setting: Setting) -> list[dict[str, Any]]:
    """The first `setting.batch` records of the data set in the folder `setting.data`.

    Raises:
        FcosError: the folder holds no data set.
    """
    from detectron2.data import DatasetCatalog

    from fcos_d2.data import find_dataset, register

    layout = find_dataset(setting.data)
    names = register(layout, f"bench_{abs(hash(setting.data))}", need=())
    name = names.val or names.train or names.test
    return DatasetCatalog.get(name)[: setting.batch]


def image(setting: Setting, index: int = 0) -> Tensor:
    """(3, H, W) float32 in 0..255: smooth noise of several scales, the same for the same index."""
    random = torch.Generator().manual_seed(100 + index)
    total = torch.zeros(1, 3, setting.height, setting.width)
    for scale in (4, 16, 64):
        size = (max(setting.height // scale, 1), max(setting.width // scale, 1))
        noise = torch.randn(1, 3, *size, generator=random)
        total += torch.nn.functional.interpolate(noise, total.shape[2:], mode="bilinear", align_corners=False)
    return (total[0] * 40 + 128).clamp(0, 255).round()
