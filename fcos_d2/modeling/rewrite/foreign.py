"""Modules of Detectron2 and torchvision that cannot declare their traits themselves."""

from __future__ import annotations

from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone.resnet import BasicStem
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual

from ..traits import Traits

__all__ = ["traits_of"]

# The first row that a module is an instance of counts.
_FOREIGN: dict[type[nn.Module], Traits] = {
    BasicStem: Traits(recomputable=True, pooled=("conv1",)),
    CNNBlockBase: Traits(recomputable=True),
    InvertedResidual: Traits(recomputable=True),
}
_NONE = Traits()


def traits_of(module: nn.Module) -> Traits:
    """What a module declares, else what is known of its class."""
    declared = getattr(type(module), "traits", None)
    if isinstance(declared, Traits):
        return declared
    return next((traits for kind, traits in _FOREIGN.items() if isinstance(module, kind)), _NONE)
