"""What a detector costs: parameters, and multiply-adds of its convolutions for one image.

Counted on the meta device, so that no memory is used and no arithmetic done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Cost of one detector.

    Attributes:
        parameters: all learned numbers, frozen ones included; buffers, such as those of frozen batch norms, are not.
        gflops: 1e9 multiply-adds of convolutions, deformable ones included, for one image of `height` x `width`.
        height, width: padded network input, pixels.
    """

    parameters: int
    gflops: float
    height: int
    width: int


def cost(model: Any, height: int, width: int) -> Cost:
    """Count a detector.

    Args:
        model: an `FCOS`, on any device.
        height, width: of the image as the network sees it, pixels; padded here as the backbone asks.
    """
    divisor = max(model.backbone.size_divisibility, 1)
    height, width = (math.ceil(side / divisor) * divisor for side in (height, width))
    model = model.to("meta").eval()
    deform = {torch.ops.torchvision.deform_conv2d: _deform_conv2d}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=deform) as counter:
        features = model.backbone(torch.empty(1, 3, height, width, device="meta"))
        model.dense.head([features[name] for name in model.head_in_features])
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() / 2e9, height, width)


def _deform_conv2d(input_shape: Any, weight_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Two operations for each multiply-add, as PyTorch counts."""
    batch, channels_out, *size = out_shape
    return 2 * batch * channels_out * math.prod(size) * math.prod(weight_shape[1:])
