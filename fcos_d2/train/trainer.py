"""Trains and evaluates what a LazyConfig describes: what Detectron2's `DefaultTrainer` is to its YAML configs."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter, JSONWriter, TensorboardXWriter
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ..config.stored import dump_config
from ..config.train_options import TRAIN_OPTIONS
from ..data.random_state import random_state, set_random_state
from ..data.stream import SampleStream
from ..errors import FcosError
from ..evaluation.evaluate import build_loader, data_class_names, evaluate
from ..files import write_atomically
from ..modeling.rewrite import PARTS, prepare_training
from ..weights.fit import Policy, fit, load_model
from ..weights.read import read
from ..weights.write import Checkpointer
from .cpu import start_threads, without_denormals
from .hooks import AverageHook, CheckpointHook, EvaluationHook, WeightAverage
from .interrupt import Request, TrainingInterrupted
from .logs import log_to
from .loss_report import LossReport

__all__ = ["LazyTrainer", "TrainingInterrupted"]

logger = logging.getLogger("fcos_d2")

_CHOICES = {
    "init_classes": ("check", "drop", "keep"),
    "amp.dtype": ("auto", "fp16", "bf16"),
    "gradient_checkpointing": PARTS,
}
_SWITCHES = ("amp.enabled", "channels_last", "ema.enabled")


class LazyTrainer(TrainerBase):
    """Builds model, data, optimizer and hooks from a LazyConfig; trains, evaluates, resumes.

    A resumed training is exact: on the CPU its weights equal, bit by bit, those of one that was never interrupted. With
    `train.grad_accumulation=n` each batch is computed in n parts, one after the other, and the optimizer steps once:
    the memory of a small batch, and everything else (learning rate, iterations, images) as with the whole. Losses and
    gradients are those of the whole batch, whatever the losses are divided by; only batch norms that train see one part
    at a time. A model of another project, without a method `whole_batch` (see `FCOS`), gets the mean over its parts,
    each divided by its own normalizers.

    Args:
        cfg: with `model`, `dataloader`, `optimizer`, `lr_multiplier` and `train` (see `configuration.TRAIN_OPTIONS`;
            all of them are optional).
        resume: go on from the last checkpoint in `train.output_dir`, if there is one.
        eval_only: prepare for `test` alone: no training data is needed, but `train.init_checkpoint` must be a detector.
        console: whether progress is printed.

    Attributes:
        model, class_names, output_dir, start_iter, max_iter: ready after construction.
        results: of the last evaluation, e.g. {"bbox": {"AP": 31.4, ...}}; empty in processes other than the first.

    Raises:
        FcosError: something in the config, the data or a checkpoint does not fit.
    """

    def __init__(self, cfg: DictConfig, resume: bool = False, eval_only: bool = False, console: bool = True) -> None:
        super().__init__()
        self.cfg = cfg
        given = OmegaConf.to_container(cfg.train, resolve=True) if "train" in cfg else {}
        self.options = OmegaConf.merge(TRAIN_OPTIONS, given)
        self.output_dir = str(Path(self.options.output_dir).expanduser())
        self.max_iter = self.options.max_iter
        self.results: dict[str, Any] = {}
        self._console = console
        self._stop_reason = ""
        self._request = Request()
        self._asked = False
        self._resumed: dict[str, Any] = {}
        self._check_options()
        log_to(self.output_dir if comm.is_main_process() else "", console and comm.is_main_process())

        self._device = _device(self.options.device)
        if self._device.type == "cpu":
            with without_denormals():
                start_threads()

        self.seed = self.options.seed if self.options.seed >= 0 else comm.shared_random_seed()
        seed_all_rng(self.seed)  # the same initial weights in all processes
        self.class_names = self._class_names(eval_only)
        self._bare_model = prepare_training(
            instantiate(cfg.model),
            device=self._device,
            amp=self.options.amp.enabled,
            recompute="none" if eval_only else self.options.gradient_checkpointing,
        ).to(self._device)
        if self.options.channels_last or self._device.type == "cpu":
            self._bare_model.to(memory_format=torch.channels_last)
        self.model = self._bare_model
        self.average = None if eval_only or not self.options.ema.enabled else self._average()
        seed_all_rng(self.seed + comm.get_rank())

        extra = {"class_names": self.class_names, "config": self._config_text()}
        self.checkpointer = Checkpointer(self._bare_model, self.output_dir, extra=extra, trainer=self)
        self._load_weights(resume, eval_only)

    # Preparation

    def _check_options(self) -> None:
        options = self.options
        if options.max_iter < 1:
            raise FcosError(f"train.max_iter is {options.max_iter}; it must be 1 or more.")
        if not isinstance(options.grad_accumulation, int) or options.grad_accumulation < 1:
            raise FcosError(f"train.grad_accumulation is {options.grad_accumulation}; it must be 1 or more.")
        for key, allowed in _CHOICES.items():
            if (value := OmegaConf.select(options, key)) not in allowed:
                raise FcosError(f"train.{key} is {value!r}; it must be one of: {', '.join(allowed)}.")
        for key in _SWITCHES:
            if not isinstance(value := OmegaConf.select(options, key), bool):
                raise FcosError(f"train.{key} is {value!r}; it must be true or false.")

    def _class_names(self, eval_only: bool) -> list[str] | None:
        """Names of the data set's classes, whose number must be the model's."""
        names = data_class_names(self.cfg, ("test", "train") if eval_only else ("train", "test"))
        count = self.cfg.model.get("num_classes")
        if names and count is not None and len(names) != count:
            raise FcosError(
                f"The data set has {len(names)} classes, but the model {count}: pass model.num_classes={len(names)}."
            )
        return names

    def _average(self) -> WeightAverage:
        return WeightAverage(self._bare_model, self.options.ema.decay)

    def _config_text(self) -> str | None:
        try:
            text = dump_config(self.cfg)
        except FcosError as error:
            logger.warning("%s Checkpoints will hold no config: predictions will need the config file.", error)
            return None
        if comm.is_main_process():
            write_atomically(Path(self.output_dir) / "config.yaml", lambda file: file.write(text.encode()))
        return text

    def _load_weights(self, resume: bool, eval_only: bool) -> None:
        path, options = self.options.init_checkpoint, self.options
        if resume and self.checkpointer.has_checkpoint():
            path = self.checkpointer.get_checkpoint_file()
            if not eval_only:
                self._resume(path)
                return
        elif resume:
            logger.warning("There is nothing to resume in %s; training starts at the first iteration.", self.output_dir)
        if eval_only and not path:
            raise FcosError("There are no weights to evaluate: pass train.init_checkpoint=FILE.")
        if not path:
            logger.info("Training from scratch.")
            return
        load_model(
            self._bare_model,
            path,
            class_names=self.class_names,
            classes=options.init_classes,
            allow_backbone=not eval_only,
        )
        if self.average is not None:
            self.average = self._average()
        logger.info("Weights of %s.", path)

    def _resume(self, path: str) -> None:
        weights = read(path)
        if "trainer" not in weights.extra:
            raise FcosError(
                f"{path} cannot be resumed: it holds weights only; pass it as train.init_checkpoint instead."
            )
        fit(self._bare_model, weights, Policy(class_names=self.class_names, averaged=False))
        self._resumed = weights.extra["trainer"]
        self.start_iter = int(self._resumed["iteration"]) + 1
        if self.average is not None:
            if weights.averages is not None:
                self.average.load(dict(weights.averages), self._resumed.get("ema_updates", 0))
            else:
                logger.warning("%s has no averaged weights; the average starts with its weights.", path)
                self.average = self._average()
        logger.info("Going on from %s, at iteration %d of %d.", path, self.start_iter, self.max_iter)

    def _build_training(self) -> None:
        """Data, optimizer and hooks, in the state of the checkpoint that is resumed."""
        loader = build_loader(self.cfg.dataloader.train)
        self.stream = SampleStream(loader, self.seed)
        optimizer = copy.deepcopy(self.cfg.optimizer)
        optimizer.params.model = self._bare_model
        self.optimizer: torch.optim.Optimizer = instantiate(optimizer)
        amp = self.options.amp
        self._dtype = torch.bfloat16
        if amp.dtype == "fp16" or (amp.dtype == "auto" and self._device.type == "cuda"):
            self._dtype = torch.float16
        scaled = amp.enabled and self._dtype is torch.float16 and self._device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=scaled)
        if self.options.grad_accumulation > 1 and not hasattr(self._bare_model, "whole_batch"):
            logger.warning(
                "%s has no method whole_batch: train.grad_accumulation averages its losses over the parts.",
                type(self._bare_model).__name__,
            )
        # Without device_ids the model itself takes its inputs to the device: DDP would wait for each of them.
        self.model = create_ddp_model(
            self._bare_model, **{"device_ids": None, **OmegaConf.to_container(self.options.ddp)}
        )
        self._norms: list[Tensor] = []
        self.model.train()
        registered, self._hooks = self._hooks, []
        self.register_hooks(self.build_hooks())
        self._hooks[-1:-1] = registered  # before the writers
        if self._resumed:
            self.load_state_dict(self._resumed)

    def build_hooks(self) -> list[HookBase]:
        """The usual hooks; the last one writes what the others have put into the storage."""
        options = self.options
        checkpointer = options.checkpointer
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(self.cfg.lr_multiplier)),
            *([AverageHook()] if self.average is not None else []),
            EvaluationHook(options.eval_period, options.best_metric, options.early_stop.patience),
            CheckpointHook(checkpointer.period, checkpointer.max_to_keep),
            hooks.PeriodicWriter(self.build_writers(), period=options.log_period),
        ]

    def build_writers(self) -> list[EventWriter]:
        """Console, metrics.json, and TensorBoard where it is installed; none in processes other than the first."""
        if not comm.is_main_process():
            return []
        writers: list[EventWriter] = [JSONWriter(str(Path(self.output_dir) / "metrics.json"))]
        if self._console:
            writers.append(CommonMetricPrinter(self.max_iter))
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            return writers
        return [*writers, TensorboardXWriter(self.output_dir)]

    # Training

    def train(self) -> dict[str, Any]:
        """Train to the last iteration.

        Returns:
            The results of the last evaluation.
        Raises:
            TrainingInterrupted: on Ctrl-C or SIGTERM, after a checkpoint; a second Ctrl-C ends at once, without one.
            FcosError: a loss is not finite, an image cannot be read, or the disk is full.
        """
        if self.start_iter >= self.max_iter:
            logger.info("Training is complete: %d of %d iterations are done.", self.start_iter, self.max_iter)
            return self.test()
        self._build_training()
        logger.info("Training from iteration %d to %d.", self.start_iter, self.max_iter)
        numbers = without_denormals() if self._device.type == "cpu" else nullcontext()
        with numbers, self._request.listen(), EventStorage(self.start_iter) as self.storage:
            try:
                self.iter = self.start_iter
                self.before_train()
                states = self._resumed.get("rng", [])
                if comm.get_rank() < len(states):
                    set_random_state(states[comm.get_rank()])
                self._resumed = {}
                self._loop()
            finally:
                self.stream.close()
                self.after_train()
        if self._stop_reason:
            logger.info("Training ended after iteration %d: %s.", self.iter, self._stop_reason)
        return self.results

    def _loop(self) -> None:
        for iteration in range(self.start_iter, self.max_iter):
            self.iter = iteration
            self.before_step()
            self.run_step()
            self.after_step()
            if self.is_last:
                return
            if self._asked:
                self._end_interrupted()

    @property
    def is_last(self) -> bool:
        """Whether no iteration follows the current one (an interrupted training will go on)."""
        return self.iter + 1 >= self.max_iter or bool(self._stop_reason)

    def stop(self, reason: str) -> None:
        """End training after this iteration; all processes must ask for it."""
        self._stop_reason = reason

    def run_step(self) -> None:
        """One step of the optimizer; on a GPU, the host waits for nothing but the forward pass.

        Raises:
            FcosError: a loss is not finite; the weights are those of the iteration before.
        """
        start = time.perf_counter()
        batch = next(self.stream)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad(set_to_none=True)
        report = self._gradients(batch)
        values, self._asked = report.read()
        if not all(map(math.isfinite, values.values())):
            self._refuse(values, [] if report.is_finite_here() else batch)
        if self.options.clip_grad > 0:
            self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.storage.put_scalar("data_time", data_time)
        self.storage.put_scalar("total_loss", sum(values.values()))
        self.storage.put_scalars(**values)

    def _gradients(self, batch: Sequence[dict]) -> LossReport:
        """Accumulate the gradients of a batch, part by part; returns its losses."""
        parts = _split(batch, self.options.grad_accumulation)
        whole = self._whole_batch(batch) if len(parts) > 1 else {}
        totals: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            share = 1.0 if whole else len(part) / len(batch)
            with nullcontext() if last or self.model is self._bare_model else self.model.no_sync():
                with torch.autocast(self._device.type, self._dtype, enabled=self.options.amp.enabled):
                    losses = self.model(part, **whole)
                losses = losses if isinstance(losses, dict) else {"loss": losses}
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value.detach().float() * share
                if last:
                    report = LossReport(totals, asked=self._request.signal > 0)
                loss = sum(losses.values())
                self.scaler.scale(loss if share == 1.0 else loss * share).backward()
        return report

    def _whole_batch(self, batch: Sequence[dict]) -> dict[str, Any]:
        """What the model takes besides a part, so that the losses of the parts add up; empty if it cannot do that."""
        make = getattr(self._bare_model, "whole_batch", None)
        whole = None if make is None else make(batch)
        return {} if whole is None else {"whole": whole}

    def _clip(self) -> None:
        """Clip the gradient; its norm is looked at when it is logged, as the mean since the last time."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._bare_model.parameters(), self.options.clip_grad)
        self._norms.append(norm.detach())
        if self.is_last or (self.iter + 1) % self.options.log_period == 0:
            mean = float(torch.stack(self._norms).mean())
            self.storage.put_scalar("grad_norm", mean, smoothing_hint=False)
            self._norms.clear()

    def _refuse(self, losses: dict[str, float], batch: Any) -> None:
        files = [x["file_name"] for x in batch if isinstance(x, dict) and "file_name" in x]
        listed = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        images = f", images {', '.join(files)}" if files else ""
        raise FcosError(
            f"A loss is not finite at iteration {self.iter} ({listed}{images}): lower optimizer.lr, set "
            f"train.clip_grad, or look at these images; the checkpoints in {self.output_dir} are not affected."
        )

    def _end_interrupted(self) -> None:
        name = f"model_{self.iter:07d}"
        self.save(name)
        raise TrainingInterrupted(
            f"Interrupted after iteration {self.iter} of {self.max_iter}, kept as {self.output_dir}/{name}.pth: run "
            "the same command with --resume to go on.",
            128 + (self._request.signal or signal.SIGINT),
        )

    def after_train(self) -> None:
        self.storage.iter = self.iter + 1  # the printer's sign that the last line is out
        for hook in self._hooks:
            hook.after_train()

    # State

    def save(self, name: str) -> None:
        """Write a checkpoint to resume from; all processes must call it."""
        self._random_states = comm.gather(random_state())
        extra = {} if self.average is None else {"ema": self.average.weights}
        self.checkpointer.save(name, iteration=self.iter, **extra)
        comm.synchronize()

    def save_best(self, value: float) -> None:
        """Write model_best.pth: the weights that were evaluated, without what resuming needs."""
        model = self._bare_model.state_dict() if self.average is None else self.average.weights
        metrics = {self.options.best_metric: value}
        self.checkpointer.save("model_best", tag=False, model=model, trainer=None, iteration=self.iter, metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        state["grad_scaler"] = self.scaler.state_dict()
        state["stream"] = self.stream.state_dict()
        state["rng"] = self._random_states
        if self.average is not None:
            state["ema_updates"] = self.average.updates
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        chosen = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise FcosError(f"The optimizer of the checkpoint does not fit that of the config: {error}.") from error
        for group, options in zip(self.optimizer.param_groups, chosen):  # the config's options count, not the file's
            group.update(options, initial_lr=options["lr"])
        if state.get("grad_scaler"):
            self.scaler.load_state_dict(state["grad_scaler"])
        if "stream" in state:
            self.stream.load_state_dict(state["stream"])
        else:
            logger.warning("The training images start from the beginning: the checkpoint does not say where it was.")

    # Evaluation

    def test(self) -> dict[str, Any]:
        """Evaluate on `dataloader.test` with `dataloader.evaluator`; results go to evaluation.json, too.

        Returns:
            E.g. {"bbox": {"AP": 31.4, "AP50": ...}}, in percent; empty in processes other than the first.
        """
        with nullcontext() if self.average is None else self.average.in_place():
            self.results = evaluate(self.cfg, self._bare_model, self.output_dir, self.iter)
        return self.results


def _device(name: str) -> torch.device:
    """Raises FcosError if this machine has no such device."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FcosError(f"train.device is {name!r}, which is no device: use cuda or cpu.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FcosError(f"train.device is {name!r}, but PyTorch finds no CUDA device here: pass train.device=cpu.")
    return device


def _split(batch: Sequence, count: int) -> list[Sequence]:
    """Up to `count` parts of nearly equal length; fewer if the batch is shorter."""
    count = min(count, len(batch))
    ends = [round(len(batch) * i / count) for i in range(count + 1)]
    return [batch[a:b] for a, b in itertools.pairwise(ends)]
