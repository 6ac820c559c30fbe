"""Operators that `torch.onnx.export` does not know, or only knows in many parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["onnx_translations"]


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """Operator of PyTorch -> a function that says it in ONNX's."""
    from onnxscript import opset20

    op: Any = opset20

    def suppressed(boxes: Any, scores: Any, threshold: float) -> Any:
        most = op.Constant(value_ints=[2**31 - 1])
        return op.NonMaxSuppression(
            boxes, scores, most, op.Constant(value_floats=[threshold]), op.Constant(value_floats=[0.0])
        )

    def converted(x: Any, dtype: int) -> Any:
        return op.Cast(x, to=dtype)

    def normalized(
        x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True
    ) -> Any:
        rows = op.Reshape(x, op.Constant(value_ints=[0, groups, -1]))
        ones, zeros = (op.Constant(value_floats=[value] * groups) for value in (1.0, 0.0))
        found = op.Reshape(op.InstanceNormalization(rows, ones, zeros, epsilon=eps), op.Shape(x))
        axes = op.Constant(value_ints=[1, 2])
        found = found if weight is None else op.Mul(found, op.Unsqueeze(weight, axes))
        return found if bias is None else op.Add(found, op.Unsqueeze(bias, axes))

    def standardized(
        x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float,
        cudnn_enabled: bool = True,
    ) -> Any:  # fmt: skip
        ones, zeros = (op.Expand(op.Constant(value_floats=[value]), op.Shape(mean)) for value in (1.0, 0.0))
        return op.BatchNormalization(
            x, ones if weight is None else weight, zeros if bias is None else bias, mean, var, epsilon=eps
        )

    def pooled(x: Any, output_size: Sequence[int]) -> Any:
        if list(output_size) != [1, 1]:
            raise NotImplementedError("only the mean of a whole map is one operator of ONNX")
        return op.GlobalAveragePool(x)

    aten = torch.ops.aten
    return {
        torch.ops.fcos_d2.nms_by_class.default: suppressed, aten.to.dtype: converted,
        aten.group_norm.default: normalized, aten.batch_norm.default: standardized,
        aten.adaptive_avg_pool2d.default: pooled,
    }  # fmt: skip
