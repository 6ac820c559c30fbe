"""A window with what is found, for --show."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from ..errors import FcosError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["require_display", "show"]

_TITLE = "fcos detect (q ends)"
_TRY = "import cv2; cv2.namedWindow('x'); cv2.waitKey(1); cv2.destroyAllWindows()"
_LARGEST = (1600, 1000)  # pixels of the window
_ESCAPE = 27


def require_display() -> None:
    """Raise FcosError where no window can be opened; another process tries, since a missing display ends it."""
    advice = "--show opens a window, and there is no display here: leave it out, pictures and videos are in --output."
    on_x11 = sys.platform.startswith("linux")
    if on_x11 and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise FcosError(advice)
    tried = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, check=False)
    if tried.returncode:
        raise FcosError(advice)


def show(picture: np.ndarray) -> bool:
    """Show a (H, W, 3) uint8 RGB picture; False once the user has asked to end."""
    import cv2

    height, width = picture.shape[:2]
    factor = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    cv2.imshow(_TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in (ord("q"), _ESCAPE)
