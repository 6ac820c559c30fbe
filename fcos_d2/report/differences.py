"""What is not the same here as in the paper's experiments, in sentences: boxes, thresholds, model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from ..modeling.selector import Selector
from ..train.own_data import image_size_of
from ..zoo import get_config

__all__ = ["of_detector", "of_proposals"]

_PAPERS = "fcos_R_50_FPN_1x"  # the variant of the paper's first detector
# Choices that published detectors differ in: place in `model.dense`, what it is.
_CHOICES: Mapping[str, str] = {
    "assigner.center_radius": "radius of center sampling (0: the whole box)", "coder.activation": "regression by",
    "coder.unit": "unit of distances", "loss.box_loss": "loss of boxes", "loss.quality": "quality branch",
    "head.quality_on": "tower of the quality branch", "head.norm": "norm of the head",
}  # fmt: skip
_SCORES = {"product": "class × centerness", "sqrt": "√(class × centerness)"}


def of_detector(cfg: DictConfig, weights: str) -> dict[str, list[str]]:
    """Boxes, thresholds and model of a detector; what (such as "boxes") -> sentences.

    Args:
        cfg: the config that it was evaluated with.
        weights: its checkpoint.
    """
    told = "those of the model, which is not FCOS"
    selector = _built(cfg, "model.dense.selector")
    if isinstance(selector, Selector):
        told = (
            f"{selector.threshold_on} scores above {selector.score_threshold:g}, suppression from an IoU of "
            f"{selector.nms_threshold:g}, ranked by {_SCORES[selector.score_form]}, at most "
            f"{selector.max_detections} detections of an image"
        )
    return {
        "boxes": [_boxes(bool(OmegaConf.select(cfg, "model.inclusive_far_corner")))],
        "thresholds": [
            "Published: class scores above 0.05, suppression from an IoU of 0.5 (as RetinaNet), ranked by class × "
            f"centerness. Here: {told}."
        ],
        "model": [_model(cfg, weights), *_choices(cfg, "model.dense")],
    }  # fmt: skip


def of_proposals(cfg: DictConfig, weights: str, generator: Any) -> dict[str, list[str]]:
    """The same of a network that proposes; `generator` is the part that does."""
    selector = getattr(getattr(generator, "dense", None), "selector", None)
    iou: Any
    most: Any
    if isinstance(selector, Selector):
        iou, most = selector.nms_threshold, selector.max_detections
    else:
        iou, most = getattr(generator, "nms_thresh", "unknown"), getattr(generator, "post_nms_topk", {}).get(False)
    return {
        "boxes": [_boxes(False)],
        "thresholds": [
            "The paper does not say the settings of its proposals. Here: suppression from an IoU of "
            f"{iou}, at most {most or 'an unknown number of'} proposals of an image."
        ],
        "model": [_model(cfg, weights), *_choices(cfg, "model.proposal_generator.dense")],
    }  # fmt: skip


def _boxes(inclusive: bool) -> str:
    if inclusive:
        return "Boxes end at x + w − 1 in training and detection, as in the original; COCO's evaluation takes x + w."
    return "The original program lets boxes end at x + w − 1, a pixel of the image earlier than here (x + w)."


def _model(cfg: DictConfig, weights: str) -> str:
    body = "model.backbone.bottom_up"
    target, depth = OmegaConf.select(cfg, f"{body}._target_"), OmegaConf.select(cfg, f"{body}.depth")
    name = str(getattr(target, "__name__", target)).rpartition(".")[2]
    parts = [Path(weights).name, f"backbone {name} {depth}" if depth else f"backbone {name}" if target else ""]
    size, steps = image_size_of(cfg), OmegaConf.select(cfg, "train.max_iter")
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    parts += [f"shorter side {size} px" if size else "", f"{steps:,} iterations" if isinstance(steps, int) else ""]
    told = ", ".join(filter(None, parts)) + (f" of {batch} images" if isinstance(batch, int) and steps else "")
    return (
        f"Published: ResNet-50-FPN, 90,000 iterations of 16 images, shorter side 800 px. Here: {told}, by its config."
    )


def _choices(cfg: DictConfig, place: str) -> list[str]:
    """How the detector's choices differ from those of the paper's first one."""
    ours, papers = _built(cfg, place), _built(get_config(_PAPERS), "model.dense")
    if ours is None:
        return ["The model is not FCOS."]
    other = []
    for path, what in _CHOICES.items():
        here, there = (_choice(dense, path) for dense in (ours, papers))
        if here != there and here is not None:
            other.append(f"{what} {there} there, {here} here")
    return [f"Choices: {'; '.join(other)}."] if other else ["Its other choices are the paper's."]


def _choice(dense: Any, path: str) -> Any:
    for name in path.split("."):
        dense = getattr(dense, name, None)
    return f"{dense:g}" if isinstance(dense, float) else dense


def _built(cfg: DictConfig, place: str) -> Any:
    """A part of a model as its config makes it; `None` where there is none."""
    node = OmegaConf.select(cfg, place)
    return None if node is None else instantiate(node)
