"""Copies the losses of a step to the host without waiting for the backward pass."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor

__all__ = ["LossReport"]


class LossReport:
    """Mean losses of all processes, their own buffers, and whether any of them was asked to end.

    Made between the forward and the backward pass, read before the optimizer's step. On a GPU the numbers are copied
    while the backward pass is being queued; reading them waits for the forward pass alone, so the GPU always has work.
    One all-reduce takes all of them; each process adds its buffers in a place of its own.

    Args:
        losses: {name: float32 scalar} of this process, without gradient; the same names in all processes.
        asked: whether this process was asked to end.
        buffers: of this process, see `buffers.own_buffers`; they are what they are after this step.
    """

    def __init__(self, losses: dict[str, Tensor], asked: bool, buffers: dict[str, Tensor] | None = None) -> None:
        self._names = sorted(losses)
        self._shapes = {name: buffer.shape for name, buffer in (buffers or {}).items()}
        own = torch.stack([losses[name] for name in self._names]).double()  # sums of float32 are exact in it
        # The flag is made on the device: copying it there would wait for the device.
        parts = [own, torch.full((1,), float(asked), device=own.device, dtype=own.dtype)]
        processes = comm.get_world_size()
        if buffers and processes > 1:
            flat = torch.cat([buffer.detach().flatten().to(own) for buffer in buffers.values()])
            places = flat.new_zeros((processes, len(flat)))
            places[comm.get_rank()] = flat
            parts.append(places.flatten())
        report = torch.cat(parts)
        if processes > 1:
            torch.distributed.all_reduce(report)
        self._event: torch.cuda.Event | None = None
        self._numbers = report
        if report.device.type == "cuda":
            self._numbers = torch.empty(report.shape, dtype=report.dtype, pin_memory=True)
            self._numbers.copy_(report, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def _wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()

    def read(self) -> tuple[dict[str, float], bool]:
        """{name: mean over the processes}, and whether any process was asked to end."""
        self._wait()
        *totals, asked = self._numbers[: len(self._names) + 1].tolist()
        return {name: total / comm.get_world_size() for name, total in zip(self._names, totals)}, asked > 0

    def buffers(self) -> dict[str, Tensor]:
        """{name: (processes, ...) float64}; empty with one process, whose buffers are among its weights."""
        self._wait()
        places = self._numbers[len(self._names) + 1 :]
        if not len(places):
            return {}
        places = places.clone().view(comm.get_world_size(), -1)
        pieces = places.split([shape.numel() for shape in self._shapes.values()], dim=1)
        return {
            name: piece.reshape(-1, *shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)
        }
