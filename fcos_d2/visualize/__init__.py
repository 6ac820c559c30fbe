"""Pictures: boxes on images, and curves of training; drawn without a display.

What may be changed here: what is seen. Nothing here computes a detection or a metric.
"""

from .boxes import Drawable, draw_boxes
from .comparison import draw_comparison
from .curves import draw_curves
from .sheet import draw_sheet
from .style import class_color, free_name, save_picture

__all__ = [
    "Drawable", "class_color", "draw_boxes", "draw_comparison", "draw_curves", "draw_sheet", "free_name",
    "save_picture",
]  # fmt: skip
