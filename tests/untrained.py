"""Detectors without training that find something: random weights whose outputs are brought to a useful range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fcos_d2 import Predictor
from fcos_d2.modeling.deform import DeformConv

SMALL = "fcos_R_18_slim_FPN_small"
RESIZE = "dataloader.test.mapper.augmentations[0]"
# Two levels and towers of one convolution, as what tracing takes grows with their number.
FEW = (
    "model.in_features=[p3,p5]", "model.dense.head.num_levels=2", "model.dense.head.num_class_convs=1",
    "model.dense.head.num_box_convs=1",
)  # fmt: skip


def untrained(name: str = SMALL, *overrides: str, side: int = 64, classes: int = 3) -> Predictor:
    """A detector of a variant whose logits are -2 and 1.5 around that, whatever its network is.

    Args:
        name: of the variant.
        overrides: of its config.
        side: shorter side of the network input.
        classes: K.
    """
    given = (f"{RESIZE}.short_edge_length={side}", f"{RESIZE}.max_size={2 * side}", f"model.num_classes={classes}")
    predictor = Predictor(name, weights="random", device="cpu", overrides=[*given, *overrides])
    model, generator = predictor.model, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "weight") and module.weight is not None and module.weight.dim() > 1:
                spread = module.weight[0].numel() ** -0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * spread)
        # Far offsets, one after the other, and rectified random layers make much of a rounding; trained ones do not.
        for module in model.dense.modules():
            if isinstance(module, nn.GroupNorm):
                module.bias.fill_(1)  # so ReLU cuts little
        step = max(model.backbone.size_divisibility, 32)
        images = torch.rand((1, 3, 4 * step, 4 * step), generator=generator) * 255
        with _near(model):
            features = model.backbone((images - model.pixel_mean) / model.pixel_std)
            maps = model.dense.head([features[name] for name in model.head_in_features])
        head, pixels = model.dense.head, model.dense.coder.unit == "pixel"
        _bring(head.cls_logits, maps[0], -2.0, 1.5)
        _bring(head.bbox_pred, maps[1], 2.5 if pixels else 1.5, 0.5)
        if head.quality is not None:
            _bring(head.quality, maps[2], 1.0, 1.0)
    return predictor


@contextmanager
def _near(model: nn.Module) -> Iterator[None]:
    """Within it the first maps that a deformable convolution gets let it sample half a cell beside its grid."""
    done: set[nn.Module] = set()

    def bring(conv: nn.Module, inputs: tuple[torch.Tensor], offsets: torch.Tensor) -> torch.Tensor | None:
        if conv in done:  # of a head, for each level
            return None
        done.add(conv)
        scale = 0.5 / float(offsets.std())
        for values in conv.parameters():
            values.mul_(scale)
        return offsets * scale

    hooks = [m.offset.register_forward_hook(bring) for m in model.modules() if isinstance(m, DeformConv)]
    yield
    for hook in hooks:
        hook.remove()


def _bring(conv: nn.Module, maps: list[torch.Tensor], mean: float, spread: float) -> None:
    """Let a last convolution give another mean and spread than its outputs `maps` have."""
    values = torch.cat([x.flatten() for x in maps])
    scale = spread / float(values.std())
    conv.weight.mul_(scale)
    conv.bias.mul_(scale).add_(mean - float(values.mean()) * scale)
