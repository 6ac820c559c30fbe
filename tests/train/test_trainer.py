"""Training: what is written, options, and one sentence for everything that goes wrong."""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from torch import nn

from fcos_d2.config.stored import parse_config
from fcos_d2.errors import FcosError
from fcos_d2.predict import Predictor
from fcos_d2.train import LazyTrainer
from fcos_d2.train.hooks import EvaluationHook, WeightAverage
from fcos_d2.train.interrupt import TrainingInterrupted
from fcos_d2.weights.read import load

NAMES = ["circle", "square", "triangle", "star", "ring"]
ALONE = "train.eval_period=0"  # nothing is evaluated, which takes as long as some iterations


def train(cfg, *hooks, **options):
    trainer = LazyTrainer(cfg, console=False, **options)
    trainer.register_hooks(hooks)
    trainer.train()
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


class Before(HookBase):
    """Calls a function with the trainer before an iteration."""

    def __init__(self, iteration, call):
        self.iteration, self.call = iteration, call

    def before_step(self):
        if self.trainer.iter == self.iteration:
            self.call(self.trainer)


def test_what_a_training_leaves(small):
    trainer = train(
        small("out", "train.eval_period=3", "train.checkpointer.period=2", "train.checkpointer.max_to_keep=1")
    )
    folder = Path(trainer.output_dir)
    kept = {path.name for path in folder.glob("*.pth")}
    assert kept == {"model_best.pth", "model_final.pth"}  # one to resume from, and the detector alone
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert [row["iteration"] for row in lines(folder)] == list(range(6))
    assert {"total_loss", "loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "lr", "data_time"} <= lines(folder)[
        0
    ].keys()
    assert all(("bbox/AP" in row) == (row["iteration"] in (2, 5)) for row in lines(folder))
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["iteration"] == 5 and 100 * results["bbox"]["AP"] == pytest.approx(trainer.results["bbox"]["AP"])
    assert "Training from iteration 1 to 6" in (folder / "log.txt").read_text()

    final, best = load(folder / "model_final.pth"), load(folder / "model_best.pth")
    assert final["class_names"] == best["class_names"] == NAMES
    assert final["iteration"] == 5 and "trainer" not in best and "bbox/AP" in best["metrics"]
    assert equal(final["model"], trainer.model.state_dict())
    assert parse_config(final["config"], "it").model.num_classes == 5
    assert parse_config((folder / "config.yaml").read_text(), "it") == parse_config(final["config"], "it")
    other = instantiate(small().model)
    DetectionCheckpointer(other).load(str(folder / "model_final.pth"))
    assert equal(other.state_dict(), final["model"])


@pytest.mark.slow
def test_training_lowers_the_loss(small):
    trainer = train(
        small("out", "train.max_iter=40", "train.clip_grad=5.0", "dataloader.train.total_batch_size=4", ALONE)
    )
    losses = [row["total_loss"] for row in lines(trainer.output_dir)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


def test_seed_decides(small):
    one, same, other = (
        weights(train(small(name, f"train.seed={seed}", "train.max_iter=2", ALONE)))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert equal(one, same) and not equal(one, other)


@pytest.mark.parametrize("path", ["train.eval_period", "train.checkpointer"])
def test_plain_detectron2_config_is_enough(small, path):
    """All options of `train` but those in Detectron2's tools are optional, and even those."""
    cfg = small()
    for key in list(cfg.train):
        if key not in ("output_dir", "max_iter", "device"):
            del cfg.train[key]
    cfg.train.max_iter = 1
    assert train(cfg).results["bbox"].keys() >= {"AP", "AP50"}


def test_bfloat16_on_the_cpu(small):
    trainer = train(small("out", "train.amp.enabled=true", "train.max_iter=2", ALONE))
    plain = train(small("plain", "train.max_iter=2", ALONE))
    assert not equal(weights(trainer), weights(plain))
    assert all(math.isfinite(row["total_loss"]) for row in lines(trainer.output_dir))
    assert trainer.model.dense.head.cls_logits.weight.dtype == torch.float32


ACCUMULATING = [
    "model.backbone.bottom_up.norm=FrozenBN",
    "dataloader.train.total_batch_size=4",
    "train.max_iter=1",
    ALONE,
]


def gradients(trainer):
    return {name: weight.grad for name, weight in trainer.model.named_parameters()}


def differ(found, expected):
    """Norm of the difference over the norm, all gradients taken together."""
    assert found.keys() == expected.keys()
    difference = torch.stack([(found[name] - value).norm() for name, value in expected.items()]).norm()
    return float(difference / torch.stack([value.norm() for value in expected.values()]).norm())


@pytest.mark.parametrize("sizes", [pytest.param("[64]", marks=pytest.mark.slow), "[48,64]"])
def test_accumulated_gradients_are_those_of_the_whole_batch(small, sizes):
    """And so are the losses that are written; images are of one size, and of two."""
    options = [*ACCUMULATING, f"dataloader.train.mapper.augmentations[0].short_edge_length={sizes}"]
    whole, parts = (train(small(f"n{n}", *options, f"train.grad_accumulation={n}")) for n in (1, 2))
    assert differ(gradients(parts), gradients(whole)) < 1e-5
    for name, value in lines(whole.output_dir)[0].items():
        if "loss" in name:
            assert lines(parts.output_dir)[0][name] == pytest.approx(value, rel=1e-5)


def test_model_without_whole_batch_averages_its_parts(small, monkeypatch, caplog):
    """Equal to the whole only where nothing is divided by what a part holds; a warning says so."""
    monkeypatch.delattr("fcos_d2.modeling.meta_arch.FCOS.whole_batch")
    options = [*ACCUMULATING, "dataloader.train.mapper.augmentations[0].short_edge_length=[64]"]
    norm = [f"model.dense.loss.{loss}_normalizer=locations" for loss in ("class", "box", "quality")]
    for more, equal_to_whole in ((norm, True), ([], False)):
        with caplog.at_level(logging.WARNING, "fcos_d2"):
            one, two = (
                train(small(f"n{n}{equal_to_whole}", *options, *more, f"train.grad_accumulation={n}")) for n in (1, 2)
            )
        assert (differ(gradients(two), gradients(one)) < 1e-5) == equal_to_whole
    assert caplog.text.count("FCOS has no method whole_batch") == 2


def test_channels_last(small):
    """On the CPU maps stay as they lie from the first convolution to the losses. Gradients are those of the usual
    order of maps, but for rounding, which batch norms of a small batch would magnify."""
    frozen = "model.backbone.bottom_up.norm=FrozenBN"
    cpu = "train.device=cpu"
    trainer = train(small("out", "train.max_iter=1", "dataloader.train.total_batch_size=4", frozen, cpu, ALONE))
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in trainer.model.parameters() if p.dim() == 4)
    batch, plain = next(trainer.stream), copy.deepcopy(trainer.model)
    for parameter in plain.parameters():  # strides of 1x1 kernels, too
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    plain._laid_out = torch.Tensor.contiguous
    seen, found = {}, {}
    for name, model in (("other", trainer.model.train()), ("plain", plain)):
        model.zero_grad()
        model.dense.loss.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].logits[:3]}))
        sum(model(batch).values()).backward()
        found[name] = {key: parameter.grad for key, parameter in model.named_parameters()}
    for name, last in (("other", True), ("plain", False)):
        assert all(x.is_contiguous(memory_format=torch.channels_last) is last for x in seen[name]), name
        assert all(x.is_contiguous() is not last for x in seen[name]), name
    assert differ(found["other"], found["plain"]) < 1e-4
    assert load(Path(trainer.output_dir) / "model_final.pth")["model"].keys() == trainer.model.state_dict().keys()


def test_channels_last_is_asked_for_on_other_devices(small, monkeypatch):
    """`train.channels_last` decides where the device is no CPU; a device of PyTorch's without memory stands for it."""
    layouts = {}
    monkeypatch.setattr("fcos_d2.train.trainer.find_device", lambda name, key: torch.device("meta"))
    for wanted in ("false", "true"):
        trainer = LazyTrainer(small(wanted, f"train.channels_last={wanted}"), console=False)
        weights = [p for p in trainer.bare_model.parameters() if p.dim() == 4 and min(p.shape) > 1]
        layouts[wanted] = {p.is_contiguous(memory_format=torch.channels_last) for p in weights}
    assert layouts == {"false": {False}, "true": {True}}


@pytest.mark.parametrize(
    "more", [pytest.param([], marks=pytest.mark.slow), ["train.amp.enabled=true", "train.grad_accumulation=2"]]
)
def test_gradient_checkpointing_trains_the_same_weights(small, more):
    """To the bit, running statistics included."""
    options = ["train.max_iter=2", "model.backbone.bottom_up.norm=BN", ALONE, *more]
    names = ("none", "backbone", "all")
    plain, *others = (weights(train(small(n, *options, f"train.gradient_checkpointing={n}"))) for n in names)
    assert all(equal(plain, other) for other in others)


def test_clip_grad(small):
    trainer = train(small("out", "train.clip_grad=0.001", "train.max_iter=1", "optimizer.momentum=0.0", ALONE))
    assert lines(trainer.output_dir)[0]["grad_norm"] > 0.001
    total = torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(0.001, rel=1e-3)


def test_norm_of_the_gradient_is_looked_at_when_it_is_logged(small):
    """As the mean since the last time, so that a GPU need not wait at each iteration."""
    options = ["train.clip_grad=5.0", "train.max_iter=5", ALONE]
    each, some = (train(small(f"n{n}", *options, f"train.log_period={n}")) for n in (1, 2))
    norms = [row["grad_norm"] for row in lines(each.output_dir)]
    found = {row["iteration"]: row["grad_norm"] for row in lines(some.output_dir) if "grad_norm" in row}
    assert found == pytest.approx({1: np.mean(norms[:2]), 3: np.mean(norms[2:4]), 4: norms[4]}, rel=1e-6)


def test_average_of_weights():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.zeros_(model[0].weight)
    average = WeightAverage(model, 0.9)
    expected = 0.0
    for step in range(1, 200):
        nn.init.constant_(model[0].weight, step)
        model[1].num_batches_tracked += 1
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.weights["0.weight"]) == pytest.approx(expected, rel=1e-5)
    assert int(average.weights["1.num_batches_tracked"]) == 199
    with average.in_place():
        assert model[0].weight.item() == pytest.approx(expected, rel=1e-5)
    assert model[0].weight.item() == 199.0
    with pytest.raises(FcosError, match=r"train\.ema\.decay is 1\.5"):
        WeightAverage(model, 1.5)


def test_averaged_weights_are_evaluated_kept_and_used(small):
    trainer = train(small("out", "train.ema.enabled=true"))
    final, best = (load(Path(trainer.output_dir) / name) for name in ("model_final.pth", "model_best.pth"))
    assert not equal(final["model"], final["ema"])
    assert equal(best["model"], trainer.average.weights) and equal(final["ema"], trainer.average.weights)
    predictor = Predictor(Path(trainer.output_dir) / "model_final.pth", device="cpu")
    assert equal(predictor.model.state_dict(), final["ema"])


def test_early_stop_ends_with_a_final_checkpoint(small):
    trainer = train(
        small("out", "train.max_iter=50", "train.eval_period=1", "train.early_stop.patience=2", "optimizer.lr=0.0")
    )
    assert trainer.iter == 2  # one best, two that are no better
    assert load(Path(trainer.output_dir) / "model_final.pth")["iteration"] == 2


def test_best_is_kept(small, data):
    """Better, worse, better: model_best.pth follows."""
    trainer = LazyTrainer(small(), console=False)
    hook = EvaluationHook(1, "bbox/AP", 0)
    hook.trainer = trainer
    values = []
    trainer.save_best = values.append
    for value in (1.0, 0.5, float("nan"), 2.0, 2.0):
        hook._compare({"bbox/AP": value})
    assert values == [1.0, 2.0] and hook.since_best == 1
    with pytest.raises(FcosError, match=r"train\.best_metric is 'bbox/AP'.*: bbox/AR"):
        hook._compare({"bbox/AR": 1.0})


def test_loss_that_is_not_finite_names_iteration_losses_and_images(small, data):
    def spoil(trainer):
        trainer.model.dense.head.cls_logits.bias.data.fill_(float("nan"))

    with pytest.raises(FcosError, match=r"at iteration 3 \(loss_fcos_cls nan.*images .*train_0000\d\d\.jpg"):
        train(small(), Before(2, spoil))


def test_loss_that_is_not_finite_changes_no_weight(small):
    def spoil(trainer):
        trainer.kept = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.model.dense.head.cls_logits.register_forward_hook(lambda _, __, output: output * float("inf"))

    trainer = LazyTrainer(small("out", "train.grad_accumulation=2"), console=False)
    trainer.register_hooks([Before(2, spoil)])
    with pytest.raises(FcosError, match="not finite at iteration 3"):
        trainer.train()
    assert equal(dict(trainer.model.named_parameters()), trainer.kept)


@pytest.mark.slow
def test_corrupt_image_is_named(small, data, tmp_path, monkeypatch):
    bad = tmp_path / "bad.jpg"
    records = DatasetCatalog.get(data.train)
    bad.write_bytes(Path(records[0]["file_name"]).read_bytes()[:500])
    MetadataCatalog.get("engine_bad").set(json_file=MetadataCatalog.get(data.train).json_file, thing_classes=NAMES)
    DatasetCatalog.register("engine_bad", lambda: [{**record, "file_name": str(bad)} for record in records])
    try:
        for workers in (0, 1):
            names = "dataloader.train.dataset.names=engine_bad", "dataloader.test.dataset.names=engine_bad"
            cfg = small("bad", names[0], f"dataloader.train.num_workers={workers}")
            with pytest.raises(FcosError, match=r"image .*bad\.jpg cannot be used") as error:
                train(cfg)
            assert "\n" not in str(error.value)
            cfg = small("bad", names[1], f"dataloader.test.num_workers={workers}")
            with pytest.raises(FcosError, match=r"image .*bad\.jpg cannot be used") as error:
                LazyTrainer(cfg, console=False).test()
            assert "\n" not in str(error.value)
    finally:
        DatasetCatalog.remove("engine_bad")
        MetadataCatalog.remove("engine_bad")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.num_classes=3"], "5 classes, but the model 3: pass model.num_classes=5"),
        (["dataloader.train.dataset.names=nowhere"], "'nowhere'"),
        (["train.device=tpu9"], "train.device is 'tpu9'"),
        (["train.max_iter=0"], "train.max_iter is 0"),
        (["train.grad_accumulation=0"], "train.grad_accumulation is 0"),
        (["train.amp.dtype=fp8"], "train.amp.dtype is 'fp8'; it must be one of: auto, fp16, bf16"),
        (["train.gradient_checkpointing=head"], "'head'; it must be one of: none, backbone, all"),
        (["train.channels_last=maybe"], "train.channels_last must be true or false"),
        (["train.init_classes=maybe"], "train.init_classes is 'maybe'"),
        (["train.init_checkpoint=/gone.pth"], "/gone.pth do not exist"),
        (["train.checkpointer.period=0"], "train.checkpointer.period is 0"),
    ],
)
def test_wrong_input_is_one_sentence(small, overrides, words):
    with pytest.raises(FcosError) as error:
        train(small("out", *overrides))
    assert words in str(error.value)


def test_wrong_value_in_a_config_file_is_one_sentence(small):
    for key, value, words in (
        ("channels_last", "yes", "train.channels_last is 'yes'; it must be true or false"),
        ("grad_accumulation", 1.5, r"train.grad_accumulation is 1\.5; it must be 1 or more"),
    ):
        cfg = small()
        cfg.train[key] = value
        with pytest.raises(FcosError, match=words):
            LazyTrainer(cfg, console=False)


def test_no_cuda_is_one_sentence(small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FcosError, match=r"pass train\.device=cpu"):
        LazyTrainer(small("out", "train.device=cuda"), console=False)


def test_output_folder_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FcosError, match="cannot be written"):
        LazyTrainer(small("file/out"), console=False)


def test_missing_annotation_file(small):
    from detectron2.data.datasets import register_coco_instances

    register_coco_instances("engine_gone", {"thing_classes": NAMES}, "/gone/train.json", "/gone")
    try:
        with pytest.raises(FcosError, match=r"/gone/train\.json, which does not exist"):
            train(small("out", "dataloader.train.dataset.names=engine_gone"))
    finally:
        DatasetCatalog.remove("engine_gone")


def test_fine_tuning_on_other_classes(small):
    first = train(small("first", "train.max_iter=1"))
    file = f"{first.output_dir}/model_final.pth"
    second = LazyTrainer(small("second", f"train.init_checkpoint={file}", "train.init_classes=drop"), console=False)
    layer = "dense.head.cls_logits.weight"
    a, b = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a if "cls_logits" not in name)
    assert not torch.equal(a[layer], b[layer])


def test_evaluation_alone(small):
    trained = train(small("out"))
    file = f"{trained.output_dir}/model_final.pth"
    cfg = small("eval", f"train.init_checkpoint={file}", "dataloader.train.dataset.names=nowhere")
    del cfg.optimizer, cfg.lr_multiplier
    assert LazyTrainer(cfg, eval_only=True, console=False).test().keys() == {"bbox"}
    again = LazyTrainer(small("out"), resume=True, eval_only=True, console=False).test()
    assert str(again) == str(trained.results)  # NaN where there is no box of a size
    with pytest.raises(FcosError, match=r"no weights to evaluate: pass train\.init_checkpoint"):
        LazyTrainer(small("none"), eval_only=True, console=False)


def test_evaluation_alone_calculates_as_the_one_while_training(small, monkeypatch, device):
    """PyTorch's switches and denormal numbers are as the config says, on the trainer and on its class."""
    seen = []

    class Trainer(LazyTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            tiny = float(torch.tensor(torch.finfo(torch.float32).tiny) * 0.5)
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, tiny == 0))
            raise NotImplementedError

    cfg = small("out")
    cfg.train.float32_precision, cfg.train.cudnn_benchmark = "high", True
    trainer = Trainer(cfg, console=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of which the precision of float32 is
    trainer.test()
    Trainer.test(cfg, trainer.bare_model)
    assert seen == [("high", True, device.type == "cpu"), ("high", True, False)]
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.benchmark


def test_interruption_keeps_the_iteration(small):
    import os
    import signal

    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background of a shell
    with pytest.raises(TrainingInterrupted, match=r"after iteration 4 of 6.*--resume") as error:
        train(small(), Before(3, lambda trainer: os.kill(os.getpid(), signal.SIGINT)))
    assert error.value.code == 130
    trainer = LazyTrainer(small(), resume=True, console=False)
    assert trainer.start_iter == 4
    assert signal.getsignal(signal.SIGINT) is before
