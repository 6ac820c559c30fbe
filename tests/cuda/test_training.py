"""Training on CUDA without a GPU: all of a step lies on the device, and the host waits once, for losses and norm."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from fake_cuda import FakeCuda
from scenes import CPU, detector, distinct, image_inputs, random_boxes, relative, thin

from fcos_d2 import zoo
from fcos_d2.config.train_options import TrainOptions
from fcos_d2.modeling import FCOS
from fcos_d2.modeling.rewrite import prepare_training
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.train import LazyTrainer
from fcos_d2.train.step import Step
from projects_tools.bench.claimed_cuda import CUDA, ClaimedCuda, Wait

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="asks PyTorch for a build with CUDA")

# Recipes that train alike are tried once.
TRAINING = distinct("grid", "assigner", "coder", "head_name", "head", "loss", "features")
# One of each kind of head, of normalizer and of assigner.
QUICK = (
    "original", "improved_dcnv2", "fcos_plus_center_giou", "adelaidet_iou", "realtime_bn", "realtime_shared",
    "detectron2", "torchvision", "mmdet_tricks", "fcos_hrnet_6l", "nas_fcos_head", "fad_other",
)  # fmt: skip
REPORT = "train/step.py", "read"


def batch() -> list[dict[str, Any]]:
    """Two images of different sizes, the second without objects."""
    boxes = torch.cat((random_boxes(6, (64, 96)), torch.tensor([[2.0, 2, 90, 60]])))
    inputs = [image_inputs((64, 96), boxes, torch.arange(7) % 3)]
    return [*inputs, image_inputs((96, 64), torch.zeros(0, 4))]


def step_of(model: Any, device: torch.device, **options: Any) -> Step:
    amp = options.get("amp", {"enabled": False})
    model = prepare_training(model, device=device, amp=amp["enabled"]).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    return Step(model, model, optimizer, TrainOptions.of({"amp": amp, **options}), device)


def take_step(step: Step) -> tuple[dict[str, float], float]:
    """What `LazyTrainer.run_step` does with a batch."""
    losses, norm, _, _ = step.gradients(batch(), asked=False).read(step.norm())
    step.apply(is_finite=True)
    return losses, norm


def check(model: Any, **options: Any) -> None:
    with FakeCuda() as device:
        step = step_of(device.take(model), CUDA, **options)
        take_step(step)
    trained = [p for p in step.bare.parameters() if p.requires_grad]
    assert {(wait.file, wait.function) for wait in device.waits} == {REPORT}
    assert all(p.grad is not None and p.grad.device == p.device == CUDA for p in trained)
    assert all(p.grad.dtype == p.dtype == torch.float32 for p in trained)
    assert {step.optimizer.state[p]["momentum_buffer"].device for p in trained} == {CUDA}


@pytest.mark.parametrize(
    "recipe",
    [recipe if recipe in QUICK else pytest.param(recipe, marks=pytest.mark.slow) for recipe in TRAINING],
)
def test_a_step_of_every_recipe(recipe: str) -> None:
    check(thin(recipe), clip_grad=1.0)


@pytest.mark.parametrize(
    ("variant", "precision"),
    [
        ("FCOS_RT_MS_DLA_34_4x", "bf16"),
        ("fcos_imprv_dcnv2_R_50_FPN_1x", "fp16"),
        *(
            pytest.param(variant, precision, marks=pytest.mark.slow)
            for variant, precision in (
                ("fcos_imprv_R_50_FPN_1x", "fp32"),
                ("fcos_imprv_R_50_FPN_1x", "fp16"),
                ("fcos_imprv_R_50_FPN_1x", "bf16"),
                ("FCOS_RT_MS_DLA_34_4x", "fp32"),
                ("FCOS_RT_MS_DLA_34_4x", "fp16"),
                ("fcos_imprv_dcnv2_R_50_FPN_1x", "fp32"),
                ("fcos_imprv_dcnv2_R_50_FPN_1x", "bf16"),
            )
        ),
    ],
)
def test_a_step_of_networks_and_precisions(variant: str, precision: str) -> None:
    """fp32 in one part, the others in two parts that add up; towers of one convolution, as in the test above."""
    node = zoo.get_config(variant).model
    for key in ("num_class_convs", "num_box_convs"):
        node.dense.head[key] = min(node.dense.head.get(key, 4), 1)
    with unfilled():
        model = instantiate(node)
    amp = {"enabled": precision != "fp32", "dtype": precision if precision != "fp32" else "auto"}
    check(model, amp=amp, grad_accumulation=1 if precision == "fp32" else 2)


@pytest.mark.parametrize("recipe", ["detectron2", "torchvision", "adelaidet_dcnv2_iou"])
def test_numbers_are_those_of_the_cpu(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded positives, masks in the place of selections: another way to the same losses and gradients."""
    monkeypatch.setattr(FCOS, "_laid_out", lambda self, images: images)  # the layout of the CPU rounds otherwise
    found = []
    for device in (ClaimedCuda(), None):
        torch.manual_seed(0)
        model = detector(recipe)
        if device is None:
            step = step_of(model, CPU, grad_accumulation=2)
            found.append((*take_step(step), [p.grad for p in step.bare.parameters() if p.requires_grad]))
        else:
            with device:
                step = step_of(device.take(model), CUDA, grad_accumulation=2)
                losses, norm = take_step(step)
            assert device.waits == [Wait(*REPORT, "copy")]
            found.append((losses, norm, [p.grad.held for p in step.bare.parameters() if p.requires_grad]))
    (ours, norm, grads), (theirs, their_norm, their_grads) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert norm == pytest.approx(their_norm, rel=1e-4)
    assert relative(grads, their_grads) < 1e-4


@pytest.mark.parametrize("recipe", TRAINING)
def test_a_step_on_a_gpu(recipe: str, gpu: torch.device) -> None:
    """PyTorch itself refuses what waits, and the numbers are the CPU's."""
    torch.manual_seed(0)
    on_gpu = step_of(thin(recipe).to(gpu), gpu)
    on_cpu = step_of(copy.deepcopy(on_gpu.bare).to(CPU), CPU)
    inputs = batch()
    on_gpu.gradients(inputs, asked=False).read(on_gpu.norm())  # makes constants and tries the Triton kernel
    torch.cuda.set_sync_debug_mode("error")
    try:
        report, norm = on_gpu.gradients(inputs, asked=False), on_gpu.norm()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    losses, *_ = report.read(norm)
    for _ in range(2):  # losses of some recipes are divided by a moving average
        expected, *_ = on_cpu.gradients(inputs, asked=False).read(on_cpu.norm())
    assert losses == pytest.approx(expected, rel=1e-3) and norm.isfinite()


def test_a_training_loop(small) -> None:
    """Every iteration of `LazyTrainer` waits once; it ends with an evaluation."""
    cfg = small("out", "train.max_iter=3", "train.log_period=2", "train.device=cpu")
    trainer = LazyTrainer(cfg, console=False)
    with ClaimedCuda() as device:
        device.take(trainer.bare_model)
        trainer.device = CUDA
        waits = []
        run_step = trainer.run_step

        def counted() -> None:
            before = len(device.waits)
            run_step()
            waits.append(device.waits[before:])

        trainer.run_step = counted
        trainer.train()
    assert waits == [[Wait(*REPORT, "copy")]] * 3
    assert "bbox" in trainer.results


@pytest.mark.parametrize("kind", [ClaimedCuda, FakeCuda])
def test_what_the_device_refuses_and_notes(kind: type[ClaimedCuda]) -> None:
    with kind() as device:
        x = torch.ones(3, device="cuda") * 2
        assert x.device == CUDA and x.dtype == torch.float32 and device.waits == []
        with pytest.raises(RuntimeError, match="CPU"):
            x + torch.ones(3)
        assert (x + torch.tensor(1.0)).device == CUDA  # a scalar of the host is no tensor of the host
        x.to("cpu", non_blocking=True)
        torch.tensor([1.0, 2], device="cuda")
        torch.ones(3).to("cuda", non_blocking=True)
        assert [wait.operator for wait in device.waits] == ["copy"] * 3
        assert torch.ones(3).pin_memory().to("cuda", non_blocking=True).device == CUDA
        assert len(device.waits) == 3
        float(x.sum())
        assert device.waits[-1].operator == "_local_scalar_dense"
        if kind is ClaimedCuda:
            assert x[x > 1].tolist() == [2, 2, 2] and x.nonzero().shape == (3, 1)
        else:
            with pytest.raises(torch._subclasses.fake_tensor.DynamicOutputShapeException):
                x[x > 1]
            with pytest.raises(torch._subclasses.fake_tensor.DynamicOutputShapeException):
                x.nonzero()
        assert {"mask", "nonzero"} <= {wait.operator for wait in device.waits}
    torch.ones(2, requires_grad=True).sum().backward()  # all is put back
