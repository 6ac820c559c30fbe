"""In which type of numbers parts compute."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...options import one_of
from .copying import Derived, Replacement, derived, rebuilt
from .foreign import traits_of
from .fuse import FusedConv2d

__all__ = ["Guarded", "guarding", "lower"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types in which fused convolutions compute."""


class Guarded(Derived):
    """A strided convolution that runs in float32 on maps that are one pixel wide, under autocast too.

    In bfloat16, oneDNN leaves the gradient of its weights uninitialised there (seen with PyTorch 2.14 on a CPU without
    bfloat16 instructions); p6 and p7 of a small image are such maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 1:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def guarding(module: nn.Module) -> nn.Module:
    """A copy of a module, with its tensors, whose strided convolutions are `Guarded`."""

    def rule(part: nn.Module) -> Replacement | None:
        if isinstance(part, Guarded) or not isinstance(part, nn.Conv2d):
            return None
        return Replacement(derived(Guarded, type(part))) if part.stride[1] > 1 and part.kernel_size[1] > 1 else None

    return rebuilt(module, rule)


def lower(model: Any, precision: str | Mapping[str, str], compile: bool, pack: bool = True) -> str:
    """Bring the fused convolutions of a model to their precision, and the inputs of its parts with them.

    Args:
        model: the copy that `fuse.fusing` has made: it is changed. A module that is no detector is a "backbone".
        precision: one of `PRECISIONS` for all parts, or for some of "backbone" and "head"; others are "fp32".
        compile: put these parts through `torch.compile`.
        pack: let what is not compiled have its weights in layouts of oneDNN's own.
    Returns:
        what was done, in words.
    Raises:
        ValueError: there is no such part or precision, or a layer with weights is not known to compute in it.
    """
    known = ("backbone", "head")
    wanted = dict.fromkeys(known, precision) if isinstance(precision, str) else {**precision}
    for name, choice in wanted.items():
        one_of("a part in precision", name, known)
        one_of(f"precision of {name}", choice, list(PRECISIONS))
    parts = {"backbone": model}
    if hasattr(model, "backbone") and hasattr(model, "dense"):
        parts = {"backbone": model.backbone, "head": model.dense.head}
    for name, part in parts.items():
        _lower(name, part, PRECISIONS[wanted.get(name, "fp32")], pack=pack and not compile)
        if compile:
            on_cpu = all(p.device.type == "cpu" for p in part.parameters())
            part.compile(mode=None if on_cpu else "reduce-overhead")
    return ", ".join(f"{name} {wanted.get(name, 'fp32')}" for name in parts) + ", compiled" * compile


def _lower(top: str, module: nn.Module, dtype: torch.dtype, pack: bool) -> None:
    there = ((x, name) for x in module.modules() for name in traits_of(x).exact if getattr(x, name, True) is not None)
    exact = {id(x.get_submodule(name)) for x, name in there}
    for name, part in module.named_modules():
        if isinstance(part, FusedConv2d):
            part.prepare(torch.float32 if id(part) in exact else dtype, pack)
            continue
        weights = any(p.dim() > 1 for p in part.parameters(recurse=False))
        if dtype != torch.float32 and weights and not traits_of(part).any_precision:
            raise ValueError(
                f"{top}.{name} ({type(part).__name__}) is not known to compute in {dtype}: choose fp32 for {top}."
            )
    module.register_forward_pre_hook(partial(_cast, dtype))


def _cast(dtype: torch.dtype, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Forward pre-hook that brings maps, one or a sequence, to a type."""
    first, *others = arguments
    first = first.to(dtype) if isinstance(first, Tensor) else [x.to(dtype) for x in first]
    return first, *others
