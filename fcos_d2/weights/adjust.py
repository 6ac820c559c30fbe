"""Conversions of numbers that another project uses differently, beyond names; the report gets a sentence for each.

Tensors are never changed in place. All arithmetic is float64, rounded once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .report import Report
from .rules import EPSILON

Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

COUNTER = ".num_batches_tracked"
SCALES = "dense.head.scales"
_CLASSES = "dense.head.cls_logits."
_TOWER_KERNEL = re.compile(r"(dense\.head\.(?:share|cls|bbox)_tower\.\d+\.)weight")


@dataclass(frozen=True)
class Pixels:
    """What a model reads: the order of the channels, and in 0..255 their mean and deviation, to four decimals.

    A built model keeps them in float32, a config in the digits that were published: rounded, the two are equal.
    """

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(round(float(x), 4) for x in getattr(self, name)))

    def __str__(self) -> str:
        mean, std = (", ".join(f"{x:g}" for x in values) for values in (self.mean, self.std))
        return f"{self.format}, mean {mean}, deviation {std}"


def change_epsilon(
    tensors: Mapping[str, Tensor], epsilons: Mapping[str, float], back: bool = False
) -> tuple[Tensors, list[str]]:
    """Scale the weights of norms so that another epsilon gives the same output.

    w' = w * sqrt((var + ours) / (var + theirs)).
    The weight and not the variance takes the change, because `var - epsilon` would lose the digits of small variances.

    Args:
        tensors: our names.
        epsilons: norm -> epsilon of the other project.
        back: from our epsilon to theirs instead.
    Returns:
        The tensors, and a sentence for each thing done. Channels for which the other project's norm is undefined
        (var + epsilon <= 0) stay as they are.
    """
    changed, undefined, steps = dict(tensors), 0, []
    norms = [norm for norm in epsilons if f"{norm}.weight" in tensors and f"{norm}.running_var" in tensors]
    for norm in norms:
        weight, variance = tensors[f"{norm}.weight"], tensors[f"{norm}.running_var"].double()
        ours, theirs = variance + EPSILON, variance + epsilons[norm]
        defined = (ours > 0) & (theirs > 0)
        ratio = torch.where(defined, (theirs / ours if back else ours / theirs), torch.ones_like(ours))
        changed[f"{norm}.weight"] = (weight.double() * ratio.sqrt()).to(_wide(weight.dtype))
        undefined += int((~defined).sum())
    if norms:
        values = " and ".join(f"{e:g}" for e in sorted({epsilons[norm] for norm in norms}))
        new, old = (values, f"{EPSILON:g}") if back else (f"{EPSILON:g}", values)
        scaled = f"weights of {len(norms)} norms scaled so that epsilon {new} gives what {old} gave"
        steps.append(f"frozen BN epsilon: {scaled}")
    if undefined:
        cause = "have a running variance of 0 or less, where epsilon 0 is undefined"
        steps.append(f"{undefined} channels {cause}: left as is")
    return changed, steps


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def choose_classes(tensors: Mapping[str, Tensor], channels: Sequence[int], num_classes: int) -> Tensors:
    """Of tensors for `num_classes` classes, keep the class channels of COCO's 80, given the channel of each."""
    chosen = {n: t.unflatten(0, (-1, num_classes))[:, list(channels)].flatten(0, 1) for n, t in _class_layer(tensors)}
    return {**tensors, **chosen}


def spread_classes(tensors: Mapping[str, Tensor], channels: Sequence[int], num_classes: int) -> Tensors:
    """The inverse: put the classes at their channels; channels without a class get weight 0 and bias -100 (score 0)."""
    spread = dict(tensors)
    for name, tensor in _class_layer(tensors):
        empty = -100.0 if name.endswith("bias") else 0.0
        spread[name] = tensor.new_full((num_classes, *tensor.shape[1:]), empty)
        spread[name][list(channels)] = tensor
    return spread


def _class_layer(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(name, tensors[name]) for name in (f"{_CLASSES}weight", f"{_CLASSES}bias")]


def change_pixels(tensors: Tensors, known: Collection[Pixels], ours: Pixels | None, report: Report) -> Tensors:
    """Let the first convolution read other pixels than the `known` ones: BGR for RGB, or divided by other deviations.

    Another mean cannot be put into the weights: what is subtracted is not subtracted from the padding.
    """
    if ours is None or ours in known:
        return tensors
    if len(known) != 1:
        report.facts.append("which pixels the weights expect is not known from the file: nothing was changed")
        return tensors
    (theirs,) = known
    flip = theirs.format != ours.format
    mean, std = (tuple(reversed(x)) if flip else x for x in (theirs.mean, theirs.std))
    ratio = torch.tensor([new / old for new, old in zip(ours.std, std)], dtype=torch.float64)
    if flip:
        report.done.append(f"{theirs.format} -> {ours.format}: input channels of the first convolution reversed")
    if rescaled := bool((ratio != 1).any()):
        report.done.append(f"pixel deviation {std} -> {ours.std}: weights of the first convolution multiplied")
    if max(abs(new - old) for new, old in zip(ours.mean, mean)) > 1:
        text = f"trained with the pixel mean {mean}, but the config subtracts {ours.mean}: set model.pixel_mean"
        report.warnings.append(text)
    stems = (n for n, t in tensors.items() if n.startswith("backbone.bottom_up.") and t.dim() == 4 and t.shape[1] == 3)
    name = next(stems, None)
    if name is None or not (flip or rescaled):
        return tensors
    weight = tensors[name].double()
    weight = (weight.flip(1) if flip else weight) * ratio[:, None, None]
    return {**tensors, name: weight.to(_wide(tensors[name].dtype))}


def fit_counters(tensors: Mapping[str, Tensor], wanted: Collection[str], report: Report) -> tuple[Tensors, Tensors]:
    """Drop or add `num_batches_tracked`, which decides no output, as the model needs it; returns also those dropped."""
    dropped = {n: t for n, t in tensors.items() if n.endswith(COUNTER) and n not in wanted}
    norms = [n for n in wanted if n.endswith(COUNTER) and n not in tensors]
    norms = [n for n in norms if n.removesuffix(COUNTER) + ".running_var" in tensors]
    kept = {n: t for n, t in tensors.items() if n not in dropped}
    if dropped:
        report.done.append(f"{len(dropped)} batch counters (num_batches_tracked) left out: frozen norms keep none")
    if norms:
        report.done.append(f"{len(norms)} batch counters (num_batches_tracked) set to 0")
    return kept | {n: torch.zeros((), dtype=torch.int64) for n in norms}, dropped


def tower_biases(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the biases that convolutions of a head's towers may have."""
    kernels = {match[1]: shapes[match[0]] for match in map(_TOWER_KERNEL.fullmatch, shapes) if match}
    return {f"{name}bias": shape[:1] for name, shape in kernels.items() if len(shape) == 4}


def fill_neutral(
    tensors: Mapping[str, Tensor], wanted: Shapes, starts: Mapping[str, float], report: Report, who: str = "source"
) -> Tensors:
    """Add what is wanted and `who` does without, at the value that changes nothing.

    Args:
        starts: start values of buffers that only training reads.
    """
    filled = dict(tensors)
    for name, value in starts.items():
        if name in wanted and name not in filled:
            filled[name] = torch.full(wanted[name], value)
            report.done.append(f"{name} starts at {value:g}: the source keeps no moving average")
    if SCALES in wanted and SCALES not in filled:
        filled[SCALES] = torch.ones(wanted[SCALES])
        report.done.append(f"scales set to 1: the {who} has none")
    biases = {name: shape for name, shape in tower_biases(wanted).items() if name in wanted}
    if biases and not any(name in filled for name in biases):
        filled |= {name: torch.zeros(shape) for name, shape in biases.items()}
        report.done.append(f"{len(biases)} biases of tower convolutions set to 0: the {who} has none")
    return filled
