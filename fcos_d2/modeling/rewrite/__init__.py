"""Rewriting: module in, new module out.

What may be changed here: how the same numbers are computed, in less time or memory or whatever the padding. Each step
is a file with a function that makes a copy (see `copying.py`); no step changes what it is given.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import nn

from ...options import one_of
from .copying import plain, rebuilt
from .fold import folding
from .freeze import freezing, without_sync_bn
from .precision import guarding
from .recompute import PARTS, Recomputed, recomputing

__all__ = ["PARTS", "STEPS", "prepare_training", "rewrite", "rewrites_of"]

logger = logging.getLogger("fcos_d2")

STEPS = ("freeze", "fold", "recompute", "precision")
"""In the order in which they are applied."""


def rewrite(
    module: nn.Module,
    *,
    freeze: Sequence[str] = (),
    sync_bn: bool = True,
    fold: bool = False,
    recompute: str = "none",
    precision: str | None = None,
    share_tensors: bool = False,
) -> nn.Module:
    """A new module that computes what the given one computes, in another way.

    The steps are applied in the order of `STEPS`, whatever was applied before is known from the module's record, and
    the given module, its submodules, hooks and tensors stay as they were. Names in the state dict stay, too.

    Args:
        module: a detector, or a part of one.
        freeze: names of submodules that shall not train; their batch norms become `FrozenBatchNorm2d`.
        sync_bn: False to have `nn.BatchNorm2d` in the place of `nn.SyncBatchNorm`, which trains on GPUs only.
        fold: fold frozen batch norms into Detectron2's convolutions, each time they run.
        recompute: gradient checkpointing of "none", "backbone" (blocks of the bottom-up network) or "all" (head, too).
        precision: "autocast" to prepare convolutions for training under autocast on the CPU.
        share_tensors: let the result have the given module's parameters and buffers instead of copies: for a module
            that takes the place of the given one.
    Raises:
        ValueError: there is no such value.
        FcosError: a step meets what it does not know.
    """
    one_of("recompute", recompute, PARTS)
    one_of("precision", precision, (None, "autocast"))
    done = list(rewrites_of(module))
    new = rebuilt(module, lambda part: None) if share_tensors else copy.deepcopy(module)
    if freeze:
        new = freezing(new, freeze)
        done.append(f"freeze: {', '.join(freeze)}")
    if not sync_bn:
        new, count = without_sync_bn(new)
        done += [f"freeze: {count} SyncBN layers became BN layers"] if count else []
    if fold:
        new = folding(new)
        done.append("fold")
    if recompute != "none":
        new = recomputing(plain(new, Recomputed), recompute)
        done = [x for x in done if not x.startswith("recompute")] + [f"recompute: {recompute}"]
    if precision == "autocast":
        new = guarding(new)
        done.append("precision: autocast")
    new._rewrites = tuple(dict.fromkeys(done))
    return new


def rewrites_of(module: nn.Module) -> tuple[str, ...]:
    """What `rewrite` has done to a module or parts of it: each entry is a step's name, and details after a colon."""
    found = [entry for part in module.modules() for entry in getattr(part, "_rewrites", ())]
    return tuple(sorted(dict.fromkeys(found), key=lambda entry: STEPS.index(entry.partition(":")[0])))


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
    count = sum(isinstance(part, nn.SyncBatchNorm) for part in model.modules()) if cpu else 0
    if count:
        logger.warning("%d SyncBN layers became BN layers, because SyncBN does not train on the CPU.", count)
    precision = "autocast" if cpu and amp else None
    return rewrite(model, sync_bn=not cpu, recompute=recompute, precision=precision, share_tensors=True)
