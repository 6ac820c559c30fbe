"""Where messages go while a trainer works: the console, and log.txt in its output folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ..errors import FcosError

__all__ = ["log_to"]

_LOGGERS = ("fcos_d2", "detectron2", "fvcore")
_handlers: dict[str, logging.Handler] = {}  # those of the last call


def log_to(folder: str, console: bool) -> None:
    """Send messages of fcos_d2, Detectron2 and fvcore to log.txt in a folder, and to the console.

    A later call replaces an earlier one. An application that has set up logging itself gets the messages there.

    Args:
        folder: made if needed; empty for no file.
        console: whether to print.
    Raises:
        FcosError: the folder cannot be written.
    """
    for handler in _handlers.values():
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
    _handlers.clear()
    if console and not logging.getLogger().handlers:
        _handlers["console"] = logging.StreamHandler(sys.stdout)
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            _handlers["file"] = logging.FileHandler(Path(folder) / "log.txt", encoding="utf-8")
        except OSError as error:
            raise FcosError(f"The output folder {folder} cannot be written: {error.strerror or error}.") from error
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        for handler in _handlers.values():
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m-%d %H:%M:%S"))
            logger.addHandler(handler)
