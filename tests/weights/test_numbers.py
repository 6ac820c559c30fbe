"""torchvision's and Detectron2's own FCOS with random weights, beside ours with the same weights imported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS
from detectron2.modeling.meta_arch.fcos import FCOSHead as Detectron2Head
from torch import Tensor, nn

from fcos_d2 import FCOS, importers, zoo
from fcos_d2.weights.adjust import change_epsilon
from fcos_d2.weights.rules import to_ours

HEIGHT, WIDTH = 160, 192


@torch.no_grad()
def scatter_weights(model: nn.Module, predictors: dict[str, float]) -> None:
    """Give every layer weights that matter: uneven statistics, gains, and class logits that reach the threshold.

    Args:
        model: changed in place.
        predictors: name of a last layer -> standard deviation of its weights.
    """
    for name, module in model.named_modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, nn.GroupNorm) or getattr(module, "running_var", None) is not None:
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.1)
        if name in predictors:
            module.weight.normal_(0, predictors[name])
            module.bias.uniform_(0.5, 1.5) if module.out_channels == 4 else module.bias.fill_(-2.0)


def by_location(maps: list[Tensor], channels: int) -> Tensor:
    """Maps (1, channels, H, W) of all levels -> (1, R, channels)."""
    return torch.cat([x.flatten(2).transpose(1, 2).reshape(1, -1, channels) for x in maps], dim=1)


def assert_equal_maps(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1  # otherwise biases would be compared
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def assert_equal_detections(ours, boxes: Tensor, scores: Tensor, classes: Tensor) -> None:
    assert len(ours) == len(boxes) > 20
    torch.testing.assert_close(ours.scores, scores, rtol=0, atol=1e-5)
    assert torch.equal(ours.pred_classes, classes)
    torch.testing.assert_close(ours.pred_boxes.tensor, boxes, rtol=0, atol=1e-3)


def our_model(path: Path, config: str, num_classes: int) -> FCOS:
    imported = importers.load(path)
    assert imported.config_name == config
    cfg = zoo.get_config(config)
    cfg.model.num_classes = num_classes
    model = instantiate(cfg.model).eval()
    model.load_state_dict(imported.state_dict)
    return model


def our_maps(model: FCOS, inputs: list[dict]) -> tuple[Tensor, Tensor, Tensor]:
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    levels = [features[name] for name in model.head_in_features]
    found = model.dense(levels, model.strides, tuple(images.tensor.shape[-2:]))
    classes = model.num_classes
    return by_location(found.logits, classes), by_location(found.raw_ltrb, 4), by_location(found.quality, 1)


@pytest.mark.parametrize(
    "frozen", [pytest.param(True, marks=pytest.mark.slow), False], ids=["frozen norms", "batch norms"]
)
@torch.no_grad()
def test_torchvision(frozen: bool, tmp_path: Path) -> None:
    """91 channels, RGB in 0..1, its corner grid; batch norms with counters are read as frozen ones."""
    options = {"weights_backbone": None, "weights": None, "min_size": HEIGHT, "max_size": WIDTH}
    if frozen:
        body = torchvision.models.resnet50(weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d)
        body = torchvision.models.detection.backbone_utils._resnet_fpn_extractor(
            body,
            3,
            returned_layers=[2, 3, 4],
            extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
        )
        theirs = torchvision.models.detection.FCOS(body, 91, min_size=HEIGHT, max_size=WIDTH).eval()
    else:
        theirs = torchvision.models.detection.fcos_resnet50_fpn(**options).eval()
    box = "head.regression_head."
    last = {"head.classification_head.cls_logits": 0.05, f"{box}bbox_reg": 0.05, f"{box}bbox_ctrness": 0.05}
    scatter_weights(theirs, last)
    assert len(theirs.state_dict()) == (319 if frozen else 372)
    torch.save(theirs.state_dict(), tmp_path / "fcos_resnet50_fpn.pth")
    model = our_model(tmp_path / "fcos_resnet50_fpn.pth", "torchvision/fcos_resnet50_fpn", 91)
    image = torch.rand(3, HEIGHT, WIDTH)
    inputs = [{"image": image * 255, "height": HEIGHT, "width": WIDTH}]

    logits, raw_ltrb, quality = our_maps(model, inputs)
    images, _ = theirs.transform([image])
    expected = theirs.head(list(theirs.backbone(images.tensors).values()))

    assert_equal_maps(logits, expected["cls_logits"])
    assert_equal_maps(raw_ltrb.relu(), expected["bbox_regression"])
    assert_equal_maps(quality, expected["bbox_ctrness"])
    (found,) = theirs([image])
    assert_equal_detections(model(inputs)[0]["instances"], found["boxes"], found["scores"], found["labels"])


def detectron2_fcos(num_classes: int) -> Detectron2FCOS:
    """The model of its configs/common/models/fcos.py, which is not in the package."""
    stages = ResNet.make_default_stages(50, stride_in_1x1=True, norm="FrozenBN")
    body = ResNet(BasicStem(3, 64, norm="FrozenBN"), stages, out_features=["res3", "res4", "res5"])
    return Detectron2FCOS(
        backbone=FPN(body, ["res3", "res4", "res5"], 256, top_block=LastLevelP6P7(256, 256, "p5")),
        head=Detectron2Head(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes=num_classes,
            conv_dims=[256] * 4,
            # "GN" by name asks in 0.6 for a norm of one channel, which PyTorch refuses by now.
            norm=lambda channels: nn.GroupNorm(min(32, channels), channels),
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        num_classes=num_classes,
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
    )


@torch.no_grad()
def test_detectron2(tmp_path: Path) -> None:
    theirs = detectron2_fcos(80).eval()
    # A random stem on pixels of deviation 1 gives huge maps: scale them to what a trained one gives.
    theirs.backbone.bottom_up.stem.conv1.weight.mul_(0.02)
    scatter_weights(theirs, {"head.cls_score": 0.05, "head.bbox_pred": 0.05, "head.ctrness": 0.05})
    torch.save({"model": theirs.state_dict(), "iteration": 1}, tmp_path / "model_final.pth")
    model = our_model(tmp_path / "model_final.pth", "detectron2/fcos_R_50_FPN_1x", 80)
    inputs = [{"image": torch.rand(3, HEIGHT, WIDTH) * 255, "height": HEIGHT, "width": WIDTH}]

    features = theirs.backbone(theirs.preprocess_image(inputs).tensor)
    expected = theirs.head([features[name] for name in theirs.head_in_features])
    found = theirs(inputs)[0]["instances"]

    for ours, maps, channels in zip(our_maps(model, inputs), expected, (80, 4, 1)):
        assert_equal_maps(ours, by_location(maps, channels))
    assert_equal_detections(model(inputs)[0]["instances"], found.pred_boxes.tensor, found.scores, found.pred_classes)


@torch.no_grad()
def test_frozen_norms_without_epsilon_in_a_whole_network(tmp_path: Path) -> None:
    """torchvision's ResNet-50 with epsilon 0, under the names of tianzhi0549/FCOS."""
    theirs = torchvision.models.resnet50(norm_layer=torchvision.ops.FrozenBatchNorm2d).eval()
    for module in theirs.modules():
        if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
            module.eps = 0.0
            module.running_var.uniform_(1e-4, 2.0)
            module.weight.copy_(module.running_var.sqrt())
            module.bias.normal_(0, 0.1)
    names = {n: n if n.startswith("layer") else f"stem.{n}" for n in theirs.state_dict() if not n.startswith("fc.")}
    model = instantiate(zoo.get_config("torchvision/fcos_resnet50_fpn").model.backbone.bottom_up)
    renamed = {f"backbone.body.{new}": theirs.state_dict()[old] for old, new in names.items()}
    ours = to_ours(renamed, importers.FAMILIES["fcos_core"].rules)
    state, _ = change_epsilon(ours.tensors, ours.epsilons)
    model.load_state_dict({name.removeprefix("backbone.bottom_up."): tensor for name, tensor in state.items()})
    image = torch.randn(1, 3, 64, 96)
    found = model.eval()(image)
    plain = {name.removeprefix("backbone.bottom_up."): tensor for name, tensor in ours.tensors.items()}
    model.load_state_dict(plain)
    unchanged = model(image)

    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    for i, name in enumerate(("res2", "res3", "res4", "res5"), start=1):
        x = theirs.get_submodule(f"layer{i}")(x)
        if name in found:
            assert (found[name] - x).abs().max() < 1e-5 * x.abs().max()
            assert (unchanged[name] - x).abs().max() > 1e-4 * x.abs().max()  # the change was needed
