"""Parts of a detector that live outside fcos_d2: a backbone, a loss and an assigner."""

from .assigner import CentreAssigner
from .backbone import TinyNet, build_tiny_fpn_backbone
from .loss import SmoothLoss

__all__ = ["CentreAssigner", "SmoothLoss", "TinyNet", "build_tiny_fpn_backbone"]
