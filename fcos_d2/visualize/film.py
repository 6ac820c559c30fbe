"""A video that is written picture by picture, through OpenCV."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import FcosError
from ..files import Taken, numbered

__all__ = ["Film"]

# Codecs, the most widely played first; which of them OpenCV can write depends on its build.
_CODECS = (("avc1", ".mp4"), ("mp4v", ".mp4"), ("MJPG", ".avi"))


class Film:
    """A video file that is there once it is closed, and then whole; it never takes the place of another file.

    Args:
        folder: where it goes; made if it is not there.
        stem: its name; a number is added where that is taken.
        rate: frames a second.
        size: (width, height) of all pictures.
        taken: paths that it must not have.
        instead_of: a film of an earlier run whose place it takes.

    Attributes:
        path: where it goes.
        count: pictures that were added.

    Raises:
        FcosError: the folder cannot be written, or OpenCV can write no video here.
    """

    def __init__(
        self, folder: Path, stem: str, rate: float, size: tuple[int, int], taken: Taken | Collection[Path] = (),
        instead_of: Path | None = None,
    ) -> None:  # fmt: skip
        self.size, self.count = size, 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FcosError(f"{folder} cannot be made: {error.strerror}.") from error
        self._writer, self._part, suffix = _writer(folder, stem, rate, size)
        used = taken if isinstance(taken, Taken) else Taken(taken)
        free = (path for path in numbered(folder, stem, suffix) if not os.path.lexists(path) and path not in used)
        self.path = instead_of if instead_of and instead_of.suffix == suffix else next(free)

    def add(self, picture: np.ndarray, times: int = 1) -> None:
        """Add a (H, W, 3) uint8 RGB picture, so many times; one of another size is scaled."""
        if picture.shape[1::-1] != self.size:
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        for _ in range(times):
            self._writer.write(picture)
        self.count += times

    def close(self) -> Path | None:
        """Finish the file and give it its name; None, and no file, if no picture was added."""
        self._writer.release()
        if not self.count:
            with suppress(OSError):
                self._part.unlink()
            return None
        try:
            if self._part.stat().st_size == 0:
                raise FcosError(f"{self.path} cannot be written: is there space left?")
            os.replace(self._part, self.path)
        except OSError as error:
            raise FcosError(f"{self.path} cannot be written: {error.strerror}.") from error
        return self.path


def _writer(folder: Path, stem: str, rate: float, size: tuple[int, int]) -> tuple[Any, Path, str]:
    """OpenCV's writer with the first codec that works, the file that it writes, and the ending that suits."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a codec that is missing is no error
    try:
        for codec, suffix in _CODECS:
            part = folder / f".{stem}.{os.getpid()}.part{suffix}"
            four: Any = cv2.VideoWriter_fourcc(*codec)  # type: ignore[attr-defined]
            writer = cv2.VideoWriter(str(part), cv2.CAP_FFMPEG, four, rate, size)
            if writer.isOpened():
                return writer, part, suffix
            with suppress(OSError):
                part.unlink()
    finally:
        cv2.utils.logging.setLogLevel(before)
    raise FcosError(f"No video can be written to {folder}: leave pictures out with --no-pictures.")
