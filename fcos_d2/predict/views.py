"""Views of an image for test-time augmentation: their pixels, and detections in them brought back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..data.mapper import read_rgb
from ..errors import FcosError
from ..modeling import Selector
from ..structures import Detections
from ..zoo.tta import TTA, View

__all__ = ["ORIGINAL", "Look", "brought_back", "looks_at", "original_pixels", "pixels_of"]

ORIGINAL = "original"  # key of an input: the image before it was resized, (H, W, C) in the model's order of channels


@dataclass(frozen=True)
class Look:
    """A view of one image of a batch.

    Attributes:
        row: of the image.
        view: what it is looked at through.
        size: (height, width) of the network input, pixels.
    """

    row: int
    view: View
    size: tuple[int, int]


def looks_at(tta: TTA, row: int, inputs: dict[str, Any]) -> list[Look]:
    """The views of an image, in order; under "nms" no network input twice, since its boxes would be suppressed.

    Args:
        inputs: what Detectron2's models take: "image" (C, H, W) as without augmentation, "height" and "width" of the
            original, which may differ from those of the image that the output is for in scale alone.
    """
    plain = tuple(inputs["image"].shape[-2:])
    found: dict[Any, Look] = {}
    for number, view in enumerate(tta.views()):
        look = Look(row, view, _size(view, plain, (inputs.get("height", plain[0]), inputs.get("width", plain[1]))))
        found.setdefault((look.size, view.flip, view.sides) if tta.merge == "nms" else number, look)
    return list(found.values())


def _size(view: View, plain: tuple[int, int], original: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a view.

    Args:
        plain: the same without augmentation.
        original: (height, width) of the image.
    Raises:
        FcosError: nothing would be left of the image.
    """
    height, width = plain
    if view.size is not None:
        height, width = T.ResizeShortestEdge.get_output_shape(*original, view.size, view.max_size)
    elif view.scale is not None:
        scale = min(view.scale, view.max_size / max(plain))
        height, width = (int(side * scale + 0.5) for side in plain)
    if 0 in (height, width):
        raise FcosError(
            f"An image of {original[1]}x{original[0]} pixels cannot be looked at in {view.size or view.scale}: nothing "
            "would be left of it; choose larger sizes for tta, or leave the image out."
        )
    return height, width


def original_pixels(inputs: dict[str, Any], order: str) -> np.ndarray:
    """The image that views are made of, (H, W, C), its channels in the given order.

    That of the key `ORIGINAL`, else of the file "file_name", as Detectron2's mapper reads it; without either the
    network input itself is resized once more, as Detectron2's test-time augmentation does.
    """
    if ORIGINAL in inputs:
        return inputs[ORIGINAL]
    if "file_name" not in inputs:
        return inputs["image"].permute(1, 2, 0).contiguous().cpu().numpy()
    pixels = np.asarray(read_rgb(inputs["file_name"]))
    return np.ascontiguousarray(pixels[:, :, ::-1]) if order == "BGR" else pixels


def pixels_of(look: Look, inputs: dict[str, Any], original: np.ndarray) -> Tensor:
    """(C, H, W) of a view, its mirror image not yet made, of the dtype of "image"; without a size of its own that."""
    if look.view.size is None and look.view.scale is None:
        return inputs["image"]
    resized = T.ResizeTransform(*original.shape[:2], *look.size).apply_image(original)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).to(inputs["image"].dtype)


def brought_back(
    found: Instances, look: Look, frame: tuple[int, int], corner: float, selector: Selector
) -> tuple[Detections, Tensor]:
    """Detections in a view, in pixels of another one that shows the same image, and where they were predicted.

    Args:
        found: in pixels of which `image_size` says how many there are: of the view, or of the original image.
        look: the view.
        frame: (height, width) of the other one.
        corner: such pixels that boxes end before their far border: those of a pixel of the original image
            where its boxes end with their last pixel.
        selector: measures areas.
    Returns:
        detections on the CPU, and (P, 2) locations, NaN where the detector tells none.
    """
    found = found.to("cpu")
    height, width = found.image_size
    if look.view.sides != View.sides:
        low, high = look.view.sides
        measured = selector._measured(found.pred_boxes.tensor * (look.size[0] / height))
        area = (measured[:, 2:] - measured[:, :2]).clamp(min=0).prod(dim=1)
        found = found[(area > low**2) & (area < high**2)]
    boxes = found.pred_boxes.tensor
    xy = found.locations if found.has("locations") else boxes.new_full((len(boxes), 2), torch.nan)
    if look.view.flip:
        left, top, right, bottom = boxes.unbind(1)
        far = width - corner
        boxes = torch.stack((far - right, top, far - left, bottom), dim=1)
        xy = torch.stack((width - xy[:, 0], xy[:, 1]), dim=1)
    if (height, width) != tuple(frame):
        factors = boxes.new_tensor([frame[1] / width, frame[0] / height])
        boxes, xy = boxes * factors.repeat(2), xy * factors
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return Detections(image, boxes, found.scores, found.pred_classes, torch.arange(len(boxes))), xy
