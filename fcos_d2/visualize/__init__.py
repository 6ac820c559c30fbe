"""Pictures: boxes on images, curves of training, confusion matrices; drawn without a display.

What may be changed here: what is seen. Nothing here computes a detection or a metric.
"""

from .boxes import Drawable, draw_boxes
from .comparison import draw_comparison
from .confusion import draw_confusion
from .crops import Crop, draw_crops
from .curves import draw_curves
from .recall import draw_recall
from .sheet import draw_sheet
from .style import class_color, free_name, save_picture

__all__ = [
    "Crop", "Drawable", "class_color", "draw_boxes", "draw_comparison", "draw_confusion", "draw_crops",
    "draw_curves", "draw_recall", "draw_sheet", "free_name", "save_picture",
]  # fmt: skip
