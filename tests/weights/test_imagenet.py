"""ImageNet weights that detectors start from, from their own libraries and in the layouts of the model zoos."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from omegaconf import DictConfig
from torch import Tensor, nn

from fcos_d2 import importers, zoo
from fcos_d2.config import load_config
from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.importers import load_backbone
from fcos_d2.modeling.backbone import BACKBONES
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.weights import rules
from fcos_d2.weights.fit import load_model
from fcos_d2.weights.read import read

T_R50, V_R50 = "fcos/fcos_R_50_FPN_1x", "torchvision/fcos_resnet50_fpn"


def bottom_up(config: str, found: importers.Imported) -> nn.Module:
    """The network below the pyramid of a variant, with imported weights."""
    with unfilled():
        model = instantiate(zoo.get_config(config).model.backbone.bottom_up).eval()
    prefix = "backbone.bottom_up."
    assert all(name.startswith(prefix) for name in found.state_dict)
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in found.state_dict.items()}, assign=True)
    return model


def state_of(network: str) -> dict[str, Tensor]:
    """Names and shapes of a network of torchvision; what is no vector is one number, which takes no time to write."""
    with unfilled():
        state = torchvision.models.get_model(network, weights=None).state_dict()
    shapes = [(name, tensor.shape) for name, tensor in state.items()]
    made = {
        name: torch.rand(shape) + 0.5 if len(shape) == 1 else torch.rand(()).expand(shape) for name, shape in shapes
    }
    return made | {name: torch.tensor(0) for name in made if name.endswith("tracked")}


def in_the_3x3(config: str) -> DictConfig:
    """A variant whose bottlenecks stride as torchvision's weights want it."""
    return load_config(config, ["model.backbone.bottom_up.stride_in_1x1=False"])


@torch.no_grad()
def uneven(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.0)
    return model.eval()


@torch.no_grad()
def test_torchvisions_resnet(tmp_path: Path) -> None:
    """For a config that reads the same pixels nothing changes; for one that reads BGR and deviation 1 the stem does."""
    theirs = uneven(torchvision.models.resnet50(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    rgb = torch.rand(3, 64, 64) * 255
    mean, std = (torch.tensor(x)[:, None, None] for x in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    x = ((rgb - mean) / std)[None]

    found = load_backbone(tmp_path / "resnet50.pth", V_R50)
    model = bottom_up(V_R50, found)
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for i, name in enumerate(("res2", "res3", "res4", "res5"), start=1):
        y = theirs.get_submodule(f"layer{i}")(y)
        if name != "res2":
            assert (model(x)[name] - y).abs().max() < 1e-5 * y.abs().max()
    assert sorted(found.report.ignored) == ["fc.bias", "fc.weight"]

    turned = load_backbone(tmp_path / "resnet50.pth", in_the_3x3(T_R50))
    stem = bottom_up(T_R50, turned).stem.conv1
    bgr = (rgb - mean).flip(0)[None]
    pixels = str(turned.report)
    assert "RGB -> BGR" in pixels
    assert "deviation" in pixels
    assert "set model.pixel_mean" not in pixels  # 102.98 for 103.53 is not worth a word
    wanted = theirs.bn1(theirs.conv1(x)).relu()
    assert (stem(bgr).relu() - wanted).abs().max() < 1e-4 * wanted.abs().max()


def caffe2(statistics: bool) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    """A ResNet-50 under the names of Caffe2, and the same under ours."""
    with unfilled():
        model = instantiate(zoo.get_config(T_R50).model.backbone.bottom_up)
    ours = {name: torch.rand(tensor.shape) + 0.5 for name, tensor in model.state_dict().items()}
    blobs = {"fc1000_w": np.zeros((10, 4), np.float32), "fc1000_b": np.zeros(10, np.float32)}
    parts = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    for name, tensor in ours.items():
        words = name.split(".")
        if words[0] == "stem":
            layer, norm = "conv1", "res_conv1_bn"
        else:
            layer = f"{words[0]}_{words[1]}_{branches[words[2]]}"
            norm = f"{layer}_bn"
        if "norm" not in words:
            blobs[f"{layer}_w"] = tensor.numpy()
        elif statistics or words[-1] in ("weight", "bias"):
            blobs[f"{norm}_{parts[words[-1]]}"] = tensor.numpy()
    blobs["conv1_w_momentum"] = np.zeros(3, np.float32)
    return blobs, ours


@pytest.mark.parametrize("wrapped", [pytest.param(False, marks=pytest.mark.slow), True], ids=["bare", "blobs"])
def test_caffe2s_affine_layers(wrapped: bool, tmp_path: Path) -> None:
    """MSRA's files have absorbed their statistics: the frozen norm is the affine layer, epsilon or not."""
    blobs, ours = caffe2(statistics=False)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs} if wrapped else blobs, protocol=2))

    found = load_backbone(path, T_R50)
    model = bottom_up(T_R50, found)

    norm = model.res4[5].conv2.norm
    assert isinstance(norm, FrozenBatchNorm2d)
    x = torch.randn(1, 256, 2, 2)
    gain, bias = (ours[f"res4.5.conv2.norm.{name}"][:, None, None] for name in ("weight", "bias"))
    torch.testing.assert_close(norm(x), x * gain + bias, rtol=1e-6, atol=1e-6)
    assert torch.equal(model.stem.conv1.weight, ours["stem.conv1.weight"])  # BGR, deviation 1: what the config reads
    assert torch.equal(model.res2[0].shortcut.weight, ours["res2.0.shortcut.weight"])
    assert "53 norms have their statistics absorbed" in str(found.report)


def test_reconverted_files_have_not_absorbed_the_deviation(tmp_path: Path) -> None:
    blobs, ours = caffe2(statistics=True)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs, protocol=2))

    model = bottom_up(T_R50, load_backbone(path, T_R50))

    std = torch.tensor([57.375, 57.12, 58.395])[:, None, None]
    torch.testing.assert_close(model.stem.conv1.weight, ours["stem.conv1.weight"] / std, rtol=1e-6, atol=0)
    assert torch.equal(model.res5[2].conv3.norm.running_var, ours["res5.2.conv3.norm.running_var"])


def test_detectron2s_names(tmp_path: Path) -> None:
    """As its converter of torchvision's weights writes them: RGB."""
    _, ours = caffe2(statistics=False)
    path = tmp_path / "R-50.pkl"
    arrays = {name: tensor.numpy() for name, tensor in ours.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))

    same = bottom_up(V_R50, load_backbone(path, V_R50))
    turned = load_backbone(path, in_the_3x3(T_R50))

    assert torch.equal(same.stem.conv1.weight, ours["stem.conv1.weight"])
    assert "RGB -> BGR" in str(turned.report)


@pytest.mark.parametrize("flat", [False, True], ids=["torchvision", "one row"])
def test_mobilenet(flat: bool, tmp_path: Path) -> None:
    """torchvision pairs convolution and norm; the file that tianzhi0549/FCOS started from has one row of layers."""
    theirs = uneven(torchvision.models.mobilenet_v2(weights=None))
    state = theirs.state_dict()
    if flat:
        state = {}
        for name, module in theirs.features.named_children():
            layers = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU6))]
            row = name if name in ("0", "18") else f"{name}.conv"
            for i, layer in enumerate(layers):
                state |= {f"features.{row}.{i}.{part}": tensor for part, tensor in layer.state_dict().items()}
        state["classifier.weight"] = torch.zeros(10, 1280)
    torch.save(state, tmp_path / "mobilenet_v2.pth")
    config = "fcos/fcos_bn_bs16_MNV2_FPN_1x"

    found = load_backbone(tmp_path / "mobilenet_v2.pth", config)
    model = bottom_up(config, found)

    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model(x)
        for i, layer in enumerate(theirs.features[:18]):
            x = layer(x)
            if i == 13:
                torch.testing.assert_close(maps["res4"], x, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(maps["res5"], x, rtol=1e-5, atol=1e-5)
    assert "whatever pixels" in str(found.report)


@pytest.mark.parametrize(
    ("config", "classifier"),
    [
        ("adelaidet/FCOS_RT_MS_DLA_34_4x", "fc.weight"),
        ("adelaidet/FCOS_MS_V_39_3x", "classifier.weight"),
        ("hrnet", "incre_modules.0.0.conv1.weight"),
    ],
)
def test_networks_under_their_authors_names(config: str, classifier: str, tmp_path: Path) -> None:
    if config == "hrnet":
        cfg = compose(recipe="fcos_hrnet", backbone="HRNet_W18_HRFPN", schedule="1x").model
        family = "hrnet"
    else:
        cfg, family = zoo.get_config(config).model, "adelaidet"
    with unfilled():
        shapes = {name: tensor.shape for name, tensor in instantiate(cfg.backbone.bottom_up).state_dict().items()}
    ours = {
        f"backbone.bottom_up.{n}": torch.rand(s) if len(s) == 1 else torch.rand(()).expand(s) for n, s in shapes.items()
    }
    renamed = rules.to_theirs(ours, importers.FAMILIES[family].rules)
    assert not renamed.left_over
    theirs = {
        n.removeprefix("backbone.").removeprefix("body.").removeprefix("bottom_up."): t
        for n, t in renamed.tensors.items()
    }
    torch.save(
        {"state_dict": {f"module.{n}": t for n, t in theirs.items()} | {classifier: torch.ones(1)}}, tmp_path / "x.pth"
    )

    found = load_backbone(tmp_path / "x.pth", cfg)

    assert found.state_dict.keys() == ours.keys()
    assert all(torch.equal(found.state_dict[name], ours[name]) for name in ours)


def test_wrong_files(tmp_path: Path) -> None:
    state = state_of("resnet18")
    torch.save(state, tmp_path / "resnet18.pth")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({**state, "b.weight": torch.zeros(1)}, tmp_path / "more.pth")

    assert len(load_backbone(tmp_path / "resnet18.pth").state_dict) == 120  # with counters, for nobody in particular
    with pytest.raises(FcosError, match="does not suit the backbone of fcos/fcos_R_50_FPN_1x"):
        load_backbone(tmp_path / "resnet18.pth", T_R50)
    with pytest.raises(FcosError, match=r"holds no known backbone.*'a\.weight'"):
        load_backbone(tmp_path / "other.pth")
    with pytest.raises(FcosError, match=r"has also b\.weight"):
        load_backbone(tmp_path / "more.pth")
    with pytest.raises(FcosError, match=r"importers\.load_backbone reads backbones"):
        importers.load(tmp_path / "resnet18.pth")


# Who made a file, and what follows from it

X_101, X_101_STD = "fcos/fcos_X_101_32x8d_FPN_2x", "adelaidet/FCOS_MS_X_101_32x8d_2x"


def resnext(statistics: str) -> dict[str, np.ndarray]:
    """The tensors of X-101-32x8d.pkl as far as its origin shows."""
    names = ["conv1_w", "res_conv1_bn_s", *(f"res_conv1_bn_{statistics}" for _ in range(bool(statistics)))]
    blobs = {name: np.ones((64, 3, 7, 7) if name == "conv1_w" else 64, np.float32) for name in names}
    return {**blobs, "res2_0_branch2b_w": np.ones((256, 8, 3, 3), np.float32)}


def test_detectron2s_copy_of_msras_weights_has_absorbed_the_deviation(tmp_path: Path) -> None:
    """Its names are `bn_gamma`, `bn_beta`, `bn_running_mean` and `bn_running_var` (logs in detectron2's issue 1698)."""
    blobs, ours = caffe2(statistics=True)
    words = {"_s": "_gamma", "_b": "_beta", "_rm": "_running_mean", "_riv": "_running_var"}
    renamed = {
        f"{n.removesuffix(end)}{words[end]}" if "_bn_" in n and (end := f"_{n.rpartition('_')[2]}") in words else n: t
        for n, t in blobs.items()
    }
    assert "res_conv1_bn_running_var" in renamed
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": renamed, "__author__": "Caffe2", "matching_heuristics": True}, protocol=2))

    found = load_backbone(path, T_R50)

    assert torch.equal(found.state_dict["backbone.bottom_up.stem.conv1.weight"], ours["stem.conv1.weight"])
    name = "res4.2.conv2.norm.running_var"
    assert torch.equal(found.state_dict[f"backbone.bottom_up.{name}"], ours[name])
    with pytest.raises(FcosError, match=r"MSRA with Caffe\) strides in its 1x1 .*stride_in_1x1=True"):
        load_backbone(path, V_R50)


@pytest.mark.parametrize(
    ("statistics", "pixels"), [("", (1.0, 1.0, 1.0)), ("riv", (57.375, 57.12, 58.395)), ("running_var", None)]
)
def test_fairs_resnext_strides_in_its_3x3(statistics: str, pixels: tuple[float, ...] | None, tmp_path: Path) -> None:
    path = tmp_path / "X-101-32x8d.pkl"
    path.write_bytes(pickle.dumps(resnext(statistics), protocol=2))
    weights = read(path)
    assert weights.made.stride_in_1x1 is False
    assert weights.pixels is not None and weights.pixels.format == "BGR"
    assert weights.pixels.std == (pixels or (57.375, 57.12, 58.395))


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
@pytest.mark.parametrize("deformable", [False, True])
def test_weights_of_another_stride_are_refused_with_the_line_that_mends_it(
    depth: int, deformable: bool, tmp_path: Path
) -> None:
    """They fit by name and shape, and res5 of a network that strides elsewhere is something else."""
    torch.save(state_of(f"resnet{depth}"), tmp_path / "imagenet.pth")
    dcn = "dcnv2_" if deformable else ""
    name = f"fcos/fcos_imprv_{dcn}R_{depth}_FPN_{'1x' if depth == 50 else '2x'}"
    with pytest.raises(FcosError) as error:
        load_backbone(tmp_path / "imagenet.pth", name)
    said = str(error.value)
    assert "imagenet.pth (torchvision or timm) strides in its 3x3 convolutions" in said and "\n" not in said
    (line,) = [word for word in said.replace(",", " ").split() if word.startswith("model.")]
    assert load_backbone(tmp_path / "imagenet.pth", load_config(name, [line])).report.warnings == []


@pytest.mark.parametrize("name", ["resnet50_msra-5891d200.pth", "resnet50_caffe.pth", "renamed.pth"])
def test_openmmlabs_copies_of_msras_weights_are_no_torchvisions(name: str, tmp_path: Path) -> None:
    """They have torchvision's names. Under another name of the file, the statistics of the first norm tell."""
    state = state_of("resnet50")
    state["bn1.running_var"] *= 57.0**2 * 10
    torch.save(state, tmp_path / name)
    found = load_backbone(tmp_path / name, T_R50)
    assert torch.equal(found.state_dict["backbone.bottom_up.stem.conv1.weight"], state["conv1.weight"])
    with pytest.raises(FcosError, match="strides in its 1x1 convolutions"):
        load_backbone(tmp_path / name, V_R50)


def test_resnet_18_strides_in_one_way_only(tmp_path: Path) -> None:
    torch.save(state_of("resnet18"), tmp_path / "resnet18.pth")
    config = compose(recipe="improved", backbone="R_18_torch_FPN", schedule="1x").model
    assert load_backbone(tmp_path / "resnet18.pth", config).report.warnings == []


def test_a_file_that_does_not_say_who_made_it_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, ours = caffe2(statistics=True)
    torch.save(ours, tmp_path / "somebody.pth")
    model = instantiate(zoo.get_config(T_R50).model)
    load_model(model, str(tmp_path / "somebody.pth"), allow_backbone=True)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    said = record.getMessage()
    assert "somebody.pth: the file does not say who made it" in said
    assert "BGR, mean 102.98" in said and "strides in its 1x1" in said


def test_norms_of_another_kind_are_refused(tmp_path: Path) -> None:
    """timm's resnet50_gn has the names of resnet50, and group norms in the place of batch norms."""
    state = state_of("resnet50")
    torch.save({n: t for n, t in state.items() if "running" not in n and "tracked" not in n}, tmp_path / "gn.pth")
    with pytest.raises(FcosError, match="53 norms without running statistics, the first backbone"):
        load_backbone(tmp_path / "gn.pth", V_R50)
    torch.save({"conv_stem.weight": torch.zeros(32, 3, 3, 3), "bn1.weight": torch.zeros(32)}, tmp_path / "tf.pth")
    with pytest.raises(FcosError, match="holds no known backbone"):  # timm's other networks, some with epsilon 0.001
        load_backbone(tmp_path / "tf.pth", "fcos/fcos_bn_bs16_MNV2_FPN_1x")


def test_another_pixel_mean_is_a_warning(tmp_path: Path) -> None:
    torch.save(state_of("resnet50"), tmp_path / "resnet50.pth")
    config = load_config(V_R50, ["model.pixel_mean=[127.5,127.5,127.5]"])
    (said,) = load_backbone(tmp_path / "resnet50.pth", config).report.warnings
    assert "set model.pixel_mean" in said and "127.5" in said


@pytest.mark.parametrize("name", [name for name, row in BACKBONES.items() if "stride_in_1x1" in row.arguments])
def test_the_weights_that_a_backbone_names_suit_it(name: str) -> None:
    row = BACKBONES[name]
    by_msra = "/MSRA/" in row.weights
    assert not row.weights or row.arguments["depth"] == 18 or row.arguments["stride_in_1x1"] == by_msra
