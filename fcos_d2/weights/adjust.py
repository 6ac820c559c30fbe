"""Conversions of numbers that another project uses differently, beyond names. Each function reports what it did.

Tensors are never changed in place. All arithmetic is float64, rounded once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rules import EPSILON

Tensors = dict[str, Tensor]

COUNTER = ".num_batches_tracked"
_BODY = "backbone.bottom_up."
_TOWER_KERNEL = re.compile(r"dense\.head\.(share|cls|bbox)_tower\.\d+\.weight")
# One convolution makes each level.
_LEVEL = re.compile(r"backbone\.(fpn_output\d+|top_block\.p\d|output\.\d+)\.weight")
_CONVOLUTION_BIAS = re.compile(r"dense\.head\.(share|cls|bbox)_tower\.(0|3|6|9|12|15|18|21)\.bias")


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
        source, target = (f"{EPSILON:g}", values) if back else (values, f"{EPSILON:g}")
        steps.append(
            f"frozen BN epsilon: weights of {len(norms)} norms scaled so that epsilon {target} gives what {source} gave"
        )
    if undefined:
        steps.append(
            f"{undefined} channels have a running variance of 0 or less, where epsilon 0 is undefined: left as is"
        )
    return changed, steps


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def choose_classes(tensors: Mapping[str, Tensor], channels: Sequence[int], num_classes: int) -> Tensors:
    """Keep the class channels of COCO's 80 classes, in their order.

    Args:
        tensors: our names.
        channels: channel of each class.
        num_classes: that the tensors have.
    """
    chosen = dict(tensors)
    for name in ("dense.head.cls_logits.weight", "dense.head.cls_logits.bias"):
        chosen[name] = tensors[name].unflatten(0, (-1, num_classes))[:, list(channels)].flatten(0, 1)
    return chosen


def spread_classes(tensors: Mapping[str, Tensor], channels: Sequence[int], num_classes: int) -> Tensors:
    """The inverse: put the classes at their channels; channels without a class get weight 0 and bias -100 (score 0)."""
    spread = dict(tensors)
    for name, empty in (("dense.head.cls_logits.weight", 0.0), ("dense.head.cls_logits.bias", -100.0)):
        tensor = tensors[name]
        spread[name] = tensor.new_full((num_classes, *tensor.shape[1:]), empty)
        spread[name][list(channels)] = tensor
    return spread


def change_pixels(tensors: Mapping[str, Tensor], theirs: Pixels, ours: Pixels) -> tuple[Tensors, list[str], list[str]]:
    """Let the first convolution read other pixels: BGR for RGB, or divided by other deviations.

    Another mean cannot be put into the weights: what is subtracted is not subtracted from the padding.

    Returns:
        The tensors, a sentence for each thing done, and what the user has to know.
    """
    changed, done, facts = dict(tensors), [], []
    flip = theirs.format != ours.format
    mean, std = (tuple(reversed(x)) if flip else x for x in (theirs.mean, theirs.std))
    ratio = torch.tensor([new / old for new, old in zip(ours.std, std)], dtype=torch.float64)
    if flip:
        done.append(f"{theirs.format} -> {ours.format}: input channels of the first convolution reversed")
    if bool((ratio != 1).any()):
        done.append(f"pixel deviation {std} -> {ours.std}: weights of the first convolution multiplied")
    if max(abs(new - old) for new, old in zip(ours.mean, mean)) > 1:
        facts.append(f"trained with the pixel mean {mean}, but the config subtracts {ours.mean}: set model.pixel_mean")
    for name in [n for n, t in tensors.items() if n.startswith(_BODY) and t.dim() == 4 and t.shape[1] == 3][:1]:
        if done:
            weight = tensors[name].double()
            weight = (weight.flip(1) if flip else weight) * ratio[:, None, None]
            changed[name] = weight.to(_wide(tensors[name].dtype))
    return changed, done, facts


def fit_counters(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]
) -> tuple[Tensors, Tensors, list[str]]:
    """Drop or add `num_batches_tracked` as the model needs it: it counts training batches and decides no output.

    Returns:
        The tensors, those dropped, and a sentence for each thing done.
    """
    dropped = {n: t for n, t in tensors.items() if n.endswith(COUNTER) and n not in wanted}
    norms = {n for n in wanted if n.endswith(COUNTER) and n not in tensors}
    norms = {n for n in norms if n.removesuffix(COUNTER) + ".running_var" in tensors}
    kept = {n: t for n, t in tensors.items() if n not in dropped}
    kept |= {n: torch.zeros((), dtype=torch.int64) for n in wanted if n in norms}
    steps = []
    if dropped:
        steps.append(f"{len(dropped)} batch counters (num_batches_tracked) left out: frozen norms keep none")
    if norms:
        steps.append(f"{len(norms)} batch counters (num_batches_tracked) set to 0")
    return kept, dropped, steps


def fill_neutral(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], starts: Mapping[str, float]
) -> tuple[Tensors, list[str]]:
    """Add what the source does without, at the value that changes nothing.

    Args:
        tensors: our names.
        wanted: name -> shape, of the model.
        starts: start values of buffers that only training reads.
    """
    filled, steps = dict(tensors), []
    for name, value in starts.items():
        if name in wanted and name not in filled:
            filled[name] = torch.full(wanted[name], value)
            steps.append(f"{name} starts at {value:g}: the source keeps no moving average")
    if "dense.head.scales" in wanted and "dense.head.scales" not in filled:
        filled["dense.head.scales"] = torch.ones(wanted["dense.head.scales"])
        steps.append("scales set to 1: the source has none")
    if not any(_CONVOLUTION_BIAS.fullmatch(name) for name in filled):
        biases = [name for name in wanted if _CONVOLUTION_BIAS.fullmatch(name)]
        filled |= {name: torch.zeros(wanted[name]) for name in biases}
        if biases:
            steps.append(f"{len(biases)} biases of tower convolutions set to 0: the source has none")
    return filled, steps


def add_counters(tensors: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
    """Give every batch norm its counter, for projects whose frozen norms are batch norms; names are theirs."""
    wanted = [n.removesuffix(".running_var") + COUNTER for n in tensors if n.endswith(".running_var")]
    added = {n: torch.zeros((), dtype=torch.int64) for n in wanted if n not in tensors}
    return {**tensors, **added}, [f"{len(added)} batch counters (num_batches_tracked) set to 0"] if added else []


def give_neutral(tensors: Mapping[str, Tensor], scales: bool, tower_bias: bool) -> tuple[Tensors, list[str]]:
    """Add what another project's head always has, at the value that changes nothing; the inverse of `fill_neutral`.

    Args:
        tensors: our names.
        scales, tower_bias: whether it always has them.
    """
    given, steps = dict(tensors), []
    if scales and "dense.head.scales" not in tensors:
        levels = [name for name in tensors if _LEVEL.fullmatch(name)]
        given["dense.head.scales"] = torch.ones(len(levels))
        steps.append(f"{len(levels)} scales set to 1: the model has none")
    kernels = [name for name in tensors if _TOWER_KERNEL.fullmatch(name) and tensors[name].dim() == 4]
    bare = [name for name in kernels if name.replace(".weight", ".bias") not in tensors] if tower_bias else []
    given |= {name.replace(".weight", ".bias"): torch.zeros(len(tensors[name])) for name in bare}
    if bare:
        steps.append(f"{len(bare)} biases of tower convolutions set to 0: the model has none")
    return given, steps
