"""What training changes in its process, and puts back at its end: PyTorch's switches, and where messages go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..config.train_options import TrainOptions
from ..data.random_state import generators_kept
from ..errors import FcosError
from .cpu import start_threads, without_denormals

__all__ = ["Log", "find_device", "process"]

_LOGGERS = ("fcos_d2", "detectron2", "fvcore")


@contextmanager
def process(log: Log, options: TrainOptions, device: torch.device) -> Iterator[None]:
    """The process as training needs it, until the block ends."""
    with log.open(), generators_kept(), _switches(options):
        if device.type != "cpu":
            yield
            return
        start_threads()
        with without_denormals():
            yield


@contextmanager
def _switches(options: TrainOptions) -> Iterator[None]:
    """PyTorch as `train.cudnn_benchmark` and `train.float32_precision` ask for it, as Detectron2's `default_setup`."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    if options.cudnn_benchmark:
        cudnn.benchmark = True
    if options.float32_precision and torch.cuda.is_available():
        torch.set_float32_matmul_precision(options.float32_precision)
        cudnn.allow_tf32 = options.float32_precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


class Log:
    """Messages of fcos_d2, Detectron2 and fvcore: to log.txt in a folder, and to the console.

    An application that has set up logging itself gets the messages there.

    Args:
        folder: made if needed; empty for no file.
        console: whether to print.
    """

    def __init__(self, folder: str, console: bool) -> None:
        self._folder = folder
        self._console = console
        self._depth = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Until the block ends; within another such block nothing changes.

        Raises:
            FcosError: the folder cannot be written.
        """
        self._depth += 1
        handlers = self._handlers() if self._depth == 1 else []
        loggers = [logging.getLogger(name) for name in _LOGGERS] if self._depth == 1 else []
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)
            for handler in handlers:
                logger.addHandler(handler)
        try:
            yield
        finally:
            self._depth -= 1
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
                for handler in handlers:
                    logger.removeHandler(handler)
            for handler in handlers:
                handler.close()

    def _handlers(self) -> list[logging.Handler]:
        handlers: list[logging.Handler] = []
        if self._console and not logging.getLogger().handlers:
            handlers.append(logging.StreamHandler(sys.stdout))
        if self._folder:
            try:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
                handlers.append(logging.FileHandler(Path(self._folder) / "log.txt", encoding="utf-8"))
            except OSError as error:
                self._depth -= 1
                raise FcosError(
                    f"The output folder {self._folder} cannot be written: {error.strerror or error}."
                ) from error
        for handler in handlers:
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m-%d %H:%M:%S"))
        return handlers


def find_device(name: str, key: str) -> torch.device:
    """Raises FcosError if this machine has no such device."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FcosError(f"{key} is {name!r}, which is no device: use cuda or cpu.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FcosError(f"{key} is {name!r}, but PyTorch finds no CUDA device here: pass {key}=cpu.")
    return device
