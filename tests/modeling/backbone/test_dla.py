"""DLA-34 as AdelaiDet's real-time models use it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcos_d2.modeling import BACKBONES
from fcos_d2.modeling.backbone.dla import DLA, Tree

LEVELS = tuple(f"level{i}" for i in range(6))
SHARED = {"num_shared_convs": 4, "num_class_convs": 0, "num_box_convs": 0}


def test_row_and_its_yaml_build_the_same(same_in_yaml):
    assert same_in_yaml("DLA_34_FPN")


@pytest.mark.parametrize(
    ("checkpoint", "head"),
    [
        ("adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn", {}),
        ("adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn_bn_head", {"norm": "SyncBN"}),
        ("adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn_shared_towers", SHARED),
        ("adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn_shared_towers_bn_head", {**SHARED, "norm": "SyncBN"}),
    ],
)
def test_tensors_are_those_of_the_published_checkpoint(checkpoint, head, has_tensors_of):
    assert has_tensors_of(checkpoint, "DLA_34_FPN", recipe="realtime", **head)


def test_names_are_those_of_the_published_checkpoint(published):
    prefix = "backbone.bottom_up."
    theirs = published("adelaidet__FCOS_RT-MS_DLA_34_4x_syncbn")
    theirs = {k.removeprefix(prefix): shape for k, shape in theirs.items() if k.startswith(prefix)}
    assert theirs == {k: tuple(v.shape) for k, v in DLA(norm="SyncBN").state_dict().items()}


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_shapes_and_gradients(norm):
    net = DLA(norm=norm, out_features=LEVELS)
    maps = net(torch.randn(2, 3, 64, 96))
    specs = net.output_shape()
    assert [(s.channels, s.stride) for s in specs.values()] == list(
        zip((16, 32, 64, 128, 256, 512), (1, 2, 4, 8, 16, 32))
    )
    for name, spec in specs.items():
        assert maps[name].shape == (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
    sum(v.square().mean() for v in maps.values()).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    zero = {name.rsplit(".", 2)[0] for name, p in net.named_parameters() if not p.grad.any()}
    assert zero == {"level3.project", "level4.project"}  # the two whose output goes nowhere


def test_tree_of_trees_is_the_formula():
    """Levels 3 and 4 written out: the second tree's root also sees the pooled input and the first tree's output."""
    tree = Tree(2, 4, 6, "BN", stride=2, level_root=True).eval()
    x = torch.randn(1, 4, 8, 8)

    def blocks(node: Tree, x: Tensor, residual: Tensor, *others: Tensor) -> Tensor:
        first = node.tree1(x, residual)
        second = node.tree2(first, first)
        return torch.relu(node.root.bn(node.root.conv(torch.cat((second, first, *others), 1))))

    pooled = torch.nn.functional.max_pool2d(x, 2)
    inner = blocks(tree.tree1, x, tree.tree1.project(pooled))
    torch.testing.assert_close(tree(x), blocks(tree.tree2, inner, inner, pooled, inner))


def test_number_of_parameters():
    # 15.8 M with the classifier of 1000 classes (arXiv:1707.06484, Table 1).
    assert sum(p.numel() for p in DLA().parameters()) + 513 * 1000 == 15_783_832


def test_freezing_and_determinism():
    net = DLA(norm="BN", freeze_at=3)
    frozen = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"base_layer", "level0", "level1"}
    assert all(p.requires_grad for p in DLA(norm="BN", freeze_at=-1).parameters())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net.eval()(x)["level5"], net(x)["level5"])


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="DLA46"):
        DLA("DLA46")
    with pytest.raises(ValueError, match="stage3"):
        DLA(out_features=("stage3",))
    assert BACKBONES["DLA_34_FPN"].arguments["freeze_at"] == -1  # AdelaiDet's builder accepts nothing else
