"""Convolutions that do the work of what follows them: for detectors that only infer.

Norms with fixed statistics are folded into convolutions for good; ReLU and the sums of residual blocks become a part of
the convolution before them. That is done only where the order of execution is certain: within Detectron2's `Conv2d` and
its residual blocks, in sequences, and in blocks that declare it (`Traits.norm_after`). All else stays as it is.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import Tensor, nn

from ..._compat import can_pack_convolutions, convolve_packed, pack_convolution
from ...errors import FcosError
from ..exact_norm import BatchNormForward
from ..norm import BATCH_NORMS
from .copying import Derived, Replacement, derived, rebuilt
from .fold import FoldedConv2d, folded
from .foreign import traits_of

__all__ = ["FusedConv2d", "fusing", "norms_left"]

Clamp = tuple[float, "float | None"]
Activation = Callable[[Tensor], Tensor]
_RELU: Clamp = (0.0, None)
_CONVOLUTIONS = (nn.Conv2d, Conv2d, FoldedConv2d)
# What norms do in inference is known where they inherit it from these.
_NORM_FORWARDS = {kind.forward for kind in (FrozenBatchNorm2d, NaiveSyncBatchNorm, BatchNormForward, *BATCH_NORMS)}


class FusedConv2d(nn.Conv2d):
    """Convolution, norm with fixed statistics, sum with another map, and ReLU in one pass.

    It brings its input to the precision of its weights. A norm or activation that cannot be a part of it follows, as in
    Detectron2's `Conv2d`.
    """

    pack: bool
    packed: Tensor | None
    clamp: Clamp | None
    norm: nn.Module | None
    activation: Activation | None

    def prepare(self, dtype: torch.dtype, pack: bool) -> None:
        """Bring the weights to their precision and layout.

        Args:
            dtype: of the weights, and so of the results.
            pack: let the first input decide on a layout of oneDNN's own, if it has one for this precision.
        """
        weight = self.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        self.pack = pack and dtype != torch.float16 and weight.device.type == "cpu" and can_pack_convolutions()

    def __getstate__(self) -> dict[str, Any]:
        """Packed weights can be neither copied nor pickled: the next input packs them again."""
        if self.packed is not None:
            self.weight, self.packed = nn.Parameter(self.packed.to_dense(), requires_grad=False), None
        return self.__dict__

    def forward(self, x: Tensor, added: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """Convolve.

        Args:
            x: (N, Cin, H, W).
            added: (N, Cout, Ho, Wo), added before the ReLU.
            overwrite: whether the result may take the place of `added`.
        """
        x = self._convolve(x, added, overwrite)
        x = x if self.norm is None else self.norm(x)
        return x if self.activation is None else self.activation(x)

    def _convolve(self, x: Tensor, added: Tensor | None, overwrite: bool) -> Tensor:
        shape = (self.padding, self.stride, self.dilation, self.groups)
        if not self.pack:
            x = x if x.dtype == self.weight.dtype else x.to(self.weight.dtype)  # an operator that is not traced
            x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            x = x if added is None else x.add_(added)
            if self.clamp is None:
                return x
            return x.relu_() if self.clamp == _RELU else x.clamp_(*self.clamp)
        if self.packed is None:  # for inputs of this size; others can be convolved with them, too
            self.packed = pack_convolution(self.weight.detach(), *shape, x.shape)
            self.weight = None  # type: ignore[assignment]  # it is in `packed`
        return convolve_packed(x.to(self.packed.dtype), self.packed, self.bias, *shape, self.clamp, added, overwrite)


def _fused(norm: Any, activation: Activation | None, own: bool) -> Replacement:
    """What stands for a convolution that `norm` and `activation` follow; `own` if its `forward` applies them itself."""

    def edit(conv: Any) -> None:
        left = norm
        if _is_fixed(norm):
            weight, bias = folded(conv.weight, conv.bias, norm)
            conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
            left = None
        conv.clamp = _clamp_of(activation) if left is None else None
        conv.norm = conv.norm if left is not None else None
        conv.activation = conv.activation if own and hasattr(conv, "activation") and conv.clamp is None else None
        conv.pack, conv.packed = False, None

    return Replacement(FusedConv2d, edit)


class _FusedResidual(Derived):
    """Forward of Detectron2's residual blocks whose convolutions end with their ReLU.

    Attributes:
        owns_input: nobody else looks at what the block gets, so that the sum may be written there.
    """

    owns_input = False

    def forward(self: Any, x: Tensor) -> Tensor:
        added = x if self.shortcut is None else self.shortcut(x)
        *convs, last = (self.conv1, self.conv2, self.conv3) if hasattr(self, "conv3") else (self.conv1, self.conv2)
        for conv in convs:
            x = conv(x)
        return last(x, added, overwrite=self.owns_input or self.shortcut is not None)


class _FusedStem(Derived):
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


_BLOCKS: dict[Any, Any] = {BottleneckBlock: _FusedResidual, BasicBlock: _FusedResidual, BasicStem: _FusedStem}


class Shortened(Derived):
    """A sequence whose norms and activations have become a part of the convolutions before them."""

    def forward(self, x: Tensor) -> Tensor:
        sequence: Any = super()
        for part in sequence.__iter__():
            x = part(x)
        return x

    def __iter__(self) -> NoReturn:
        raise FcosError("The layers of a fused sequence cannot be looked at one by one: look at the plain model's.")

    def __getitem__(self, index: int | slice) -> NoReturn:
        self.__iter__()

    def __len__(self) -> NoReturn:
        self.__iter__()


def fusing(module: nn.Module) -> nn.Module:
    """A copy of a module whose convolutions do the work of the norms, activations and sums that follow them.

    Args:
        module: stays as it is; in evaluation mode.
    """
    found: dict[int, Replacement] = {}
    used = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    nets: list[Any] = [part for part in module.modules() if type(part) is ResNet]
    owners = {id(block) for net in nets for stage in net.stages for block in list(stage)[1:]}
    for part in module.modules():  # parents before their children
        if type(part) in _BLOCKS:
            found |= _in_residual(part, id(part) in owners)
        elif isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            found |= _in_sequence(part, used)
        elif pairs := _declared_pairs(part):
            found |= {id(conv): _fused(norm, None, own=False) for conv, norm in pairs.values()}
            found[id(part)] = Replacement(type(part), functools.partial(_leave_out, pairs))
        if _is_known(part, _CONVOLUTIONS) and id(part) not in found:
            found[id(part)] = _fused(getattr(part, "norm", None), getattr(part, "activation", None), own=True)
    return rebuilt(module, lambda part: found.get(id(part)))


def norms_left(module: nn.Module) -> str:
    """Which norms with fixed statistics are applied on their own, in words; empty for none."""
    names = [name for name, part in module.named_modules() if _is_fixed(part)]
    return f"left are {', '.join(names)}" if names else ""


def _in_residual(block: nn.Module, owns_input: bool) -> dict[int, Replacement]:
    """What stands for a residual block or stem of Detectron2 and its convolutions."""
    convs: dict[str, Any] = dict(block.named_children())
    if not all(_is_known(x, _CONVOLUTIONS[1:]) and x.activation is None and _is_fixed(x.norm) for x in convs.values()):
        return {}
    found = {
        id(conv): _fused(conv.norm, None if name == "shortcut" else F.relu, own=True) for name, conv in convs.items()
    }
    kind = derived(_BLOCKS[type(block)], type(block))
    found[id(block)] = Replacement(kind, lambda new: setattr(new, "owns_input", owns_input))
    return found


def _in_sequence(sequence: nn.Sequential, used: Mapping[int, int]) -> dict[int, Replacement]:
    """What stands for a sequence and its convolutions; `used` says how often each module stands somewhere."""
    layers = [x for x in sequence.named_modules(remove_duplicate=False) if x[0] and "." not in x[0]]
    found, absorbed = {}, []
    for i, (_, conv) in enumerate(layers):
        following = layers[i + 1 : i + 3]
        if not _is_known(conv, (nn.Conv2d,)) or used[id(conv)] > 1 or not following or not _is_fixed(following[0][1]):
            continue
        activation = following[1][1] if len(following) > 1 else None
        found[id(conv)] = _fused(following[0][1], activation, own=False)
        absorbed += [name for name, _ in following[: 1 if _clamp_of(activation) is None else 2]]
    if absorbed:
        found[id(sequence)] = Replacement(derived(Shortened, type(sequence)), functools.partial(_remove, absorbed))
    return found


def _declared_pairs(part: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Name of the norm -> convolution and norm, of the pairs that a class with its own `forward` declares."""
    declares = next((kind for kind in type(part).__mro__ if "forward" in vars(kind) or "traits" in vars(kind)), None)
    if declares is None or "traits" not in vars(declares):
        return {}  # an heir with another `forward`
    pairs = {norm: (getattr(part, conv), getattr(part, norm)) for conv, norm in traits_of(part).norm_after.items()}
    return {name: pair for name, pair in pairs.items() if _is_known(pair[0], (nn.Conv2d,)) and _is_fixed(pair[1])}


def _remove(names: Iterable[str], sequence: nn.Module) -> None:
    for name in names:
        delattr(sequence, name)


def _leave_out(names: Iterable[str], block: nn.Module) -> None:
    for name in names:
        setattr(block, name, nn.Identity())


def _is_known(part: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    return type(part) in kinds and part.padding_mode == "zeros"


def _is_fixed(norm: Any) -> bool:
    """Whether all that a norm does in inference is to multiply and add constants."""
    return getattr(type(norm), "forward", None) in _NORM_FORWARDS and norm.running_mean is not None


def _clamp_of(activation: Activation | None) -> Clamp | None:
    if activation in (F.relu, F.relu_) or type(activation) is nn.ReLU:
        return _RELU
    return (0.0, 6.0) if activation is F.relu6 or type(activation) is nn.ReLU6 else None
