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
from torch import Tensor, nn

from fcos_d2 import importers, zoo
from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.importers import load_backbone
from fcos_d2.weights import rules

T_R50, V_R50 = "fcos/fcos_R_50_FPN_1x", "torchvision/fcos_resnet50_fpn"


def bottom_up(config: str, found: importers.Imported) -> nn.Module:
    """The network below the pyramid of a variant, with imported weights."""
    model = instantiate(zoo.get_config(config).model.backbone.bottom_up).eval()
    prefix = "backbone.bottom_up."
    assert all(name.startswith(prefix) for name in found.state_dict)
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in found.state_dict.items()})
    return model


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

    turned = load_backbone(tmp_path / "resnet50.pth", T_R50)
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


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "blobs"])
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
    turned = load_backbone(path, T_R50)

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
    with torch.device("meta"):
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
    state = dict(torchvision.models.resnet18(weights=None).state_dict())
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
