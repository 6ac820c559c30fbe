"""Trains and evaluates what a config describes, a LazyConfig or one with Detectron2's yacs keys."""

from __future__ import annotations

import logging
import math
import re
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..config.edits import class_node
from ..config.stored import Config, check_complete
from ..config.translate import class_key, model_of_yacs
from ..config.tta import tta_of
from ..data.random_state import generators_kept, seed_generators, seeded
from ..data.stream import SampleStream
from ..devices import find_device
from ..errors import FcosError
from ..evaluation.evaluate import data_class_names, data_names, write_results
from ..evaluation.proposals import Recall
from ..evaluation.thresholds import choose
from ..modeling.rewrite import prepare_training
from ..predict.tta import DetectorWithTTA
from ..weights.fit import load_model
from ..weights.thresholds import Thresholds
from ..weights.write import Checkpointer
from .buffers import buffers_of_the_first
from .building import BuildingTrainer, in_folder, options_of, store_config
from .course import Course
from .hooks import EvaluationHook, WeightAverage
from .interrupt import Request, TrainingInterrupted, handling
from .operating_points import Detected, detected_by
from .settings import Log, process
from .state import State, finished
from .step import Step

__all__ = ["LazyTrainer", "TrainingInterrupted"]

logger = logging.getLogger("fcos_d2")


class LazyTrainer(BuildingTrainer):
    """Builds model, data, optimizer and hooks from a config; trains, evaluates, resumes.

    It has the extension points of Detectron2's `DefaultTrainer` under their names, so a subclass of that moves here by
    changing its base. They are given the trainer's config; where `folder` is, evaluation gets a copy with that folder.

    A resumed training is exact: on the CPU its weights equal, bit by bit, those of one that was never interrupted, with
    any number of processes. Before each iteration the global random generators are seeded from `train.seed`, the
    iteration and the process.

    With `train.grad_accumulation=n` each batch is computed in n parts, and the optimizer steps once: losses and
    gradients are those of the whole batch, in the memory of a part; only batch norms that train see one part at a time.
    A model without a method `whole_batch` (see `FCOS`) gets the mean over its parts, each with its own normalizers.

    What training and evaluation change in their process (messages, random generators, PyTorch's switches, denormal
    numbers, signal handlers) is as before when they have ended.

    Args:
        cfg: a LazyConfig with `model`, `dataloader`, `optimizer`, `lr_multiplier` and `train` (see `TrainOptions`), or
            a config with Detectron2's yacs keys and `TRAIN.*` (see `config.translate`).
        resume: go on from the last checkpoint in the output folder, if there is one.
        eval_only: prepare for `test` alone: no training data is needed, but the weights must be a detector's.
        console: whether progress is printed.
        folder: where files are written, if that is not `train.output_dir` (where they will lie in the end).

    Attributes:
        model, class_names, output_dir, start_iter, max_iter: ready after construction.
        bare_model: the model without the wrapper of distributed training.
        done: the last iteration that is done; -1: none.
        evaluated: the last iteration that was evaluated.
        results: of the last evaluation, e.g. {"bbox": {"AP": 31.4, ...}}; empty in processes other than the first.
        recall: of the proposals of the last evaluation; of the last data set, where there are several.
        title: of pictures; by default the name of the output folder.
        progress: who is told how it goes, see `train.course.Course`; None: the log alone.
        tta: test-time augmentation of the config, which counts with `eval_only`; while training, evaluations are of one
            view, as Detectron2's are.
        detected: what was found in that evaluation, in the first process: in the first data set whose evaluator tells;
            `None` if none does. Pictures and thresholds come from it.
        thresholds: that were chosen with it, and are kept in checkpoints; `None` without validation data.
    """

    def __init__(
        self, cfg: Config, resume: bool = False, eval_only: bool = False, console: bool = True,
        folder: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._yacs = isinstance(cfg, CfgNode)  # then SOLVER.REFERENCE_WORLD_SIZE counts
        self.cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()) if self._yacs else cfg
        self.options, self.tta = options_of(self.cfg), tta_of(self.cfg)
        self.output_dir = str(Path(folder or self.options.output_dir).expanduser())
        self.max_iter, self.stop_reason = self.options.max_iter, ""
        self.done = self.evaluated = -1
        self.is_prepared = self._is_final = False
        self.results: dict[str, Any] = {}
        self.recall: Recall | None = None
        self.title = Path(self.options.output_dir).expanduser().resolve().name
        self.progress: Any = None
        self.batch_size = 0  # images of the last iteration, all processes together
        self.detected: Detected | None = None
        self.thresholds: Thresholds | None = None
        self._eval_only, self._console = eval_only, console and comm.is_main_process()
        self._registered: list[HookBase] = []
        self._request, self._asked = Request(), False
        self._norms: list[float] = []  # of the gradient, since the last one that was logged
        self._kept = finished(self.output_dir, self.options) if resume and not eval_only else None
        folder = "" if self._kept is not None else self.output_dir  # what is complete is not changed
        self._log = Log(folder if comm.is_main_process() else "", self._console)
        with self._log.open():
            self.device = find_device(self.options.device, "MODEL.DEVICE" if self._yacs else "train.device")
            self.seed = self.options.seed if self.options.seed >= 0 else comm.shared_random_seed()
            self.class_names = self._class_names()
            self.model = self.bare_model = self._built_model()
            self.state = State(self)
            self.average: WeightAverage | None = None
            parts: dict[str, Any] = {"trainer": self.state}
            if self.options.ema.enabled and not eval_only:
                parts["ema"] = self.average = WeightAverage(self.bare_model, self.options.ema.decay)
            extra = {"class_names": self.class_names, "config": store_config(self.cfg, folder)}
            self.checkpointer = Checkpointer(self.bare_model, self.output_dir, extra=extra, **parts)
            self.resume_or_load(resume)

    def _class_names(self) -> list[str] | None:
        """Names of the data set's classes, whose number must be the model's."""
        names = data_class_names(self.cfg, ("test", "train") if self._eval_only else ("train", "test"))
        model = model_of_yacs(self.cfg) if self._yacs else self.cfg.model
        node = class_node(model)
        count = None if node is None else node.num_classes
        if names and count is not None and len(names) != count:
            key = f"{class_key(self.cfg)} " if self._yacs else "model.num_classes="
            raise FcosError(f"The data set has {len(names)} classes, but the model {count}: pass {key}{len(names)}.")
        return names

    def _built_model(self) -> nn.Module:
        """The model on its device, ready to train: the same initial weights in all processes."""
        options, recompute = self.options, "none"
        with generators_kept():
            seed_generators(self.seed)
            model = self.build_model(self.cfg)
        if not self._eval_only:
            check_complete(model)
            recompute = options.gradient_checkpointing
        model = prepare_training(model, device=self.device, amp=options.amp.enabled, recompute=recompute)
        model.to(self.device)
        if options.channels_last or self.device.type == "cpu":
            model.to(memory_format=torch.channels_last)
        return model

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint of the output folder, or load the initial weights; the constructor calls it.

        Raises FcosError if weights do not fit, or an evaluation has none.
        """
        self.state.load_state_dict({})
        path = self.state.found() if resume else ""
        if path and not self._eval_only:
            self.state.resume(path)
            return
        if resume and not path:
            logger.warning("There is nothing to resume in %s; training starts at the first iteration.", self.output_dir)
        path = path or self.options.init_checkpoint
        if not path and self._eval_only:
            key = "MODEL.WEIGHTS FILE" if self._yacs else "train.init_checkpoint=FILE"
            raise FcosError(f"There are no weights to evaluate: pass {key}.")
        if not path:
            logger.info("Training from scratch.")
            return
        refuse = self._eval_only and not self.options.force_recipe
        load_model(
            self.bare_model, path, class_names=self.class_names, classes=self.options.init_classes,
            some_classes=self._eval_only, allow_backbone=not self._eval_only,
            other_recipe="refuse" if refuse else "warn",
        )  # fmt: skip
        if self.average is not None:
            self.average.restart()
        logger.info("Weights of %s.", path)

    @cached_property
    def data_loader(self) -> Any:
        """Of training; what its sampler draws at random comes from the seed."""
        with seeded(self.seed):
            return self.build_train_loader(self.cfg)

    @cached_property
    def stream(self) -> SampleStream:
        return SampleStream(self.data_loader, self.seed)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.build_optimizer(self.cfg, self.bare_model)

    @cached_property
    def scheduler(self) -> Any:
        return self.build_lr_scheduler(self.cfg, self.optimizer)

    def _here(self) -> Config:
        """The config, with the folder that is written to."""
        return self.cfg if self.output_dir == self.options.output_dir else in_folder(self.cfg, self.output_dir)

    def prepare(self) -> None:
        """Everything that training needs, in the state of the checkpoint that is resumed."""
        options = self.options
        if options.grad_accumulation > 1 and not hasattr(self.bare_model, "whole_batch"):
            message = "%s has no method whole_batch: train.grad_accumulation averages losses over the parts."
            logger.warning(message, type(self.bare_model).__name__)
        _ = self.stream, self.scheduler
        if self.tta is not None:
            logger.warning("Test-time augmentation counts once training is over: evaluations until then are without.")
        self.check_evaluation(self._here())
        # Without device_ids the model itself takes its inputs to the device: DDP would wait for each of them.
        self.model = create_ddp_model(self.bare_model, **{"device_ids": None, **options.as_dict()["ddp"]})
        self.step = Step(self.model, self.bare_model, self.optimizer, options, self.device)
        self.model.train()
        built = [hook for hook in self.build_hooks() if hook is not None]
        writers = len(built) - isinstance(built[-1] if built else None, hooks.PeriodicWriter)
        self.all_hooks = [*built[:writers], *self._registered, *built[writers:]]
        super().register_hooks(self.all_hooks)
        self.state.restore()
        self.is_prepared = True

    def register_hooks(self, new: Sequence[HookBase | None]) -> None:
        """Add hooks; before training they wait, and come before the writers."""
        if self.is_prepared:
            super().register_hooks(new)
        else:
            self._registered.extend(hook for hook in new if hook is not None)

    def evaluate(self) -> dict[str, Any]:
        """`test` what checkpoints hold: the averaged weights, if any, and everywhere the first process's buffers."""
        averaged = nullcontext() if self.average is None else self.average.in_place()
        with process(self._log, self.options, self.device), averaged, buffers_of_the_first(self.bare_model):
            evaluators: list[Any] = []
            more = {"done": evaluators.append} if self.tests_as_usual else {}
            self.results = type(self).test(self._here(), self._tested(), **more)
        self.evaluated = self.done
        self.detected = detected_by(evaluators)
        self.recall = getattr(evaluators[-1], "recall", None) if evaluators else None
        validates = self.detected and not self._eval_only and self.detected.dataset not in data_names(self.cfg, "train")
        self.thresholds = choose(self.detected.scored()) if self.detected and validates else None
        write_results(self.results, self.output_dir, self.done if self.done >= 0 else None)
        return self.results

    def _tested(self) -> nn.Module:
        """The model as it is evaluated."""
        if self.tta is None or not self._eval_only:
            return self.bare_model
        told = self.progress

        def tell(images: int, view: int, views: int) -> None:
            if told is not None:
                told.update(images, f"view {view} of {views}" if views else "")

        return DetectorWithTTA(self.bare_model, self.tta, tell=tell)

    def train(self) -> dict[str, Any]:
        """Train to the last iteration; returns the results of the last evaluation.

        Raises:
            TrainingInterrupted: on Ctrl-C or SIGTERM, after a checkpoint; a second Ctrl-C ends at once, without one.
            FcosError: a loss or a gradient is not finite, an image cannot be read, or the disk is full.
        """
        if self.is_prepared:
            raise FcosError("This trainer has trained already: make another one, with resume=True to go on.")
        with process(self._log, self.options, self.device):
            complete = self.start_iter >= self.max_iter or bool(self.stop_reason)
            pending = self.state.pending
            if complete and not pending:
                self.iter = max(self.done, 0)
                logger.info("Training is complete: %d of %d iterations are done%s%s.", self.start_iter, self.max_iter,
                            f", {self.stop_reason}" if self.stop_reason else "",
                            "" if self._kept is None else "; nothing is changed")  # fmt: skip
                if self._kept is None:
                    return self.evaluate()
                self.evaluated, self.results = self.done, self._kept if comm.is_main_process() else {}
                return self.results
            self.prepare()
            logger.info("Training from iteration %d to %d.", self.start_iter + 1, self.max_iter)
            with handling(self._request), EventStorage(self.start_iter) as self.storage:
                try:
                    self.iter = self.start_iter
                    self.before_train()
                    self._loop(pending)
                finally:
                    self.stream.close()
                    self.after_train()
            if self.stop_reason:
                logger.info("Training ended after iteration %d: %s.", self.iter + 1, self.stop_reason)
            return self.results

    def _loop(self, pending: bool) -> None:
        if pending:
            self._finish_evaluation(self.start_iter - 1)
            if self.is_last:
                return
        for iteration in range(self.start_iter, self.max_iter):
            self.iter = iteration
            seed_generators(self.seed, iteration, comm.get_rank())
            self.before_step()
            self.run_step()
            self.after_step()
            if self.stop_reason and not self._is_final:  # a hook after the usual ones asked for the end
                self._finish_evaluation(iteration)
            if self.is_last:
                return
            if self._asked:
                name = f"model_{iteration:07d}"
                self.save(name)
                comm.synchronize()  # the first process to leave ends the others, so all wait for the checkpoint
                raise TrainingInterrupted(
                    f"Interrupted after iteration {iteration + 1} of {self.max_iter}, kept as "
                    f"{self.output_dir}/{name}.pth: run the same command with --resume to go on.",
                    128 + (self._request.signal or signal.SIGINT),
                )  # fmt: skip

    def _finish_evaluation(self, iteration: int) -> None:
        """The evaluation of an iteration that is still to be done, and what follows it in an iteration."""
        self.iter = self.storage.iter = iteration
        for hook in self.all_hooks:
            if isinstance(hook, (EvaluationHook, Course, hooks.PeriodicWriter)):
                hook.after_step()

    @property
    def is_last(self) -> bool:
        """Whether no iteration follows the current one (an interrupted training will go on)."""
        return self.iter + 1 >= self.max_iter or bool(self.stop_reason)

    def stop(self, reason: str) -> None:
        """End training after this iteration, for good; all processes must ask for it."""
        self.stop_reason = reason

    def run_step(self) -> None:
        """One step of the optimizer.

        Raises:
            FcosError: a loss or the gradient is not finite; weights, buffers and place in the data are as before.
        """
        start = time.perf_counter()
        batch = next(self.stream)
        self.batch_size = len(batch) * comm.get_world_size()
        data_time = time.perf_counter() - start
        report = self.step.gradients(batch, asked=self._request.signal > 0)
        losses, norm, self._asked, buffers = report.read(self.step.norm())
        if not all(map(math.isfinite, losses.values())):
            self._refuse("A loss", losses, batch)
        if not math.isfinite(norm) and not self.step.skips():
            self._refuse("The gradient", losses, batch)
        self.step.apply(math.isfinite(norm))
        self.state.buffers, self.done = buffers, self.iter
        self.storage.put_scalars(**{"data_time": data_time, "total_loss": sum(losses.values()), **losses})
        if math.isfinite(norm):  # no overflow of float16
            self._norms.append(norm)
        if self._norms and (self.is_last or (self.iter + 1) % self.options.log_period == 0):
            self.storage.put_scalar("grad_norm", statistics.fmean(self._norms), smoothing_hint=False)
            self._norms.clear()

    def _refuse(self, what: str, losses: dict[str, float], batch: Sequence[dict]) -> NoReturn:
        images = ", ".join(self.step.refuse(batch))
        self.stream.put_back()
        listed = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        rate = "SOLVER.BASE_LR" if self._yacs else "optimizer.lr"
        raise FcosError(
            f"{what} is not finite at iteration {self.iter + 1} ({listed}; images {images}): lower {rate}, clip "
            f"gradients, or look at these images; the checkpoints in {self.output_dir} are not affected."
        )

    def after_train(self) -> None:
        iteration, self.iter = self.iter, self.iter + 1  # tells Detectron2's printer that the last line is written
        super().after_train()
        self.iter = iteration

    def save(self, name: str) -> None:
        """Write a checkpoint to resume from."""
        if numbered := re.fullmatch(r"model_(\d{7,})", name):
            self.state.written.add(int(numbered[1]))
        self.checkpointer.save(name, iteration=self.done, **self._chosen())
        self._is_final = name == "model_final"

    def _chosen(self) -> dict[str, Any]:
        """The thresholds of the present weights, for a checkpoint."""
        return self.thresholds.payload() if self.thresholds and self.evaluated == self.done else {}

    def save_best(self, value: float) -> None:
        """Write model_best.pth: the weights that were evaluated, without what resuming needs."""
        model = self.bare_model.state_dict() if self.average is None else self.average.weights
        found = {"iteration": self.iter, "metrics": {self.options.best_metric: value}, **self._chosen()}
        self.checkpointer.save("model_best", tag=False, model=model, trainer=None, ema=None, **found)

    def state_dict(self) -> dict[str, Any]:
        return self.state.state_dict()
