"""Pictures: boxes on images, and curves of training.

What may be changed here: what is seen. Nothing here computes a detection or a metric.
"""

from .draw import Drawable, class_color, draw_boxes, draw_comparison, draw_curves

__all__ = ["Drawable", "class_color", "draw_boxes", "draw_comparison", "draw_curves"]
