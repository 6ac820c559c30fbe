"""Padding counts for nothing: maps, statistics and detections of an image alone, in company and on a larger canvas.

Networks run in float64 here, so that what differs is not rounding.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg, instantiate
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import detector, image_inputs, random_boxes, relative, total
from torch import Tensor, nn

from fcos_d2 import add_fcos_config
from fcos_d2.config.compose import compose
from fcos_d2.config.overrides import apply_lazy
from fcos_d2.config.yacs import proposal_arguments
from fcos_d2.modeling import BACKBONES, FCOS
from fcos_d2.modeling.backbone.dla import Tree
from fcos_d2.modeling.backbone.hrnet import HRFPN
from fcos_d2.modeling.backbone.searched_pyramid import NASFPN
from fcos_d2.modeling.backbone.vovnet import OSABlock
from fcos_d2.modeling.deform import DeformConv
from fcos_d2.modeling.rewrite import rewrite
from fcos_d2.modeling.rewrite.invariant import (
    PaddedGroupNorm,
    PaddedMean,
    Padding,
    hide_padding,
    padded_group_norm,
    running,
    without_padding,
)
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.structures import Detections, Predictions

# How each network is made small: recipe, row of the backbone table, and arguments of the bottom-up network.
_DCN = {
    "stem_out_channels": 16,
    "res2_out_channels": 32,
    "width_per_group": 16,
    "deform_per_stage": [False, True, True, True],
    "norm": "BN",
}
NETWORKS = {
    "GN head": ("improved", "R_18_slim_FPN", {}),
    "BN head": ("realtime_bn", "R_18_slim_FPN", {}),
    "GN everywhere": ("improved", "R_18_slim_FPN", {"norm": "GN"}),
    "frozen": ("improved", "R_18_slim_FPN", {"norm": "FrozenBN"}),
    "deformable": ("improved_dcnv2", "R_50_FPN", _DCN),
    "NAS head": ("nas_fcos", "R_18_slim_FPN", {}),
    "searched head": ("fad", "R_18_slim_FPN", {}),
    "DLA": ("realtime", "DLA_34_FPN", {"norm": "BN"}),
    "MobileNetV2": ("improved", "MNV2_FPN", {}),
    "VoVNet": ("improved", "V_39_FPN", {"size": "V-27", "norm": "BN"}),
    "VoVNet with eSE": ("improved", "V_39_eSE_FPN", {"size": "V-19-slim-eSE", "norm": "BN"}),
}

# Norms of a head and of a backbone, offsets, trees and means; modules of all kinds are tried alone below.
QUICK = ("GN everywhere", "deformable", "DLA", "VoVNet with eSE")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


def build(name: str, **more: bool) -> FCOS:
    """A detector whose padding would not stay zero: biases and statistics are anything, offsets reach far."""
    recipe, row, arguments = NETWORKS[name]
    node = compose(recipe, row, "1x").model
    node.num_classes, node.backbone.out_channels = 3, 64
    for key, value in {"freeze_at": 0, **arguments}.items():
        node.backbone.bottom_up[key] = value
    for key, value in more.items():
        node[key] = value
    if recipe == "fad":
        node.dense.head.num_cells = 1
    torch.manual_seed(0)
    model = instantiate(node).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.7, 1.5)
        for key, parameter in [*model.named_parameters(), *model.named_buffers()]:
            if key.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "offset.weight" in key:
                parameter.normal_(0, 0.05)
        model.dense.head.bbox_pred.bias.fill_(1.5)
        model.dense.head.cls_logits.weight.mul_(30)  # scores of all sizes
    return model


@pytest.fixture(scope="module")
def network() -> Iterator[Callable[[str], FCOS]]:
    """A prepared detector by name, made once."""
    made: dict[str, FCOS] = {}

    def get(name: str) -> FCOS:
        if name not in made:
            made[name] = build(name, batch_invariant=True)
        return made[name]

    yield get
    made.clear()


def noise(*sizes: tuple[int, int]) -> list[Tensor]:
    """Images of smooth noise, normalised."""
    return [F.interpolate(torch.randn(1, 3, 8, 8).double(), size, mode="bicubic")[0] for size in sizes]


def canvas(images: list[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """A batch on the smallest canvas, or one of a given size, in multiples of 32 pixels."""
    height, width = size or (max(x.shape[1] for x in images), max(x.shape[2] for x in images))
    batch = torch.zeros(len(images), 3, -(-height // 32) * 32, -(-width // 32) * 32, dtype=torch.float64)
    for target, image in zip(batch, images):
        target[:, : image.shape[1], : image.shape[2]] = image
    return batch


def predict(model: FCOS, images: list[Tensor], size: tuple[int, int] | None = None, hide: bool = True) -> Predictions:
    """All maps that a detector makes of a batch at once; `hide` as it does for padding."""
    batch = canvas(images, size)
    padding = Padding([x.shape[-2:] for x in images], batch.shape[-2:]) if hide else None
    with torch.no_grad(), running(padding):
        features = model.backbone(batch)
        maps = [features[name] for name in model.head_in_features]
        predictions = model.dense(maps, model.strides, tuple(batch.shape[-2:]))
        if padding is not None:
            hide_padding(padding, predictions.logits)
    return predictions


def inside(predictions: Predictions, index: int, image: Tensor) -> list[Tensor]:
    """The cells of one image on all maps."""
    cells = [[-(-side // level.stride) for side in image.shape[-2:]] for level in predictions.locations.levels]
    return [
        values[index, :, :height, :width]
        for maps in (predictions.logits, predictions.raw_ltrb, predictions.quality)
        for values, (height, width) in zip(maps, cells)
    ]


def detections(
    model: FCOS, predictions: Predictions, index: int, images: list[Tensor]
) -> tuple[list[tuple[int, float, float]], Detections]:
    """Class and location of the boxes of one image, and the boxes, in the order of these: scores may tie."""
    found = model.dense.detect(predictions, [tuple(x.shape[-2:]) for x in images])
    found = found[(found.image == index).nonzero().squeeze(1)]
    keys = [(k, *xy) for k, xy in zip(found.classes.tolist(), predictions.locations.xy[found.location].tolist())]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [keys[i] for i in order], found[torch.tensor(order)]


# ---------------------------------------------------------------------------------------------------------- statistics
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_statistics_are_those_of_the_image(offset: float, memory_format: torch.memory_format) -> None:
    x = (torch.randn(3, 8, 9, 7) + offset).contiguous(memory_format=memory_format)
    cells = [(9, 7), (4, 7), (1, 2)]
    weight, bias = torch.randn(8), torch.randn(8)
    y = padded_group_norm(x, cells, 4, weight, bias, 1e-5)
    for i, (h, w) in enumerate(cells):
        group = x[i, :, :h, :w].double().reshape(4, -1)
        group = (group - group.mean(1, keepdim=True)) / (group.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        wanted = group.reshape(8, h, w) * weight.double()[:, None, None] + bias.double()[:, None, None]
        assert torch.allclose(y[i, :, :h, :w].double(), wanted, atol=1e-5)
        assert torch.equal(y[i, :, :h, :w], F.group_norm(x[i : i + 1, :, :h, :w].contiguous(), 4, weight, bias)[0])
        assert not y[i, :, h:].any()
        assert not y[i, :, :, w:].any()


def test_without_padding_group_norm_is_group_norm() -> None:
    x = torch.randn(2, 8, 6, 5)
    norm = PaddedGroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    plain = F.group_norm(x, 4, norm.weight, norm.bias)
    assert torch.equal(norm(x), plain)
    with running(Padding([(48, 40), (41, 33)], (48, 40))):  # their last cells are theirs in part
        assert torch.equal(norm(x), plain)
    assert torch.equal(padded_group_norm(x, [(6, 5)] * 2, 4, norm.weight, norm.bias), plain)
    with running(Padding([(48, 40), (40, 40)], (48, 40))):
        assert torch.equal(norm(x)[0], plain[0])
        assert not torch.allclose(norm(x)[1, :, :5], plain[1, :, :5], atol=1e-2)


def test_gradients_of_padded_statistics() -> None:
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    cells = [(2, 3), (3, 1)]
    assert torch.autograd.gradcheck(lambda x: padded_group_norm(x, cells, 2), x)
    padded_group_norm(x, cells, 2).square().sum().backward()
    assert x.grad[0, :, :2, :3].any()
    assert not x.grad[0, :, 2:].any()
    assert not x.grad[1, :, :, 1:].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_means_are_those_of_the_image(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 5, 4, 6).contiguous(memory_format=memory_format)
    mean = PaddedMean(1)
    assert torch.equal(mean(x), x.mean((2, 3), keepdim=True))
    with running(Padding([(16, 24), (9, 5)], (16, 24))):
        y = mean(x)
    assert torch.allclose(y[0], x[:1].mean((2, 3), keepdim=True)[0], atol=1e-6)
    assert torch.allclose(y[1], x[1:, :, :3, :2].mean((2, 3), keepdim=True)[0], atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- cells
@given(
    size=st.integers(1, 400),
    more=st.integers(0, 300),
    kernels=st.lists(st.sampled_from([1, 3, 7]), min_size=0, max_size=7),
)
def test_cells_are_what_convolutions_make_of_an_unpadded_image(size: int, more: int, kernels: list[int]) -> None:
    maps = [torch.empty(1, 1, 8, n, device="meta") for n in (size, -(-(size + more) // 32) * 32)]
    padded = maps[1].shape[-1]
    for k in kernels:
        weight = torch.empty(1, 1, k, k, device="meta")
        maps = [F.conv2d(x, weight, stride=2, padding=k // 2) for x in maps]
    cells = Padding([(8, size)], (8, padded)).cells(maps[1])
    width = maps[1].shape[-1] if cells is None else cells[0][1]
    assert width == maps[0].shape[-1]


def test_maps_of_other_sizes_are_refused() -> None:
    padding = Padding([(50, 60)], (64, 64))
    with pytest.raises(
        ValueError, match=r"^A map of 16x15 cells is not the padded input of 64x64 pixels, halved: set "
    ):
        padding.cells(torch.zeros(1, 2, 16, 15))
    with pytest.raises(
        ValueError, match=r"^A map of shape \(2, 2, 16, 16\) cannot be told from its padding in a batch"
    ):
        padding.cells(torch.zeros(2, 2, 16, 16))


def test_filling_writes_the_padding_alone() -> None:
    padding = Padding([(64, 64), (33, 64), (8, 1)], (64, 64))
    x = torch.rand(3, 2, 8, 8) + 1
    with torch.enable_grad():
        y = padding.fill(x)
    assert (x >= 1).all()
    with torch.no_grad():
        z = x.clone()
        assert padding.fill(z).data_ptr() == z.data_ptr()
    assert torch.equal(y, z)
    for values, before, (h, w) in zip(z, x, [(8, 8), (5, 8), (1, 1)]):
        assert torch.equal(values[:, :h, :w], before[:, :h, :w])
        assert int((values == 0).sum()) == 2 * (64 - h * w)


# -------------------------------------------------------------------------------------------------------------- modules
@pytest.mark.parametrize("record", [False, True], ids=["inference", "gradients"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 3, 3, stride=2, padding=1),
        Conv2d(4, 3, 5, padding=2, norm=nn.BatchNorm2d(3), activation=F.relu_),
        nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.AvgPool2d(2),
        DeformConv(4, 3, 3, offset_init="kaiming_uniform"),
        Tree(1, 4, 3, "BN", stride=2, level_root=True),
        OSABlock(4, 3, 4, num_layers=2, ese=True, identity=True, norm="BN"),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d((1, 1)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_lies_in_the_padding_is_not_read(module: nn.Module, record: bool) -> None:
    module = copy.deepcopy(module).eval()
    module = without_padding(module)
    maps = torch.rand(2, 4, 16, 16)
    padding, cells = Padding([(64, 64), (35, 49)], (64, 64)), [(16, 16), (9, 13)]
    results = []
    for value in (0.0, torch.nan):
        x = maps.clone()
        x[1, :, 9:], x[1, :, :, 13:] = value, value
        before = x.clone()
        with torch.set_grad_enabled(record), running(padding):
            y = module(x)
        if record:  # autograd may need what a module was given
            assert torch.equal(x.nan_to_num(9.0), before.nan_to_num(9.0))
        scale = y.shape[-1] / 16
        results.append([v[:, : math.ceil(h * scale), : math.ceil(w * scale)] for v, (h, w) in zip(y, cells)])
    for zero, nan in zip(*results):
        assert nan.isfinite().all()
        assert torch.equal(zero, nan)


@pytest.mark.parametrize("name", ["GN head", "GN everywhere", "deformable", "MobileNetV2"])
def test_maps_are_those_of_the_unpadded_image(network: Callable[[str], FCOS], name: str) -> None:
    """These networks take images of any size; it is the pyramid that does not."""
    net = network(name).backbone.bottom_up
    for image in noise((49, 70), (64, 33), (65, 98)):
        batch = canvas([image], (128, 160))
        with torch.no_grad():
            unpadded = net(image[None])
            with running(Padding([image.shape[-2:]], batch.shape[-2:])):
                padded = net(batch)
        for key, wanted in unpadded.items():
            height, width = wanted.shape[-2:]
            assert relative(padded[key][:, :, :height, :width], wanted) < 1e-9


# ------------------------------------------------------------------------------------------------------------ detectors
@pytest.mark.parametrize("name", EACH)
@settings(max_examples=4)
@given(
    whole=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    others=st.lists(st.tuples(st.integers(20, 160), st.integers(20, 160)), min_size=1, max_size=3),
    more=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    seed=st.integers(0, 2**31),
)
def test_an_image_is_itself_in_any_batch_and_any_padding(
    network: Callable[[str], FCOS],
    name: str,
    whole: tuple[int, int],
    others: list[tuple[int, int]],
    more: tuple[int, int],
    seed: int,
) -> None:
    model = network(name)
    torch.manual_seed(seed)
    # The first fills its canvas when alone, so that nobody has to do anything for it.
    images = noise((32 * whole[0], 32 * whole[1]), *others)
    size = max(x.shape[1] for x in images) + more[0], max(x.shape[2] for x in images) + more[1]
    together = predict(model, images, size)
    for i, image in enumerate(images):
        alone = predict(model, [image], hide=i > 0)
        for ours, theirs in zip(inside(together, i, image), inside(alone, 0, image)):
            assert relative(ours, theirs) < 1e-5
        (ours, boxes), (theirs, own) = detections(model, together, i, images), detections(model, alone, 0, [image])
        assert ours == theirs
        assert len(ours) > 0
        assert torch.allclose(boxes.boxes, own.boxes, rtol=0, atol=1e-4)
        assert torch.allclose(boxes.scores, own.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EACH)
def test_without_it_company_changes_an_image(name: str) -> None:
    model = build(name)
    images = noise((64, 96), (128, 160))
    together, alone = predict(model, images, hide=False), predict(model, images[:1], hide=False)
    differences = [relative(a, b) for a, b in zip(inside(together, 0, images[0]), inside(alone, 0, images[0]))]
    assert max(differences) > 1e-3


@pytest.mark.parametrize("name", ["GN head", "VoVNet with eSE", "deformable"])
def test_preparing_changes_neither_the_state_nor_what_is_not_padded(network: Callable[[str], FCOS], name: str) -> None:
    plain, prepared = build(name), network(name)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in prepared.state_dict().items()}
    image = noise((64, 96))
    for ours, theirs in zip(predict(prepared, image).logits, predict(plain, image, hide=False).logits):
        assert torch.equal(ours, theirs)


def test_preparing_twice_and_copying(network: Callable[[str], FCOS]) -> None:
    model = network("GN head")
    again = without_padding(copy.deepcopy(model))
    hooks = [[len(m._forward_pre_hooks) + len(m._forward_hooks) for m in x.modules()] for x in (model, again)]
    assert hooks[0] == hooks[1]
    images = noise((60, 90), (100, 50))
    for ours, theirs in zip(predict(again, images).logits, predict(model, images).logits):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["GN head", "DLA", "VoVNet with eSE"])
def test_gradients_do_not_reach_the_padding(network: Callable[[str], FCOS], name: str) -> None:
    model = network(name)
    images = noise((40, 50), (70, 90))
    grads = []
    for batch in (canvas(images), canvas(images[:1])):
        batch.requires_grad_()
        with running(Padding([x.shape[-2:] for x in images[: len(batch)]], batch.shape[-2:])):
            features = model.backbone(batch)
        loss = sum(features[p][0, :, : -(-40 // s), : -(-50 // s)].square().sum() for p, s in (("p3", 8), ("p4", 16)))
        grads.append(torch.autograd.grad(loss, batch)[0])
    assert not grads[0][1].any()
    assert not grads[0][0, :, 40:].any()
    assert not grads[0][0, :, :, 50:].any()
    assert relative(grads[0][0, :, :40, :50], grads[1][0, :, :40, :50]) < 1e-9


# ----------------------------------------------------------------------------------------------------------- the option
def test_rewriting_switches_the_option_on() -> None:
    model = detector("improved")
    new = rewrite(model, invariant=True)
    assert new.batch_invariant
    assert not model.batch_invariant


def test_a_detector_with_the_option() -> None:
    torch.manual_seed(0)
    model = detector("improved")
    model = FCOS(backbone=model.backbone, dense=model.dense, num_classes=3, batch_invariant=True).eval()
    with torch.no_grad():
        model.dense.head.bbox_pred.bias.fill_(1.5)
        model.dense.head.cls_logits.bias.fill_(0.0)
        batch = [image_inputs((50, 70)), image_inputs((96, 64), height=192, width=128), image_inputs((30, 100))]
        together = model(batch)
        alone = [model([inputs])[0] for inputs in batch]
    for a, b in zip(together, alone):
        a, b = a["instances"], b["instances"]
        assert len(a) == len(b) > 0
        assert a.image_size == b.image_size
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_classes, b.pred_classes)
        assert torch.equal(a.locations, b.locations)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_detector_with_the_option_on_a_gpu() -> None:
    model = build("GN head", batch_invariant=True).cuda()
    batch = [image_inputs((50, 70)), image_inputs((96, 64)), image_inputs((30, 100))]
    with torch.no_grad():
        for a, b in zip(model(batch), [model([inputs])[0] for inputs in batch]):
            assert len(a["instances"]) == len(b["instances"]) > 0
            assert torch.allclose(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor, atol=1e-4)
            assert torch.allclose(a["instances"].scores, b["instances"].scores, rtol=0, atol=1e-6)


def test_training_is_as_without_the_option() -> None:
    """With all norms, those that train too."""
    batch = [image_inputs(s, random_boxes(3, s), torch.arange(3)) for s in ((64, 96), (80, 50))]
    for name in ("GN head", "GN everywhere", "VoVNet with eSE"):
        losses = [build(name, batch_invariant=wanted).float().train()(batch) for wanted in (False, True)]
        assert losses[0] == losses[1]
        total(losses[1]).backward()


FIRST = {(row.bottom_up, row.pyramid): name for name, row in reversed(BACKBONES.items())}.values()  # of each kind


@pytest.mark.parametrize("row", [x if x in FIRST else pytest.param(x, marks=pytest.mark.slow) for x in BACKBONES])
def test_which_backbones_can(row: str) -> None:
    recipe = "adelaidet"
    with unfilled():
        node = compose(recipe, row, "1x").model
        node.batch_invariant = True
        if BACKBONES[row].bottom_up.__name__ == "HRNet" or "nas_fpn" in BACKBONES[row].pyramid.__name__:
            with pytest.raises(
                ValueError, match=r"^batch_invariant is True, but backbone \((HRFPN|NASFPN)\) resizes maps"
            ):
                instantiate(node)
            return
        model = instantiate(node)
    assert isinstance(model.backbone, nn.Module)
    assert not isinstance(model.backbone, (HRFPN, NASFPN))
    assert not [m for m in model.modules() if type(m) is nn.GroupNorm]


class Surprise(nn.Module):
    """A part that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear"), "(Upsample) resizes maps by 'bilinear', across the border"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "(Conv2d) pads its maps by 'reflect', not with zeros"),
        (nn.AdaptiveAvgPool2d(2), "(AdaptiveAvgPool2d) averages over parts of the padded map"),
        (nn.InstanceNorm2d(3), "(InstanceNorm2d) is not known to leave the padding out"),
        (nn.LayerNorm(3), "(LayerNorm) is not known to leave the padding out"),
        (Surprise(), "(Surprise) is not known to leave the padding out"),
    ],
)
def test_parts_that_cannot_are_named(part: nn.Module, message: str) -> None:
    backbone = nn.ModuleDict({"backbone": nn.ModuleDict({"stem": nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), part)})})
    start, end = "batch_invariant is True, but backbone.stem.1 ", "and run images one by one (batch size 1)."
    with pytest.raises(ValueError, match=f"^{re.escape(start + message)}.*{re.escape(end)}$"):
        without_padding(backbone)


def test_locations_that_follow_the_padding_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^batch_invariant is True, but LocationGrid\.origin 'corner' spreads"):
        detector("torchvision").batch_invariant = True


def test_the_key_in_yaml_and_the_argument_in_lazy_config() -> None:
    models = []
    for wanted in (False, True):
        cfg = get_cfg()
        add_fcos_config(cfg)
        cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "FCOS", "meta"
        cfg.MODEL.BACKBONE.NAME = "build_fcos_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
        assert cfg.MODEL.FCOS.BATCH_INVARIANT is False
        cfg.MODEL.FCOS.BATCH_INVARIANT = wanted
        written = get_cfg()
        add_fcos_config(written)
        written.merge_from_other_cfg(type(cfg).load_cfg(cfg.dump()))
        assert written.MODEL.FCOS.BATCH_INVARIANT is wanted
        lazy = compose("adelaidet", "R_50_FPN", "1x")._asdict()["model"]
        root = type(lazy)({"model": lazy})
        apply_lazy(root, [f"model.batch_invariant={str(wanted).lower()}"])
        with unfilled():
            models.append((build_model(written), instantiate(root.model)))
    for pair, wanted in zip(models, (False, True)):
        kinds = [[(type(m), len(m._forward_pre_hooks)) for m in model.modules()] for model in pair]
        assert kinds[0] == kinds[1]
        assert all(model.batch_invariant is wanted for model in pair)
        assert (PaddedGroupNorm in {kind for kind, _ in kinds[0]}) is wanted


def test_two_stages_cannot() -> None:
    cfg = get_cfg()
    add_fcos_config(cfg)
    cfg.MODEL.FCOS.BATCH_INVARIANT = True
    shapes = {f"p{i}": ShapeSpec(channels=64, stride=2**i) for i in range(3, 8)}
    with pytest.raises(ValueError, match=r"^MODEL\.FCOS\.BATCH_INVARIANT is True, but backbone and ROI heads of a two"):
        proposal_arguments(cfg, shapes)
