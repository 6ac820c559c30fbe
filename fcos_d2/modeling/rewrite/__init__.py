"""Rewriting: module in, new module out.

What may be changed here: how the same numbers are computed, in less time or memory or whatever the padding. Each step
is a file with a function that makes a copy (see `copying.py`); no step changes what it is given.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...errors import FcosError
from ...options import one_of
from .copying import plain, rebuilt
from .exact import Contiguous, with_exact_norms
from .fold import folding
from .freeze import freezing
from .fuse import fusing, norms_left
from .invariant import without_padding
from .precision import Guarded, guarding, lower
from .recompute import PARTS, Recomputed, recomputing

__all__ = ["PARTS", "STEPS", "prepare_training", "rewrite", "rewrites_of", "with_exact_norms"]

logger = logging.getLogger("fcos_d2")

STEPS = ("freeze", "fold", "invariant", "fuse", "recompute", "precision")
"""In the order in which they are applied."""


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
    pack: bool = True,
    share_tensors: bool = False,
) -> nn.Module:
    """A new module that computes what the given one computes, in another way, recorded for `rewrites_of`.

    Norms are exact in channels_last, too (`exact.py`). The given module, its submodules, hooks and tensors stay as they
    were. Names in the state dict stay, too, but with `fuse`: what it makes can be neither trained nor saved as weights,
    and is in evaluation mode.

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
        pack: with `fuse`, lay weights as the convolution library wants them, which nothing can trace.
        share_tensors: let the result have the given module's parameters and buffers instead of copies.
    Raises:
        ValueError: there is no such value, a step meets what it does not know, or steps contradict each other.
    """
    before = rewrites_of(module)
    _check({_step(x) for x in before}, bool(freeze or invariant), fold, fuse, recompute, precision, compile)
    new: Any = rebuilt(module, lambda part: None) if share_tensors else copy.deepcopy(module)
    notes: dict[str, str | None] = {}
    if freeze or not sync_bn:
        new, notes["freeze"] = freezing(new, freeze, sync_bn)
    if fold:
        new, notes["fold"] = folding(new), ""
    if invariant:
        new, notes["invariant"] = without_padding(new), ""
    if fuse:
        new = fusing(plain(new, Recomputed, Guarded, Contiguous).eval().requires_grad_(False))
        notes |= {"fuse": norms_left(new), "precision": lower(new, precision or "fp32", compile, pack)}
    if recompute != "none":
        new, notes["recompute"] = recomputing(plain(new, Recomputed), recompute), recompute
    if precision and not fuse:
        new, notes["precision"] = guarding(new), "autocast"
    gone = {*notes, "recompute"} if fuse else {*notes}
    new = with_exact_norms(new)  # of a model that others made
    kept = [x for x in before if _step(x) == "freeze" or _step(x) not in gone]
    new.rewrites = (*kept, *(f"{step}: {note}".removesuffix(": ") for step, note in notes.items() if note is not None))
    return new


def _check(
    before: set[str], others: bool, fold: bool, fuse: bool, recompute: str, precision: Any, compile: bool
) -> None:
    """Refuse values that there are not, and steps that contradict each other or those that were applied before."""
    one_of("recompute", recompute, PARTS)
    if not fuse:
        one_of("precision without fuse", precision, (None, "autocast"))
        one_of("compile without fuse", compile, (False,))
    if "fuse" in before and (others or fold or fuse or recompute != "none" or precision is not None):
        raise FcosError(
            "A fused model cannot be rewritten again: give all steps, fuse included, to the model it was made of."
        )
    if fuse and recompute != "none":
        raise FcosError("fuse and recompute contradict each other: a fused model does not train.")
    if fold and "precision" in before:
        raise FcosError("fold comes before precision: give both at once to the model as it was before.")


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
    precision = "autocast" if cpu and amp else None
    new = rewrite(model, sync_bn=not cpu, recompute=recompute, precision=precision, share_tensors=True)
    for entry in set(rewrites_of(new)) - set(rewrites_of(model)):
        if "SyncBN" in entry:
            logger.warning("%s, because SyncBN does not train on the CPU.", entry.partition(": ")[2])
    return new
