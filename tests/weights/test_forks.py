"""Models whose layout is not written down: their names, spelled out as their own code makes them, fill ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.importers import FAMILIES
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.weights.adjust import change_epsilon
from fcos_d2.weights.rules import to_ours, to_theirs

NORM = ("weight", "bias", "running_mean", "running_var")
COUNTED = (*NORM, "num_batches_tracked")
AFFINE = ("weight", "bias")


def parts(name: str, tensors: tuple[str, ...]) -> list[str]:
    return [f"{name}.{part}" for part in tensors]


def resnet(prefix: str, blocks: tuple[int, ...], norm: tuple[str, ...], stem: str = "") -> Iterator[str]:
    yield f"{prefix}{stem}conv1.weight"
    yield from parts(f"{prefix}{stem}bn1", norm)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            here = f"{prefix}layer{stage}.{block}"
            for i in (1, 2, 3):
                yield f"{here}.conv{i}.weight"
                yield from parts(f"{here}.bn{i}", norm)
            if block == 0:
                yield f"{here}.downsample.0.weight"
                yield from parts(f"{here}.downsample.1", norm)


def mobilenet(prefix: str) -> Iterator[str]:
    for i in range(18):
        convs = {0: ("0",), 1: ("conv.0", "conv.3")}.get(i, ("conv.0", "conv.3", "conv.6"))
        for conv in convs:
            before, _, index = conv.rpartition(".")
            norm = f"{before}.{int(index) + 1}" if before else str(int(index) + 1)
            yield f"{prefix}features.{i}.{conv}.weight"
            yield from parts(f"{prefix}features.{i}.{norm}", COUNTED)


def hrnet(prefix: str) -> Iterator[str]:
    def conv_bn(conv: str, bn: str) -> Iterator[str]:
        yield f"{prefix}{conv}.weight"
        yield from parts(f"{prefix}{bn}", COUNTED)

    yield from conv_bn("conv1", "bn1")
    yield from conv_bn("conv2", "bn2")
    for block in range(4):
        for i in (1, 2, 3):
            yield from conv_bn(f"layer1.{block}.conv{i}", f"layer1.{block}.bn{i}")
    yield from conv_bn("layer1.0.downsample.0", "layer1.0.downsample.1")
    yield from conv_bn("transition1.0.0", "transition1.0.1")  # 256 channels become those of the first branch
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        new = f"transition{stage - 1}.{stage - 1}.0"
        yield from conv_bn(f"{new}.0", f"{new}.1")
        for module in range(modules):
            here = f"stage{stage}.{module}"
            for branch in range(stage):
                for block in range(4):
                    for i in (1, 2):
                        name = f"{here}.branches.{branch}.{block}"
                        yield from conv_bn(f"{name}.conv{i}", f"{name}.bn{i}")
            for i in range(stage):
                for j in range(stage):
                    name = f"{here}.fuse_layers.{i}.{j}"
                    if j > i:
                        yield from conv_bn(f"{name}.0", f"{name}.1")
                    for k in range(i - j):
                        yield from conv_bn(f"{name}.{k}.0", f"{name}.{k}.1")


def vovnet(prefix: str, blocks: tuple[int, ...], norm: tuple[str, ...], layers: int = 5) -> Iterator[str]:
    def conv_norm(name: str) -> Iterator[str]:
        yield f"{prefix}{name}/conv.weight"
        yield from parts(f"{prefix}{name}/norm", norm)

    for i in (1, 2, 3):
        yield from conv_norm(f"stem.stem_{i}")
    for stage, count in enumerate(blocks, start=2):
        for block in range(1, count + 1):
            osa = f"OSA{stage}_{block}"
            for i in range(layers):
                yield from conv_norm(f"stage{stage}.{osa}.layers.{i}.{osa}_{i}")
            yield from conv_norm(f"stage{stage}.{osa}.concat.{osa}_concat")


def fpn() -> Iterator[str]:
    for i in (2, 3, 4):
        yield from parts(f"backbone.fpn.fpn_inner{i}", AFFINE)
        yield from parts(f"backbone.fpn.fpn_layer{i}", AFFINE)
    for name in ("p6", "p7"):
        yield from parts(f"backbone.fpn.top_blocks.{name}", AFFINE)


def head(prefix: str, levels: int = 5, searched: bool = False) -> Iterator[str]:
    for tower, ops in (("cls_tower", "_cls_head_global_ops"), ("bbox_tower", "_reg_head_global_ops")):
        if not searched:
            for i in (0, 1, 3, 4, 6, 7, 9, 10):
                yield from parts(f"{prefix}{tower}.{i}", AFFINE)
            continue
        for i in (0, 2):  # deformable
            yield from parts(f"{prefix}{ops}.{i}.dcn.0", AFFINE)
            yield from parts(f"{prefix}{ops}.{i}.dcn.0.conv_offset_mask", AFFINE)
            yield from parts(f"{prefix}{ops}.{i}.dcn.1", AFFINE)
        for i in (1, 3):
            yield f"{prefix}{ops}.{i}.0.weight"
            yield from parts(f"{prefix}{ops}.{i}.1", AFFINE)
    for name in ("cls_logits", "bbox_pred", "centerness"):
        yield from parts(f"{prefix}{name}", AFFINE)
    yield from (f"{prefix}scales.{i}.scale" for i in range(levels))


def nas_fpn() -> Iterator[str]:
    for i in (1, 2, 3, 4):
        yield f"decoder.fpn.adapt{i}.0.weight"
        yield from parts(f"decoder.fpn.adapt{i}.1", COUNTED)
    for cell, deformable in enumerate(((0, 1), (0, 1), (0,), (0,), (0, 1), (0, 1), (0, 1))):
        for i in deformable:
            yield from parts(f"decoder.fpn._ops.{cell}.{i}.dcn.0", AFFINE)
            yield from parts(f"decoder.fpn._ops.{cell}.{i}.dcn.0.conv_offset_mask", AFFINE)
            yield from parts(f"decoder.fpn._ops.{cell}.{i}.dcn.1", COUNTED)
        yield from parts(f"decoder.fpn._ops.{cell}.2.conv1x1.0", COUNTED)
        yield f"decoder.fpn._ops.{cell}.2.conv1x1.2.weight"
    for name in ("p6", "p7"):
        yield from parts(f"decoder.fpn.top_blocks.{name}", AFFINE)


def mmdet_head(searched: bool = False) -> Iterator[str]:
    for tower in ("cls_convs", "reg_convs"):
        for i in range(4):
            yield f"bbox_head.{tower}.{i}.conv.weight"
            yield from parts(f"bbox_head.{tower}.{i}.gn", AFFINE)
            if searched and i in (0, 2):
                yield f"bbox_head.{tower}.{i}.conv.bias"
                yield from parts(f"bbox_head.{tower}.{i}.conv.conv_offset", AFFINE)
    for name in ("cls", "reg", "centerness"):
        yield from parts(f"bbox_head.conv_{name}", AFFINE)
    yield from (f"bbox_head.scales.{i}.scale" for i in range(5))


def mmdet_nas_fpn() -> Iterator[str]:
    for i in range(3):
        yield f"neck.adapt_convs.{i}.conv.weight"
        yield from parts(f"neck.adapt_convs.{i}.bn", COUNTED)
    for name, count in {"c22_1": 2, "c22_2": 2, "c32": 1, "c02": 1, "c42": 2, "c36": 2, "c61": 2}.items():
        cell = f"neck.fpn.{name}"
        for i in range(1, count + 1):
            yield from parts(f"{cell}.input{i}_conv.conv", AFFINE)
            yield from parts(f"{cell}.input{i}_conv.conv.conv_offset", AFFINE)
            yield from parts(f"{cell}.input{i}_conv.bn", COUNTED)
        yield f"{cell}.out_conv.conv.weight"
        yield from parts(f"{cell}.out_conv.bn", COUNTED)
    for i in (0, 1):
        yield from parts(f"neck.extra_downsamples.{i}.conv", AFFINE)


def hrfpn(reduction: str, convs: str, levels: int) -> Iterator[str]:
    yield from parts(reduction, AFFINE)
    for i in range(levels):
        yield from parts(convs.format(i), AFFINE)


R50 = (3, 4, 6, 3)
NAMES = {
    ("hrnet", "fcos_hrnet", "HRNet_W18_HRFPN"): [
        *hrnet("backbone.body."),
        *hrfpn("backbone.fpn.reduction_conv.0", "backbone.fpn.fpn_conv.{}", 5),
        *head("rpn.head."),
    ],
    ("hrnet", "fcos_hrnet_6l", "HRNet_W32_HRFPN_6l"): [
        *hrnet("backbone.body."),
        *hrfpn("backbone.fpn.reduction_conv.0", "backbone.fpn.fpn_conv.{}", 6),
        *head("rpn.head.", levels=6),
    ],
    ("vovnet", "fcos_vovnet", "V_39_FPN"): [
        *vovnet("backbone.body.", (1, 1, 2, 2), NORM),
        *fpn(),
        *head("rpn.head."),
    ],
    ("nas_fcos", "nas_fcos", "R_50_NASFPN"): [
        *resnet("encoder.body.", R50, NORM, "stem."),
        *nas_fpn(),
        *head("decoder.rpn.head."),
    ],
    ("nas_fcos", "nas_fcos_head", "MNV2_NASFPN"): [
        *mobilenet("encoder.body."),
        *nas_fpn(),
        *head("decoder.rpn.head.", searched=True),
    ],
    ("mmdet", "mmdet_hrnet", "HRNet_W18_HRFPN"): [
        *hrnet("backbone."),
        *hrfpn("neck.reduction_conv.conv", "neck.fpn_convs.{}.conv", 5),
        *mmdet_head(),
    ],
    ("mmdet", "mmdet_nas_fcos", "R_50_NASFPN_nearest"): [
        *resnet("backbone.", R50, COUNTED),
        *mmdet_nas_fpn(),
        *mmdet_head(),
    ],
    ("mmdet", "mmdet_nas_fcos_head", "R_50_NASFPN_nearest"): [
        *resnet("backbone.", R50, COUNTED),
        *mmdet_nas_fpn(),
        *mmdet_head(searched=True),
    ],
}


def model_of(recipe: str, backbone: str) -> nn.Module:
    with unfilled():
        return instantiate(compose(recipe=recipe, backbone=backbone, schedule="1x").model)


@pytest.mark.parametrize(("family", "recipe", "backbone"), NAMES, ids=lambda name: name)
def test_names_fill_the_model(family: str, recipe: str, backbone: str) -> None:
    row, names = FAMILIES[family], NAMES[family, recipe, backbone]
    tensors = {n: torch.ones(()) if n.endswith(".scale") else torch.ones(1) for n in names if not row.ignores(n)}
    wanted = set(model_of(recipe, backbone).state_dict())

    renamed = to_ours(tensors, row.rules)

    assert not renamed.left_over
    counters = {name for name in renamed.tensors if name.endswith("num_batches_tracked") and name not in wanted}
    assert set(renamed.tensors) - counters == wanted
    assert set(to_theirs(renamed.tensors, row.rules).tensors) == set(tensors)


def test_frozen_norms_of_a_nas_fcos_file(tmp_path) -> None:
    """The ResNet has no epsilon, the pyramid has one; the adaptation of C2, which nothing reads, is put aside."""
    from fcos_d2 import importers

    model = model_of("nas_fcos", "R_50_NASFPN")
    row = FAMILIES["nas_fcos"]
    own = {}
    for name, tensor in model.state_dict().items():
        number = 0.5 + len(own) / 1000
        own[name] = torch.full(tensor.shape, number) if tensor.dim() == 1 else torch.tensor(number).expand(tensor.shape)
        if name.endswith("num_batches_tracked"):
            own[name] = torch.tensor(3)
    epsilons = to_theirs(own, row.rules).epsilons
    theirs = to_theirs(change_epsilon(own, epsilons, back=True)[0], row.rules).tensors
    theirs |= {"decoder.fpn.adapt1.0.weight": torch.zeros(2), "decoder.fpn.adapt1.1.bias": torch.zeros(2)}
    path = tmp_path / "R-50-NAS.pth"
    torch.save({"model": {f"module.{name}": tensor for name, tensor in theirs.items()}}, path)

    imported = importers.load(path)

    assert imported.config_name == "nas_fcos/R_50_NAS"
    assert set(epsilons) == {n.removesuffix(".running_var") for n in own if ".res" in n or ".stem." in n if "var" in n}
    assert set(imported.unused) == {"decoder.fpn.adapt1.0.weight", "decoder.fpn.adapt1.1.bias"}
    assert imported.state_dict.keys() == own.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(imported.state_dict[name], tensor, rtol=3e-7, atol=0)


@pytest.mark.parametrize(
    ("recipe", "backbone", "family", "variants"),
    [
        pytest.param(
            "fcos_hrnet",
            "HRNet_W18_HRFPN",
            "hrnet",
            ["hrnet_w18_5l_2x", "hrnet_w18_5l_ms_2x_syncbn"],
            marks=pytest.mark.slow,
        ),
        ("fcos_hrnet_6l", "R_50_FPN_6l", "hrnet", ["ResNet_50_6l_2x"]),
        ("fcos_vovnet", "V_39_FPN", "vovnet", ["V_39_FPN_1x"]),
        ("mmdet_hrnet", "HRNet_W32_HRFPN", "mmdet", ["hrnetv2p-w32-gn-head_4xb4-1x_coco"]),
        ("mmdet_nas_fcos_head", "R_50_NASFPN_nearest", "mmdet", ["nashead-gn-head_4xb4-1x_coco"]),
    ],
)
def test_forks_are_recognised(recipe: str, backbone: str, family: str, variants: list[str]) -> None:
    """Though HRNet-FCOS, VoVNet-FCOS and the original have the same head under the same names."""
    from fcos_d2 import importers

    state = {n: torch.ones(t.shape or ()) for n, t in model_of(recipe, backbone).state_dict().items()}

    imported = importers.load({"model": importers.export(state, family)})

    assert imported.family == family
    found = [v.full_name for v in imported.variants]
    assert all(any(name.endswith(variant) for name in found) for variant in variants)
    assert imported.recipe.removesuffix("_2x") == recipe
    assert imported.backbone.replace("_syncbn", "") == backbone


@pytest.mark.parametrize("family", ["fcos_core", "fcos_plus", "adelaidet", "detectron2", "torchvision", "nas_fcos"])
def test_what_a_project_has_no_network_for_is_refused(family: str) -> None:
    from fcos_d2 import importers

    state = {n: torch.ones(t.shape or ()) for n, t in model_of("mmdet_hrnet", "HRNet_W18_HRFPN").state_dict().items()}

    with pytest.raises(FcosError, match=f"^{family} cannot express this model: it has nothing like backbone"):
        importers.export(state, family)
