from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN
from scenes import image_inputs
from torch import Tensor, nn

from fcos_d2.config.compose import compose
from fcos_d2.modeling import FCOS
from fcos_d2.modeling.rewrite import rewrite
from fcos_d2.modeling.rewrite.fold import FoldedConv2d, folded
from fcos_d2.modeling.rewrite.fuse import FusedConv2d

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
]


def model_of(recipe: str, backbone: str) -> FCOS:
    """Random weights, and norms whose statistics are not the ones they start with."""
    with torch.device("meta"):
        model = instantiate(compose(recipe, backbone, "1x").model)
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


@pytest.mark.parametrize(("recipe", "backbone"), NETWORKS)
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


@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.2), ({"backbone": "bf16"}, 0.2), ({"head": "bf16"}, 0.2)])
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
    monkeypatch.setattr("fcos_d2.modeling.rewrite.fuse._has_packing", lambda: False)
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
    node = compose("detectron2", "R_18_slim_FPN", "1x").model
    node.batch_invariant = True
    model = instantiate(node).eval()
    with torch.no_grad():
        model.dense.head.cls_logits.weight.normal_(std=0.1)
        model.dense.head.cls_logits.bias.fill_(-3)
    fast = model.optimize()
    small, large = image_inputs((64, 90)), image_inputs((128, 128))
    with torch.inference_mode():
        alone, together = fast([small])[0]["instances"], fast([small, large])[0]["instances"]
    assert len(alone) == len(together) > 0
    assert (alone.pred_boxes.tensor - together.pred_boxes.tensor).abs().max() < 1e-3


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
