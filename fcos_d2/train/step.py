"""One step: the gradients of a batch, computed whole or in parts, and its numbers on their way to the host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..config.train_options import TrainOptions
from .buffers import buffers_kept, own_buffers

__all__ = ["LossReport", "Step"]

_NAMED = 5  # images that a message names at most


class Step:
    """Computes gradients and lets the optimizer step.

    Args:
        model, bare: that is trained, with the wrapper of distributed training, if any, and without.
        optimizer, options, device: of the model and its training; amp, grad_accumulation and clip_grad count here.
    """

    def __init__(
        self, model: nn.Module, bare: nn.Module, optimizer: torch.optim.Optimizer, options: TrainOptions,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.model: Any = model
        self.bare: Any = bare
        self.optimizer, self.options, self.device = optimizer, options, device
        self._own = list(own_buffers(bare))
        half = options.amp.dtype == "fp16" or (options.amp.dtype == "auto" and device.type == "cuda")
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.amp.enabled and half and device.type == "cuda")

    def gradients(self, batch: Sequence[dict], asked: bool) -> LossReport:
        """Accumulate the gradients of a batch of this process, part by part; `asked` is for the report."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = _split(batch, self.options.grad_accumulation)
        whole = self._whole_batch(batch) if len(parts) > 1 else {}
        totals: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            share = 1.0 if whole else len(part) / len(batch)
            with nullcontext() if last or self.model is self.bare else self.model.no_sync():
                losses = self._losses(self.model, part, whole)
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value.detach().float() * share
                if last:
                    report = LossReport(totals, asked, {name: self.bare.get_buffer(name) for name in self._own})
                loss: Any = sum(losses.values())
                self.scaler.scale(loss if share == 1.0 else loss * share).backward()
        return report

    def _losses(self, model: nn.Module, batch: Sequence[dict], whole: Mapping[str, Any]) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.options.amp.enabled):
            losses = model(batch, **whole)
        return losses if isinstance(losses, dict) else {"loss": losses}

    def _whole_batch(self, batch: Sequence[dict]) -> dict[str, Any]:
        """What the model takes besides a part, so that the losses of the parts add up; empty if it cannot do that."""
        make = getattr(self.bare, "whole_batch", None)
        whole = None if make is None else make(batch)
        return {} if whole is None else {"whole": whole}

    def norm(self) -> float:
        """Clip the gradient if `clip_grad` asks for it; returns the norm that it had.

        The host waits here for the backward pass: the price of refusing a gradient before it reaches a weight.
        """
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        weights = [weight for weight in self.bare.parameters() if weight.grad is not None]
        if self.options.clip_grad > 0 or not hasattr(nn.utils, "get_total_norm"):  # PyTorch 2.6 has it
            return float(nn.utils.clip_grad_norm_(weights, self.options.clip_grad or math.inf))
        return float(nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None]))

    def skips(self) -> bool:
        """Whether an overflow of float16 is of the usual kind: the scaler leaves the step out and lowers its scale."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def apply(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def blame(self, batch: Sequence[dict]) -> list[str]:
        """Find the images, of all processes, whose losses or gradients are not finite; all processes must call it.

        Each image is computed alone, each term's gradient by itself. The model's buffers stay as they were.

        Returns:
            E.g. ["img_7.jpg (loss_fcos_loc)"]; without terms, all images, if none alone is to blame.
        """
        weights = [weight for weight in self.bare.parameters() if weight.requires_grad]
        found = []
        with buffers_kept(self.bare):
            for item in batch[: min(comm.all_gather(len(batch)))]:
                losses = self._losses(self.bare, [item], {})
                wrong = [name for name, loss in losses.items() if not _is_finite(loss, weights)]
                if wrong:
                    found.append(f"{_name(item)} ({', '.join(wrong)})")
        found = list(itertools.chain(*comm.all_gather(found)))
        if not found:
            found = list(itertools.chain(*comm.all_gather([_name(item) for item in batch])))
        return found[:_NAMED] + [f"{len(found) - _NAMED} more"] * (len(found) > _NAMED)


def _is_finite(loss: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether a loss and its gradients are."""
    # In all processes alike, whatever the loss: the backward pass of SyncBN communicates.
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True) if loss.requires_grad else ()
    return bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in gradients if g is not None)


def _name(item: Any) -> str:
    return str(item.get("file_name", "without a name")) if isinstance(item, dict) else "without a name"


def _split(batch: Sequence, count: int) -> list[Sequence]:
    """Up to `count` parts of nearly equal length; fewer if the batch is shorter."""
    count = min(count, len(batch))
    ends = [round(len(batch) * i / count) for i in range(count + 1)]
    return [batch[a:b] for a, b in itertools.pairwise(ends)]


class LossReport:
    """Mean losses of all processes, their own buffers, and whether any of them was asked to end.

    Made between the forward and the backward pass: on a GPU the numbers are copied while the backward pass is queued.
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
