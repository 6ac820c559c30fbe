"""Preprocessing inside an ONNX file: a small graph before the detector's, and one after it.

Resizing is ONNX's own, antialiased on bytes; what the certificate compares with is Pillow's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["picture_graph", "with_pictures"]

_BEFORE = """
before (uint8[batch, height, width, 3] picture)
    => (float[batch, 3, rows, columns] images, int64[batch, 2] image_sizes, int64[2] original, int64[2] resized)
{{
    planes = Transpose <perm = [0, 3, 1, 2]> (picture)
    number = Shape <start = 0, end = 1> (planes)
    original = Shape <start = 2, end = 4> (planes)
    {resize}
    pixels = Cast <to = 1> (smaller)
    {order}
    step = Constant <value = int64[1] {{{step}}}> ()
    less = Constant <value = int64[1] {{{less}}}> ()
    above = Add (resized, less)
    steps = Div (above, step)
    full = Mul (steps, step)
    below = Sub (full, resized)
    zeros = Constant <value = int64[6] {{0, 0, 0, 0, 0, 0}}> ()
    pads = Concat <axis = 0> (zeros, below)
    images = Pad (ordered, pads)
    two = Constant <value = int64[1] {{2}}> ()
    rows_of_sizes = Concat <axis = 0> (number, two)
    image_sizes = Expand (resized, rows_of_sizes)
}}
"""
# Detectron2's ResizeShortestEdge, in its order of operations.
_RESIZE = """
    sides = Cast <to = 11> (original)
    shorter = ReduceMin <keepdims = 0> (sides)
    short = Constant <value = double {{{short_edge}.0}}> ()
    most = Constant <value = double {{{max_size}.0}}> ()
    one = Constant <value = double {{1.0}}> ()
    half = Constant <value = double {{0.5}}> ()
    scale = Div (short, shorter)
    scaled = Mul (scale, sides)
    is_short = Equal (sides, shorter)
    grown = Where (is_short, short, scaled)
    longest = ReduceMax <keepdims = 0> (grown)
    too_long = Greater (longest, most)
    least = Div (most, longest)
    factor = Where (too_long, least, one)
    fitting = Mul (grown, factor)
    moved = Add (fitting, half)
    floored = Floor (moved)
    resized = Cast <to = 7> (floored)
    three = Constant <value = int64[1] {{3}}> ()
    target = Concat <axis = 0> (number, three, resized)
    smaller = Resize <antialias = 1, mode = "linear", coordinate_transformation_mode = "half_pixel">
        (planes, , , target)
"""
_SAME = """
    smaller = Identity (planes)
    resized = Identity (original)
"""
_BGR = """
    blue_first = Constant <value = int64[3] {2, 1, 0}> ()
    ordered = Gather <axis = 1> (pixels, blue_first)
"""
_AFTER = """
after (float[batch, most, 4] found_boxes, float[batch, most] found_scores, int64[batch, most] found_classes,
       int64[batch] found_counts, int64[2] original, int64[2] resized)
    => (float[batch, most, 4] boxes, float[batch, most] scores, int64[batch, most] classes, int64[batch] counts)
{{
    sides = Cast <to = 11> (original)
    now = Cast <to = 11> (resized)
    ratio = Div (sides, now)
    factor = Cast <to = 1> (ratio)
    places = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
    factors = Gather (factor, places)
    scaled = Mul (found_boxes, factors)
    sides_float = Cast <to = 1> (original)
    edges = Gather (sides_float, places)
    zero = Constant <value = float {{0.0}}> ()
    positive = Max (scaled, zero)
    clipped = Min (positive, edges)
    nothing = Constant <value = float {{-1.0}}> ()
    is_box = Greater (found_scores, zero)
    {kept}
    marked = Where (there, found_scores, nothing)
    shape = Shape <start = 1, end = 2> (marked)
    sorted_scores, order = TopK (marked, shape)
    valid = Greater (sorted_scores, zero)
    scores = Where (valid, sorted_scores, zero)
    last = Constant <value = int64[1] {{2}}> ()
    orders = Unsqueeze (order, last)
    ones = Constant <value = int64[3] {{1, 1, 4}}> ()
    rows = Expand (orders, ones)
    picked = GatherElements <axis = 1> (placed, rows)
    column = Unsqueeze (valid, last)
    boxes = Where (column, picked, zero)
    none = Constant <value = int64 {{0}}> ()
    named = GatherElements <axis = 1> (found_classes, order)
    classes = Where (valid, named, none)
    numbers = Cast <to = 7> (valid)
    axis = Constant <value = int64[1] {{1}}> ()
    counts = ReduceSum <keepdims = 0> (numbers, axis)
}}
"""
_ALL = """
    far = Constant <value = float[4] {0.0, 0.0, INCLUSIVE, INCLUSIVE}> ()
    placed = Add (clipped, far)
    there = Identity (is_box)
"""
_WITH_AREA = """
    placed = Identity (clipped)
    near_x, near_y, far_x, far_y = Split <axis = 2, num_outputs = 4> (clipped)
    wide = Greater (far_x, near_x)
    high = Greater (far_y, near_y)
    both = And (wide, high)
    column_axis = Constant <value = int64[1] {2}> ()
    has_area = Squeeze (both, column_axis)
    there = And (is_box, has_area)
"""


def picture_graph(metadata: Mapping[str, Any], like: Any) -> Any:
    """ONNX model of the preprocessing alone: "picture" -> "images", "image_sizes", "original", "resized".

    Args:
        metadata: that say how pictures are resized.
        like: onnx.ModelProto of the versions that it shall have.
    """
    resize = _SAME if metadata["resize"] is None else _RESIZE.format(**metadata["resize"])
    order = _BGR if metadata["channel_order"] == "BGR" else "ordered = Identity (pixels)"
    step = metadata["size_divisibility"]
    return _parsed(_BEFORE.format(resize=resize, order=order, step=step, less=step - 1), like)


def with_pictures(model: Any, metadata: Mapping[str, Any]) -> Any:
    """An ONNX model that takes pictures: uint8 (N, H, W, 3) RGB of one size, in their own pixels.

    Args:
        model: onnx.ModelProto that takes network inputs.
        metadata: that say how pictures are resized, and what the graph gives.
    Returns:
        onnx.ModelProto; boxes of an "end2end" graph are in pixels of the pictures.
    """
    from onnx import compose

    end2end = metadata["graph"] == "end2end"
    inputs = [(name, name) for name in ("images", "image_sizes")]
    sizes = ["original", "resized"] if end2end else []
    names = [x.name for x in model.graph.output]
    core = compose.add_prefix(model, "net/", rename_inputs=False, rename_outputs=end2end)
    before = compose.add_prefix(picture_graph(metadata, model), "before/", rename_inputs=False, rename_outputs=False)
    given = [x.name for x in core.graph.output]
    merged = compose.merge_models(before, core, io_map=inputs, outputs=[*given, *sizes])
    if not end2end:
        return merged
    inclusive = "1.0" if metadata["inclusive"] else "0.0"
    all_stay = metadata["inclusive"] or metadata["keep_empty"]
    kept = _ALL.replace("INCLUSIVE", inclusive) if all_stay else _WITH_AREA
    after = _parsed(_AFTER.format(kept=kept), model)
    after = compose.add_prefix(after, "after/", rename_inputs=False, rename_outputs=False)
    pairs = [(f"net/{name}", f"found_{name}") for name in names]
    return compose.merge_models(merged, after, io_map=[*pairs, ("original", "original"), ("resized", "resized")])


def _parsed(text: str, like: Any) -> Any:
    """A model of a graph in ONNX's text form, of the versions of another model."""
    import onnx

    graph = onnx.parser.parse_graph(text)
    return onnx.helper.make_model(graph, opset_imports=list(like.opset_import), ir_version=like.ir_version)
