"""Which sides of a graph's inputs may differ from picture to picture, and inputs to trace it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Shapes"]

_LEAST = 128  # pixels along a side that graphs are traced for, at least; coarser networks need more
_MOST = 4096  # cells of size_divisibility along a side, and pictures of a batch


@dataclass(frozen=True)
class Shapes:
    """Of the inputs of a graph.

    Attributes:
        step: size_divisibility, pixels that sides of the network input are multiples of.
        coarsest: stride of the network's coarsest map, pixels.
        size: fixed (height, width), `None` for any.
        batch: fixed number of pictures, `None` for any.
        inside: the file takes pictures of any size, not network inputs.
    """

    step: int
    coarsest: int
    size: tuple[int, int] | None = None
    batch: int | None = None
    inside: bool = False

    @property
    def names(self) -> list[str]:
        return ["images", "image_sizes"]

    @property
    def _least(self) -> int:
        """Pixels along a side from which on each map has a full cell, and HRNet's pyramid averages full windows."""
        return max(self.coarsest, _LEAST)

    def example(self) -> tuple[Tensor, Tensor]:
        """Network inputs to trace with: sides that may differ are nowhere 0 or 1 cell, and differ from each other.

        PyTorch writes a size of 1 into the graph as a number. Full cells are counted: HRNet's pyramid drops others.
        """
        number = self.batch or 2
        height = _up(2 * self._least, self.step)
        height, width = self.size or (height, height + _up(self._least, self.step))
        sizes = torch.tensor([[height - 3, width]] * number)
        return torch.full((number, 3, height, width), 128.0), sizes

    def dynamic(self) -> dict[str, Any]:
        """`dynamic_shapes` of `torch.export`, for network inputs."""
        dim: Any = torch.export.Dim
        batch = {} if self.batch else {0: dim("batch", min=1, max=_MOST)}
        sides = {}
        if not self.size:
            least = -(-self._least // self.step)
            rows, columns = dim("rows", min=least, max=_MOST), dim("columns", min=least, max=_MOST)
            sides = {2: self.step * rows, 3: self.step * columns} if self.step > 1 else {2: rows, 3: columns}
        return {"images": {**batch, **sides}, "image_sizes": batch}


def _up(side: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-side // step) * step
