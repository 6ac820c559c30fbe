"""Rewriting: module in, new module out.

What may be changed here: how the same numbers are computed, in less time or memory or whatever the padding. Each step
is a file with a function that makes a copy (see `copying.py`); no step changes what it is given.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...errors import FcosError
from ...options import one_of
from .copying import plain, rebuilt
from .fold import folding
from .freeze import freezing, without_sync_bn
from .fuse import fusing, norms_left
from .invariant import without_padding
from .precision import Guarded, guarding, lower, precision_of_parts
from .recompute import PARTS, Recomputed, recomputing

__all__ = ["PARTS", "STEPS", "prepare_training", "rewrite", "rewrites_of"]

logger = logging.getLogger("fcos_d2")


def rewrite(
    module: nn.Module,
    *,
    freeze: Sequence[str] = (),
    sync_bn: bool = True,
    fold: bool = False,
    invariant: bool = False,
    fuse: bool = False,
    recompute: str = "none",
    precision: str | Mapping[str, str] | None = None,
    compile: bool = False,
    share_tensors: bool = False,
) -> nn.Module:
    """A new module that computes what the given one computes, in another way.

    Steps are applied in the order of `STEPS`; what was applied before is known from the module's record. The given
    module, its submodules, hooks and tensors stay as they were. Names in the state dict stay, too, but with `fuse`:
    what it makes can be neither trained nor saved as weights, and is in evaluation mode.

    Args:
        module: a detector, or a part of one.
        freeze: names of submodules that shall not train; their batch norms become `FrozenBatchNorm2d`.
        sync_bn: False to have `nn.BatchNorm2d` in the place of `nn.SyncBatchNorm`, which trains on GPUs only.
        fold: fold frozen batch norms into Detectron2's convolutions, each time they run.
        invariant: let padding change no detection, see `invariant.py`.
        fuse: let convolutions do the work of norms, activations and sums after them, see `fuse.py`. Gradient
            checkpointing and what was prepared for autocast are taken back before.
        recompute: gradient checkpointing of "none", "backbone" (blocks of the bottom-up network) or "all" (head, too).
        precision: with `fuse`, "fp32", "bf16" or "fp16" of all convolutions, or of "backbone" and "head", each;
            without, "autocast" to prepare convolutions for training under autocast on the CPU.
        compile: with `fuse`, put backbone and head through `torch.compile`, on CUDA with CUDA graphs.
        share_tensors: let the result have the given module's parameters and buffers instead of copies: for a module
            that takes the place of the given one.
    Raises:
        ValueError: there is no such value, a step meets what it does not know, or steps contradict each other.
    """
    options = _Options(tuple(freeze), sync_bn, fold, invariant, fuse, recompute, precision, compile)
    before = rewrites_of(module)
    options.check({_step(entry) for entry in before})
    new: Any = rebuilt(module, lambda part: None) if share_tensors else copy.deepcopy(module)
    done = [x for x in before if not fuse or _step(x) not in ("recompute", "precision")]
    for step, apply in _APPLY.items():
        new, note = apply(new, options)
        entry = step + f": {note}" * bool(note)
        done = [x for x in done if note is None or (x != entry and (step == "freeze" or _step(x) != step))]
        done += [entry] if note is not None else []
    new.rewrites = tuple(done)
    if invariant and hasattr(type(new), "batch_invariant"):
        new.batch_invariant = True
    return new


@dataclass(frozen=True)
class _Options:
    """What `rewrite` was asked for, see there."""

    freeze: tuple[str, ...]
    sync_bn: bool
    fold: bool
    invariant: bool
    fuse: bool
    recompute: str
    precision: str | Mapping[str, str] | None
    compile: bool

    def check(self, before: set[str]) -> None:
        """Refuse values that there are not, and steps that contradict each other or those that were applied before."""
        one_of("recompute", self.recompute, PARTS)
        if self.fuse:
            precision_of_parts(self.precision or "fp32")
        else:
            one_of("precision without fuse", self.precision, (None, "autocast"))
            one_of("compile without fuse", self.compile, (False,))
        training = self.recompute != "none" or self.precision is not None
        if "fuse" in before and (self.freeze or self.fold or self.invariant or self.fuse or training):
            raise FcosError(
                "A fused model cannot be rewritten again: give all steps, fuse included, to the model it was made of."
            )
        if self.fuse and self.recompute != "none":
            raise FcosError("fuse and recompute contradict each other: a fused model does not train.")
        if self.fold and "precision" in before:
            raise FcosError("fold comes before precision: give both at once to the model as it was before.")


# Each returns the module, new if something was done, and a note for the record; `None` if nothing was done.
_Applied = tuple[nn.Module, "str | None"]


def _freeze(module: nn.Module, options: _Options) -> _Applied:
    notes = [", ".join(options.freeze)] if options.freeze else []
    module = freezing(module, options.freeze) if options.freeze else module
    count = 0 if options.sync_bn else sum(isinstance(part, nn.SyncBatchNorm) for part in module.modules())
    if count:
        module = without_sync_bn(module)
        notes.append(f"{count} SyncBN layers became BN layers")
    return module, "; ".join(notes) or None


def _fold(module: nn.Module, options: _Options) -> _Applied:
    return (folding(module), "") if options.fold else (module, None)


def _invariant(module: nn.Module, options: _Options) -> _Applied:
    return (without_padding(module), "") if options.invariant else (module, None)


def _fuse(module: nn.Module, options: _Options) -> _Applied:
    if not options.fuse:
        return module, None
    module = fusing(plain(module, Recomputed, Guarded).eval().requires_grad_(False))
    left = norms_left(module)
    return module, f"left are {', '.join(left)}" if left else ""


def _recompute(module: nn.Module, options: _Options) -> _Applied:
    if options.recompute == "none":
        return module, None
    return recomputing(plain(module, Recomputed), options.recompute), options.recompute


def _precision(module: nn.Module, options: _Options) -> _Applied:
    if options.fuse:
        return module, lower(module, precision_of_parts(options.precision or "fp32"), options.compile)
    return (guarding(module), "autocast") if options.precision else (module, None)


_APPLY: dict[str, Callable[[nn.Module, _Options], _Applied]] = {
    "freeze": _freeze,
    "fold": _fold,
    "invariant": _invariant,
    "fuse": _fuse,
    "recompute": _recompute,
    "precision": _precision,
}
STEPS = tuple(_APPLY)
"""In the order in which they are applied."""


def rewrites_of(module: nn.Module) -> tuple[str, ...]:
    """What `rewrite` has done to a module or parts of it: each entry is a step's name, and details after a colon."""
    found = [entry for part in module.modules() for entry in getattr(part, "rewrites", ())]
    return tuple(sorted(dict.fromkeys(found), key=lambda entry: STEPS.index(_step(entry))))


def _step(entry: str) -> str:
    return entry.partition(":")[0]


def prepare_training(model: nn.Module, *, device: torch.device | str, amp: bool, recompute: str = "none") -> nn.Module:
    """A model as it is trained on a device, with the tensors of the given one; names in the state dict stay.

    Args:
        model: a detector; it stays as it is, but shares its tensors with the result.
        device: that will train it; on the CPU, SyncBN layers become BN layers (one warning says so).
        amp: whether it will train under autocast.
        recompute: gradient checkpointing, see `rewrite`.
    Raises:
        FcosError: gradient checkpointing knows no blocks of the backbone.
    """
    cpu = torch.device(device).type == "cpu"
    new = rewrite(
        model, sync_bn=not cpu, recompute=recompute, precision="autocast" if cpu and amp else None, share_tensors=True
    )
    for entry in set(rewrites_of(new)) - set(rewrites_of(model)):
        if "SyncBN" in entry:
            logger.warning("%s, because SyncBN does not train on the CPU.", entry.partition(": ")[2])
    return new
