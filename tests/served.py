"""Servers in this process, on the loopback interface; engines that the tests hold in their hands; pictures."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import httpx
import numpy as np
from PIL import Image

from fcos_d2.runtime import Detections
from fcos_d2.serve.server import Server, bound, url_of
from fcos_d2.serve.service import Service


class Held:
    """An engine that answers when it is allowed to; `seen` has the widths of the pictures of each batch.

    Each picture shows one object of class 0, as large as it is; those that are 13 pixels wide are too much for it.
    """

    name = "held"
    class_names = ("thing",)
    thresholds: ClassVar[dict[str, float]] = {"thing": 0.3}

    def __init__(self, held: bool = True) -> None:
        self.free = threading.Event()
        self.entered = threading.Event()
        self.seen: list[list[int]] = []
        if not held:
            self.free.set()

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        self.seen.append([picture.shape[1] for picture in pictures])
        self.entered.set()
        assert self.free.wait(60)
        if any(picture.shape[1] == 13 for picture in pictures):
            raise RuntimeError("cannot do this one")
        size = [np.array([[0, 0, p.shape[1], p.shape[0]]], np.float32) for p in pictures]
        return [Detections(box, np.array([0.9], np.float32), np.array([0])) for box in size]


@contextmanager
def running(service: Service) -> Iterator[httpx.Client]:
    """A client of a service that is at work; both end with the block."""
    listener = bound("127.0.0.1", 0)
    server = Server(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=url_of(listener), timeout=60, trust_env=False) as client:
            until(lambda: server.started)
            yield client
    finally:
        if isinstance(service.engine, Held):
            service.engine.free.set()
        server.leave()
        thread.join(60)
        assert not thread.is_alive() and not service.is_alive


def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in another thread."""
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


def picture(width: int = 64, height: int = 48, kind: str = "PNG", seed: int = 0) -> bytes:
    """A file with a picture of noise."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()
