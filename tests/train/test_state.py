"""What a checkpoint holds: complete at any moment, for every process, and true about what is still to be done."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from detectron2.checkpoint import PeriodicCheckpointer
from detectron2.engine import HookBase, hooks
from torch import nn

from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.modeling.losses import NORMALIZER_REGISTRY
from fcos_d2.train import LazyTrainer
from fcos_d2.train.buffers import own_buffers
from fcos_d2.train.settings import without_denormals
from fcos_d2.weights.read import load

NORMALIZERS = [name for name, _ in NORMALIZER_REGISTRY]


class Do(HookBase):
    """Calls a function with the trainer after an iteration."""

    def __init__(self, iteration, call):
        self.iteration, self.call = iteration, call

    def after_step(self):
        if self.trainer.iter == self.iteration:
            self.call(self.trainer)


def trained(cfg, *new, resume=False):
    trainer = LazyTrainer(cfg, resume=resume, console=False)
    trainer.register_hooks(new)
    trainer.train()
    return trainer


def differing(a, b):
    return [name for name in a if not torch.equal(a[name], b[name])]


# A checkpoint of any moment


def test_a_checkpoint_before_training(small):
    """Today: AttributeError: _random_states."""
    trainer = LazyTrainer(small("out", "train.seed=-1", "train.ema.enabled=true"), console=False)
    trainer.checkpointer.save("early")
    trainer.train()
    (Path(trainer.output_dir) / "last_checkpoint").write_text("early.pth")
    again = trained(small("out", "train.ema.enabled=true"), resume=True)  # the seed is the checkpoint's
    assert again.start_iter == 0 and differing(trainer.model.state_dict(), again.model.state_dict()) == []


@pytest.mark.slow
def test_a_checkpoint_between_resuming_and_training(small):
    """Saving before training loses nothing of what was resumed."""
    alone = "train.eval_period=0"  # evaluating takes longer than training
    whole = trained(small("whole", alone))
    trained(small("parts", alone, "train.checkpointer.period=3"), Do(2, lambda trainer: trainer.stop("half")))
    trainer = LazyTrainer(small("parts", alone), resume=True, console=False)
    trainer.stop_reason = ""  # it was stopped for good, see below
    trainer.checkpointer.save("again")
    again = trained(small("parts", alone), resume=True)
    assert again.start_iter == 3 and differing(whole.model.state_dict(), again.model.state_dict()) == []


@pytest.mark.parametrize("which", ["hook", pytest.param("plain", marks=pytest.mark.slow)])
def test_detectron2s_checkpointers(small, which):
    """`PeriodicCheckpointer`, as a hook and called in a loop, and `BestCheckpointer`: each file can be resumed."""
    cfg = small("out", "train.checkpointer.period=100", "train.eval_period=2", "train.max_iter=4")
    trainer = LazyTrainer(cfg, console=False)
    if which == "hook":
        new = [
            hooks.PeriodicCheckpointer(trainer.checkpointer, 3, file_prefix="theirs"),
            hooks.BestCheckpointer(2, trainer.checkpointer, "bbox/AP", file_prefix="best"),
        ]
    else:
        periodic = PeriodicCheckpointer(trainer.checkpointer, 3, max_iter=4, file_prefix="theirs")
        new = [hooks.CallbackHook(after_step=lambda trainer: periodic.step(trainer.iter))]
    trainer.register_hooks(new)
    trainer.train()
    folder = Path(trainer.output_dir)
    assert {path.name for path in folder.glob("theirs*")} == {"theirs_0000002.pth", "theirs_final.pth"}
    (folder / "last_checkpoint").write_text("theirs_0000002.pth")
    again = trained(cfg, resume=True)
    assert again.start_iter == 3 and differing(trainer.model.state_dict(), again.model.state_dict()) == []
    if which == "hook":
        assert load(folder / "best.pth")["trainer"]["iteration"] in (1, 3)


# Several processes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "set"
    return str(generate(folder, {"train": 13, "val": 3}, image_size=((96, 80), (80, 96))).root)


MOVING = "moving_positives"  # an average of each process's own positives


@pytest.mark.parametrize(
    "names", [[MOVING], pytest.param([n for n in NORMALIZERS if n != MOVING], marks=pytest.mark.slow)]
)
def test_two_processes_resume_to_the_bit(root, tmp_path, names):
    """Every normalizer. Today the second process's average is 545.71 before the stop and 197.62 after it."""
    warm.processes("resume", 2, names, root, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in names:
        whole, parts = ([rank[name, way] for rank in ranks] for way in ("whole", "parts"))
        assert differing(whole[0], parts[0]) == []
        # The running statistics of the second process alone are not kept: they are used nowhere.
        assert all(".norm." in key or ".running_" in key for key in differing(whole[1], parts[1]))
        average = "dense.loss.average"
        if name == MOVING:
            assert not torch.equal(whole[0][average], whole[1][average])
        states = [load(tmp_path / f"{name}_{way}" / "model_final.pth") for way in ("whole", "parts")]
        assert differing(states[0]["ema"], states[1]["ema"]) == []


@pytest.mark.slow
def test_processes_resume_from_one_file(root, tmp_path):
    """The others wait for what the first is still writing. Folders that are not shared are one sentence for all."""
    warm.processes("look_for_a_checkpoint", 2, root, str(tmp_path))
    said = {path.stem: path.read_text() for path in tmp_path.glob("*.txt")}
    assert said["late 0"] == said["late 1"] == "resumes at 2"
    assert said["apart 0"] == said["apart 1"].replace("apart/1", "apart/0")
    assert "find different checkpoints in" in said["apart 0"] and "(model_0000001.pth, SHA-256 " in said["apart 0"]
    assert "...; none): let all machines share that folder" in said["apart 0"]
    assert said["gone 0"] == said["gone 1"]
    assert "last_checkpoint names model_0000009.pth, which is not there" in said["gone 0"]


def test_own_buffers():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model.register_buffer("average", torch.ones(()))
    model.register_buffer("table", torch.ones(5000))
    model.register_buffer("count", torch.ones((), dtype=torch.int64))
    model.register_buffer("constant", torch.ones(3), persistent=False)
    assert list(own_buffers(model)) == ["average"]


# What is still to be done


def test_an_early_stopped_training_is_complete(small):
    """Today --resume trains on."""
    options = ("train.max_iter=50", "train.eval_period=1", "optimizer.lr=0.0")
    first = trained(small("out", *options, "train.early_stop.patience=2"))
    assert first.iter == 2
    assert "no better bbox/AP in 2" in load(Path(first.output_dir) / "model_final.pth")["trainer"]["stopped"]
    before = sorted(path.name for path in Path(first.output_dir).glob("*.pth"))
    again = trained(small("out", *options, "train.early_stop.patience=2"), resume=True)
    assert again.done == 2 and again.results["bbox"].keys() >= {"AP"}
    assert sorted(path.name for path in Path(first.output_dir).glob("*.pth")) == before
    assert before == ["model_0000000.pth", "model_0000001.pth", "model_best.pth", "model_final.pth"]
    longer = LazyTrainer(small("out", *options, "train.early_stop.patience=4"), resume=True, console=False)
    longer.train()
    assert longer.done == 4  # a larger patience lets it go on


class Failing:
    """`dataloader.evaluator` that fails once."""

    def __init__(self, trainer, at):
        self.trainer, self.at, self.evaluate = trainer, at, trainer.evaluate

    def __call__(self):
        if self.trainer.iter == self.at:
            raise RuntimeError("the disk of the evaluation is full")
        return self.evaluate()


def scores_of(trainer, values):
    """Let the evaluations give these numbers, each for its iteration."""

    def evaluate():
        trainer.evaluated = trainer.iter
        return {"bbox": {"AP": values[trainer.iter]}}

    trainer.evaluate = evaluate


@pytest.mark.parametrize("at", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_evaluation_that_fails_loses_nothing(small, at):
    """The weights are on disk; who resumes evaluates first, so that best and patience are exact."""
    values = {1: 3.0, 3: 2.0, 5: 1.0, 7: 4.0}
    options = (
        "train.eval_period=2",
        "train.max_iter=8",
        "train.checkpointer.period=100",
        "train.early_stop.patience=2",
    )
    whole = LazyTrainer(small("whole", *options), console=False)
    scores_of(whole, values)
    whole.train()
    parts = LazyTrainer(small("parts", *options), console=False)
    scores_of(parts, values)
    parts.evaluate = Failing(parts, at)
    with pytest.raises(RuntimeError, match="is full"):
        parts.train()
    folder = Path(parts.output_dir)
    assert (folder / "last_checkpoint").read_text() == f"model_{at:07d}.pth"
    again = LazyTrainer(small("parts", *options), resume=True, console=False)
    assert again.start_iter == at + 1
    scores_of(again, values)
    again.train()
    states = [load(Path(t.output_dir) / "model_final.pth")["trainer"] for t in (whole, again)]
    assert states[0]["hooks"]["EvaluationHook"] == states[1]["hooks"]["EvaluationHook"]
    assert states[0]["hooks"]["EvaluationHook"] == {"best": 3.0, "best_iteration": 1, "since_best": 2, "pending": False}
    assert states[0]["stopped"] == states[1]["stopped"] != ""
    best = [load(Path(t.output_dir) / "model_best.pth") for t in (whole, again)]
    assert best[0]["iteration"] == best[1]["iteration"] == 1 and differing(best[0]["model"], best[1]["model"]) == []
    assert differing(whole.model.state_dict(), again.model.state_dict()) == []


def test_the_last_evaluation_is_made_up_for(small):
    """All iterations are done, the evaluation of the last is not."""
    trainer = LazyTrainer(small("out"), console=False)
    trainer.evaluate = Failing(trainer, 5)
    with pytest.raises(RuntimeError, match="is full"):
        trainer.train()
    folder = Path(trainer.output_dir)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth" and not (folder / "model_best.pth").exists()
    again = trained(small("out"), resume=True)
    assert again.done == 5 and (folder / "model_best.pth").is_file() and again.results
    assert load(folder / "model_final.pth")["trainer"]["hooks"]["EvaluationHook"]["pending"] is False
    assert json.loads((folder / "evaluation.json").read_text())["iteration"] == 5


# Gradients that are not finite


class Broken(torch.autograd.Function):
    """The identity, whose gradient is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def break_gradient(trainer, image, term):
    """Let the gradient of one term be not a number when the batch has an image."""
    model = trainer.bare_model
    trainer.kept = {name: value.clone() for name, value in model.state_dict().items()}
    forward = model.forward

    def broken(batch, **options):
        losses = forward(batch, **options)
        if any(item["file_name"] == image for item in batch):
            losses[term] = Broken.apply(losses[term])
        return losses

    model.forward = broken


@pytest.mark.parametrize(
    "options",
    [[], ["train.clip_grad=1.0"], ["train.amp.enabled=true", "train.amp.dtype=bf16", "train.grad_accumulation=2"]],
)
def test_a_gradient_that_is_not_finite_changes_no_weight(small, options):
    """Every loss is finite; image and term are named. Today the weights become NaN."""
    seen = []

    class Spoil(HookBase):
        def before_step(self):
            if self.trainer.iter == 2:
                batch = next(self.trainer.stream)
                seen.append(batch[1]["file_name"])
                self.trainer.stream = Once(batch)
                break_gradient(self.trainer, seen[0], "loss_fcos_loc")

    trainer = LazyTrainer(small("out", *options), console=False)
    trainer.register_hooks([Spoil()])
    with pytest.raises(FcosError) as error:
        trainer.train()
    text = str(error.value)
    assert "The gradient is not finite at iteration 3" in text and "loss_fcos_cls nan" not in text
    assert f"images {seen[0]} (loss_fcos_loc))" in text
    weights = dict(trainer.bare_model.named_parameters())
    assert all(torch.equal(weights[name], trainer.kept[name]) for name in weights)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_refused_step_moves_neither_buffers_nor_the_place_in_the_data(small, what):
    """Running statistics and a loss's moving average; today both have moved, and a batch is skipped."""
    kept, seen = {}, []

    def spoil(trainer):
        kept.update({name: value.clone() for name, value in trainer.bare_model.state_dict().items()})
        forward = trainer.bare_model.forward

        def broken(batch, **options):
            losses = forward(batch, **options)
            seen.append([item["file_name"] for item in batch])
            loss = losses["loss_fcos_loc"]
            losses["loss_fcos_loc"] = Broken.apply(loss) if what == "gradient" else loss * float("inf")
            return losses

        trainer.bare_model.forward = broken

    options = "model.backbone.bottom_up.norm=BN", f"model.dense.loss.class_normalizer={MOVING}"
    trainer = LazyTrainer(small("out", *options), console=False)
    trainer.register_hooks([Do(1, spoil)])
    with pytest.raises(FcosError, match=f"{what} is not finite at iteration 3"):
        trainer.train()
    assert {"dense.loss.average", "backbone.bottom_up.stem.conv1.norm.running_mean"} <= kept.keys()
    assert differing(kept, trainer.bare_model.state_dict()) == []
    assert trainer.state_dict()["stream"]["batches"] == 2
    assert [item["file_name"] for item in next(trainer.stream)] == seen[0]


class Once:
    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def put_back(self):
        pass

    def close(self):
        pass


def test_overflows_of_float16_are_left_to_the_scaler():
    """A step is skipped and the scale lowered, until the scale says that it is no overflow."""
    from fcos_d2.config.train_options import TrainOptions
    from fcos_d2.train.step import Step

    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    step = Step(model, model, optimizer, TrainOptions(), torch.device("cpu"))
    assert not step.skips()
    step.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=True)
    before = model.weight.detach().clone()
    for scale, usual in ((4.0, True), (2.0, True), (1.0, True), (0.5, False)):
        assert step.scaler.get_scale() == scale and step.skips() is usual
        step.scaler.scale(model(torch.full((1, 2), float("inf"))).sum()).backward()
        assert not step.norm().isfinite()
        step.apply(is_finite=False)
        optimizer.zero_grad()
    assert torch.equal(model.weight, before)


# The process


def test_training_leaves_the_process_as_it_was(small):
    loggers = [logging.getLogger(name) for name in ("fcos_d2", "detectron2", "fvcore")]

    def state():
        return (
            [(logger.level, tuple(logger.handlers)) for logger in loggers],
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.get_num_threads(),
            torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(),  # noqa: NPY002
            float(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5),
        )  # fmt: skip

    before = state()
    cfg = small("out", "train.max_iter=1")
    cfg.train.cudnn_benchmark, cfg.train.float32_precision = True, "high"
    trained(cfg)
    assert state() == before and before[-1] > 0
    assert "Training from iteration 1 to 1" in (Path(small("out").train.output_dir) / "log.txt").read_text()
    with without_denormals():  # an application that wants them flushed
        trained(small("again", "train.max_iter=1"))
        assert float(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5) == 0
