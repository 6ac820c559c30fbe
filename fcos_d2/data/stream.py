"""Training batches with a position that is part of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from detectron2.utils import comm

from .._compat import train_loader_parts
from ..errors import FcosError
from .loader import TrainLoader

__all__ = ["SampleStream"]

logger = logging.getLogger("fcos_d2")


class SampleStream:
    """Endless batches for one process.

    Args:
        loader: a `TrainLoader`, one of Detectron2's `build_detection_train_loader`, whose batches are then served by a
            `TrainLoader`; or any iterable, which cannot be put back.
        seed: of the augmentations; the same in all processes.
    """

    def __init__(self, loader: Any, seed: int) -> None:
        if not isinstance(loader, TrainLoader) and (parts := train_loader_parts(loader)) is not None:
            loader = TrainLoader(**parts)
        self.loader, self.seed = loader, seed
        self.batches = 0  # handed out so far
        self._known = isinstance(loader, TrainLoader)
        self._order = loader.order() if self._known else None
        self._iterator: Iterator | None = None

    def __iter__(self) -> SampleStream:
        return self

    def __next__(self) -> Any:
        """The next batch of this process.

        Raises:
            FcosError: the data has come to an end.
            ImageError: an image cannot be read; names it.
        """
        if self._iterator is None:
            self._iterator = iter(self.loader.batches(self.seed, self.batches) if self._known else self.loader)
        for batch in self._iterator:
            self.batches += 1
            return batch
        raise FcosError(f"The training data ended after {self.batches} batches; its sampler must be endless.")

    def put_back(self) -> None:
        """The last batch was not used: it comes once more, if this loader's place is known."""
        self.close()
        self.batches -= 1

    def close(self) -> None:
        """End the loader's processes; the next batch, if any is asked for, starts them again."""
        self._iterator = None  # the loader shuts them down when nobody holds its iterator

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "seed": self.seed, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another stream was; a warning says so if that place is not exactly known."""
        now = self._identity()
        if now.get("order") is None or "order" not in state:
            logger.warning("The training images go on in another order: this data loader cannot be put back.")
            return
        self._iterator, self.seed, self.batches = None, state["seed"], state["batches"]
        if comm.get_rank():
            del now["order"]  # the state is that of the first process
        if changed := [key for key in now if now[key] != state.get(key)]:
            names = ", ".join(changed)
            logger.warning("The training images go on in another order, because of a change in: %s.", names)
            seen = state["batches"] * state.get("batch_size", 1) * state.get("processes", 1)
            self.batches = seen // (now["batch_size"] * now["processes"])

    def _identity(self) -> dict[str, Any]:
        """What the order of the images depends on besides the seed of the augmentations."""
        loader = self.loader
        return {} if not self._known else {
            "images": len(loader.records), "batch_size": loader.batch_size, "grouped": loader.grouped,
            "processes": comm.get_world_size(), "sampler_name": type(loader.sampler).__name__, "order": self._order,
        }  # fmt: skip
