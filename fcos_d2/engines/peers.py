"""Detectron2's and torchvision's own FCOS with R-50-FPN, to be measured beside ours; called as our model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..modeling import Selector
from ..weights.families.detectron2 import DETECTRON2
from ..weights.families.torchvision import TORCHVISION
from ..weights.rules import to_theirs
from ..zoo.recipes import RECIPES

__all__ = ["PEERS", "detectron2_r50", "torchvision_r50"]

_FEATURES = ("p3", "p4", "p5", "p6", "p7")


def _with_weights(peer: nn.Module, state: Mapping[str, Tensor], rules: Any) -> nn.Module:
    """The peer with weights of ours, as far as they are for it."""
    theirs = peer.state_dict()
    tensors = to_theirs(dict(state), rules).tensors
    fitting = {name: x for name, x in tensors.items() if name in theirs and theirs[name].shape == x.shape}
    peer.load_state_dict(fitting, strict=False)
    return peer.eval()


def _group_norm(channels: int) -> nn.Module:
    """Its "GN"; release 0.6 asks for the norm of one channel, too, only to look at its name."""
    return nn.GroupNorm(32, channels) if channels > 1 else nn.Identity()


def detectron2_r50(state: Mapping[str, Tensor], num_classes: int, selector: Selector, size: tuple[int, int]) -> Any:
    """`detectron2.modeling.meta_arch.fcos.FCOS` as in its `configs/common/models/fcos.py`, with weights of ours.

    Args:
        state: of a model of ours; it finds the same if that has the recipe "detectron2".
        num_classes: K.
        selector: whose threshold and number of detections it takes.
        size: (height, width) of images.
    """
    from detectron2.modeling.backbone import FPN, BasicStem, ResNet
    from detectron2.modeling.backbone.fpn import LastLevelP6P7
    from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

    names = ["res3", "res4", "res5"]
    stages = ResNet.make_default_stages(depth=50, stride_in_1x1=True, norm="FrozenBN")
    body = ResNet(BasicStem(3, 64, norm="FrozenBN"), stages, out_features=names, freeze_at=2)
    shapes, convs = [ShapeSpec(channels=256)] * 5, [256] * 4
    model: Any = FCOS(
        backbone=FPN(body, names, 256, top_block=LastLevelP6P7(256, 256, "p5")),
        head=FCOSHead(input_shape=shapes, num_classes=num_classes, conv_dims=convs, norm=_group_norm),
        head_in_features=list(_FEATURES), num_classes=num_classes, test_score_thresh=selector.score_threshold,
        max_detections_per_image=selector.max_detections, pixel_mean=list(RECIPES["detectron2"].pixel_mean),
        pixel_std=list(RECIPES["detectron2"].pixel_std),
    )  # fmt: skip
    return _with_weights(model, state, DETECTRON2.rules)


class _Torchvision(nn.Module):
    """torchvision's detector, called as ours: images in 0..255, `Instances` back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        images = [x["image"] / 255 for x in batched_inputs]
        results = []
        for image, found in zip(images, self.model(images)):
            kept = found["boxes"][:, 2:] > found["boxes"][:, :2]
            rows = kept.all(dim=1)
            instances = Instances(tuple(image.shape[1:]), pred_boxes=Boxes(found["boxes"][rows]))
            instances.scores, instances.pred_classes = found["scores"][rows], found["labels"][rows]
            results.append({"instances": instances})
        return results


def torchvision_r50(state: Mapping[str, Tensor], num_classes: int, selector: Selector, size: tuple[int, int]) -> Any:
    """`torchvision.models.detection.FCOS` as `fcos_resnet50_fpn` with weights is built, with weights of ours.

    Args:
        state: of a model of ours; it finds the same if that has the recipe "torchvision".
        num_classes, selector, size: as for `detectron2_r50`.
    """
    from torchvision.models import resnet50
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(body, layers, [512, 1024, 2048], 256, extra_blocks=LastLevelP6P7(256, 256))
    model = FCOS(
        backbone, num_classes, score_thresh=selector.score_threshold, min_size=min(size), max_size=max(size),
        detections_per_img=selector.max_detections,
    )  # fmt: skip
    return _Torchvision(_with_weights(model, state, TORCHVISION.rules)).eval()


PEERS = {"Detectron2, eager": detectron2_r50, "torchvision, eager": torchvision_r50}
