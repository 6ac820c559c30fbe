"""Pictures: boxes on images, curves of training, confusion matrices; drawn without a display.

What may be changed here: what is seen. Nothing here computes a detection or a metric.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import importer

if TYPE_CHECKING:
    from .boxes import Drawable as Drawable
    from .boxes import draw_boxes as draw_boxes
    from .comparison import draw_comparison as draw_comparison
    from .confusion import draw_confusion as draw_confusion
    from .crops import Crop as Crop
    from .crops import draw_crops as draw_crops
    from .curves import draw_curves as draw_curves
    from .recall import draw_recall as draw_recall
    from .sheet import draw_sheet as draw_sheet
    from .style import class_color as class_color
    from .style import free_name as free_name
    from .style import save_picture as save_picture

_HOMES = {
    "Crop": "crops", "Drawable": "boxes", "class_color": "style", "draw_boxes": "boxes",
    "draw_comparison": "comparison", "draw_confusion": "confusion", "draw_crops": "crops", "draw_curves": "curves",
    "draw_recall": "recall", "draw_sheet": "sheet", "free_name": "style", "save_picture": "style",
}  # fmt: skip

__all__ = [
    "Crop", "Drawable", "class_color", "draw_boxes", "draw_comparison", "draw_confusion", "draw_crops",
    "draw_curves", "draw_recall", "draw_sheet", "free_name", "save_picture",
]  # fmt: skip

__getattr__ = importer(__name__, _HOMES)  # who only draws boxes needs no charts
