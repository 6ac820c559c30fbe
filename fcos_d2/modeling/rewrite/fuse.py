"""Makes a trained detector fast in inference: same detections, fewer passes over memory.

Norms with fixed statistics are folded into convolutions for good, ReLU and the sums of residual blocks become a part of
the convolution before them, maps are laid as channels_last, weights are packed for oneDNN where PyTorch has it, and
each part runs in the precision asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import Tensor, nn

from ...options import one_of
from .fold import folded

__all__ = ["PARTS", "PRECISIONS", "FusedConv2d", "optimized"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARTS = ("backbone", "head")
# What stays in float32: a rounded logit or distance would be off by up to 1/256 of itself.
_PREDICTORS = ("cls_logits", "bbox_pred", "quality")

Clamp = tuple[float, "float | None"]
_RELU: Clamp = (0.0, None)
# clamp -> name, scalars and algorithm of oneDNN's operators
_ACTIVATIONS = {None: ("none", [], ""), _RELU: ("relu", [], ""), (0.0, 6.0): ("hardtanh", [0.0, 6.0], "")}


def optimized(model: nn.Module, precision: str | Mapping[str, str] = "fp32", compile: bool = False) -> nn.Module:
    """A copy of a detector that only infers, faster.

    Args:
        model: an `FCOS`; it stays as it is.
        precision: "fp32", "bf16" or "fp16" of the convolutions of all `PARTS`, or of each, e.g. {"backbone": "bf16"};
            parts left out are "fp32". The last convolutions of the head, scores and boxes are float32 in any case.
        compile: put backbone and head through `torch.compile`, on CUDA with CUDA graphs; the first image of each size
            then takes minutes.
    Returns:
        A model of the same class, in evaluation mode. It can be neither trained nor saved: keep the original for that.
    Raises:
        ValueError: there is no such part or precision.
    """
    wanted = dict.fromkeys(PARTS, precision) if isinstance(precision, str) else {**precision}
    for part, name in wanted.items():
        one_of("a part in precision", part, PARTS)
        one_of(f"precision of {part}", name, list(PRECISIONS))
    model = copy.deepcopy(model).eval().requires_grad_(False)
    pack = model.device.type == "cpu" and not compile and _has_packing()
    for part, module in (("backbone", model.backbone), ("head", model.dense.head)):
        dtype = PRECISIONS[wanted.get(part, "fp32")]
        _fuse(module)
        for name, conv in module.named_modules():
            if isinstance(conv, FusedConv2d):
                conv.prepare(torch.float32 if part == "head" and name in _PREDICTORS else dtype, pack)
        module.register_forward_pre_hook(_Cast(dtype))
        if compile:
            module.compile(mode=None if model.device.type == "cpu" else "reduce-overhead")
    return model


def _has_packing() -> bool:
    operators = getattr(torch.ops, "mkldnn", None)
    return torch.backends.mkldnn.is_available() and hasattr(operators, "_convolution_pointwise_")


class FusedConv2d(nn.Conv2d):
    """Convolution, norm with fixed statistics, sum with another map, and ReLU in one pass.

    Made of a convolution in place, by `_fuse_conv`; it brings its input to the precision of its weights. A norm or
    activation that cannot be a part of it follows, as in Detectron2's `Conv2d`.
    """

    pack: bool
    packed: Tensor | None
    clamp: Clamp | None
    norm: nn.Module | None
    activation: Callable[[Tensor], Tensor] | None

    def prepare(self, dtype: torch.dtype, pack: bool) -> None:
        """Bring the weights to their precision and layout.

        Args:
            dtype: of the weights, and so of the results.
            pack: let the first input decide on a layout of oneDNN's own; from then on weights can only be used.
        """
        weight = self.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        self.pack = pack and dtype != torch.float16

    def _lay(self, size: list[int]) -> None:
        """Pack the weights for inputs (N, Cin, H, W) of this size; others can be convolved with them, too."""
        self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
            self.weight.detach().to_mkldnn(), self.padding, self.stride, self.dilation, self.groups, size
        )
        self.weight = None

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
        if not self.pack:
            x = x.to(self.weight.dtype)
            x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            x = x if added is None else x.add_(added)
            return x if self.clamp is None else x.clamp_(*self.clamp)
        if self.packed is None:
            self._lay(list(x.shape))
        x = x.to(self.packed.dtype)
        weights = (self.packed, self.bias, self.padding, self.stride, self.dilation, self.groups)
        activation = _ACTIVATIONS[self.clamp]
        if added is None:
            return torch.ops.mkldnn._convolution_pointwise(x, *weights, *activation)
        if overwrite:
            return torch.ops.mkldnn._convolution_pointwise_.binary(added, x, *weights, "add", None, *activation)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, added, *weights, "add", None, *activation)


class _Cast:
    """Forward pre-hook that brings maps, one or a sequence, to a type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = arguments
        first = first.to(self.dtype) if isinstance(first, Tensor) else [x.to(self.dtype) for x in first]
        return first, *others


class _FusedResidual:
    """Forward of Detectron2's residual blocks whose convolutions end with their ReLU.

    Attributes:
        owns_input: nobody else looks at what the block gets, so that the sum may be written there.
    """

    owns_input = False

    def forward(self, x: Tensor) -> Tensor:
        added = x if self.shortcut is None else self.shortcut(x)
        *convs, last = (self.conv1, self.conv2, self.conv3) if hasattr(self, "conv3") else (self.conv1, self.conv2)
        for conv in convs:
            x = conv(x)
        return last(x, added, overwrite=self.owns_input or self.shortcut is not None)


class _FusedBottleneck(_FusedResidual, BottleneckBlock):
    pass


class _FusedBasicBlock(_FusedResidual, BasicBlock):
    pass


class _FusedStem(BasicStem):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


_BLOCKS = {BottleneckBlock: _FusedBottleneck, BasicBlock: _FusedBasicBlock, BasicStem: _FusedStem}


def _fuse(module: nn.Module) -> None:
    """Fuse the convolutions of a module in place.

    In place, because Detectron2's networks hold some parts in lists of their own, too.
    """
    children = dict(module.named_children())
    if type(module) in _BLOCKS and all(isinstance(x, nn.Conv2d) and _is_fixed(x.norm) for x in children.values()):
        for name, conv in children.items():
            _fuse_conv(conv, conv.norm, None if name == "shortcut" else F.relu)
        module.__class__ = _BLOCKS[type(module)]
        return
    if isinstance(module, ResNet):
        for stage in module.stages:
            for block in list(stage)[1:]:
                block.owns_input = True
    for name, child in children.items():
        if not isinstance(child, nn.Conv2d) or child.padding_mode != "zeros":
            _fuse(child)
            continue
        norm, activation = getattr(child, "norm", None), getattr(child, "activation", None)
        if type(child) is nn.Conv2d:
            norm, activation = _take_following(module, name)
        _fuse_conv(child, norm, activation)


def _take_following(module: nn.Module, name: str) -> tuple[nn.Module | None, nn.Module | None]:
    """Norm and activation that a module applies after its convolution `name`; it no longer does so."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        order = list(children)
        following = order[order.index(name) + 1 :][:2]
    else:  # conv1 and bn1, as in torchvision's networks
        following = [name.replace("conv", "bn")] if "conv" in name else []
    norm = children.get(following[0]) if following else None
    if not _is_fixed(norm):
        return None, None
    setattr(module, following[0], nn.Identity())
    activation = children[following[1]] if len(following) > 1 else None
    if _clamp_of(activation) is None:
        return norm, None
    setattr(module, following[1], nn.Identity())
    return norm, activation


def _fuse_conv(conv: nn.Conv2d, norm: nn.Module | None, activation: Callable[[Tensor], Tensor] | None) -> None:
    """Turn a convolution into one that does the work of norm and activation, too, as far as it can."""
    if _is_fixed(norm):
        weight, bias = folded(conv.weight, conv.bias, norm)
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
        norm = None
    clamp = _clamp_of(activation) if norm is None else None
    conv.__class__ = FusedConv2d
    conv.norm, conv.activation = norm, None if clamp is not None else activation
    conv.clamp, conv.pack, conv.packed = clamp, False, None


def _is_fixed(norm: nn.Module | None) -> bool:
    """Whether all that a norm does in inference is to multiply and add constants."""
    known = (FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)
    return isinstance(norm, known) and norm.running_mean is not None


def _clamp_of(activation: Callable[[Tensor], Tensor] | None) -> Clamp | None:
    if activation in (F.relu, F.relu_) or isinstance(activation, nn.ReLU):
        return _RELU
    return (0.0, 6.0) if activation is F.relu6 or isinstance(activation, nn.ReLU6) else None
