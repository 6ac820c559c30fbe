"""Parts that no longer train, and batch norms over all processes where there is no GPU to compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ...errors import FcosError
from ..exact_norm import BatchNorm2d
from ..norm import BATCH_NORMS
from .copying import Replacement, rebuilt

__all__ = ["freezing"]


def freezing(module: nn.Module, names: Sequence[str], sync_bn: bool) -> tuple[nn.Module, str | None]:
    """A copy of a module, some of whose parts do not train: no gradients, and batch norms become `FrozenBatchNorm2d`.

    Args:
        module: stays as it is.
        names: of submodules; "" is the module itself.
        sync_bn: False to have `nn.BatchNorm2d` in the place of the other `nn.SyncBatchNorm`.
    Returns:
        the copy, and what was done in words; `None` if nothing was.
    Raises:
        FcosError: there is no submodule of such a name.
    """
    known = dict(module.named_modules())
    if unknown := [name for name in names if name not in known]:
        raise FcosError(f"freeze names {unknown[0]!r}, which {type(module).__name__} has not.")
    parts = {id(part) for name in names for part in known[name].modules()}
    still = {id(p): nn.Parameter(p.detach(), requires_grad=False) for name in names for p in known[name].parameters()}
    plain = Replacement(BatchNorm2d)

    def rule(part: nn.Module) -> Replacement | None:
        if id(part) in parts and isinstance(part, BATCH_NORMS) and part.running_mean is not None:
            return Replacement(FrozenBatchNorm2d, _as_buffers)
        return plain if isinstance(part, nn.SyncBatchNorm) and not sync_bn else None

    count = sum(rule(part) is plain for part in known.values())
    notes = [", ".join(names)] * bool(names) + [f"{count} SyncBN layers became BN layers"] * bool(count)
    return rebuilt(module, rule, tensors=still), "; ".join(notes) or None


def _as_buffers(norm: Any) -> None:
    """What a `FrozenBatchNorm2d` multiplies and adds are buffers, 1 and 0 unless the norm has learned others."""
    statistics = dict(norm.named_buffers(recurse=False))
    for name, start in (("weight", norm.running_var.new_ones), ("bias", norm.running_var.new_zeros)):
        value = getattr(norm, name)
        delattr(norm, name)
        norm.register_buffer(name, start(norm.num_features) if value is None else value.detach())
    for name, value in statistics.items():  # after these, as in the batch norm's state dict
        delattr(norm, name)
        norm.register_buffer(name, value)
