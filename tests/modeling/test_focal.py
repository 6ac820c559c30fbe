"""The focal loss from class indices against the one-hot formula."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import reference
import torch
import torch.nn.functional as F
from scenes import CPU, relative
from torch import Tensor

from fcos_d2.modeling import LocationGrid, focal
from fcos_d2.modeling.focal import focal_loss
from fcos_d2.structures import Positives, Predictions

SIZES, STRIDES, K = ((4, 6), (2, 3)), (8, 16), 3


def problem(points: int = 1, count: int = 9, spread: float = 3.0) -> tuple[Predictions, Positives, Tensor]:
    """Two images of two levels, some positives on both."""
    at = LocationGrid(points_per_cell=points)(SIZES, STRIDES, (32, 48), CPU)
    logits = [(torch.randn(2, K * points, *size) * spread).requires_grad_() for size in SIZES]
    pair = torch.randperm(2 * len(at))[:count]
    positives = Positives(pair // len(at), pair % len(at), torch.zeros(count, dtype=torch.int64))
    return Predictions(logits, [], [], at), positives, torch.randint(0, K, (count,))


def expected(
    predictions: Predictions, positives: Positives, label: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    labels = torch.full((predictions.num_images, len(predictions.locations)), -1)
    labels[positives.image, positives.location] = label
    logits = reference.flatten(predictions.logits, predictions.locations.points_per_cell)
    return reference.focal(logits.flatten(0, 1), labels.flatten(), alpha, gamma)


def loss_and_gradient(
    function: Callable, predictions: Predictions, *rest: object, **options: object
) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = function(predictions, *rest, **options)
    return loss.detach(), torch.autograd.grad(loss, predictions.logits)


@pytest.mark.parametrize("points", [1, 4, 5])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 1.0), (0.1, 1.5), (0.25, 5.0)])
def test_equal_to_the_one_hot_formula(points: int, alpha: float, gamma: float) -> None:
    case = problem(points)
    loss, grads = loss_and_gradient(focal_loss, *case, alpha, gamma)
    slow, slow_grads = loss_and_gradient(expected, *case, alpha, gamma)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow.item(), rel=1e-6)
    assert relative(grads, slow_grads) < 1e-6


def test_one_element_by_hand() -> None:
    """At p = 1/2 a negative costs 3/4 * 1/4 * ln 2, a positive 1/4 * 1/4 * ln 2."""
    at = LocationGrid()([(1, 1)], [8], (8, 8), CPU)
    maps = Predictions([torch.zeros(1, 1, 1, 1)], [], [], at)
    none, zero = torch.empty(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    ln2 = 0.693147
    assert focal_loss(maps, Positives(none, none, none), none).item() == pytest.approx(0.75 * 0.25 * ln2, rel=1e-6)
    assert focal_loss(maps, Positives(zero, zero, zero), zero).item() == pytest.approx(0.25 * 0.25 * ln2, rel=1e-6)


def test_gamma_zero_is_weighted_cross_entropy() -> None:
    predictions, positives, label = problem()
    loss, grads = loss_and_gradient(focal_loss, predictions, positives, label, alpha=0.3, gamma=0.0)
    wanted = torch.zeros(2, len(predictions.locations), K)
    wanted[positives.image, positives.location, label] = 1

    def cross_entropy(maps: Predictions) -> Tensor:
        logits = torch.cat([v.flatten(2).transpose(1, 2) for v in maps.logits], 1)
        return F.binary_cross_entropy_with_logits(logits, wanted, wanted * 0.3 + (1 - wanted) * 0.7, reduction="sum")

    slow, slow_grads = loss_and_gradient(cross_entropy, predictions)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-6)
    assert relative(grads, slow_grads) < 1e-6


def test_gradient_is_the_slope() -> None:
    """Central differences in float64 of the formula, at each element of one map."""
    predictions, positives, label = problem()
    _, (grad, _) = loss_and_gradient(focal_loss, predictions, positives, label)
    flat = predictions.logits[0].detach().double().flatten()
    for i in range(0, flat.numel(), 7):
        step = torch.zeros_like(flat)
        step[i] = 1e-5
        ends = []
        for moved in (flat + step, flat - step):
            maps = [moved.view_as(predictions.logits[0]), predictions.logits[1].detach()]
            ends.append(expected(Predictions(maps, [], [], predictions.locations), positives, label))
        assert grad.flatten()[i].item() == pytest.approx(((ends[0] - ends[1]) / 2e-5).item(), abs=1e-5)


def test_extreme_logits_stay_finite() -> None:
    """A certain and wrong answer costs its logit, a certain and right one nothing."""
    predictions, positives, label = problem()
    for values in predictions.logits:
        with torch.no_grad():
            values.copy_(torch.where(values > 0, 200.0, -200.0))
    loss, grads = loss_and_gradient(focal_loss, predictions, positives, label)
    slow, slow_grads = loss_and_gradient(expected, predictions, positives, label)
    assert loss.item() == pytest.approx(slow.item(), rel=1e-6)
    assert all(g.isfinite().all() for g in grads)
    assert relative(grads, slow_grads) < 1e-6


def test_small_losses_keep_their_digits() -> None:
    """Far from the threshold each term is tiny, and there are many: the sum is right to float32's last digits."""
    at = LocationGrid()([(200, 300)], [8], (1600, 2400), CPU)
    maps = Predictions([torch.full((1, 4, 200, 300), -9.0, requires_grad=True)], [], [], at)
    none = torch.empty(0, dtype=torch.int64)
    loss, (grad,) = loss_and_gradient(focal_loss, maps, Positives(none, none, none), none)
    x = torch.tensor(-9.0, dtype=torch.float64, requires_grad=True)
    one = 0.75 * x.sigmoid() ** 2 * F.softplus(x)
    assert loss.item() == pytest.approx(240_000 * one.item(), rel=1e-6)
    one.backward()
    assert torch.allclose(grad, torch.full_like(grad, x.grad.item()), rtol=1e-5)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "some channels": lambda x: torch.cat((x, x), 1)[:, : x.shape[1]],
    "some channels of channels_last": lambda x: torch.cat((x, x), 1).contiguous(memory_format=torch.channels_last)[
        :, : x.shape[1]
    ],
    "some columns": lambda x: torch.cat((x, x), 3)[..., : x.shape[3]],
    "every second element": lambda x: torch.stack((x, x), 4)[..., 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("points", [1, 4])
def test_any_memory_layout(layout: str, points: int) -> None:
    predictions, positives, label = problem(points)
    loss, grads = loss_and_gradient(focal_loss, predictions, positives, label)
    laid = [LAYOUTS[layout](v.detach()).requires_grad_() for v in predictions.logits]
    assert all(not v.is_contiguous() for v in laid)
    other = Predictions(laid, [], [], predictions.locations)
    other_loss, other_grads = loss_and_gradient(focal_loss, other, positives, label)
    assert other_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert relative(other_grads, grads) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type(dtype: torch.dtype) -> None:
    """The loss is that of the rounded logits, in float32; the gradient comes back in the type of the map."""
    predictions, positives, label = problem()
    maps = [v.detach().to(dtype).requires_grad_() for v in predictions.logits]
    rounded = Predictions(maps, [], [], predictions.locations)
    exact = Predictions([m.detach().float().requires_grad_() for m in maps], [], [], predictions.locations)
    loss, grads = loss_and_gradient(focal_loss, rounded, positives, label)
    full_loss, full_grads = loss_and_gradient(focal_loss, exact, positives, label)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(full_loss.item(), rel=1e-6)
    assert all(g.dtype == dtype for g in grads)
    assert all(torch.equal(g, f.to(dtype)) for g, f in zip(grads, full_grads))


def test_maps_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    case = problem()
    whole = loss_and_gradient(focal_loss, *case)
    monkeypatch.setattr("fcos_d2.modeling.focal._CHUNK", 7)
    parts = loss_and_gradient(focal_loss, *case)
    assert parts[0].item() == pytest.approx(whole[0].item(), rel=1e-6)
    assert relative(parts[1], whole[1]) < 1e-6


def test_factors() -> None:
    """The multiplier and a factor applied afterwards are the same."""
    case = problem()
    loss, grads = loss_and_gradient(focal_loss, *case)
    inner = loss_and_gradient(focal_loss, *case, multiplier=torch.tensor(0.125))
    outer = loss_and_gradient(lambda *c: focal_loss(*c) * 0.125, *case)
    for other_loss, other_grads in (inner, outer):
        assert other_loss.item() == pytest.approx(loss.item() / 8, rel=1e-6)
        assert relative(other_grads, [g / 8 for g in grads]) < 1e-6


def test_backward_twice_adds_up() -> None:
    predictions, positives, label = problem()
    loss = focal_loss(predictions, positives, label)
    loss.backward(retain_graph=True)
    once = [v.grad.clone() for v in predictions.logits]
    loss.backward()
    assert all(torch.equal(v.grad, 2 * g) for v, g in zip(predictions.logits, once))


def test_only_the_maps_that_ask_get_a_gradient() -> None:
    predictions, positives, label = problem()
    predictions.logits[0] = predictions.logits[0].detach()
    focal_loss(predictions, positives, label).backward()
    assert predictions.logits[0].grad is None
    assert predictions.logits[1].grad.abs().sum() > 0
    with torch.no_grad():
        assert not focal_loss(predictions, positives, label).requires_grad


def test_without_gradients_none_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    case = problem()
    assert all(x.requires_grad for x in case[0].logits)
    whole = focal_loss(*case)
    made: list[Tensor] = []
    room = focal._empty_gradient
    monkeypatch.setattr(focal, "_empty_gradient", lambda x: made.append(x) or room(x))
    with torch.no_grad():
        assert focal_loss(*case).item() == whole.item()
    with torch.inference_mode():
        assert focal_loss(*case).item() == whole.item()
    assert made == []
    focal_loss(*case)
    assert len(made) == len(case[0].logits)


def test_padding_counts_for_nothing() -> None:
    """Rows whose `valid` is 0 stand at location 0, which may itself be a positive."""
    predictions, positives, label = problem()
    positives.image[0], positives.location[0] = 0, 0
    zeros = torch.zeros(4, dtype=torch.int64)
    padded = Positives(
        torch.cat((positives.image, zeros)),
        torch.cat((positives.location, zeros)),
        torch.cat((positives.box, zeros)),
        torch.cat((torch.ones(len(positives)), torch.zeros(4))),
    )
    loss, grads = loss_and_gradient(focal_loss, predictions, positives, label)
    other_loss, other_grads = loss_and_gradient(focal_loss, predictions, padded, torch.cat((label, zeros + 1)))
    assert other_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert relative(other_grads, grads) < 1e-6


_INTERPRETED = """
import torch
from fcos_d2.modeling.focal import _eager_negatives
from fcos_d2.modeling.focal_kernel import negatives

for gamma in (2.0, 0.0, 1.5):
    for dtype in (torch.float32, torch.bfloat16) if gamma == 2 else (torch.float32,):
        for count in (0, 5, 1024, 3000):
            x, factor = (torch.randn(count) * 8).to(dtype), torch.tensor(0.3)
            ours, theirs = torch.empty(count), torch.empty(count)
            total, expected = negatives(x, gamma, ours, factor), _eager_negatives(x, gamma, theirs, factor)
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=0), (gamma, dtype, count)
            assert torch.allclose(total * factor, expected, rtol=1e-5), (gamma, dtype, count)
            assert torch.equal(negatives(x, gamma, None, factor), total)
print("equal")
"""


def test_the_triton_kernel_in_its_interpreter() -> None:
    """What CUDA runs, without a GPU; a process of its own, since Triton looks at the variable when it is imported."""
    pytest.importorskip("triton", reason="PyTorch's wheels bring Triton on Linux only")
    run = subprocess.run(
        [sys.executable, "-c", _INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "equal", run.stderr


@pytest.mark.parametrize(("dtype", "capability"), [
    ("fp32", 80), ("fp16", 80), ("bf16", 90),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("bf16", 80), ("fp32", 90), ("fp16", 90))),
])  # fmt: skip
def test_the_triton_kernel_compiles_for_gpus(
    capability: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to machine code, by the assembler that Triton brings."""
    triton = pytest.importorskip("triton", reason="PyTorch's wheels bring Triton on Linux only")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fcos_d2.modeling import focal_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointers = dict.fromkeys(("grad_pointer", "sums_pointer", "factor_pointer"), "*fp32")
    numbers = {"count": "i32", "gamma": "fp32", "write": "constexpr", "block": "constexpr"}
    for write in (True, False):
        kernel = ASTSource(
            focal_kernel._negatives_kernel,
            {"x_pointer": f"*{dtype}", **pointers, **numbers},
            {"write": write, "block": focal_kernel._BLOCK},
        )
        made = triton.compile(kernel, target=GPUTarget("cuda", capability, 32)).asm
        assert f".target sm_{capability}" in made["ptx"] and len(made["cubin"]) > 1000
        assert ("st.global" in made["ptx"]) and made["ptx"].count("st.global") > (1 if write else 0)
