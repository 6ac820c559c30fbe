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
from .buffers import Buffers, own_buffers

__all__ = ["LossReport", "Step"]

_NAMED = 5  # images that a message names at most


class Step:
    """Computes gradients and lets the optimizer step.

    The model is given with the wrapper of distributed training and bare; of the options amp, grad_accumulation and
    clip_grad count here.
    """

    def __init__(
        self, model: Any, bare: Any, optimizer: torch.optim.Optimizer, options: TrainOptions, device: torch.device
    ) -> None:
        self.model, self.bare, self.optimizer, self.options, self.device = model, bare, optimizer, options, device
        self._own, self._before = list(own_buffers(bare)), Buffers(bare)
        half = options.amp.dtype == "fp16" or (options.amp.dtype == "auto" and device.type == "cuda")
        self.dtype = torch.float16 if half else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.amp.enabled and half and device.type == "cuda")

    def gradients(self, batch: Sequence[dict], asked: bool) -> LossReport:
        """Accumulate the gradients of a batch of this process, part by part; `asked` is for the report."""
        self._before = Buffers(self.bare)
        self.optimizer.zero_grad(set_to_none=True)
        count = min(self.options.grad_accumulation, len(batch))
        ends = [round(len(batch) * i / count) for i in range(count + 1)]
        # What makes the losses of the parts add up, if the model has that.
        whole = self.bare.whole_batch(batch) if count > 1 and hasattr(self.bare, "whole_batch") else None
        totals: dict[str, Tensor] = {}
        for start, end in itertools.pairwise(ends):
            share = (end - start) / len(batch) if whole is None else 1.0
            with nullcontext() if end == len(batch) or self.model is self.bare else self.model.no_sync():
                losses = self._losses(self.model, batch[start:end], {} if whole is None else {"whole": whole})
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value.detach().float() * share
                if end == len(batch):
                    report = LossReport(totals, asked, {name: self.bare.get_buffer(name) for name in self._own})
                loss: Any = sum(losses.values())
                self.scaler.scale(loss if share == 1.0 else loss * share).backward()
        return report

    def _losses(self, model: nn.Module, batch: Sequence[dict], options: Mapping[str, Any]) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.options.amp.enabled):
            losses = model(batch, **options)
        return losses if isinstance(losses, dict) else {"loss": losses}

    def norm(self) -> Tensor:
        """Clip the gradient if `clip_grad` asks for it; returns the norm that it had, a float32 scalar."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.options.clip_grad > 0 or not hasattr(nn.utils, "get_total_norm"):  # PyTorch 2.6 has it
            return nn.utils.clip_grad_norm_(self.bare.parameters(), self.options.clip_grad or math.inf)
        return nn.utils.get_total_norm([p.grad for p in self.bare.parameters() if p.grad is not None])

    def skips(self) -> bool:
        """Whether an overflow of float16 is of the usual kind: the scaler leaves the step out and lowers its scale."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= 1

    def apply(self, is_finite: bool) -> None:
        """Let the optimizer step if the gradient is finite, which `GradScaler.step` would ask the device again."""
        if is_finite:
            self.optimizer.step()
        self.scaler.update()

    def refuse(self, batch: Sequence[dict]) -> list[str]:
        """Put the buffers back, and find the images of all processes whose losses or gradients are not finite.

        Each image is computed alone, each term's gradient by itself: ["img_7.jpg (loss_fcos_loc)"], or all images,
        without terms, if none alone is to blame. All processes must call it.
        """
        weights = [weight for weight in self.bare.parameters() if weight.requires_grad]
        self._before.put_back()
        found = []
        for item in batch[: min(comm.all_gather(len(batch)))]:
            losses = self._losses(self.bare, [item], {})
            if wrong := [name for name, loss in losses.items() if not _is_finite(loss, weights)]:
                found.append(f"{_name(item)} ({', '.join(wrong)})")
            self._before.put_back()
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


class LossReport:
    """Mean losses of all processes, their own buffers, and whether any of them was asked to end.

    One all-reduce takes all of them, between the forward and the backward pass; each process adds its `own_buffers`, as
    they are after this step, in a place of its own. Losses are float32 scalars without gradient, under the same names
    in all processes.
    """

    def __init__(self, losses: dict[str, Tensor], asked: bool, buffers: dict[str, Tensor]) -> None:
        self._names = sorted(losses)
        self._shapes = {name: buffer.shape for name, buffer in buffers.items()}
        own = torch.stack([losses[name] for name in self._names]).double()  # sums of float32 are exact in it
        # The flag is made on the device: copying it there would wait for the device.
        parts = [own, torch.full((1,), float(asked), device=own.device, dtype=own.dtype)]
        processes = comm.get_world_size()
        if buffers and processes > 1:
            flat = torch.cat([buffer.detach().flatten().to(own) for buffer in buffers.values()])
            places = flat.new_zeros((processes, len(flat)))
            places[comm.get_rank()] = flat
            parts.append(places.flatten())
        self._numbers = torch.cat(parts)
        if processes > 1:
            torch.distributed.all_reduce(self._numbers)

    def read(self, norm: Tensor) -> tuple[dict[str, float], float, bool, dict[str, Tensor]]:
        """Wait for the numbers, and for the norm of the gradient with them.

        Nothing else in a step waits for a GPU. It is the price of refusing a loss or a gradient that is not finite
        before it reaches a weight.

        Returns:
            {name: mean loss of the processes}; the norm; whether any process was asked to end; and the buffers, {name:
            (processes, ...) float64}, none of them with one process, whose buffers are among its weights.
        """
        numbers = torch.cat((norm.to(self._numbers).view(1), self._numbers)).cpu()
        processes, count = comm.get_world_size(), len(self._names)
        length, *totals, asked = numbers[: count + 2].tolist()
        losses = {name: total / processes for name, total in zip(self._names, totals)}
        buffers: dict[str, Tensor] = {}
        if len(places := numbers[count + 2 :]):
            pieces = places.clone().view(processes, -1).split([s.numel() for s in self._shapes.values()], dim=1)
            buffers = {name: piece.reshape(-1, *s) for (name, s), piece in zip(self._shapes.items(), pieces)}
        return losses, length, asked > 0, buffers
