"""A batch that is computed in parts, one after the other, and gives the losses and gradients of the whole.

Losses are sums that are divided by counts of the batch, and maps depend on how far its images are padded. Both are
fixed for the whole batch before its parts are looked at: neither depends on the weights. So the losses of the parts add
up to those of the whole, and so do their gradients, for every normalizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from detectron2.structures import ImageList

from ..structures import GroundTruth
from .losses import Counts

__all__ = ["WholeBatch", "padded_size"]


@dataclass
class WholeBatch:
    """What the parts of one batch share.

    Attributes:
        padded_size: (height, width) of the network input for the whole batch, pixels.
        ground_truth: of the whole batch.
        counts: what losses are divided by; the first part to come through the network puts them here, so that workers
            exchange them and the moving average follows them once a batch.
    """

    padded_size: tuple[int, int]
    ground_truth: GroundTruth
    counts: Counts | None = None

    def pad(self, images: ImageList) -> ImageList:
        """The images of a part, padded like those of the whole."""
        height, width = images.tensor.shape[-2:]
        if (height, width) == self.padded_size:
            return images
        tensor = F.pad(images.tensor, (0, self.padded_size[1] - width, 0, self.padded_size[0] - height))
        return ImageList(tensor, images.image_sizes)


def padded_size(batched_inputs: Sequence[dict[str, Any]], backbone: Backbone) -> tuple[int, int]:
    """(height, width) that Detectron2 pads a batch to for a backbone, pixels."""
    shapes = [torch.empty(x["image"].shape, device="meta") for x in batched_inputs]
    constraints = getattr(backbone, "padding_constraints", None)  # 0.6 has none
    rules = {"padding_constraints": constraints} if constraints else {}
    tensor = ImageList.from_tensors(shapes, backbone.size_divisibility, **rules).tensor
    return (tensor.shape[-2], tensor.shape[-1])
