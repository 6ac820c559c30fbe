"""The detector. Importing this package registers its parts in Detectron2's registries and in those of FCOS.

What may be changed here: how detections and losses are computed. No file is read here, and no config text.
"""

from .assigner import ASSIGNER_REGISTRY, PointAssigner
from .backbone import BACKBONES
from .dense import DenseFCOS
from .fad_head import FADHead
from .head import FCOS_HEAD_REGISTRY, FCOSHead
from .locations import LocationGrid
from .losses import BOX_LOSS_REGISTRY, LOSS_REGISTRY, NORMALIZER_REGISTRY, FCOSLoss
from .ltrb import LTRBCoder
from .meta_arch import FCOS
from .nas_head import NASFCOSHead
from .proposals import FCOSProposals
from .quality import QUALITY_REGISTRY
from .selector import SELECTOR_REGISTRY, Selector

__all__ = [
    "ASSIGNER_REGISTRY",
    "BACKBONES",
    "BOX_LOSS_REGISTRY",
    "FCOS",
    "FCOS_HEAD_REGISTRY",
    "LOSS_REGISTRY",
    "NORMALIZER_REGISTRY",
    "QUALITY_REGISTRY",
    "SELECTOR_REGISTRY",
    "DenseFCOS",
    "FADHead",
    "FCOSHead",
    "FCOSLoss",
    "FCOSProposals",
    "LTRBCoder",
    "LocationGrid",
    "NASFCOSHead",
    "PointAssigner",
    "Selector",
]
