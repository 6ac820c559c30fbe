"""ONNX models of reduced precision: float16, and int8 by static quantization (onnxruntime's tools).

The last convolutions of the head and what follows them stay in float32, as in `optimize`: a rounded distance would move
a box.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["halved", "quantized"]

_EXACT = ("cls_logits", "bbox_pred", "quality")  # `DenseHead.traits.exact`
_QUANTIZED = ("Conv", "Relu", "Clip", "Add", "MaxPool")


def halved(model: Any) -> Any:
    """The same model in float16, inputs and outputs in float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    named = _named(model)
    network = {node.name for node in _network(named)}
    exact = [node.name for node in named.graph.node if node.name not in network]
    blocked = [*DEFAULT_OP_BLOCK_LIST, "DeformConv"]
    made = convert_float_to_float16(named, keep_io_types=True, op_block_list=blocked, node_block_list=exact)
    _without_detours(made)
    OnnxModel(made).topological_sort()
    return made


def quantized(model: Any, inputs: Callable[[], Iterable[Mapping[str, np.ndarray]]]) -> Any:
    """The same model with convolutions in int8: weights for each channel, activations by what the inputs need.

    Args:
        model: onnx.ModelProto.
        inputs: gives the named inputs that the ranges of activations are taken from.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs())

        def get_next(self) -> Any:
            return next(self.left, None)

    named = _own_biases(_named(model))
    head = _after(named, {node.name for node in _convolutions(named, "head.")})
    chosen = [
        x.name for x in _network(named) if x.op_type == "Conv" or (x.op_type in _QUANTIZED and x.name not in head)
    ]
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        place = Path(folder, "int8.onnx")
        quantize_static(
            named, place, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(_QUANTIZED),
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=chosen,
        )  # fmt: skip
        return onnx.load(place)


@contextmanager
def _without_advice() -> Iterator[None]:
    """While it lasts, nothing below an error is logged: onnxruntime's tools advise what is not needed here."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _without_detours(model: Any) -> None:
    """Let float32 that the converter has cast to float16 and back be handed on as it is."""
    to = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast" and "cast" in node.name}
    straight = {}
    for node in to.values():
        first = to.get(node.input[0])
        if first is not None and node.attribute[0].i == 1 and first.attribute[0].i == 10:  # FLOAT16, and FLOAT again
            straight[node.output[0]] = first.input[0]
            node.op_type, node.input[0] = "Identity", first.input[0]
            del node.attribute[:]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = straight.get(name, name)


def _named(model: Any) -> Any:
    """A copy of a model whose nodes all have names."""
    copied = type(model)()
    copied.CopyFrom(model)
    for number, node in enumerate(copied.graph.node):
        node.name = f"{node.op_type}_{number}"
    return copied


def _convolutions(model: Any, part: str) -> list[Any]:
    """Convolutions whose weights have `part` in their name."""
    return [x for x in model.graph.node if x.op_type in ("Conv", "DeformConv") and any(part in i for i in x.input)]


def _after(model: Any, names: set[str]) -> set[str]:
    """Names of some nodes, and of all that follow from them."""
    found, values = set(names), {o for x in model.graph.node if x.name in names for o in x.output}
    for node in model.graph.node:  # in order of execution
        if node.name in found or any(value in values for value in node.input):
            found.add(node.name)
            values.update(node.output)
    return found


def _network(model: Any) -> list[Any]:
    """The nodes from the first convolution on that lie before the last ones of the head."""
    last = {node.name for name in _EXACT for node in _convolutions(model, f"head.{name}.")}
    beyond = _after(model, last)
    within = _after(model, {node.name for node in _convolutions(model, "backbone.")})
    return [node for node in model.graph.node if node.name in within - beyond]


def _own_biases(model: Any) -> Any:
    """Each convolution with a bias of its own: an int8 bias depends on the input's range, which levels do not share."""
    import onnx

    values = {x.name: x for x in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in values:
            own = onnx.TensorProto()
            own.CopyFrom(values[node.input[2]])
            own.name = node.input[2] = f"{node.name}_bias"
            model.graph.initializer.append(own)
    used = {name for node in model.graph.node for name in node.input}
    kept = [x for x in model.graph.initializer if x.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model
