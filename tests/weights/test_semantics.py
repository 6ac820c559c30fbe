"""What weights mean, layer by layer: heads, pyramids and norms of other projects written down plainly, beside ours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor

from fcos_d2.importers import FAMILIES
from fcos_d2.modeling import FCOSHead
from fcos_d2.modeling.backbone import fpn, resnet
from fcos_d2.weights.adjust import change_epsilon
from fcos_d2.weights.rules import to_ours, to_theirs

C, K = 32, 3

# Where each family keeps what; from each project's own model code.
NAMES = [
    ("fcos_core", "backbone.body.stem.conv1.weight", "backbone.bottom_up.stem.conv1.weight"),
    ("fcos_core", "backbone.body.stem.bn1.running_var", "backbone.bottom_up.stem.conv1.norm.running_var"),
    ("fcos_core", "backbone.body.layer1.0.downsample.0.weight", "backbone.bottom_up.res2.0.shortcut.weight"),
    ("fcos_core", "backbone.body.layer1.0.downsample.1.bias", "backbone.bottom_up.res2.0.shortcut.norm.bias"),
    ("fcos_core", "backbone.body.layer3.22.conv3.weight", "backbone.bottom_up.res4.22.conv3.weight"),
    ("fcos_core", "backbone.body.layer4.2.bn3.running_mean", "backbone.bottom_up.res5.2.conv3.norm.running_mean"),
    ("fcos_core", "backbone.body.layer2.0.conv2.conv.weight", "backbone.bottom_up.res3.0.conv2.weight"),
    ("fcos_core", "backbone.body.layer2.0.conv2.offset.bias", "backbone.bottom_up.res3.0.conv2.offset.bias"),
    ("fcos_core", "backbone.fpn.fpn_inner2.weight", "backbone.fpn_lateral3.weight"),  # of C3
    ("fcos_core", "backbone.fpn.fpn_layer4.bias", "backbone.fpn_output5.bias"),  # makes P5
    ("fcos_core", "backbone.fpn.top_blocks.p7.weight", "backbone.top_block.p7.weight"),
    ("fcos_core", "rpn.head.cls_tower.9.conv.weight", "dense.head.cls_tower.9.weight"),
    ("fcos_core", "rpn.head.centerness.bias", "dense.head.quality.bias"),
    ("fcos_core", "backbone.body.features.0.1.weight", "backbone.bottom_up.features.0.1.weight"),
    ("fcos_core", "backbone.body.features.1.conv.3.weight", "backbone.bottom_up.features.1.conv.1.weight"),
    ("fcos_core", "backbone.body.features.1.conv.4.bias", "backbone.bottom_up.features.1.conv.2.bias"),
    ("fcos_core", "backbone.body.features.17.conv.0.weight", "backbone.bottom_up.features.17.conv.0.0.weight"),
    (
        "fcos_core",
        "backbone.body.features.17.conv.4.running_var",
        "backbone.bottom_up.features.17.conv.1.1.running_var",
    ),
    ("fcos_core", "backbone.body.features.17.conv.6.weight", "backbone.bottom_up.features.17.conv.2.weight"),
    ("fcos_core", "backbone.body.features.17.conv.7.bias", "backbone.bottom_up.features.17.conv.3.bias"),
    ("adelaidet", "backbone.bottom_up.res4.0.conv2_offset.weight", "backbone.bottom_up.res4.0.conv2.offset.weight"),
    ("adelaidet", "backbone.bottom_up.res4.0.conv2.norm.bias", "backbone.bottom_up.res4.0.conv2.norm.bias"),
    ("adelaidet", "backbone.bottom_up.stem.stem_3/norm.weight", "backbone.bottom_up.stem.2.norm.weight"),
    (
        "adelaidet",
        "backbone.bottom_up.stage4.OSA4_2.layers.3.OSA4_2_3/conv.weight",
        "backbone.bottom_up.stage4.1.layers.3.weight",
    ),
    (
        "adelaidet",
        "backbone.bottom_up.stage2.OSA2_1.concat.OSA2_1_concat/norm.bias",
        "backbone.bottom_up.stage2.0.concat.norm.bias",
    ),
    ("adelaidet", "backbone.bottom_up.stage5.OSA5_3.ese.fc.bias", "backbone.bottom_up.stage5.2.ese.fc.bias"),
    ("adelaidet", "backbone.bottom_up.level3.tree2.root.bn.weight", "backbone.bottom_up.level3.tree2.root.bn.weight"),
    ("adelaidet", "proposal_generator.fcos_head.share_tower.4.2.bias", "dense.head.share_tower.4.levels.2.bias"),
    ("adelaidet", "proposal_generator.fcos_head.ctrness.weight", "dense.head.quality.weight"),
    ("adelaidet", "proposal_generator.fcos_head.centerness.weight", "dense.head.quality.weight"),
    ("mmdet", "backbone.layer2.3.conv2.conv_offset.weight", "backbone.bottom_up.res3.3.conv2.offset.weight"),
    ("mmdet", "neck.lateral_convs.2.conv.weight", "backbone.fpn_lateral5.weight"),
    ("mmdet", "neck.fpn_convs.2.conv.weight", "backbone.fpn_output5.weight"),
    ("mmdet", "neck.fpn_convs.3.conv.weight", "backbone.top_block.p6.weight"),
    ("mmdet", "neck.fpn_convs.4.conv.bias", "backbone.top_block.p7.bias"),
    ("mmdet", "bbox_head.cls_convs.3.conv.conv_offset.bias", "dense.head.cls_tower.9.offset.bias"),
    ("mmdet", "bbox_head.fcos_reg.weight", "dense.head.bbox_pred.weight"),
    ("torchvision", "backbone.body.bn1.bias", "backbone.bottom_up.stem.conv1.norm.bias"),
    ("torchvision", "backbone.fpn.inner_blocks.0.0.weight", "backbone.fpn_lateral3.weight"),
    ("torchvision", "backbone.fpn.layer_blocks.2.bias", "backbone.fpn_output5.bias"),  # before torchvision 0.13
    ("torchvision", "head.regression_head.bbox_ctrness.bias", "dense.head.quality.bias"),
    ("detectron2", "head.bbox_subnet.10.4.running_var", "dense.head.bbox_tower.10.levels.4.running_var"),
    ("detectron2", "head.cls_subnet.1.weight", "dense.head.cls_tower.1.weight"),
    ("vovnet", "backbone.body.stem.stem_1/conv.weight", "backbone.bottom_up.stem.0.weight"),
    ("nas_fcos", "encoder.body.layer1.2.bn2.bias", "backbone.bottom_up.res2.2.conv2.norm.bias"),
    ("nas_fcos", "decoder.fpn.adapt2.0.weight", "backbone.adapt.0.weight"),  # of C3: C2 is adapt1
    ("nas_fcos", "decoder.fpn._ops.6.1.dcn.0.conv_offset_mask.bias", "backbone.cells.6.second.0.offset.bias"),
    ("nas_fcos", "decoder.fpn._ops.3.2.conv1x1.2.weight", "backbone.cells.3.conv.weight"),
    ("nas_fcos", "decoder.rpn.head._reg_head_global_ops.1.0.weight", "dense.head.bbox_tower.1.conv.weight"),
    ("nas_fcos", "decoder.rpn.head._cls_head_global_ops.2.dcn.1.bias", "dense.head.cls_tower.2.norm.bias"),
    ("fad", "rpn.head.cls_tower.cells.1.preproc1.net.1.bias", "dense.head.cls_tower.1.adapt.norm.bias"),
    ("fad", "rpn.head.bbox_tower.cells.0.dag.2.1.1.conv_1.weight", "dense.head.bbox_tower.0.nodes.2.1.conv_1.weight"),
    ("fad", "rpn.head.cls_tower.cells.1.dag.1.0.1.conv_2.0.bias", "dense.head.cls_tower.1.nodes.1.0.depthwise_2.bias"),
    ("fad", "rpn.head.box_reduce.bias", "dense.head.box_reduce.bias"),
]


@pytest.mark.parametrize(("family", "theirs", "ours"), NAMES)
def test_names(family: str, theirs: str, ours: str) -> None:
    assert list(to_ours({theirs: torch.zeros(1)}, FAMILIES[family].rules).tensors) == [ours]


# Heads


def head_weights(towers: dict[str, list[str]], predictors: dict[str, int], bias: bool = True) -> dict[str, Tensor]:
    """Random weights of towers (names of their convolutions and norms, in order) and predictors (their channels)."""
    weights = {}
    for name, layers in towers.items():
        for layer in layers:
            is_conv = layers.index(layer) % 2 == 0
            weights[f"{name}.{layer}.weight"] = torch.randn(C, C, 3, 3) * 0.1 if is_conv else torch.rand(C) + 0.5
            if bias or not is_conv:
                weights[f"{name}.{layer}.bias"] = torch.randn(C) * 0.1
    for name, channels in predictors.items():
        weights[f"{name}.weight"] = torch.randn(channels, C, 3, 3) * 0.1
        weights[f"{name}.bias"] = torch.randn(channels)
    return weights


def conv(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=1)


def gn_tower(x: Tensor, weights: dict[str, Tensor], name: str, layers: list[str]) -> Tensor:
    for kernel, norm in zip(layers[::2], layers[1::2]):
        x = conv(x, weights, f"{name}.{kernel}")
        x = F.group_norm(x, 32, weights[f"{name}.{norm}.weight"], weights[f"{name}.{norm}.bias"]).relu()
    return x


def maps(levels: int) -> list[Tensor]:
    return [torch.randn(2, C, 2**i, 2**i + 1) for i in reversed(range(1, levels + 1))]


def check_head(
    weights: dict[str, Tensor], family: str, expected: list[list[Tensor]], xs: list[Tensor], **options
) -> None:
    """Our head with their weights gives `expected`: logits, raw ltrb, quality, each by level."""
    head = FCOSHead(num_classes=K, in_channels=C, num_levels=len(xs), **options).eval()
    renamed = to_ours(weights, FAMILIES[family].rules)
    assert not renamed.left_over
    head.load_state_dict({name.removeprefix("dense.head."): tensor for name, tensor in renamed.tensors.items()})
    for ours, theirs in zip(head(xs), expected):
        for x, y in zip(ours, theirs):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


INDICES = ["0", "1", "3", "4", "6", "7", "9", "10"]  # of convolutions and norms, ReLUs in between


@pytest.mark.parametrize("quality_on", ["class", "box"])  # original, improved
def test_head_of_fcos_core(quality_on: str) -> None:
    p = "rpn.head."
    sizes = {f"{p}cls_logits": K, f"{p}bbox_pred": 4, f"{p}centerness": 1}
    weights = head_weights({f"{p}cls_tower": INDICES, f"{p}bbox_tower": INDICES}, sizes)
    scales = [torch.tensor([0.5 + i]) for i in range(5)]
    weights |= {f"{p}scales.{i}.scale": scale for i, scale in enumerate(scales)}
    xs, expected = maps(5), [[], [], []]
    for x, scale in zip(xs, scales):
        c, b = (gn_tower(x, weights, f"{p}{name}_tower", INDICES) for name in ("cls", "bbox"))
        expected[0].append(conv(c, weights, f"{p}cls_logits"))
        expected[1].append(conv(b, weights, f"{p}bbox_pred") * scale)
        expected[2].append(conv(c if quality_on == "class" else b, weights, f"{p}centerness"))

    check_head(weights, "fcos_core", expected, xs, quality_on=quality_on)
    check_head(weights, "fcos_plus", expected, xs, quality_on=quality_on)


def test_head_of_mmdetection() -> None:
    p = "bbox_head."
    layers = [f"{i}.{kind}" for i in range(4) for kind in ("conv", "gn")]
    sizes = {f"{p}conv_cls": K, f"{p}conv_reg": 4, f"{p}conv_centerness": 1}
    weights = head_weights({f"{p}cls_convs": layers, f"{p}reg_convs": layers}, sizes, bias=False)
    scales = [torch.tensor(0.5 + i) for i in range(5)]
    weights |= {f"{p}scales.{i}.scale": scale for i, scale in enumerate(scales)}
    xs, expected = maps(5), [[], [], []]
    for x, scale in zip(xs, scales):
        c, b = (gn_tower(x, weights, f"{p}{name}_convs", layers) for name in ("cls", "reg"))
        expected[0].append(conv(c, weights, f"{p}conv_cls"))
        expected[1].append(scale * conv(b, weights, f"{p}conv_reg"))
        expected[2].append(conv(c, weights, f"{p}conv_centerness"))

    check_head(weights, "mmdet", expected, xs, quality_on="class", conv_bias=False)


def test_head_of_adelaidet_with_a_shared_tower_and_norms_by_level() -> None:
    p = "proposal_generator.fcos_head."
    tower = f"{p}share_tower"
    sizes = {f"{p}cls_logits": K, f"{p}bbox_pred": 4, f"{p}ctrness": 1}
    weights = head_weights({}, sizes)
    for i in (0, 3):
        weights |= {f"{tower}.{i}.weight": torch.randn(C, C, 3, 3) * 0.1, f"{tower}.{i}.bias": torch.randn(C)}
        for level in range(3):
            norm = f"{tower}.{i + 1}.{level}"
            weights |= {
                f"{norm}.{name}": torch.rand(C) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")
            }
            weights[f"{norm}.num_batches_tracked"] = torch.tensor(level)
    scales = [torch.tensor([0.5 + i]) for i in range(3)]
    weights |= {f"{p}scales.{i}.scale": scale for i, scale in enumerate(scales)}
    xs, expected = maps(3), [[], [], []]
    for level, (x, scale) in enumerate(zip(xs, scales)):
        for i in (0, 3):
            norm = f"{tower}.{i + 1}.{level}"
            mean, var, gain, bias = (weights[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(conv(x, weights, f"{tower}.{i}"), mean, var, gain, bias, eps=1e-5).relu()
        expected[0].append(conv(x, weights, f"{p}cls_logits"))
        expected[1].append(conv(x, weights, f"{p}bbox_pred") * scale)
        expected[2].append(conv(x, weights, f"{p}ctrness"))

    check_head(
        weights, "adelaidet", expected, xs, num_shared_convs=2, num_class_convs=0, num_box_convs=0, norm="SyncBN"
    )


# Pyramids


@pytest.mark.parametrize("family", ["fcos_core", "mmdet", "torchvision"])
def test_pyramid(family: str) -> None:
    """P6 comes from P5, not from C5; there is a ReLU before P7; the pyramid adds from coarse to fine."""
    fpn3 = ("backbone.fpn.", (0, 1, 2))
    names = {
        "fcos_core": ("fpn_inner{}", "fpn_layer{}", "top_blocks.p6", "top_blocks.p7", "backbone.fpn.", (2, 3, 4)),
        "mmdet": (
            *("lateral_convs.{}.conv", "fpn_convs.{}.conv", "fpn_convs.3.conv", "fpn_convs.4.conv"),
            *("neck.", (0, 1, 2)),
        ),
        "torchvision": ("inner_blocks.{}.0", "layer_blocks.{}.0", "extra_blocks.p6", "extra_blocks.p7", *fpn3),
    }
    inner, layer, p6, p7, prefix, indices = names[family]
    body = resnet(18, stem_out_channels=8, res2_out_channels=8, norm="BN", freeze_at=0).eval()
    pyramid = fpn(body, out_channels=C).eval()
    widths = [body.output_shape()[f"res{i}"].channels for i in (3, 4, 5)]
    weights = {}
    for i, width in zip(indices, widths):
        weights |= {f"{prefix}{inner.format(i)}.weight": torch.randn(C, width, 1, 1) * 0.2}
        weights |= {f"{prefix}{layer.format(i)}.weight": torch.randn(C, C, 3, 3) * 0.1}
    weights |= {f"{prefix}{name}.weight": torch.randn(C, C, 3, 3) * 0.1 for name in (p6, p7)}
    weights |= {name.replace(".weight", ".bias"): torch.randn(C) for name in weights}
    renamed = to_ours(weights, FAMILIES[family].rules)
    assert not renamed.left_over
    own = {name.removeprefix("backbone."): tensor for name, tensor in renamed.tensors.items()}
    missing = pyramid.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("bottom_up.") for name in missing.missing_keys)

    image = torch.randn(1, 3, 64, 96)
    found = pyramid(image)

    def apply(x: Tensor, name: str, **options) -> Tensor:
        return F.conv2d(x, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"], **options)

    merged, expected = None, {}
    for i, level in reversed(list(zip(indices, (3, 4, 5)))):
        lateral = apply(body(image)[f"res{level}"], inner.format(i))
        merged = lateral if merged is None else lateral + F.interpolate(merged, scale_factor=2, mode="nearest")
        expected[f"p{level}"] = apply(merged, layer.format(i), padding=1)
    expected["p6"] = apply(expected["p5"], p6, padding=1, stride=2)
    expected["p7"] = apply(expected["p6"].relu(), p7, padding=1, stride=2)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-5)


# Norms


def test_frozen_norms_without_epsilon_give_the_same_output() -> None:
    """Variances from 1e-9 to 1e6: where `var - 1e-5` would be negative, the weight takes the change."""
    var = torch.logspace(-9, 6, 16)
    norm = {"weight": torch.randn(16), "bias": torch.randn(16), "running_mean": torch.randn(16), "running_var": var}
    theirs = {f"backbone.body.layer1.0.bn1.{name}": tensor for name, tensor in norm.items()}
    renamed = to_ours(theirs, FAMILIES["fcos_core"].rules)
    ours, done = change_epsilon(renamed.tensors, renamed.epsilons)
    prefix = "backbone.bottom_up.res2.0.conv1.norm."
    module = FrozenBatchNorm2d(16)
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in ours.items()})
    x = torch.randn(4, 16, 3, 3)

    exact = {name: tensor.double()[:, None, None] for name, tensor in norm.items()}
    slope = exact["weight"] / exact["running_var"].sqrt()
    expected = x.double() * slope + (exact["bias"] - exact["running_mean"] * slope)

    # Of float32, the deviation of the whole affine map: a few roundings of its terms.
    scale = (x.double() * slope).abs() + (exact["running_mean"] * slope).abs() + exact["bias"].abs()
    assert ((module(x).double() - expected).abs() / scale).max() < 5e-7
    assert "1 norms" in done[0]
    assert torch.equal(ours[f"{prefix}running_var"], var)

    back, _ = change_epsilon(ours, renamed.epsilons, back=True)
    returned = to_theirs(back, FAMILIES["fcos_core"].rules).tensors
    for name, tensor in theirs.items():
        torch.testing.assert_close(returned[name], tensor, rtol=3e-7, atol=0)


def test_channels_without_variance_stay_as_they_are() -> None:
    """An epsilon of 0 divides by nothing there; the report says how many."""
    tensors = {"n.weight": torch.tensor([2.0, 3.0]), "n.running_var": torch.tensor([0.0, 1.0])}

    changed, done = change_epsilon(tensors, {"n": 0.0})

    assert changed["n.weight"][0] == 2.0
    assert changed["n.weight"][1] == pytest.approx(3.0 * (1 + 1e-5) ** 0.5, rel=1e-7)
    assert done[1].startswith("1 channels")


@pytest.mark.parametrize(
    ("family", "name", "is_changed"),
    [
        ("fcos_core", "backbone.body.layer4.0.downsample.1", True),
        ("fcos_plus", "backbone.body.stem.bn1", True),
        ("fcos_core", "backbone.body.features.3.conv.4", False),  # MobileNetV2 trains its norms, with PyTorch's epsilon
        ("vovnet", "backbone.body.stage3.OSA3_1.concat.OSA3_1_concat/norm", True),
        ("nas_fcos", "encoder.body.stem.bn1", True),
        ("nas_fcos", "decoder.fpn.adapt3.1", False),
        ("adelaidet", "backbone.bottom_up.res2.0.conv1.norm", False),
        ("adelaidet", "backbone.bottom_up.stem.stem_2/norm", False),
        ("detectron2", "backbone.bottom_up.stem.conv1.norm", False),
        ("torchvision", "backbone.body.layer1.0.bn1", False),
        ("mmdet", "backbone.layer1.0.bn1", False),
    ],
)
def test_which_norms_have_no_epsilon(family: str, name: str, is_changed: bool) -> None:
    tensors = {f"{name}.{part}": torch.ones(2) for part in ("weight", "bias", "running_mean", "running_var")}

    renamed = to_ours(tensors, FAMILIES[family].rules)

    assert list(renamed.epsilons.values()) == [0.0] * is_changed


def test_mmdetection_has_no_epsilon_below_a_nas_pyramid_only() -> None:
    tensors = {"backbone.layer1.0.bn1.running_var": torch.ones(2), "neck.adapt_convs.0.conv.weight": torch.ones(1)}

    renamed = to_ours(tensors, FAMILIES["mmdet"].rules)

    assert renamed.epsilons == {"backbone.bottom_up.res2.0.conv1.norm": 0.0}
    assert to_theirs(renamed.tensors, FAMILIES["mmdet"].rules).epsilons == renamed.epsilons
