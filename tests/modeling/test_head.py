"""The head: towers shared by all levels, three predictors, norms that know their level."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from scenes import distinct
from torch import Tensor, nn

from fcos_d2.modeling import FCOSHead
from fcos_d2.modeling.head import LevelBatchNorm
from fcos_d2.zoo.recipes import RECIPES

SIZES = ((8, 12), (4, 6), (2, 3))


def features(channels: int = 32, images: int = 2) -> list[Tensor]:
    return [torch.randn(images, channels, *size) for size in SIZES]


def head_of(**options: Any) -> FCOSHead:
    return FCOSHead(**{"num_classes": 5, "in_channels": 32, "num_levels": 3, **options})


def everything(outputs: tuple[list[Tensor], ...]) -> list[Tensor]:
    return [v for maps in outputs for v in maps]


@pytest.mark.parametrize("points", [1, 4, 5])
def test_shapes(points: int) -> None:
    logits, raw_ltrb, quality = head_of(points_per_cell=points)(features())
    assert [tuple(v.shape) for v in logits] == [(2, 5 * points, *size) for size in SIZES]
    assert [tuple(v.shape) for v in raw_ltrb] == [(2, 4 * points, *size) for size in SIZES]
    assert [tuple(v.shape) for v in quality] == [(2, points, *size) for size in SIZES]


def test_towers() -> None:
    """As many convolutions as asked for, before and after the towers part."""
    head = head_of(num_shared_convs=1, num_class_convs=2, num_box_convs=3)
    count = {
        name: sum(isinstance(m, nn.Conv2d) for m in getattr(head, name))
        for name in ("share_tower", "cls_tower", "bbox_tower")
    }
    assert count == {"share_tower": 1, "cls_tower": 2, "bbox_tower": 3}


def test_all_levels_share_the_weights() -> None:
    """The same map on two levels gives the same answer, but for the scale of the level."""
    head = head_of(num_levels=2)
    with torch.no_grad():
        head.scales.copy_(torch.tensor([1.0, 3.0]))
    x = torch.randn(1, 32, 6, 6)
    logits, raw_ltrb, quality = head([x, x])
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(quality[0], quality[1])
    assert torch.allclose(raw_ltrb[0] * 3, raw_ltrb[1])


@pytest.mark.parametrize(("quality_on", "tower", "other"), [("class", "cls", "bbox"), ("box", "bbox", "cls")])
def test_quality_is_fed_by_the_tower_it_says(quality_on: str, tower: str, other: str) -> None:
    head = head_of(quality_on=quality_on)
    sum(v.sum() for v in head(features())[2]).backward()
    assert all(p.grad is not None for p in getattr(head, f"{tower}_tower").parameters())
    assert all(p.grad is None for p in getattr(head, f"{other}_tower").parameters())


def test_start_of_training() -> None:
    """Class probabilities start at the prior, boxes and quality at 0 more or less."""
    head = head_of(prior_prob=0.01)
    assert head.cls_logits.bias.tolist() == pytest.approx([-math.log(0.99 / 0.01)] * 5)
    assert head.cls_logits.bias[0].item() == pytest.approx(-4.59512, abs=1e-5)
    logits, raw_ltrb, quality = head(features())
    assert torch.cat([v.sigmoid().flatten() for v in logits]).mean().item() == pytest.approx(0.01, rel=0.1)
    assert max(v.abs().max() for v in raw_ltrb + quality) < 0.5
    assert head.scales.tolist() == [1, 1, 1]
    stds = [m.weight.std().item() for m in head.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 5000]
    assert stds == pytest.approx([0.01] * 8, rel=0.1)


@pytest.mark.parametrize(
    ("option", "kind", "count"),
    [
        ({"norm": "GN"}, nn.GroupNorm, 8),
        ({"norm": "BN"}, nn.BatchNorm2d, 24),
        ({"norm": "SyncBN"}, nn.SyncBatchNorm, 24),
        ({"norm": "none"}, nn.GroupNorm, 0),
    ],
)
def test_norms(option: dict[str, str], kind: type[nn.Module], count: int) -> None:
    head = head_of(**option)
    norms = [m for m in head.modules() if isinstance(m, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm))]
    assert len(norms) == count
    assert all(isinstance(m, kind) for m in norms)
    assert all(m.num_groups == 32 for m in norms if kind is nn.GroupNorm)


@pytest.mark.parametrize("conv_bias", [True, False])
def test_bias_of_the_towers(conv_bias: bool) -> None:
    head = head_of(conv_bias=conv_bias)
    convs = [m for tower in (head.cls_tower, head.bbox_tower) for m in tower if isinstance(m, nn.Conv2d)]
    assert all((c.bias is not None) == conv_bias for c in convs)
    assert all(p.bias is not None for p in (head.cls_logits, head.bbox_pred, head.quality))


def test_without_scales() -> None:
    head = head_of(level_scale=False)
    assert "scales" not in head.state_dict()
    assert len(head(features())[1]) == 3


# ------------------------------------------------------------------------------------------- statistics for each level
def statistics(head: FCOSHead) -> list[list[Tensor]]:
    """Running means of the batch norms: first index norm, second level."""
    norms = [m for m in head.modules() if isinstance(m, LevelBatchNorm)]
    return [[level.running_mean.clone() for level in norm.levels] for norm in norms]


@pytest.mark.parametrize("shared_affine", [True, False])
@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_each_level_keeps_its_own_statistics(norm: str, shared_affine: bool) -> None:
    """Only the statistics of the level that was called change, in whatever order levels are called."""
    layer = LevelBatchNorm(4, 3, {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}[norm], shared_affine)
    for level in (2, 0, 0, 2, 1):
        before = [m.running_mean.clone() for m in layer.levels]
        x = torch.randn(2, 4, 5, 5) + 10 * (level + 1)
        out = layer(x, level)
        assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
        changed = [not torch.equal(m.running_mean, b) for m, b in zip(layer.levels, before)]
        assert changed == [i == level for i in range(3)]
    assert [int(m.num_batches_tracked) for m in layer.levels] == [2, 1, 2]
    layer.eval()
    for level in range(3):
        one = layer.levels[level]
        x = torch.randn(1, 4, 5, 5)
        expected = (x - one.running_mean[:, None, None]) / (one.running_var[:, None, None] + one.eps).sqrt()
        assert torch.allclose(layer(x, level), expected, atol=1e-5)


@pytest.mark.parametrize("shared_affine", [True, False])
def test_weights_of_level_norms(shared_affine: bool) -> None:
    """Detectron2 shares weight and bias among levels, AdelaiDet shares nothing."""
    layer = LevelBatchNorm(4, 3, nn.BatchNorm2d, shared_affine)
    names = {name for name, _ in layer.named_parameters()}
    if shared_affine:
        assert names == {"weight", "bias"}
        with torch.no_grad():
            layer.weight.fill_(2.0)
            layer.bias.fill_(5.0)
    else:
        assert names == {f"levels.{i}.{name}" for i in range(3) for name in ("weight", "bias")}
        with torch.no_grad():
            layer.levels[1].weight.fill_(2.0)
            layer.levels[1].bias.fill_(5.0)
    plain = nn.functional.batch_norm(x := torch.randn(2, 4, 5, 5), None, None, training=True)
    assert torch.allclose(layer(x, 1), plain * 2 + 5, atol=1e-5)
    assert torch.allclose(layer(x, 2), plain * 2 + 5 if shared_affine else plain, atol=1e-5)


@pytest.mark.parametrize("shared_affine", [True, False])
def test_an_interrupted_pass_does_not_turn_the_levels(shared_affine: bool) -> None:
    """A counter that goes round would be off by one for ever after a pass that fails half-way."""
    head = head_of(norm="BN", norm_shared_affine=shared_affine).eval()
    maps = features()
    for norm in (m for m in head.modules() if isinstance(m, LevelBatchNorm)):
        for i, level in enumerate(norm.levels):
            level.running_mean.fill_(float(i))
    before = everything(head(maps))
    with pytest.raises(RuntimeError):
        head([maps[0], maps[1][:, :7], maps[2]])
    after = everything(head(maps))
    assert all(torch.equal(a, b) for a, b in zip(after, before))


def test_a_pass_in_training_updates_each_level_of_each_norm_once() -> None:
    head = head_of(norm="BN")
    before = statistics(head)
    head(features())
    changed = [not torch.equal(b, a) for x, y in zip(before, statistics(head)) for b, a in zip(x, y)]
    assert len(changed) == 24
    assert all(changed)
    counts = [
        int(level.num_batches_tracked) for m in head.modules() if isinstance(m, LevelBatchNorm) for level in m.levels
    ]
    assert counts == [1] * 24


# ----------------------------------------------------------------------------------------------------- whole head, laws
OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm": "BN"},
    {"norm": "BN", "norm_shared_affine": True},
    {"norm": "SyncBN"},
    {"norm": "none"},
    {"conv_bias": False},
    {"quality_on": "class"},
    {"quality_on": "none"},
    {"level_scale": False},
    {"num_shared_convs": 2, "num_class_convs": 0, "num_box_convs": 0},
    {"points_per_cell": 5},
    *(dict(RECIPES[name].head) for name in distinct("head") if RECIPES[name].head_name == "FCOSHead"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    head = head_of(**options)
    sum((v * torch.randn_like(v)).sum() for v in everything(head(features()))).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    assert all(p.grad.abs().sum() > 0 for name, p in head.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("options", OPTIONS[:11], ids=str)
def test_the_state_is_all_there_is(options: dict[str, Any]) -> None:
    """Another head with the same state answers the same."""
    head = head_of(**options)
    head(features())  # moves running statistics
    other = head_of(**options)
    other.load_state_dict(head.state_dict())
    maps = features()
    pairs = zip(everything(head.eval()(maps)), everything(other.eval()(maps)))
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_quality_branch_every_location_is_sure(dtype: torch.dtype) -> None:
    """No weights for it, and a quality that is 1, not nearly 1: then the score is that of the class alone."""
    head = head_of(quality_on="none", points_per_cell=2)
    assert not any("quality" in name for name in head.state_dict())
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits, _, quality = head(features())
    assert [q.shape[2:] for q in quality] == [x.shape[2:] for x in logits] and quality[0].shape[1] == 2
    assert all(bool((q.float().sigmoid() == 1).all()) for q in quality)


def test_distances_are_float32_under_autocast() -> None:
    """Scale and activation come after the last low-precision convolution."""
    with torch.autocast("cpu", torch.bfloat16):
        logits, raw_ltrb, _ = head_of()(features())
    assert {v.dtype for v in logits} == {torch.bfloat16}
    assert {v.dtype for v in raw_ltrb} == {torch.float32}


def test_channels_last_features_give_the_same() -> None:
    head, maps = head_of().eval(), features()
    other = [v.contiguous(memory_format=torch.channels_last) for v in maps]
    pairs = zip(everything(head(maps)), everything(head.to(memory_format=torch.channels_last)(other)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


# ------------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "LN"}, "FCOSHead.norm is 'LN', but it must be one of: 'GN', 'BN', 'SyncBN', 'none'."),
        ({"quality_on": "cls"}, "FCOSHead.quality_on is 'cls', but it must be one of: 'class', 'box', 'none'."),
        ({"num_classes": 0}, "FCOSHead.num_classes is 0, but it must be 1 or more."),
        ({"in_channels": 48}, "FCOSHead.in_channels is 48, but GroupNorm needs a multiple of 32."),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        head_of(**options)


def test_any_width_without_groups() -> None:
    assert head_of(norm="BN", in_channels=20)(features(20))[0][0].shape == (2, 5, 8, 12)


def test_as_many_maps_as_levels() -> None:
    with pytest.raises(ValueError, match=r"^FCOSHead was built for 3 levels, but it got 2 feature maps\.$"):
        head_of()(features()[:2])


class TestRecompute:
    """GroupNorm and ReLU are computed twice: the same gradients from less that is kept."""

    @staticmethod
    def step(head: FCOSHead) -> tuple[list[Tensor], int]:
        """Gradients, and bytes of distinct memory kept between forward and backward."""
        torch.manual_seed(1)
        features = [torch.randn(2, 64, size, size, requires_grad=True) for size in (32, 16)]
        kept: dict[int, int] = {}

        def note(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            outputs = [x for values in head(features) for x in values]
            held = sum(kept.values())
        loss = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs)
        return list(torch.autograd.grad(loss, [*features, *head.parameters()])), held

    @pytest.mark.parametrize("options", [{}, {"quality_on": "class"}, {"num_shared_convs": 2}, {"num_class_convs": 0}])
    def test_gradients_are_equal_and_memory_is_less(self, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcos_d2.modeling.head._LARGE", 1)
        heads = [FCOSHead(num_classes=3, in_channels=64, num_levels=2, recompute=r, **options) for r in (True, False)]
        heads[1].load_state_dict(heads[0].state_dict())
        (ours, held), (plain, held_plain) = map(self.step, heads)
        assert all(torch.equal(a, b) for a, b in zip(ours, plain))
        assert held < 0.75 * held_plain

    @pytest.mark.parametrize("norm", ["BN", "none"])
    def test_norms_with_statistics_run_once(self, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcos_d2.modeling.head._LARGE", 1)
        head = FCOSHead(num_classes=3, in_channels=64, num_levels=2, norm=norm, recompute=True)
        self.step(head)
        counters = [int(v) for name, v in head.state_dict().items() if name.endswith("num_batches_tracked")]
        assert set(counters) == ({1} if norm == "BN" else set())

    def test_small_maps_and_inference_are_not_touched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcos_d2.modeling.head.checkpoint", None)  # whoever calls it fails
        head = FCOSHead(num_classes=3, in_channels=64, num_levels=2)
        self.step(head)
        monkeypatch.setattr("fcos_d2.modeling.head._LARGE", 1)
        with torch.no_grad():
            head([torch.randn(1, 64, 8, 8), torch.randn(1, 64, 4, 4)])
