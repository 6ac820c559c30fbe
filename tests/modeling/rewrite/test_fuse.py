from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import FPN
from scenes import image_inputs
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.modeling import FCOS
from fcos_d2.modeling.backbone.dla import Block as DLABlock
from fcos_d2.modeling.rewrite import rewrite, rewrites_of
from fcos_d2.modeling.rewrite.fold import FoldedConv2d, folded
from fcos_d2.modeling.rewrite.fuse import FusedConv2d
from fcos_d2.modeling.rewrite.precision import Guarded
from fcos_d2.modeling.rewrite.recompute import Recomputed
from fcos_d2.modeling.unfilled import unfilled

SIZE = (96, 128)
# Every kind of network and of head.
NETWORKS = [
    ("improved", "R_50_FPN"),
    ("detectron2", "R_18_slim_FPN"),
    ("improved", "R_50_dcnv2_FPN"),
    ("improved", "MNV2_syncbn_FPN"),
    ("realtime_bn", "DLA_34_FPN"),
    ("adelaidet", "V_19_slim_eSE_FPN"),
    ("fcos_hrnet", "HRNet_W18_HRFPN"),
    ("nas_fcos", "R_50_NASFPN"),
    ("fad", "R_18_slim_FPN"),
]
QUICK = [case for case in NETWORKS if case[1] not in ("R_50_FPN", "HRNet_W18_HRFPN", "R_50_NASFPN")]


def model_of(recipe: str, backbone: str) -> FCOS:
    """Random weights, and norms whose statistics are not the ones they start with."""
    node = compose(recipe, backbone, "1x").model
    if recipe == "fad":
        node.dense.head.num_cells = 1
    with unfilled():
        model = instantiate(node)
    model = rewrite(model.to_empty(device="cpu"), sync_bn=False).eval()
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.startswith("pixel") or value.dtype == torch.int64:
                value.fill_(1)
            elif value.dim() > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5)
            else:
                value.uniform_(0.5, 1.5) if name.endswith("weight") else value.normal_(std=0.1)
    return model


@torch.inference_mode()
def maps(model: FCOS) -> list[Tensor]:
    """All head outputs for one image."""
    images = model.preprocess_image([image_inputs(SIZE)]).tensor
    features = model.backbone(images.contiguous(memory_format=torch.channels_last))
    outputs = model.dense.head([features[name] for name in model.head_in_features])
    return [x.float() for values in outputs for x in values]


def gap(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest difference, over the deviation of the map that it is in."""
    return max(float((a - b).abs().max() / (b.std() + 1e-6)) for a, b in zip(ours, theirs) if b.numel() > 1)


@pytest.mark.parametrize(
    ("recipe", "backbone"), [x if x in QUICK else pytest.param(*x, marks=pytest.mark.slow) for x in NETWORKS]
)
def test_head_outputs_stay_equal(recipe: str, backbone: str) -> None:
    model = model_of(recipe, backbone)
    torch.manual_seed(1)
    plain = maps(model)
    for _ in range(2):  # weights are laid out on the first image
        torch.manual_seed(1)
        fast = model.optimize()
        fast_maps = maps(fast)
        assert gap(fast_maps, plain) < 1e-3
    left = [m for m in fast.backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(left) <= sum(isinstance(m, FrozenBatchNorm2d) for m in model.backbone.modules()) // 3


def test_the_model_itself_stays_as_it_is() -> None:
    model = model_of("detectron2", "R_18_slim_FPN").train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fast = model.optimize()
    assert not fast.training
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert any(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())


@pytest.mark.parametrize(("precision", "most"), [
    ("bf16", 0.2), pytest.param({"backbone": "bf16"}, 0.2, marks=pytest.mark.slow), ({"head": "bf16"}, 0.2),
])  # fmt: skip
def test_precision_of_each_part(precision: str | dict[str, str], most: float) -> None:
    model = model_of("detectron2", "R_50_FPN")
    fast = model.optimize(precision)
    torch.manual_seed(1)
    ours = maps(fast)
    torch.manual_seed(1)
    difference = gap(ours, maps(model))
    assert 1e-4 < difference < most
    wanted = dict.fromkeys(("backbone", "head"), precision) if isinstance(precision, str) else precision
    for part, module in (("backbone", fast.backbone), ("head", fast.dense.head)):
        kinds = {x.packed.dtype if x.packed is not None else x.weight.dtype for x in convolutions(module)}
        low = {torch.bfloat16} if wanted.get(part) == "bf16" else {torch.float32}
        assert kinds == (low | {torch.float32} if part == "head" else low)


def convolutions(module: nn.Module) -> list[FusedConv2d]:
    return [x for x in module.modules() if isinstance(x, FusedConv2d)]


def test_without_packed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, or where PyTorch has no oneDNN."""
    monkeypatch.setattr("fcos_d2.modeling.rewrite.fuse.can_pack_convolutions", lambda: False)
    model = model_of("detectron2", "R_50_FPN")
    fast = model.optimize()
    torch.manual_seed(1)
    ours = maps(fast)
    torch.manual_seed(1)
    assert gap(ours, maps(model)) < 1e-3
    assert all(conv.packed is None for conv in convolutions(fast))


def test_images_of_other_sizes_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("detectron2", "R_18_slim_FPN")
    fast = model.optimize()
    for size in (SIZE, (64, 64), (160, 96)):
        monkeypatch.setattr(f"{__name__}.SIZE", size)
        torch.manual_seed(2)
        ours = maps(fast)
        torch.manual_seed(2)
        assert gap(ours, maps(model)) < 1e-3


def test_batches_that_do_not_depend_on_padding_stay_so() -> None:
    """Both images at once, so that the padding is masked in fused convolutions, too."""
    node = compose("detectron2", "R_18_slim_FPN", "1x").model
    node.batch_invariant = True
    model = instantiate(node).eval()
    with torch.no_grad():
        model.dense.head.cls_logits.weight.normal_(std=0.1)
        model.dense.head.cls_logits.bias.fill_(-3)
    fast = model.optimize()
    fast.one_by_one = False
    small, large = image_inputs((64, 90)), image_inputs((128, 128))
    found = {}
    for wanted in (True, False):
        fast.batch_invariant = wanted
        with torch.inference_mode():
            found[wanted] = [batch[0]["instances"] for batch in (fast([small]), fast([small, large]))]
    alone, together = found[True]
    assert len(alone) == len(together) > 0
    assert (alone.pred_boxes.tensor - together.pred_boxes.tensor).abs().max() < 1e-3
    alone, together = found[False]
    assert len(alone) != len(together) or (alone.pred_boxes.tensor - together.pred_boxes.tensor).abs().max() > 1e-2


@pytest.mark.parametrize(
    "way", [{"recompute": "backbone"}, {"recompute": "all"}, {"precision": "autocast"}, {"invariant": True}], ids=repr
)
@pytest.mark.parametrize(("recipe", "backbone"), [NETWORKS[1], pytest.param(*NETWORKS[4], marks=pytest.mark.slow)])
def test_after_other_rewrites(recipe: str, backbone: str, way: dict[str, Any]) -> None:
    """What training prepared is taken back first: the maps are those of the plain model."""
    plain = model_of(recipe, backbone)
    before = rewrite(plain, **way)
    fast = before.optimize()
    assert not [m for m in fast.modules() if isinstance(m, (Recomputed, Guarded))]
    steps = {x.partition(":")[0] for x in rewrites_of(fast)} - {"freeze"}
    assert steps == {"fuse", "precision", *(set(way) & {"invariant"})}
    reference = before.eval() if "invariant" in way else plain
    assert gap(maps_of_one(fast), maps_of_one(reference)) < 1e-3


class PreActivation(nn.Module):
    """ResNet v2: norm and ReLU before the convolution, under the names that others give to those after it."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class Standardized(nn.Conv2d):
    """A convolution with another `forward`."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class AskedTwice(DLABlock):
    """An heir of a block that declares its pairs, which does something else with them."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        y = self.conv1(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(y)))) + y + residual)


def shared_convolution() -> nn.Module:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    norms = [nn.BatchNorm2d(8) for _ in range(2)]
    return nn.Sequential(nn.Sequential(conv, norms[0], nn.ReLU()), nn.Sequential(conv, norms[1], nn.ReLU()))


class Twice(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, x)


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (PreActivation(), 2),
        (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)), 1),
        (nn.Sequential(Standardized(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), 1),
        (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)), 1),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.ReLU6()), 1),
        (shared_convolution(), 2),
        (Twice(AskedTwice(8, 8, "BN")), 2),
        (Twice(DLABlock(8, 8, "BN")), 0),
        (nn.Sequential(Conv2d(8, 8, 3, norm=nn.BatchNorm2d(8), activation=F.gelu), nn.Conv2d(8, 8, 1)), 0),
        (Conv2dNormActivation(8, 8, activation_layer=nn.ReLU6), 0),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.ReLU()), 0),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else None,
)
def test_only_what_the_order_of_execution_proves(module: nn.Module, left: int) -> None:
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 2), part.running_mean.normal_(), nn.init.normal_(part.weight)
    fast = rewrite(module, fuse=True)
    x = torch.randn(2, 8, 12, 12)
    with torch.no_grad():
        assert torch.allclose(fast(x), module(x), rtol=1e-4, atol=1e-4)
    record = rewrites_of(fast)[0]
    assert record == "fuse" if left == 0 else record.startswith("fuse: left are ") and record.count(",") == left - 1


def test_the_layers_of_a_fused_sequence_cannot_be_looked_at() -> None:
    class Walks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

        def forward(self, x: Tensor) -> list[Tensor]:
            return [x := layer(x) for layer in self.layers]

    model = Walks().eval()
    with pytest.raises(FcosError, match="layers of a fused sequence cannot be looked at one by one"):
        rewrite(model, fuse=True)(torch.rand(1, 8, 4, 4))
    assert len(model(torch.rand(1, 8, 4, 4))) == 3


def test_a_fused_model_is_copied_and_pickled() -> None:
    model = model_of("detectron2", "R_18_slim_FPN")
    fast = model.optimize()
    expected = maps_of_one(fast)  # the weights are packed now
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for other in (copy.deepcopy(fast), torch.load(file, weights_only=False), fast):
        assert gap(maps_of_one(other), expected) < 1e-5
    for again in ({"recompute": "all"}, {"fuse": True}, {"freeze": ("backbone",)}, {"precision": "autocast"}):
        with pytest.raises(FcosError, match="A fused model cannot be rewritten again"):
            rewrite(fast, **again)
    with pytest.raises(FcosError, match="fuse and recompute contradict"):
        rewrite(model, fuse=True, recompute="all")


def maps_of_one(model: FCOS) -> list[Tensor]:
    torch.manual_seed(1)
    return maps(model)


def test_layers_that_are_not_known_in_a_lower_precision_are_named() -> None:
    model = model_of("detectron2", "R_18_slim_FPN")
    model.backbone.top_block.p6 = nn.ConvTranspose2d(64, 64, 3)
    with pytest.raises(ValueError, match=r"backbone\.top_block\.p6 \(ConvTranspose2d\) is not known to compute in "):
        model.optimize("bf16")
    model.optimize({"head": "bf16"})


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("int8", "int8.*'fp32', 'bf16', 'fp16'"),
        ({"neck": "bf16"}, "neck.*'backbone', 'head'"),
        ({"head": "half"}, "half"),
    ],
)
def test_unknown_precision(precision: str | dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model_of("detectron2", "R_18_slim_FPN").optimize(precision)


class TestFolding:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("bias", [True, False])
    def test_equals_the_two_steps(self, affine: bool, bias: bool) -> None:
        conv, norm = nn.Conv2d(4, 6, 3, bias=bias).double(), nn.BatchNorm2d(6, affine=affine).double().eval()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 3)
        if affine:
            nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
        weight, shift = folded(conv.weight, conv.bias, norm)
        assert torch.allclose(nn.functional.conv2d(x, weight, shift), norm(conv(x)), atol=1e-12)

    def test_gradients_are_those_of_the_two_steps(self) -> None:
        model = model_of("detectron2", "R_50_FPN").double()
        conv = model.backbone.bottom_up.res4[1].conv2
        assert type(conv) is FoldedConv2d
        x = torch.randn(1, conv.in_channels, 5, 5, dtype=torch.float64, requires_grad=True)
        y = conv(x)
        expected = conv.norm(nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding))
        assert torch.allclose(y, expected, atol=1e-10)
        seed = torch.randn_like(y)
        for ours, theirs in zip(
            torch.autograd.grad(y, (x, conv.weight), seed), torch.autograd.grad(expected, (x, conv.weight), seed)
        ):
            assert torch.allclose(ours, theirs, atol=1e-10)

    def test_names_of_the_weights_are_detectron2s(self) -> None:
        model = instantiate(compose("detectron2", "R_50_FPN", "1x").model)
        assert isinstance(model.backbone, FPN)
        assert "backbone.bottom_up.res2.0.conv1.norm.running_mean" in model.state_dict()

    def test_a_norm_that_was_put_in_later_is_used(self) -> None:
        conv = model_of("detectron2", "R_50_FPN").backbone.bottom_up.res4[1].conv2
        conv.norm = nn.GroupNorm(4, conv.out_channels)
        x = torch.randn(1, conv.in_channels, 5, 5)
        assert torch.equal(conv(x), conv.norm(nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)))
