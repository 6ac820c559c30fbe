"""Normalization layers by name: Detectron2's, exact in every layout, and batch norm that keeps its statistics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers import get_norm as detectron2_norm
from torch import nn

from ..options import one_of
from .exact_norm import BatchNorm2d, GroupNorm, NaiveSyncBatchNorm, SyncBatchNorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Modules whose statistics follow the data while they train."""


class EvalBatchNorm2d(BatchNorm2d):
    """Batch norm whose weight and bias learn, while mean and variance stay as they were loaded.

    `train(True)` leaves it in evaluation mode, so that it uses its running statistics and never updates them. This is
    "norm_eval" of HRNet-FCOS (maskrcnn_benchmark/modeling/backbone/hrnet.py) and of mmdetection's backbones. It has the
    tensors of `torch.nn.BatchNorm2d`; of a `FrozenBatchNorm2d` nothing learns.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps=eps)
        self.training = False

    def train(self, mode: bool = True) -> EvalBatchNorm2d:
        return super().train(False)


# Detectron2's names and ours; the norms are as exact in channels_last as in contiguous maps.
_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "BN": BatchNorm2d,
    "SyncBN": SyncBatchNorm,
    "GN": partial(GroupNorm, 32),
    "EvalBN": EvalBatchNorm2d,
    "nnSyncBN": SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": partial(NaiveSyncBatchNorm, stats_mode="N"),
}


def norm_layer(name: str) -> str | Callable[[int], nn.Module]:
    """What Detectron2's layers take as their `norm` argument.

    Args:
        name: one of Detectron2's names ("FrozenBN", "BN", "SyncBN", "GN", "" for none, ...), or "EvalBN".
    Raises:
        ValueError: there is no such norm.
    """
    one_of("norm", name, ("", "FrozenBN", *_LAYERS))
    return _LAYERS.get(name, name)


def get_norm(name: str, channels: int) -> Any:
    """A norm (a module) for `channels` channels, `None` for the empty name; see `norm_layer`."""
    return detectron2_norm(norm_layer(name), channels)


def freeze(module: nn.Module) -> None:
    """Stop training a module in place: no gradients, and its batch norms become `FrozenBatchNorm2d`."""
    for parameter in module.parameters():
        parameter.requires_grad = False
    FrozenBatchNorm2d.convert_frozen_batchnorm(module)
