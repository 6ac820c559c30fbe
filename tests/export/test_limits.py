"""Where an end2end graph is not to the last bit what the detector does, as docs/exporting.md says it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from untrained import FEW, SMALL, untrained

from fcos_d2.cli.export import _view
from fcos_d2.export.graphs import EndToEnd
from fcos_d2.export.nms import suppress_in_torch
from fcos_d2.runtime import generated_picture

NEAR = 1e-6  # distance from the threshold up to which overlaps in float32 may decide otherwise


def suppression(threshold: float) -> onnxruntime.InferenceSession:
    """ONNX's operator, as `export.nms` puts it into graphs."""
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["kept"])
    numbers = (("most", TensorProto.INT64, 2**31 - 1), ("iou", TensorProto.FLOAT, threshold))
    given = [helper.make_tensor(name, kind, [1], [value]) for name, kind, value in numbers]
    given.append(helper.make_tensor("least", TensorProto.FLOAT, [1], [0.0]))
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", "P", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "K", "P"]),
    ]
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, ["S", 3])
    graph = helper.make_graph([node], "suppression", inputs, [output], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def pairs(threshold: float, plus: float, count: int) -> np.ndarray:
    """(count, 2, 4) float32 boxes of 8 to 400 pixels; the two overlap by the threshold, within about 2e-6."""
    draw = np.random.default_rng(0)
    side = draw.uniform(8, 400, (count, 2))
    near = draw.uniform(0, (1200, 800) - side)
    first = np.concatenate((near, near + side), axis=1).astype(np.float32)
    width = first[:, 2].astype(np.float64) - first[:, 0] + plus
    shift = width * (1 - threshold) / (1 + threshold) * (1 + draw.uniform(-4e-6, 4e-6, count))
    second = first.astype(np.float64)
    second[:, [0, 2]] += shift[:, None]
    return np.stack((first, second.astype(np.float32)), axis=1)


def overlap(boxes: np.ndarray, plus: float) -> np.ndarray:
    """(n,) IoU of pairs (n, 2, 4), in float64."""
    first, second = np.moveaxis(boxes.astype(np.float64) + [0, 0, plus, plus], 1, 0)
    shared = (np.minimum(first, second)[:, 2:] - np.maximum(first, second)[:, :2]).clip(0).prod(1)
    return shared / (sum((x[:, 2:] - x[:, :2]).prod(1) for x in (first, second)) - shared)


@pytest.mark.parametrize("plus", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_suppression_in_float32_is_that_in_float64_but_at_the_threshold(threshold: float, plus: float) -> None:
    boxes = pairs(threshold, plus, 20_000)
    measured = boxes + np.array([0, 0, plus, plus], np.float32)
    scores = np.broadcast_to(np.array([0.9, 0.8], np.float32), (len(boxes), 1, 2))
    (rows,) = suppression(threshold).run(None, {"boxes": measured, "scores": scores})
    kept = np.zeros(len(boxes), bool)
    kept[rows[rows[:, 2] == 1, 0]] = True
    exact = overlap(boxes, plus)
    otherwise = kept == (exact > threshold)
    assert 0 < otherwise.sum() < len(boxes) / 20 and np.abs(exact - threshold)[otherwise].max() < NEAR


def test_of_scores_that_tie_at_the_limit_a_graph_has_room_for_so_many() -> None:
    predictor = untrained(SMALL, *FEW)
    model = predictor.model
    with torch.no_grad():
        for conv in (model.dense.head.cls_logits, model.dense.head.quality):
            conv.weight.zero_()
    model.dense.selector = replace(model.dense.selector, max_detections=5, nms_threshold=1.0)
    picture = generated_picture(0, 64, 64)
    found = predictor(picture, "RGB")["instances"]
    image = torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    graph = EndToEnd(model, predictor.least, suppress_in_torch).eval()
    with torch.inference_mode():
        boxes, scores, classes, counts = graph(image, torch.tensor([[64, 64]]))
    assert len(found) > 5 and counts.tolist() == [5] and boxes.shape == (1, 5, 4)
    assert torch.allclose(scores[0], found.scores.max().expand(5))
    apart = (boxes[0].clamp(0, 64)[:, None] - found.pred_boxes.tensor).abs().amax(2)
    apart[classes[0][:, None] != found.pred_classes] = torch.inf
    assert apart.amin(1).max() < 1e-3


@pytest.mark.parametrize(("graph", "ties", "told"), [("end2end", "keep", 1), ("end2end", "cut", 0), ("raw", "keep", 0)])
def test_the_command_says_so(graph: str, ties: str, told: int) -> None:
    proof = {"pictures": 12, "shapes": [[1, 1]], "detections": 9, "max_box_error_px": 0.0, "max_score_error": 0.0}
    select = {"max_detections": 100, "max_detections_ties": ties}
    shown = _view({"graph": graph, "dtype": "float32", "certificate": proof, "select": select, "files": ["model.onnx"]})
    assert shown.plain.count("tie with the last of 100 objects") == told
