"""Frames of a video, a camera or a stream, through OpenCV."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..errors import FcosError
from .download import content_type
from .sources import Source

__all__ = ["Frame", "Video", "quiet"]

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's lines about each damaged packet
_USUAL_RATE = 25.0  # frames a second, where a camera or a file says none
_HIGHEST_RATE = 1000.0
_PATIENCE = 5.0  # seconds to wait for the end of a reading that has begun


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    index: int  # from 0; of a live source, pictures that came meanwhile are counted
    seconds: float  # since the beginning
    pixels: np.ndarray  # (H, W, 3) uint8 RGB, upright


class Video:
    """A video that is open for reading; iterating gives its frames once.

    A live source (camera, stream) gives its newest frame whenever one is asked for, so that a slow detector does not
    fall behind; the frames of a file are all given.

    Args:
        source: a file, an address, or a camera.
        live: whether it is a live source.
        every: give only each so manieth frame.
        timeout: seconds to wait for an address.

    Attributes:
        rate: frames a second, as the source says; 25 where it says none.
        count: frames that the file claims to have, `every` not considered; None where that is unknown.
        read: frames that were read so far, those between `every` included.

    Raises:
        FcosError: there is no such video or camera, or it cannot be read; one sentence.
    """

    def __init__(self, source: Source, live: bool = False, every: int = 1, timeout: float = 20.0) -> None:
        self.name, self.live, self.every, self.read = source.where, live, every, 0
        self._capture = _opened(source, timeout)
        self._reader: _Newest | None = None
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not live else None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        if self._reader is None or self._reader.stop():  # never while its thread reads
            self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        return self._newest() if self.live else self._all()

    def _all(self) -> Iterator[Frame]:
        while self._capture.grab():
            index, self.read = self.read, self.read + 1
            if index % self.every:
                continue
            there, picture = self._capture.retrieve()
            if there:
                at = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of files with changing rates, too
                yield Frame(index, at if at > 0 else index / self.rate, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))

    def _newest(self) -> Iterator[Frame]:
        self._reader = reader = _Newest(self._capture)
        start, last = time.monotonic(), -1
        while (found := reader.after(last + self.every - 1)) is not None:
            last, picture = found
            self.read = last + 1
            yield Frame(last, time.monotonic() - start, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


class _Newest:
    """Reads a live source in a thread of its own and keeps its newest frame alone."""

    def __init__(self, capture: Any) -> None:
        self._capture, self._ended, self._stopped = capture, False, False
        self._index, self._picture = -1, None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            there, picture = self._capture.read()
            with self._changed:
                if there:
                    self._index, self._picture = self._index + 1, picture
                self._ended = not there
                self._changed.notify_all()
            if not there:
                return

    def after(self, index: int) -> tuple[int, np.ndarray] | None:
        """The newest frame once it is one after `index`; None when the source has ended."""
        with self._changed:
            while self._index <= index and not self._ended:
                self._changed.wait(0.2)  # wakes now and then, so that Ctrl-C is heard everywhere
            return None if self._index <= index or self._picture is None else (self._index, self._picture)

    def stop(self) -> bool:
        """Read no more; whether that has come to an end."""
        self._stopped = True
        self._thread.join(_PATIENCE)
        return not self._thread.is_alive()


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV says nothing on standard error while it lasts: what went wrong is said by us."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _opened(source: Source, timeout: float) -> Any:
    """OpenCV's reader of a source.

    Raises:
        FcosError: it cannot be read.
    """
    page = False
    if source.camera is not None:
        with quiet():
            capture = cv2.VideoCapture(source.camera)
        return _checked(capture, f"There is no camera {source.camera} here, or another program uses it.")
    if source.where.lower().startswith(("http://", "https://")):
        page = content_type(source.where, timeout) == "text/html"  # a server that refuses says why; FFmpeg would not
    elif not source.is_address and not os.path.isfile(source.where):
        raise FcosError(f"The video {source.where} does not exist.")
    if source.where.lower().startswith("rtsp"):  # over UDP, packets are lost, and pictures grey
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    wait = max(int(timeout * 1000), 1)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait] if source.is_address else []
    with quiet():
        capture = cv2.VideoCapture(source.where, cv2.CAP_FFMPEG, limits)
    if page:
        return _checked(capture, f"{source.where} is a web page, not a video: give the address of the video itself.")
    if source.is_address:
        return _checked(capture, f"The stream {source.where} cannot be opened within {timeout:g} s.")
    return _checked(capture, f"The video {source.where} cannot be read: it is damaged, or of an unknown kind.")


def _checked(capture: Any, complaint: str) -> Any:
    if not capture.isOpened():
        capture.release()
        raise FcosError(complaint)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture
