"""FCOS written out slowly, from the paper and from what the published versions are known to do.

What the package computes is compared with this. Nothing here imports the package: locations are laid by loops,
assignment is the full (boxes x locations) matrix, classes are one-hot, boxes have corners, suppression goes through
pairs.

The arguments `grid`, `assigner`, `coder`, `loss` and `selector` are the plain mappings of a recipe; what a mapping
leaves out has AdelaiDet's value, repeated here in `DEFAULTS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEFAULTS: dict[str, dict[str, Any]] = {
    "grid": {"origin": "center", "points_per_cell": 1},
    "assigner": {"range_ends": "closed", "center_radius": 1.5, "area": "plain"},
    "coder": {"activation": "relu", "unit": "stride", "inference": "same"},
    "loss": {
        "focal_alpha": 0.25,
        "focal_gamma": 2.0,
        "box_loss": "giou",
        "iou_rule": "plus_one_exact",
        "box_weight": "centerness",
        "quality": "centerness",
        "class_weight": 1.0,
        "box_loss_weight": 1.0,
        "quality_weight": 1.0,
        "class_normalizer": "mean_positives",
        "box_normalizer": "mean_weights",
        "quality_normalizer": "mean_positives",
        "moving_start": 100.0,
        "moving_momentum": 0.9,
    },
    "selector": {
        "score_threshold": 0.05,
        "threshold_on": "class",
        "score_form": "sqrt",
        "topk": 1000,
        "topk_by": "score",
        "nms_threshold": 0.6,
        "nms_within": "class",
        "nms_convention": "plain",
        "max_detections": 100,
        "max_detections_ties": "keep",
        "clip": "after",
        "clip_margin": 0.0,
        "min_size": -1.0,
        "drop_inverted": False,
    },
}


def choices(part: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part: what is given, else the default."""
    return {**DEFAULTS[part], **given}


# ---------------------------------------------------------------------------------------------------------- locations
@dataclass
class Points:
    """Locations, in the order level, row, column, point of the cell.

    Attributes:
        x, y: (R,) float32 pixels.
        stride: (R,) float32 pixels.
        level: (R,) int64.
    """

    x: np.ndarray
    y: np.ndarray
    stride: np.ndarray
    level: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def lay_points(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    image_size: tuple[int, int],
    grid: Mapping[str, Any],
) -> Points:
    """Locations of feature maps of the given (height, width) on a padded input of (height, width)."""
    grid = choices("grid", grid)
    signs = {
        1: [(0, 0)],
        4: [(-1, -1), (1, -1), (-1, 1), (1, 1)],
        5: [(-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)],
    }[grid["points_per_cell"]]
    rows = []
    for level, ((height, width), stride) in enumerate(zip(sizes, strides)):
        for row in range(height):
            for column in range(width):
                if grid["origin"] == "center":
                    x, y = stride // 2 + stride * column, stride // 2 + stride * row
                else:
                    x, y = image_size[1] // width * column, image_size[0] // height * row
                for right, down in signs:
                    shift = math.floor(stride / 4)
                    rows.append((x + right * shift, y + down * shift, stride, level))
    x, y, stride, level = zip(*rows)
    return Points(*(np.array(v, np.float32) for v in (x, y, stride)), np.array(level))


# ---------------------------------------------------------------------------------------- boxes of the original's tools
def original_truth(
    boxes: Sequence[Sequence[float]], size: tuple[int, int], resized: tuple[int, int], flip: bool = False
) -> np.ndarray:
    """COCO's boxes on their way to the loss of tianzhi0549/FCOS (fcos_core/data, fcos_core/structures/bounding_box.py).

    Args:
        boxes: x, y, width, height in pixels of the image.
        size, resized: (height, width) of the image and of the network input.
        flip: from left to right, after resizing, with one pixel of the network input between a side and its mirror.
    Returns:
        (M, 4) float32 xyxy, pixels of the network input; those without area are left out.
    """
    kept = []
    height, width = size
    across, down = resized[1] / width, resized[0] / height
    for x, y, w, h in boxes:
        corners = [x, y, x + max(w - 1, 0), y + max(h - 1, 0)]
        x0, y0, x1, y1 = (min(max(v, 0), limit) for v, limit in zip(corners, (width - 1, height - 1) * 2))
        if x1 > x0 and y1 > y0:
            x0, x1 = x0 * across, x1 * across
            if flip:
                x0, x1 = resized[1] - x1 - 1, resized[1] - x0 - 1
            kept.append([x0, y0 * down, x1, y1 * down])
    return np.array(kept, np.float32).reshape(-1, 4)


def original_result(box: Sequence[float], size: tuple[int, int], resized: tuple[int, int]) -> list[float]:
    """A detection of the network input as x, y, width, height of the image, as the original's evaluation takes it."""
    across, down = size[1] / resized[1], size[0] / resized[0]
    x0, y0, x1, y1 = (v * scale for v, scale in zip(box, (across, down) * 2))
    return [x0, y0, x1 - x0 + 1, y1 - y0 + 1]


# --------------------------------------------------------------------------------------------------------- assignment
def assign(
    points: Points,
    boxes: np.ndarray,
    assigner: Mapping[str, Any],
    real: np.ndarray | None = None,
) -> np.ndarray:
    """The box that each location answers for.

    Args:
        points: R locations.
        boxes: (..., B, 4) float32 xyxy pixels; the leading dimensions are images.
        assigner: options.
        real: (..., B) whether a row is a box at all; by default all are.
    Returns:
        (..., R) index of a box among the B, -1 for background; of equal areas the first.
    """
    assigner = choices("assigner", assigner)
    if boxes.shape[-2] == 0:
        return np.full((*boxes.shape[:-2], len(points)), -1)
    x0, y0, x1, y1 = (boxes[..., i, None] for i in range(4))  # (..., B, 1)
    sides = np.stack((points.x - x0, points.y - y0, x1 - points.x, y1 - points.y))
    inside = sides.min(axis=0) > 0
    farthest = sides.max(axis=0)
    low, high = np.array(assigner["size_ranges"], np.float32)[points.level].T
    if assigner["range_ends"] == "closed":
        suits = (farthest >= low) & (farthest <= high)
    else:
        suits = (farthest > low) & (farthest < high)
    claims = inside & suits
    if assigner["center_radius"] > 0:
        far = np.maximum(abs(points.x - (x0 + x1) / 2), abs(points.y - (y0 + y1) / 2))
        claims &= far < np.float32(assigner["center_radius"]) * points.stride
    if real is not None:
        claims &= real[..., None]
    one = 1.0 if assigner["area"] == "plus_one" else 0.0
    corners = boxes.astype(np.float64)
    area = (corners[..., 2] - corners[..., 0] + one) * (corners[..., 3] - corners[..., 1] + one)
    cost = np.where(claims, area[..., None], np.inf)
    return np.where(claims.any(axis=-2), cost.argmin(axis=-2), -1)


# ------------------------------------------------------------------------------------------------- FAD's searched head
Edges = Sequence[Sequence[tuple[str, int]]]


def _convolved(x: Tensor, state: Mapping[str, Tensor], name: str, padding: int = 0, dilation: int = 1) -> Tensor:
    """A convolution, tap by tap; whether it mixes channels follows from the shape of its weights."""
    weight = state[f"{name}.weight"]
    bias = state.get(f"{name}.bias", torch.zeros(len(weight)))
    single = weight.shape[1] == 1
    height, width = x.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + 2 * padding, width + 2 * padding, dtype=x.dtype)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    out = bias.view(1, -1, 1, 1).repeat(len(x), 1, height, width)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            seen = padded[:, :, row * dilation :, column * dilation :][:, :, :height, :width]
            tap = weight[:, :, row, column]
            out = out + (seen * tap.view(1, -1, 1, 1) if single else torch.einsum("oi,nihw->nohw", tap, seen))
    return out


def _normed(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """GroupNorm of 32 groups, then ReLU."""
    n, channels, height, width = x.shape
    groups = x.reshape(n, 32, -1)
    mean = groups.mean(2, keepdim=True)
    variance = ((groups - mean) ** 2).mean(2, keepdim=True)
    x = ((groups - mean) / torch.sqrt(variance + 1e-5)).reshape(n, channels, height, width)
    return (x * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1)).clamp(min=0)


def _operation(x: Tensor, state: Mapping[str, Tensor], at: str, operation: str) -> Tensor:
    """A chain of layers, by its published name and with the published names of its tensors."""
    first, _, last = operation.partition("+")
    kind, _, count = first.partition("_conv_3x3")
    layers = [kind] * int(count.removeprefix("_x") or 1) + ["dil"] * bool(last)
    for i, layer in enumerate(layers):
        conv, norm = (f"{at}.conv_{i}", f"{at}.gn_{i}") if len(layers) > 1 else (f"{at}.net", f"{at}.net.1")
        if layer == "std":
            x = _convolved(x, state, conv if len(layers) > 1 else f"{conv}.0", padding=1)
        elif layer == "sinSep":
            below, norm = (f"{conv}.net", norm) if len(layers) > 1 else (conv, f"{at}.net.2")
            x = _convolved(_convolved(x, state, f"{below}.0", padding=1), state, f"{below}.1")
        else:
            x = _convolved(_convolved(x, state, f"{conv}.0", padding=2, dilation=2), state, f"{conv}.1")
        x = _normed(x, state, norm)
    return x


def _searched_tower(s0: Tensor, s1: Tensor, state: Mapping[str, Tensor], at: str, genotype: Edges) -> Tensor:
    for cell in (0, 1):
        here = f"{at}.cells.{cell}"
        second = s1
        if second.shape[1] != s0.shape[1]:
            second = _normed(_convolved(second, state, f"{here}.preproc1.net.0"), state, f"{here}.preproc1.net.1")
        states = [s0, second]
        for n, node in enumerate(genotype):
            total = torch.zeros_like(s0)
            for e, (operation, source) in enumerate(node):
                edge = f"{here}.dag.{n}.{e}"
                x = _operation(_convolved(states[source], state, f"{edge}.0"), state, f"{edge}.1", operation)
                total = total + _convolved(x, state, f"{edge}.2")
            states.append(total)
        s0, s1 = s1, torch.cat(states[2:], dim=1)
    return s1


def searched_maps(
    features: Sequence[Tensor], state: Mapping[str, Tensor], box: Edges, classes: Edges
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Logits, raw ltrb and centerness of each level (msight-tech/research-fad, fad_core/modeling).

    Args:
        features: L maps (N, C, Hi, Wi), float64.
        state: tensors under the published names, below `rpn.head.`.
        box, classes: genotypes of the towers: nodes of edges (operation, source).
    """
    logits, raw_ltrb, quality = [], [], []
    for level, f in enumerate(features):
        b = _convolved(_searched_tower(f, f, state, "bbox_tower", box), state, "box_reduce")
        c = _convolved(_searched_tower(b, f, state, "cls_tower", classes), state, "cls_reduce")
        logits.append(_convolved(c, state, "cls_logits", padding=1))
        raw_ltrb.append(_convolved(b, state, "bbox_pred", padding=1) * state[f"scales.{level}.scale"])
        quality.append(_convolved(b, state, "centerness", padding=1))
    return logits, raw_ltrb, quality


# ------------------------------------------------------------------------------------------------------------- losses
def focal(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the focal loss of (A, K) logits; labels (A,) are classes or -1. Float64."""
    logits = logits.double()
    wanted = torch.zeros_like(logits)
    for row in (labels >= 0).nonzero().flatten().tolist():
        wanted[row, labels[row]] = 1
    p = logits.sigmoid()
    p_t = p * wanted + (1 - p) * (1 - wanted)
    log_p_t = torch.nn.functional.logsigmoid(logits) * wanted + torch.nn.functional.logsigmoid(-logits) * (1 - wanted)
    alpha_t = alpha * wanted + (1 - alpha) * (1 - wanted)
    return -(alpha_t * (1 - p_t) ** gamma * log_p_t).sum()


def _areas(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and enclosing area of (P, 4) xyxy pairs."""

    def area(box: Tensor) -> Tensor:
        return (box[:, 2] - box[:, 0]).clamp(min=0) * (box[:, 3] - box[:, 1]).clamp(min=0)

    low, high = torch.minimum(pred, target), torch.maximum(pred, target)
    inter = area(torch.cat((high[:, :2], low[:, 2:]), 1))
    enclosing = area(torch.cat((low[:, :2], high[:, 2:]), 1))
    return inter, area(pred) + area(target) - inter, enclosing


def iou(pred: Tensor, target: Tensor, rule: str) -> Tensor:
    """(P,) overlap of (P, 4) xyxy pairs by the arithmetic of a family of implementations."""
    inter, union, _ = _areas(pred, target)
    if rule in ("plus_one", "plus_one_exact"):
        return (inter + 1) / (union + 1)
    if rule == "eps":
        return inter / (union + 1e-7)
    return inter / union.clamp(min=1e-6)


def giou(pred: Tensor, target: Tensor, rule: str) -> Tensor:
    """(P,) generalized overlap."""
    _, union, enclosing = _areas(pred, target)
    if rule == "floor":
        union = union.clamp(min=1e-6)
    empty = enclosing - union
    divisor = {
        "plus_one": enclosing + 1e-7,
        "plus_one_exact": enclosing,
        "eps": enclosing + 1e-7,
        "floor": enclosing.clamp(min=1e-6),
    }[rule]
    return iou(pred, target, rule) - empty / divisor


def diou(pred: Tensor, target: Tensor, rule: str) -> Tensor:
    """(P,) overlap less the squared distance of the centres over the squared diagonal of the enclosing box."""
    centers = [(box[:, :2] + box[:, 2:]) / 2 for box in (pred, target)]
    low, high = torch.minimum(pred, target), torch.maximum(pred, target)
    diagonal = ((high[:, 2:] - low[:, :2]) ** 2).sum(1)
    return iou(pred, target, rule) - ((centers[0] - centers[1]) ** 2).sum(1) / diagonal


def ciou(pred: Tensor, target: Tensor, rule: str) -> Tensor:
    """(P,) DIoU less the term of the aspect ratio, whose weight has no gradient."""
    angle = [torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1])) for box in (target, pred)]
    v = 4 / math.pi**2 * (angle[0] - angle[1]) ** 2
    alpha = (v / (1 - iou(pred, target, rule) + v).clamp(min=1e-6)).detach()
    return diou(pred, target, rule) - alpha * v


def box_loss(kind: str, pred: Tensor, target: Tensor, rule: str) -> Tensor:
    """(P,) loss of (P, 4) xyxy pairs."""
    if kind == "iou":
        overlap = iou(pred, target, rule)
        return -torch.log(overlap.clamp(min=1e-6) if rule == "floor" else overlap)
    return 1 - {"linear_iou": iou, "giou": giou, "diou": diou, "ciou": ciou}[kind](pred, target, rule)


def centerness(ltrb: Sequence[float]) -> float:
    """Eq. 3 of the paper for one location."""
    left, top, right, bottom = ltrb
    return math.sqrt(min(left, right) / max(left, right) * (min(top, bottom) / max(top, bottom)))


def normalizer(
    kind: str,
    positives: Sequence[float],
    weights: Sequence[float],
    worker: int,
    images: int,
    num_locations: int,
    average: float | None = None,
) -> float:
    """What a loss is divided by on one worker.

    Args:
        positives, weights: number of positives and sum of box weights of each worker.
        worker: whose normalizer is asked for.
        images, num_locations: of that worker; locations of one image.
        average: moving average, after its update.
    """
    return {
        "positives": max(positives[worker], 1.0),
        "positives_and_images": positives[worker] + images,
        "mean_positives": max(sum(positives) / len(positives), 1.0),
        "weights": max(weights[worker], 1e-6),
        "mean_weights": max(sum(weights) / len(weights), 1e-6),
        "locations": float(images * num_locations),
        "moving_positives": average,
        "moving_mean_positives": average,
    }[kind]


def flatten(maps: Sequence[Tensor], points_per_cell: int) -> Tensor:
    """L maps (N, D*C, Hi, Wi) -> (N, R, C) float64 in the order of the locations."""
    columns = []
    for values in maps:
        n, channels, height, width = values.shape
        split = values.double().reshape(n, points_per_cell, channels // points_per_cell, height, width)
        columns.append(split.permute(0, 3, 4, 1, 2).reshape(n, -1, channels // points_per_cell))
    return torch.cat(columns, dim=1)


def activate(raw: Tensor, coder: Mapping[str, Any]) -> Tensor:
    """Distances in the coder's unit."""
    return raw.exp() if choices("coder", coder)["activation"] == "exp" else raw.relu()


def fcos_losses(
    logits: Sequence[Tensor],
    raw_ltrb: Sequence[Tensor],
    quality: Sequence[Tensor],
    points: Points,
    boxes: Sequence[np.ndarray],
    classes: Sequence[Sequence[int]],
    parts: Any,
    average: float | None = None,
) -> dict[str, Tensor]:
    """The three losses of one worker.

    Args:
        logits, raw_ltrb, quality: L maps each.
        points: R locations.
        boxes, classes: (Mi, 4) float32 xyxy and classes of each image.
        parts: a recipe: its `grid`, `assigner`, `coder` and `loss` are read.
        average: moving average before this step; `None` for its start.
    Returns:
        "class", "box", "quality" (float64 scalars that can be differentiated) and "average" (after this step).
    """
    per_cell = choices("grid", parts.grid)["points_per_cell"]
    options, coder = choices("loss", parts.loss), choices("coder", parts.coder)
    logits, raw_ltrb, quality = (flatten(m, per_cell) for m in (logits, raw_ltrb, quality))
    labels = torch.full(logits.shape[:2], -1)
    predicted, wanted, scores = [], [], []
    for i, own in enumerate(boxes):
        winner = assign(points, own, parts.assigner)
        for r in np.flatnonzero(winner >= 0):
            labels[i, r] = classes[i][winner[r]]
            box = own[winner[r]].astype(np.float64)
            unit = points.stride[r] if coder["unit"] == "stride" else 1.0
            x, y = float(points.x[r]), float(points.y[r])
            wanted.append([v / float(unit) for v in (x - box[0], y - box[1], box[2] - x, box[3] - y)])
            predicted.append(activate(raw_ltrb[i, r], coder))
            scores.append(quality[i, r, 0])
    class_loss = focal(logits.flatten(0, 1), labels.flatten(), options["focal_alpha"], options["focal_gamma"])
    count = float(len(wanted))
    loss_box = raw_ltrb.sum() * 0
    loss_quality = quality.sum() * 0
    total_weight = 0.0
    if wanted:
        outward = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
        pred, target = torch.stack(predicted) * outward, torch.tensor(wanted, dtype=torch.float64) * outward
        center = torch.tensor([centerness(w) for w in wanted], dtype=torch.float64)
        weight = center if options["box_weight"] == "centerness" else torch.ones_like(center)
        total_weight = float(weight.sum())
        loss_box = (box_loss(options["box_loss"], pred, target, options["iou_rule"]) * weight).sum()
        goal = center if options["quality"] == "centerness" else iou(pred.detach(), target, options["iou_rule"])
        p = torch.stack(scores).sigmoid()
        loss_quality = -(goal * p.log() + (1 - goal) * (1 - p).log()).sum()
    momentum = options["moving_momentum"]
    average = options["moving_start"] if average is None else average
    average = average * momentum + max(count, 1.0) * (1 - momentum)
    divide_by = {
        name: normalizer(options[f"{name}_normalizer"], [count], [total_weight], 0, len(boxes), len(points), average)
        for name in ("class", "box", "quality")
    }
    return {
        "class": class_loss * options["class_weight"] / divide_by["class"],
        "box": loss_box * options["box_loss_weight"] / divide_by["box"],
        "quality": loss_quality * options["quality_weight"] / divide_by["quality"],
        "average": torch.tensor(average),
    }


# ---------------------------------------------------------------------------------------------------------- inference
@dataclass
class Candidate:
    """A box on its way through inference."""

    box: list[float]
    score: float
    label: int
    location: int
    rank: float


def detect(
    logits: Sequence[Tensor],
    raw_ltrb: Sequence[Tensor],
    quality: Sequence[Tensor],
    points: Points,
    image_sizes: Sequence[tuple[int, int]],
    parts: Any,
) -> list[list[Candidate]]:
    """Detections of each image in pixels of the network input, best first."""
    per_cell = choices("grid", parts.grid)["points_per_cell"]
    options = choices("selector", parts.selector)
    logits, raw_ltrb, quality = (flatten(m, per_cell).detach() for m in (logits, raw_ltrb, quality))
    found = []
    for i, (height, width) in enumerate(image_sizes):
        kept: list[Candidate] = []
        for level in sorted(set(points.level.tolist())):
            of_level = []
            for r in np.flatnonzero(points.level == level).tolist():
                q = float(quality[i, r, 0].sigmoid())
                for label, c in enumerate(logits[i, r].sigmoid().tolist()):
                    score = math.sqrt(c * q) if options["score_form"] == "sqrt" else c * q
                    tested = {"class": c, "score": score, "product": c * q}[options["threshold_on"]]
                    if tested > options["score_threshold"]:
                        box = _decode(points, r, raw_ltrb[i, r], parts.coder)
                        rank = score if options["topk_by"] == "score" else c
                        of_level.append(Candidate(box, score, label, r, rank))
            of_level.sort(key=lambda c: -c.rank)
            kept += of_level[: options["topk"]]
        if options["clip"] == "before":
            margin = options["clip_margin"]
            for c in kept:
                limits = (width - margin, height - margin) * 2
                c.box = [min(max(v, 0.0), limit) for v, limit in zip(c.box, limits)]
            if options["drop_inverted"]:
                kept = [c for c in kept if c.box[2] - c.box[0] + 1 >= 0 and c.box[3] - c.box[1] + 1 >= 0]
            if options["min_size"] >= 0:
                kept = [c for c in kept if min(c.box[2] - c.box[0], c.box[3] - c.box[1]) > options["min_size"]]
        kept = suppress(kept, points.level if options["nms_within"] == "level" else None, options)
        limit = options["max_detections"]
        if options["max_detections_ties"] == "keep" and len(kept) > limit:
            last = kept[limit - 1].score
            kept = [c for c in kept if c.score >= last]
        else:
            kept = kept[:limit]
        found.append(kept)
    return found


def _decode(points: Points, r: int, raw: Tensor, coder: Mapping[str, Any]) -> list[float]:
    unit = float(points.stride[r]) if choices("coder", coder)["unit"] == "stride" else 1.0
    ltrb = raw if choices("coder", coder)["inference"] == "raw" else activate(raw, coder)
    left, top, right, bottom = (v * unit for v in ltrb.tolist())
    x, y = float(points.x[r]), float(points.y[r])
    return [x - left, y - top, x + right, y + bottom]


def overlap(a: Sequence[float], b: Sequence[float], one: float = 0.0) -> float:
    """IoU of two xyxy boxes whose sides are longer by `one`."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + one
    height = min(a[3], b[3]) - max(a[1], b[1]) + one
    inter = max(width, 0.0) * max(height, 0.0)
    union = sum((v[2] - v[0] + one) * (v[3] - v[1] + one) for v in (a, b)) - inter
    return inter / union if union > 0 else 0.0


def suppress(candidates: list[Candidate], levels: np.ndarray | None, options: Mapping[str, Any]) -> list[Candidate]:
    """Greedy suppression within each class, best first; within each level, too, where those of locations are given."""
    kept: list[Candidate] = []
    one = 1.0 if options["nms_convention"] == "plus_one" else 0.0
    for c in sorted(candidates, key=lambda c: -c.score):
        rivals = [k for k in kept if k.label == c.label]
        if levels is not None:
            rivals = [k for k in rivals if levels[k.location] == levels[c.location]]
        if all(overlap(k.box, c.box, one) <= options["nms_threshold"] for k in rivals):
            kept.append(c)
    return kept
