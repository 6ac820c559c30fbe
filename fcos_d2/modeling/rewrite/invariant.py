"""Batch invariance: an image has one result in any batch and in any padding.

The images of a batch are padded with zeros to one size. Within the network that padding does not stay zero: a norm adds
its bias there, a convolution carries the image over its border, and the next convolution carries both back into the
image. Means over a whole map, as GroupNorm takes them, count the padding, too. So the features of an image change with
the size of the largest image beside it.

`without_padding` prepares a network against that. Before a convolution or pool that reads neighbouring cells, the
padding is set to zero again, and means are taken over each image alone. Prepared modules do so within
`running(padding)`; outside, and where images fill their batch, they do what they did before. Nothing is added to the
state dict.

On a map of stride s, an image of `size` pixels has the first ceil(size / s) cells: as many as convolutions and pools of
stride 2 make of the image when it is not padded at all.

What remains is rounding: libraries add in an order that depends on the shape of the batch, which changes a feature by
about 1e-6 of itself in float32. Training stays as published, with the padding as background: batch norms that train
could not be made invariant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from ..exact_norm import GroupNorm, group_norm
from ..norm import BATCH_NORMS
from .copying import Replacement, rebuilt
from .foreign import traits_of

# A logit of which the sigmoid is 0 in every precision; unlike infinity it can be calculated with.
_NEVER = -1e4

_ONE_BY_ONE = "and run images one by one (batch size 1)"

# Their input is set to zero in the padding. What max pools read has passed a ReLU, so that zero can win nowhere.
_READS_NEIGHBOURS = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
# They work on each cell alone (batch norms while they do not train).
_POINTWISE = (
    *BATCH_NORMS, FrozenBatchNorm2d, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity,
    nn.PReLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Hardsigmoid,
    nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Softplus,
)  # fmt: skip
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Padding:
    """Where the images of a batch end, on each of its maps.

    Args:
        image_sizes: (height, width) of the N images before padding, pixels.
        size: (height, width) of the padded batch, pixels.
    """

    def __init__(self, image_sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> None:
        self.image_sizes = [(int(height), int(width)) for height, width in image_sizes]
        self.size = (int(size[0]), int(size[1]))
        self._cells: dict[tuple[int, int], list[tuple[int, int]] | None] = {}
        self._masks: dict[tuple[torch.Size, torch.device], Tensor] = {}

    def cells(self, maps: Tensor) -> list[tuple[int, int]] | None:
        """(height, width) of the N images on maps (N, C, H, W), in cells; `None` if all of them fill the maps.

        Raises:
            ValueError: the maps are not the padded batch halved a number of times, or not of N images.
        """
        size = (maps.shape[-2], maps.shape[-1])
        if maps.dim() != 4 or len(maps) != len(self.image_sizes):
            raise ValueError(
                f"A map of shape {tuple(maps.shape)} cannot be told from its padding in a batch of "
                f"{len(self.image_sizes)} images: set batch_invariant=False {_ONE_BY_ONE}."
            )
        if size not in self._cells:
            heights = _halve(self.size[0], [h for h, _ in self.image_sizes], size[0])
            widths = _halve(self.size[1], [w for _, w in self.image_sizes], size[1])
            if heights is None or widths is None:
                raise ValueError(
                    f"A map of {size[0]}x{size[1]} cells is not the padded input of {self.size[0]}x{self.size[1]} "
                    f"pixels, halved: set batch_invariant=False {_ONE_BY_ONE}."
                )
            cells = list(zip(heights, widths))
            self._cells[size] = None if all(c == size for c in cells) else cells
        return self._cells[size]

    def fill(self, maps: Tensor, value: float = 0.0) -> Tensor:
        """Maps (N, C, H, W) with one value in the padding: `maps` itself, or a copy while gradients are recorded."""
        cells = self.cells(maps)
        if cells is None:
            return maps
        if torch.is_grad_enabled():
            return maps.masked_fill(self._mask(maps, cells), value)
        if maps.device.type != "cpu":  # one kernel instead of two for each image
            return maps.masked_fill_(self._mask(maps, cells), value)
        for values, (height, width) in zip(maps, cells):  # the padding alone is written
            values[:, height:] = value
            values[:, :height, width:] = value
        return maps

    def _mask(self, maps: Tensor, cells: list[tuple[int, int]]) -> Tensor:
        """(N, 1, H, W) bool, true in the padding."""
        key = (maps.shape[-2:], maps.device)
        if key not in self._masks:
            mask = self._masks[key] = torch.ones((len(cells), 1, *key[0]), dtype=torch.bool, device=maps.device)
            for image, (height, width) in zip(mask, cells):
                image[:, :height, :width] = False
        return self._masks[key]


def _halve(padded: int, sizes: list[int], wanted: int) -> list[int] | None:
    """Halve lengths, rounding up, until the padded one is `wanted`; `None` if it never is."""
    while padded > max(wanted, 1):
        padded, sizes = -(-padded // 2), [-(-size // 2) for size in sizes]
    return sizes if padded == wanted else None


_RUNNING: ContextVar[Padding | None] = ContextVar("padding of the batch that runs", default=None)


@contextmanager
def running(padding: Padding | None) -> Iterator[None]:
    """Within it, prepared modules work on a batch with this padding; `None` changes nothing."""
    token = _RUNNING.set(padding)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def hide_padding(padding: Padding, logits: Sequence[Tensor]) -> None:
    """Let locations in the padding hold no candidates: L maps (N, D*K, Hi, Wi) of class logits, changed in place."""
    with torch.no_grad():
        for values in logits:
            padding.fill(values, _NEVER)


def without_padding(module: nn.Module) -> nn.Module:
    """A copy of a module, with its tensors, for which padding counts nothing within `running`.

    Args:
        module: a detector, of which backbone and head are prepared, or a network; it stays as it is.
    Raises:
        ValueError: there is a part whose result depends on the padding whatever is done, or of which that is not
            known; the message names it.
    """
    grid = getattr(getattr(module, "dense", None), "grid", None)
    if getattr(grid, "origin", "center") == "corner":
        raise ValueError(
            "batch_invariant is True, but LocationGrid.origin 'corner' spreads locations over the padded input: set "
            f"batch_invariant=False {_ONE_BY_ONE}, or origin 'center'."
        )
    parts = _parts(module)
    for name, part in parts.items():
        if reason := _obstacle(part):
            raise ValueError(
                f"batch_invariant is True, but {name} ({type(part).__name__}) {reason}: set batch_invariant=False "
                f"{_ONE_BY_ONE}."
            )
    prepared = _replacements(parts)
    new: Any = rebuilt(module, lambda part: prepared.get(id(part)))
    if hasattr(type(new), "batch_invariant"):
        new.batch_invariant = True
    return new


def is_prepared(module: nn.Module) -> bool:
    """Whether `without_padding` has nothing to do."""
    return not _replacements(_parts(module))


def _parts(module: Any) -> dict[str, nn.Module]:
    """All modules that compute maps, by name: of a detector those of backbone and head."""
    tops = {"": module}
    if hasattr(module, "backbone") and hasattr(module, "dense"):
        tops = {"backbone": module.backbone, "dense.head": module.dense.head}
    return {f"{top}.{name}".strip("."): part for top, x in tops.items() for name, part in x.named_modules()}


def _replacements(parts: Mapping[str, nn.Module]) -> dict[int, Replacement]:
    """Id of a part -> what stands for it; those that have been prepared before stay so."""
    pooled = {id(part.get_submodule(name)) for part in parts.values() for name in traits_of(part).pooled}
    found = {}
    for part in parts.values():
        reads = isinstance(part, _READS_NEIGHBOURS) or traits_of(part).reads_neighbours
        reads = reads and getattr(part, "kernel_size", 0) not in (1, (1, 1))
        if type(part) in _MEANS:
            found[id(part)] = Replacement(_MEANS[type(part)])
        elif (reads or id(part) in pooled) and not getattr(part, "hides_padding", False):
            found[id(part)] = Replacement(type(part), partial(_register, reads, id(part) in pooled))
    return found


def _register(reads: bool, pooled: bool, new: Any) -> None:
    new.hides_padding = True
    if reads:
        new.register_forward_pre_hook(_fill_input)
    if pooled:
        new.register_forward_hook(_fill_output)


def _fill_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    padding = _RUNNING.get()
    return None if padding is None else (padding.fill(args[0]), *args[1:])


def _fill_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    padding = _RUNNING.get()
    return None if padding is None else padding.fill(output)


def _cells(x: Tensor) -> list[tuple[int, int]] | None:
    padding = _RUNNING.get()
    return None if padding is None else padding.cells(x)


def _obstacle(module: nn.Module) -> str | None:
    """Why a module cannot be made invariant; `None` if it can."""
    if traits_of(module).crosses_border:
        return traits_of(module).crosses_border
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.padding_mode != "zeros":
        return f"pads its maps by {module.padding_mode!r}, not with zeros"
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1), [1, 1]):
        return "averages over parts of the padded map"
    if isinstance(module, nn.Upsample) and module.mode != "nearest":
        return f"resizes maps by {module.mode!r}, across the border of an image"
    known = isinstance(module, (*_READS_NEIGHBOURS, *_POINTWISE, nn.Upsample, *_CONTAINERS))
    means = type(module) in (*_MEANS, *_MEANS.values())
    if known or means or traits_of(module).reads_neighbours or any(True for _ in module.children()):
        return None
    return "is not known to leave the padding out"


class PaddedGroupNorm(GroupNorm):
    """GroupNorm whose statistics are of each image without its padding, which becomes zero."""

    def forward(self, x: Tensor) -> Tensor:
        if (cells := _cells(x)) is None:
            return super().forward(x)
        return padded_group_norm(x, cells, self.num_groups, self.weight, self.bias, self.eps)


def padded_group_norm(
    x: Tensor,
    cells: Sequence[tuple[int, int]],
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.group_norm` of each image without its padding.

    Args:
        x: (N, C, H, W).
        cells: (height, width) of each image.
        num_groups, weight, bias, eps: as in `F.group_norm`.
    Returns:
        (N, C, H, W), zero in the padding.
    """
    size = x.shape[-2:]
    images = []
    for i, (height, width) in enumerate(cells):
        image = group_norm(x[i : i + 1, :, :height, :width], num_groups, weight, bias, eps)
        images.append(F.pad(image, (0, size[1] - width, 0, size[0] - height)))
    return torch.cat(images)


class PaddedMean(nn.AdaptiveAvgPool2d):
    """The mean of each image without its padding, (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        if (cells := _cells(x)) is None:
            return super().forward(x)
        # The clone lies in memory as an image alone does, and so is summed in the same order.
        images = (x[i : i + 1, :, :height, :width].clone() for i, (height, width) in enumerate(cells))
        return torch.cat([super(PaddedMean, self).forward(image) for image in images])


# Modules that take means over the whole map, and those whose means leave the padding out.
_MEANS: dict[type[nn.Module], type[nn.Module]] = {
    nn.GroupNorm: PaddedGroupNorm,
    GroupNorm: PaddedGroupNorm,
    nn.AdaptiveAvgPool2d: PaddedMean,
}
