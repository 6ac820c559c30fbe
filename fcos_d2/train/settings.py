"""What training changes in its process, and puts back at its end: PyTorch's switches, and where messages go."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from ..config.train_options import TrainOptions
from ..data.random_state import generators_kept
from ..errors import FcosError

__all__ = ["Log", "process", "start_threads", "switches", "without_denormals"]

_LOGGERS = ("fcos_d2", "detectron2", "fvcore")


@contextmanager
def process(log: Log, options: TrainOptions, device: torch.device) -> Iterator[None]:
    """The process as training needs it, until the block ends."""
    on_cpu = device.type == "cpu"
    if on_cpu:
        start_threads()
    with log.open(), generators_kept(), switches(options), without_denormals() if on_cpu else nullcontext():
        yield


@contextmanager
def switches(options: TrainOptions) -> Iterator[None]:
    """PyTorch as `train.cudnn_benchmark` and `train.float32_precision` ask for it, as Detectron2's `default_setup`."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    cudnn.benchmark |= options.cudnn_benchmark
    if options.float32_precision and torch.cuda.is_available():
        torch.set_float32_matmul_precision(options.float32_precision)
        cudnn.allow_tf32 = options.float32_precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@contextmanager
def without_denormals() -> Iterator[None]:
    """Take denormal numbers for 0 in this thread, until the block ends; then it treats them as before.

    Where a gradient stays 0, the averages of Adam and momentum decay into denormal numbers, with which a CPU calculates
    a hundred times slower.
    """
    before = sys.float_info.min * 0.5 == 0  # PyTorch does not tell
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def start_threads() -> None:
    """Let PyTorch start its threads if they do not run yet; they treat denormal numbers as this one does now, for good.

    Only a command that trains calls this within `without_denormals`. Training itself calls it outside, so that an
    application's threads stay as they are.
    """
    torch.zeros(1 << 20).add_(1)


class _Console(logging.StreamHandler):
    """A stream whose encoding may lack letters of class names; they are written as escapes then."""

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)


class Log:
    """Messages of fcos_d2, Detectron2 and fvcore: to log.txt in a folder, and to the console if nobody has set that up.

    The folder is made if needed; where it is empty, there is no file.
    """

    def __init__(self, folder: str, console: bool) -> None:
        self._folder, self._console, self._is_open = folder, console, False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Until the block ends; within another such block nothing changes. Raises FcosError without the folder."""
        if self._is_open:
            yield
            return
        handlers: list[logging.Handler] = []
        if self._console and not logging.getLogger().handlers:
            handlers.append(_Console(sys.stdout))
        if self._folder:
            try:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
                path = Path(self._folder) / "log.txt"
                handlers.append(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))
            except OSError as error:
                text = f"The output folder {self._folder} cannot be written: {error.strerror or error}."
                raise FcosError(text) from error
        self._is_open = True
        levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
        for logger, handler in itertools.product(levels, handlers):
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%m-%d %H:%M:%S"))
            logger.addHandler(handler)
        for logger, level in levels.items():
            logger.setLevel(level or logging.INFO)
        try:
            yield
        finally:
            self._is_open = False
            for logger, handler in itertools.product(levels, handlers):
                logger.removeHandler(handler)
                handler.close()
            for logger, level in levels.items():
                logger.setLevel(level)
