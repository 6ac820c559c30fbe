"""Small exported detectors, written with onnx's own helper: a network of one convolution for each level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fcos_d2 import runtime
from fcos_d2.modeling.locations import LocationGrid
from fcos_d2.modeling.selector import Selector

STRIDES = (8, 16, 32)
NAMES = ["red", "green", "blue"]


def metadata(**changes: Any) -> dict[str, Any]:
    """Of a raw graph of AdelaiDet's choices, which finds a lot."""
    select = dataclasses.asdict(Selector(score_threshold=0.3, max_detections=1000))
    return {
        "format": 1, "graph": "raw", "preprocessing": "outside", "dtype": "float32", "class_names": NAMES,
        "dynamic": {"batch": True, "size": True}, "thresholds": [0.3, 0.3, 0.35], "channel_order": "BGR",
        "size_divisibility": 32, "strides": list(STRIDES), "select": select,
        "grid": dataclasses.asdict(LocationGrid()), "inclusive": False, "keep_empty": False, "temperature": 1.7,
        "resize": {"short_edge": 96, "max_size": 160}, **changes,
    }  # fmt: skip


def network(seed: int = 0, size: Sequence[Any] = ("n", 3, "h", "w")) -> bytes:
    """A raw graph: the mean of each cell, and of it logits, distances and quality."""
    draw, nodes, weights, outputs = np.random.default_rng(seed), [], [], []
    for kind, given, made, number in (("Sub", "images", "moved", 128), ("Mul", "moved", "normal", 1 / 40)):
        nodes.append(helper.make_node(kind, [given, kind], [made]))
        weights.append(numpy_helper.from_array(np.array(number, np.float32), kind))
    for i, stride in enumerate(STRIDES):
        square = [stride, stride]
        nodes.append(helper.make_node("AveragePool", ["normal"], [f"p{i}"], kernel_shape=square, strides=square))
        for kind, channels, bias in (("class_logits", len(NAMES), -1.0), ("raw", 4, 2.0), ("quality_logits", 1, 0.0)):
            kernel = draw.normal(size=(channels, 3, 1, 1)).astype(np.float32)
            offset = np.full(channels, bias, np.float32)
            weights += [numpy_helper.from_array(x, f"{kind}_{n}{i}") for x, n in ((kernel, "w"), (offset, "b"))]
            nodes.append(helper.make_node("Conv", [f"p{i}", f"{kind}_w{i}", f"{kind}_b{i}"], [f"{kind}_{i}"]))
        weights.append(numpy_helper.from_array(np.array(stride, np.float32), f"stride{i}"))
        nodes.append(helper.make_node("Relu", [f"raw_{i}"], [f"cells_{i}"]))
        nodes.append(helper.make_node("Mul", [f"cells_{i}", f"stride{i}"], [f"ltrb_{i}"]))
        outputs += [(f"class_logits_{i}", len(NAMES)), (f"ltrb_{i}", 4), (f"quality_logits_{i}", 1)]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(size))
    made = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [size[0], channels, f"h{name}", f"w{name}"])
        for name, channels in outputs
    ]
    graph = helper.make_graph(nodes, "maps", [given], made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def certified(path: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """An exported detector with a certificate of two cases, written to a file."""
    said, graph = metadata(**changes), network() if graph is None else graph
    sizes = [(100, 140), (100, 140), (90, 60)]
    pictures = [{"name": f"generated {i}", "seed": i, "size": list(size)} for i, size in enumerate(sizes)]
    path.write_bytes(runtime.seal(graph, said))
    found = runtime.Detector(path).detect([runtime.generated_picture(i, *size) for i, size in enumerate(sizes)])
    expected = [{"boxes": x.boxes.tolist(), "scores": x.scores.tolist(), "classes": x.classes.tolist()} for x in found]
    certificate = {
        "pictures": pictures, "max_box_error_px": 0.0, "max_score_error": 0.0, "detections": sum(map(len, found)),
        "cases": [{"pictures": rows, "expected": [expected[row] for row in rows]} for rows in ([0, 1], [2])],
    }  # fmt: skip
    path.write_bytes(runtime.seal(graph, {**said, "certificate": certificate}))
    return path
