"""The losses of a step on their way to the host, which does not wait for the backward pass to know them."""

from __future__ import annotations

import math

import torch
from detectron2.utils import comm
from torch import Tensor

__all__ = ["LossReport"]


class LossReport:
    """Mean losses of all processes, and whether any of them was asked to end.

    Made between the forward and the backward pass, read before the optimizer's step. On a GPU the numbers are copied
    while the backward pass is being queued; reading them waits for the forward pass alone, so the GPU always has work,
    and a loss that is not finite is known before a weight changes.

    Args:
        losses: {name: float32 scalar} of this process, without gradient; the same names in all processes.
        asked: whether this process was asked to end.
    """

    def __init__(self, losses: dict[str, Tensor], asked: bool) -> None:
        self._names = sorted(losses)
        self._own = torch.stack([losses[name] for name in self._names])
        # One all-reduce for everything. The flag is made on the device: copying it there would wait for the device.
        report = torch.cat((self._own, torch.full((1,), float(asked), device=self._own.device)))
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(report)
        self._event: torch.cuda.Event | None = None
        self._numbers = report
        if report.device.type == "cuda":
            self._numbers = torch.empty(report.shape, dtype=report.dtype, pin_memory=True)
            self._numbers.copy_(report, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> tuple[dict[str, float], bool]:
        """{name: mean over the processes}, and whether any process was asked to end."""
        if self._event is not None:
            self._event.synchronize()
        *totals, asked = self._numbers.tolist()
        return {name: total / comm.get_world_size() for name, total in zip(self._names, totals)}, asked > 0

    def is_finite_here(self) -> bool:
        """Whether the losses of this process are finite; waits for the device."""
        return all(map(math.isfinite, self._own.tolist()))
